//! One pod's server: its id, its addresses, its files, and its command.

use std::{
    env, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ochopod_sdk::{Cluster, Command, Pod, Result, bail, warning};

use crate::ensemble::{Ensemble, Listed};

/// Path of the granted directory, as the plugin sees it.
pub(crate) const DIRECTORY: &str = "/data";

const CLIENT_PORT: u16 = 2181;
const QUORUM_PORT: u16 = 2888;
const ELECTION_PORT: u16 = 3888;
/// Number of pods that form an ensemble, unless the operator sets `ochopod_zookeeper_size`.
const SIZE: usize = 3;
const MAX_SIZE: usize = 9;
/// Highest id of a server.
const MAX_ID: u64 = 255;
/// Time unit of ZooKeeper in milliseconds, unless the operator sets `ochopod_zookeeper_tick`.
const TICK: u32 = 2000;
/// Class path of Debian.
const CLASSES: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/netty-codec.jar:/usr/share/java/slf4j-simple.jar";
const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
/// File with the ensemble. ZooKeeper appends the version: `zoo.cfg.dynamic.100000000`.
const ENSEMBLE: &str = "zoo.cfg.dynamic";

/// Addresses of one pod's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    seq: u64,
    ip: String,
    client_port: u16,
    quorum_port: u16,
    election_port: u16,
}

/// Settings of this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) size: usize,
    /// Directory of the operator, as ZooKeeper sees it.
    directory: String,
    /// File with the logins of the super user, as ZooKeeper and its client read it.
    pub(crate) jaas: String,
    pub(crate) classes: String,
    java: Vec<String>,
    tick: u32,
}

impl Server {
    /// Returns the addresses that follow from the registration of a pod. A server binds the ports under which others reach it.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let port = |name: &str, default| {
            let port = port(pod.settings.get(name).map(String::as_str), name, default)?;
            pod.reachable(port)
        };
        Ok(Self {
            seq: pod.seq,
            ip: pod.ip.clone(),
            client_port: port("zookeeper_client_port", CLIENT_PORT)?,
            quorum_port: port("zookeeper_quorum_port", QUORUM_PORT)?,
            election_port: port("zookeeper_election_port", ELECTION_PORT)?,
        })
    }

    /// Returns the addresses of this pod from its environment, which needs no view of the cluster.
    pub(crate) fn from_env() -> Result<Self> {
        Self::by(|name| env::var(name).ok())
    }

    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
        let port = |name: &str, default| {
            let port = port(variable(&format!("ochopod_{name}")).as_deref(), name, default)?;
            Ok::<u16, ochopod_sdk::Error>(match variable(&format!("PORT_{port}")) {
                Some(mapped) => mapped.trim().parse()?,
                None => port,
            })
        };
        Ok(Self {
            seq: 0,
            ip,
            client_port: port("zookeeper_client_port", CLIENT_PORT)?,
            quorum_port: port("zookeeper_quorum_port", QUORUM_PORT)?,
            election_port: port("zookeeper_election_port", ELECTION_PORT)?,
        })
    }

    /// Returns the servers of all live pods of a view, in the order of `seq`. A pod with invalid settings is skipped: it
    /// rejects every configuration itself.
    pub(crate) fn of_all(cluster: &Cluster) -> Vec<Self> {
        let live = cluster.by_seq().into_iter().filter(|pod| !pod.is_dead());
        live.filter_map(|pod| Self::of(&pod).ok()).collect()
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns the id of a server without data. Those of 255 pods in a row are distinct.
    pub(crate) fn id(&self) -> u64 {
        self.seq % MAX_ID + 1
    }

    /// Returns `IP:PORT` that identifies the server in its ensemble.
    pub(crate) fn quorum(&self) -> String {
        at(&self.ip, self.quorum_port)
    }

    /// Returns `IP:PORT` under which clients of other pods reach it.
    pub(crate) fn client(&self) -> String {
        at(&self.ip, self.client_port)
    }

    /// Returns `IP:PORT` under which its pod reaches it, which needs no grant.
    pub(crate) fn own_client(&self) -> String {
        at(if is_shared(&self.ip) { &self.ip } else { "127.0.0.1" }, self.client_port)
    }

    /// Returns the server as a voter with this id.
    pub(crate) fn listed(&self, id: u64) -> Listed {
        let bound = if is_shared(&self.ip) { self.client() } else { format!("0.0.0.0:{}", self.client_port) };
        Listed::new(id, self.quorum(), self.election_port, bound)
    }

    /// Returns the name of its directory: a pod that returns finds its data again, and several pods of a machine may
    /// share a directory.
    pub(crate) fn name(&self) -> String {
        format!("zookeeper-{}-{}", self.ip.replace(':', "-"), self.quorum_port)
    }

    pub(crate) fn files(&self, guest: &Path) -> Files {
        Files { guest: guest.join(self.name()) }
    }
}

