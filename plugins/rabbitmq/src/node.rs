//! Addresses and files of one pod's node.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ochopod_sdk::{Cluster, Pod, Result, bail, serde_json, warning};

/// Path of the granted directory, as the plugin sees it.
pub(crate) const DIRECTORY: &str = "/data";

/// Ports of the container: for clients and for other nodes.
pub(crate) const CLIENT_PORT: u16 = 5672;
pub(crate) const PEER_PORT: u16 = 25672;
/// Number of pods that form a cluster, unless the operator sets `ochopod_rabbitmq_size`.
const SIZE: usize = 3;
/// Seconds after which a node that left is removed, unless the operator sets `ochopod_rabbitmq_forget_after`.
const FORGET_AFTER: u64 = 600;
const SETTINGS: [&str; 3] = ["rabbitmq_dir", "rabbitmq_size", "rabbitmq_forget_after"];

/// Addresses and settings of one pod's node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Name in the Erlang cluster, `NAME@IP`. Its files have the same name, so a pod that returns finds them again.
    pub(crate) name: String,
    pub(crate) ip: String,
    /// Whether it shares the ports of its machine with other pods.
    pub(crate) is_shared: bool,
    /// `IP:PORT` under which clients reach it.
    pub(crate) client: String,
    /// `IP:PORT` under which its pod reaches it.
    pub(crate) own_client: String,
    /// The same for other nodes: it listens there as long as Erlang runs.
    pub(crate) own_peer: String,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) size: usize,
    pub(crate) forget_after: u64,
    /// Directory of the data, as RabbitMQ sees it.
    pub(crate) directory: String,
}

impl Node {
    /// Returns what follows from the registration of a pod.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        if pod.ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6()) {
            bail!("pod seq {} has the address {}: RabbitMQ needs an IPv4 address (ochopod_ip)", pod.seq, pod.ip);
        }
        let client = pod.address(CLIENT_PORT, false)?;
        let loopback = loopback(&pod.ip);
        let (client_port, peer_port) = match loopback {
            Some(last) => {
                // Erlang rejects a port that another node of the machine has announced, whatever its address.
                let own = PEER_PORT.saturating_add(last.into());
                (pod.reachable(CLIENT_PORT)?, pod.ports.get(&PEER_PORT).copied().unwrap_or(own))
            }
            None if pod.reachable(PEER_PORT)? != PEER_PORT => bail!(
                "pod seq {} maps port {PEER_PORT} to {}: nodes need the same port inside and outside",
                pod.seq,
                pod.reachable(PEER_PORT)?
            ),
            None => (CLIENT_PORT, PEER_PORT),
        };
        let own = if loopback.is_some() { &pod.ip } else { "127.0.0.1" };
        let host = client.replace(['.', ':'], "-");
        Ok(Self {
            name: format!("rabbitmq-{host}@{}", pod.ip),
            ip: pod.ip.clone(),
            is_shared: loopback.is_some(),
            own_client: format!("{own}:{client_port}"),
            own_peer: format!("{own}:{peer_port}"),
            client,
            client_port,
            peer_port,
            size: number(pod, "rabbitmq_size", SIZE)?,
            forget_after: number(pod, "rabbitmq_forget_after", FORGET_AFTER)?,
            directory: directory(pod)?.trim_end_matches('/').to_owned(),
        })
    }

    /// Returns the same for this pod from its environment, which needs no view of the cluster.
    pub(crate) fn from_env() -> Result<Self> {
        Self::by(|name| env::var(name).ok())
    }

    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
        let mapped = |port: u16| Some((port, variable(&format!("PORT_{port}"))?.trim().parse().ok()?));
        let ports: BTreeMap<u16, u16> = [CLIENT_PORT, PEER_PORT].into_iter().filter_map(mapped).collect();
        let setting = |name: &str| Some((name.to_owned(), variable(&format!("ochopod_{name}"))?));
        Self::of(&Pod { ip, ports, settings: SETTINGS.into_iter().filter_map(setting).collect(), ..Pod::default() })
    }

    /// Returns the nodes of all live pods of a view, with their pods, in the order of `seq`. A pod with invalid settings is
    /// skipped: it rejects every configuration itself.
    pub(crate) fn of_all(cluster: &Cluster) -> Vec<(Pod, Self)> {
        let live = cluster.by_seq().into_iter().filter(|pod| !pod.is_dead());
        live.filter_map(|pod| Some((Self::of(&pod).ok()?, pod))).map(|(node, pod)| (pod, node)).collect()
    }

    /// Returns the path of one of its files, as RabbitMQ sees it: of its data without a suffix.
    pub(crate) fn path(&self, suffix: &str) -> String {
        format!("{}/{}{suffix}", self.directory, self.name)
    }
}

