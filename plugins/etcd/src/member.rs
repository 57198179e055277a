//! Addresses of one pod's etcd, and its files.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use ochopod_sdk::{Cluster, Pod, Result, Value, bail, json, serde_json, warning};

/// Path of the granted directory of the data, as the plugin sees it.
pub(crate) const DIRECTORY: &str = "/data";

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Addresses of one pod's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// `IP:PORT` under which clients and other members reach it.
    pub(crate) client: String,
    pub(crate) peer: String,
    /// `IP:PORT` under which its pod reaches it: where it listens for members.
    pub(crate) own_peer: String,
    listen_client: String,
    listen_peer: String,
}

impl Member {
    /// Returns the addresses that follow from the registration of a pod.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let setting = |name: &str| pod.settings.get(name).cloned();
        let (client_port, peer_port) = match ports(setting) {
            Ok(ports) => ports,
            Err(error) => bail!("pod seq {}: {error}", pod.seq),
        };
        let (client, peer) = (pod.address(client_port, false)?, pod.address(peer_port, false)?);
        if pod.ports.is_empty() {
            let (own_peer, listen_client, listen_peer) = (peer.clone(), client.clone(), peer.clone());
            return Ok(Self { name: name_of(&peer), client, peer, own_peer, listen_client, listen_peer });
        }
        // Behind a mapping the pod's address is another machine's.
        let any = |port| format!("0.0.0.0:{port}");
        let own_peer = format!("127.0.0.1:{peer_port}");
        let (listen_client, listen_peer) = (any(client_port), any(peer_port));
        Ok(Self { name: name_of(&peer), client, peer, own_peer, listen_client, listen_peer })
    }

    /// Returns the addresses of this pod from its environment, which needs no view of the cluster.
    pub(crate) fn from_env() -> Result<Self> {
        Self::by(|name| env::var(name).ok())
    }

    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
        let (client_port, peer_port) = ports(|name| variable(&format!("ochopod_{name}")))?;
        let mapped = |port: u16| Some((port, variable(&format!("PORT_{port}"))?.trim().parse().ok()?));
        let ports: BTreeMap<u16, u16> = [client_port, peer_port].into_iter().filter_map(mapped).collect();
        let settings = [("etcd_client_port", client_port), ("etcd_peer_port", peer_port)];
        let settings = settings.map(|(name, port)| (name.to_owned(), port.to_string())).into();
        Self::of(&Pod { ip, ports, settings, ..Pod::default() })
    }

    /// Returns the members of all live pods of a view, with their pods, in the order of `seq`. A pod with invalid settings
    /// is skipped: it rejects every configuration itself.
    pub(crate) fn of_all(cluster: &Cluster) -> Vec<(Pod, Self)> {
        let live = cluster.by_seq().into_iter().filter(|pod| !pod.is_dead());
        live.filter_map(|pod| Some((Self::of(&pod).ok()?, pod))).map(|(member, pod)| (pod, member)).collect()
    }

    pub(crate) fn client_url(&self) -> String {
        url(&self.client)
    }

    pub(crate) fn peer_url(&self) -> String {
        url(&self.peer)
    }

    /// Returns the URLs that etcd listens at, for clients and members.
    pub(crate) fn listen_urls(&self) -> (String, String) {
        (url(&self.listen_client), url(&self.listen_peer))
    }
}

fn url(address: &str) -> String {
    format!("http://{address}")
}

/// Returns the name of the member at this address. Its data has the same name, so a pod that returns finds it again.
fn name_of(peer: &str) -> String {
    format!("etcd-{}", peer.replace([':', '[', ']'], "-"))
}

fn ports(setting: impl Fn(&str) -> Option<String>) -> Result<(u16, u16)> {
    let port = |name: &str, default| match setting(name) {
        None => Ok(default),
        Some(text) => match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => bail!("invalid ochopod_{name} {text:?}: expected a port"),
        },
    };
    Ok((port("etcd_client_port", CLIENT_PORT)?, port("etcd_peer_port", PEER_PORT)?))
}

/// Files of one pod's etcd, in the directory that was granted.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    guest: PathBuf,
    name: String,
}

/// The cluster as it was when the member last saw a quorum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LastSeen {
    pub(crate) cluster: String,
    /// Peer URLs.
    pub(crate) members: Vec<String>,
}

impl Files {
    pub(crate) fn of(member: &Member, guest: &Path) -> Self {
        Self { guest: guest.to_owned(), name: member.name.clone() }
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.guest.is_dir()
    }

    /// Returns whether etcd has run with this directory.
    pub(crate) fn has_data(&self) -> bool {
        self.guest.join(&self.name).join("member").join("wal").is_dir()
    }

    /// Puts data aside that the cluster does not know: of a member that it has removed, or of a formation that was abandoned.
    /// Older data of this kind is deleted.
    pub(crate) fn set_aside(&self) -> Result<()> {
        let (data, aside) = (self.guest.join(&self.name), self.guest.join(format!("{}.removed", self.name)));
        if data.exists() {
            if aside.exists() {
                fs::remove_dir_all(&aside)?;
            }
            fs::rename(&data, &aside)?;
            warning!("data that the cluster does not know put aside as {}.removed", self.name);
        }
        remove_file(&self.last_seen_file())?;
        remove_file(&self.formation_file())
    }

    /// Returns the formation that the data belongs to; none once the member has seen a quorum.
    pub(crate) fn formation(&self) -> Option<String> {
        fs::read_to_string(self.formation_file()).ok().filter(|_| self.has_data())
    }

    /// Forgets the formation of a pod without data, which joins a cluster that runs.
    pub(crate) fn forget_formation(&self) -> Result<()> {
        remove_file(&self.formation_file())
    }

    /// Records the formation of a pod without data.
    pub(crate) fn set_formation(&self, formation: &str) -> Result<()> {
        remove_file(&self.last_seen_file())?;
        self.write(&self.formation_file(), formation)
    }

    pub(crate) fn last_seen(&self) -> Option<LastSeen> {
        let value: Value = serde_json::from_slice(&fs::read(self.last_seen_file()).ok()?).ok()?;
        let members = value.get("members")?.as_array()?.iter().filter_map(|url| url.as_str().map(str::to_owned));
        Some(LastSeen { cluster: value.get("cluster")?.as_str()?.to_owned(), members: members.collect() })
    }

    pub(crate) fn set_last_seen(&self, seen: &LastSeen) -> Result<()> {
        if self.is_granted() && self.last_seen().as_ref() != Some(seen) {
            let text = json!({"cluster": seen.cluster, "members": seen.members}).to_string();
            self.write(&self.last_seen_file(), &text)?;
        }
        remove_file(&self.formation_file())
    }

    /// Returns the peer URLs of the pods that are registered, as of the last check of a configuration.
    pub(crate) fn registered(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.registered_file()).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    pub(crate) fn set_registered(&self, urls: &[String]) -> Result<()> {
        if self.registered().as_deref() == Some(urls) {
            return Ok(());
        }
        self.write(&self.registered_file(), &urls.join("\n"))
    }

    /// Replaces a file as a whole.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let new = self.guest.join(format!("{}.new", self.name));
        fs::write(&new, text)?;
        Ok(fs::rename(&new, path)?)
    }

    fn last_seen_file(&self) -> PathBuf {
        self.guest.join(format!("{}.members", self.name))
    }

    fn registered_file(&self) -> PathBuf {
        self.guest.join(format!("{}.registered", self.name))
    }

    fn formation_file(&self) -> PathBuf {
        self.guest.join(format!("{}.formation", self.name))
    }
}

/// Removes a file, if it exists.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