impl Options {
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        Self::with(|name| pod.settings.get(&format!("zookeeper_{name}")).cloned())
    }

    /// Returns the settings from the pod's environment: the leader's own pod may be in no view.
    pub(crate) fn from_env() -> Result<Self> {
        Self::with(|name| env::var(format!("ochopod_zookeeper_{name}")).ok())
    }

    fn with(setting: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let path = |name: &str, what: &str| match setting(name) {
            None => bail!("ochopod_zookeeper_{name} is not set: expected {what}"),
            Some(path) if path.starts_with('/') && !path.contains(char::is_whitespace) => Ok(path),
            Some(path) => {
                bail!("invalid ochopod_zookeeper_{name} {path:?}: expected an absolute path without white space")
            }
        };
        let size = match setting("size").map(|text| text.trim().parse::<usize>()) {
            None => SIZE,
            Some(Ok(size)) if size % 2 == 1 && size <= MAX_SIZE => size,
            Some(_) => bail!(
                "invalid ochopod_zookeeper_size {:?}: expected an odd number up to {MAX_SIZE}, because one more server \
                 tolerates no more failures",
                setting("size").unwrap_or_default()
            ),
        };
        let tick = match setting("tick").map(|text| text.trim().parse::<u32>()) {
            None => TICK,
            Some(Ok(tick)) if tick > 0 => tick,
            Some(_) => bail!("invalid ochopod_zookeeper_tick: expected milliseconds"),
        };
        Ok(Self {
            size,
            directory: path("dir", &format!("a directory, granted by --dir DIRECTORY::{DIRECTORY}"))?,
            jaas: path("jaas", "the file with the logins of the super user, see the README")?,
            classes: setting("classes").unwrap_or_else(|| CLASSES.to_owned()),
            java: setting("java").as_deref().unwrap_or("-Xmx512m").split_whitespace().map(str::to_owned).collect(),
            tick,
        })
    }

    /// Returns an error if the directory was not granted.
    pub(crate) fn check(&self, guest: &Path) -> Result<()> {
        if !guest.is_dir() {
            bail!("directory not granted: requires --dir {}::{}", self.directory, guest.display());
        }
        Ok(())
    }

    pub(crate) fn command(&self, server: &Server) -> Command {
        let login = format!("-Djava.security.auth.login.config={}", self.jaas);
        let file = format!("{}/{}/zoo.cfg", self.directory, server.name());
        let level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
        // It warns about each client that closes its connection.
        let connections = "-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.NIOServerCnxn=error";
        let arguments = [&login, level, connections, "-cp", &self.classes, MAIN, &file];
        Command::new("java").args(&self.java).args(arguments)
    }

    /// Returns ZooKeeper's own configuration. The ensemble is in another file, which ZooKeeper replaces.
    fn configuration(&self, server: &Server, ensemble: &str) -> String {
        let directory = format!("{}/{}", self.directory, server.name());
        format!(
            "dataDir={directory}/data\n\
             tickTime={}\n\
             initLimit=10\n\
             syncLimit=5\n\
             reconfigEnabled=true\n\
             standaloneEnabled=false\n\
             superUser=super\n\
             authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
             4lw.commands.whitelist=mntr,srvr,ruok,conf\n\
             admin.enableServer=false\n\
             autopurge.purgeInterval=24\n\
             dynamicConfigFile={directory}/{ensemble}\n",
            self.tick
        )
    }
}