/// Returns the last number of a loopback address.
fn loopback(ip: &str) -> Option<u8> {
    match ip.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_loopback() => Some(ip.octets()[3]),
        _ => None,
    }
}

fn directory(pod: &Pod) -> Result<&str> {
    match pod.settings.get("rabbitmq_dir").map(String::as_str) {
        Some(directory) if directory.starts_with('/') => Ok(directory),
        Some(other) => bail!("invalid ochopod_rabbitmq_dir {other:?}: expected an absolute path"),
        None => {
            bail!("ochopod_rabbitmq_dir is not set: expected the directory for the data, as in /var/lib/rabbitmq/pods")
        }
    }
}

fn number<T: std::str::FromStr + PartialOrd + From<u8>>(pod: &Pod, name: &str, default: T) -> Result<T> {
    match pod.settings.get(name) {
        None => Ok(default),
        Some(text) => match text.trim().parse::<T>() {
            Ok(number) if number >= T::from(1) => Ok(number),
            _ => bail!("invalid ochopod_{name} {text:?}: expected a number, at least 1"),
        },
    }
}

/// Cluster of a node, as the node saw it last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Names of all nodes.
    pub(crate) nodes: BTreeSet<String>,
    /// Identity of the cluster; none if it is unknown, or if an earlier version of the plugin wrote the file.
    pub(crate) cluster: Option<String>,
}

impl Membership {
    /// Starts the line with the identity. No name of a node has this text.
    const CLUSTER: &str = "cluster=";

    fn parse(text: &str) -> Self {
        let cluster = text.lines().find_map(|line| line.strip_prefix(Self::CLUSTER)).map(str::to_owned);
        let names = text.lines().filter(|line| !line.starts_with(Self::CLUSTER));
        Self { nodes: names.map(str::to_owned).collect(), cluster }
    }

    fn text(&self) -> String {
        let cluster = self.cluster.iter().map(|cluster| format!("{}{cluster}", Self::CLUSTER));
        self.nodes.iter().cloned().chain(cluster).collect::<Vec<_>>().join("\n")
    }
}

/// Files of one pod's node, in the directory that was granted.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    guest: PathBuf,
    name: String,
}

impl Files {
    pub(crate) fn of(node: &Node, guest: &Path) -> Self {
        Self { guest: guest.to_owned(), name: node.name.clone() }
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.guest.is_dir()
    }

    /// Returns whether the node has run with this directory.
    pub(crate) fn has_data(&self) -> bool {
        self.path("").join("schema.DAT").exists()
    }

    /// Puts data aside that belongs to a node that the cluster has removed. Older data of this kind is deleted.
    pub(crate) fn set_aside(&self) -> Result<()> {
        let (data, aside) = (self.path(""), self.path(".removed"));
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        if data.exists() {
            fs::rename(&data, &aside)?;
            warning!("data of the removed node put aside as {}.removed", self.name);
        }
        self.remove(".flags")?;
        self.forget_membership()
    }

    pub(crate) fn write_configuration(&self, text: &str) -> Result<()> {
        self.replace(".conf", text)
    }

    /// Returns the cluster that the data belong to.
    pub(crate) fn membership(&self) -> Membership {
        Membership::parse(&fs::read_to_string(self.path(".members")).unwrap_or_default())
    }

    pub(crate) fn set_membership(&self, membership: &Membership) -> Result<()> {
        if !self.is_granted() || *membership == self.membership() {
            return Ok(());
        }
        self.replace(".members", &membership.text())
    }

    /// Removes what was recorded of the cluster: the node starts without data.
    pub(crate) fn forget_membership(&self) -> Result<()> {
        self.remove(".members")
    }

    /// Returns when this pod, as the leader, found nodes without pods: seconds since 1970, by name.
    pub(crate) fn absences(&self) -> BTreeMap<String, u64> {
        serde_json::from_slice(&fs::read(self.path(".absent")).unwrap_or_default()).unwrap_or_default()
    }

    pub(crate) fn set_absences(&self, absences: &BTreeMap<String, u64>) -> Result<()> {
        if *absences == self.absences() {
            return Ok(());
        }
        self.replace(".absent", &serde_json::to_string(absences)?)
    }

    fn remove(&self, suffix: &str) -> Result<()> {
        match fs::remove_file(self.path(suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Replaces a file as a whole.
    fn replace(&self, suffix: &str, text: &str) -> Result<()> {
        let new = self.path(&format!("{suffix}.new"));
        fs::write(&new, text)?;
        Ok(fs::rename(&new, self.path(suffix))?)
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.guest.join(format!("{}{suffix}", self.name))
    }
}