/// Files of one pod's server, in the directory that was granted.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    guest: PathBuf,
}

impl Files {
    /// Returns whether the server was part of an ensemble that had a quorum.
    pub(crate) fn has_data(&self) -> bool {
        let epoch = fs::read_to_string(self.guest.join("data/version-2/currentEpoch")).unwrap_or_default();
        epoch.trim().parse::<u64>().is_ok_and(|epoch| epoch > 0)
    }

    /// Returns the id that belongs to the data.
    pub(crate) fn id(&self) -> Option<u64> {
        fs::read_to_string(self.guest.join("data/myid")).ok()?.trim().parse().ok()
    }

    /// Returns the ensemble as the server knew it last.
    pub(crate) fn ensemble(&self) -> Option<Ensemble> {
        let name = self.ensemble_name()?;
        let mut ensemble = Ensemble::parse(&fs::read_to_string(self.guest.join(&name)).ok()?).ok()?;
        if let Some(version) = name.strip_prefix(ENSEMBLE).and_then(|rest| rest.strip_prefix('.')) {
            version.clone_into(&mut ensemble.version);
        }
        Some(ensemble)
    }

    /// Returns the name of the file with the ensemble.
    fn ensemble_name(&self) -> Option<String> {
        let configuration = fs::read_to_string(self.guest.join("zoo.cfg")).ok()?;
        let path = configuration.lines().find_map(|line| line.strip_prefix("dynamicConfigFile="))?;
        path.rsplit('/').next().map(str::to_owned)
    }

    /// Prepares a start with the data that is there.
    pub(crate) fn keep(&self, server: &Server, options: &Options) -> Result<()> {
        let Some(name) = self.ensemble_name() else { bail!("{} has data but no zoo.cfg", self.guest.display()) };
        Ok(fs::write(self.guest.join("zoo.cfg"), options.configuration(server, &name))?)
    }

    /// Prepares a start without data, as a server of this ensemble. Data of an earlier one is put aside.
    pub(crate) fn create(&self, server: &Server, options: &Options, id: u64, ensemble: &Ensemble) -> Result<()> {
        let mut aside = self.guest.clone().into_os_string();
        aside.push(".removed");
        let aside = PathBuf::from(aside);
        if self.has_data() {
            warning!("data of a removed server put aside as {}", aside.display());
            remove(&aside)?;
            fs::rename(&self.guest, aside)?;
        } else {
            remove(&self.guest)?;
        }
        fs::create_dir_all(self.guest.join("data"))?;
        fs::write(self.guest.join("data/myid"), format!("{id}\n"))?;
        fs::write(self.guest.join(ENSEMBLE), ensemble.text())?;
        Ok(fs::write(self.guest.join("zoo.cfg"), options.configuration(server, ENSEMBLE))?)
    }
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", directory.display())
        }
        _ => Ok(()),
    }
}

fn at(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Returns whether the pod shares the ports of its machine with other pods: its address is a loopback address.
fn is_shared(ip: &str) -> bool {
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn port(setting: Option<&str>, name: &str, default: u16) -> Result<u16> {
    match setting.map(|text| text.trim().parse::<u16>()) {
        None => Ok(default),
        Some(Ok(port)) if port > 0 => Ok(port),
        Some(_) => bail!("invalid ochopod_{name} {:?}: expected a port", setting.unwrap_or_default()),
    }
}
