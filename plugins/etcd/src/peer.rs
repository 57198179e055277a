//! Requests to the peer port of an etcd, which need no quorum: its version and the members that it lists.

use std::{
    io::{ErrorKind, Read, Write},
    time::Duration,
};

use ochopod_sdk::{Result, Value, bail, net, serde_json};

use crate::ctl::Members;

/// Header with the id of the cluster, in hexadecimal. Members of one cluster reject those of another one.
const CLUSTER_ID: &str = "x-etcd-cluster-id";
const MAX_REPLY_BYTES: usize = 1 << 20;

/// A member, as etcd lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    /// Empty until it was started for the first time.
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
    /// Empty until it was started for the first time.
    pub(crate) client_urls: Vec<String>,
}

impl Listed {
    /// Returns the members of a list, in the order of their first URL.
    pub(crate) fn parse(list: &Value) -> Vec<Self> {
        let mut members: Vec<Self> = list.as_array().into_iter().flatten().filter_map(Self::parse_one).collect();
        members.sort_by(|a, b| a.peer_urls.cmp(&b.peer_urls));
        members
    }

    fn parse_one(value: &Value) -> Option<Self> {
        let texts = |key: &str| {
            let list = value.get(key).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        // The peer port writes `id`, etcdctl `ID`.
        let id = value.get("id").or_else(|| value.get("ID"))?.as_u64()?;
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { id, name, peer_urls: texts("peerURLs"), client_urls: texts("clientURLs") })
    }

    pub(crate) fn is_at(&self, peer_url: &str) -> bool {
        self.peer_urls.iter().any(|url| url == peer_url)
    }

    /// Returns whether it is at one of these URLs.
    pub(crate) fn is_at_any(&self, peer_urls: &[String]) -> bool {
        self.peer_urls.iter().any(|url| peer_urls.contains(url))
    }

    /// Returns its `IP:PORT` for members.
    pub(crate) fn address(&self) -> String {
        let urls: Vec<&str> = self.peer_urls.iter().map(|url| url.trim_start_matches("http://")).collect();
        urls.join(", ")
    }
}

/// State of the etcd at the address of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// Nothing listens.
    NotListening,
    /// An etcd whose cluster has never had a quorum, as far as it knows.
    Forming,
    /// An etcd whose cluster was formed.
    Formed,
}

/// Queries what listens at `IP:PORT`, the address for members.
///
/// # Errors
/// If that is unknown: something accepts connections and does not answer, or the machine is not reachable.
pub(crate) fn query(peer: &str, timeout: Duration) -> Result<ServerState> {
    match get(peer, "/version", timeout) {
        Ok((_, version)) => match version.get("etcdcluster").and_then(Value::as_str) {
            // A member that was killed may have lost the version, but not what the members published.
            Some("not_decided") => {
                let has_published = |member: &Listed| !member.client_urls.is_empty();
                let formed = members(peer, timeout)?.list.iter().any(has_published);
                Ok(if formed { ServerState::Formed } else { ServerState::Forming })
            }
            Some(_) => Ok(ServerState::Formed),
            None => bail!("{peer} is in use by another program, expected etcd: it answered {version}"),
        },
        Err(Failure::Refused) => Ok(ServerState::NotListening),
        Err(Failure::Denied) => bail!("etcd of other pods cannot be reached: requires --net peers"),
        Err(Failure::Other(error)) => bail!("no answer from {peer}: {error}"),
    }
}

/// Returns the members that the etcd at `IP:PORT` knows.
pub(crate) fn members(peer: &str, timeout: Duration) -> Result<Members> {
    match get(peer, "/members", timeout) {
        Ok((head, list)) => Ok(Members { cluster: cluster_id(&head), list: Listed::parse(&list) }),
        Err(Failure::Refused) => bail!("etcd does not listen at {peer}"),
        Err(Failure::Denied) => bail!("etcd of other pods cannot be reached: requires --net peers"),
        Err(Failure::Other(error)) => bail!("no answer from {peer}: {error}"),
    }
}

enum Failure {
    Refused,
    Denied,
    Other(ochopod_sdk::Error),
}

impl<E: Into<ochopod_sdk::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Returns the id of the cluster from the head of a reply; empty without one.
fn cluster_id(head: &str) -> String {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let id = headers.find(|(name, _)| name.eq_ignore_ascii_case(CLUSTER_ID));
    id.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

/// Returns the head and the value of a reply.
fn get(peer: &str, path: &str, timeout: Duration) -> std::result::Result<(String, Value), Failure> {
    let mut stream = match net::connect(peer, timeout) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Err(Failure::Refused),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(Failure::Denied),
        Err(error) => return Err(error.into()),
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {peer}\r\n\r\n").as_bytes())?;
    // etcd does not always close the connection: the reply ends with the value.
    let mut reply = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stream.read(&mut part)?;
        reply.extend_from_slice(part.get(..length).unwrap_or_default());
        let text = String::from_utf8_lossy(&reply);
        match text.split_once("\r\n\r\n") {
            Some((head, _)) if head.split(' ').nth(1) != Some("200") => {
                return Err(format!("answered {:?}", head.lines().next().unwrap_or_default()).into());
            }
            Some((head, body)) if let Ok(value) = serde_json::from_str(body) => return Ok((head.to_owned(), value)),
            _ if length == 0 || reply.len() > MAX_REPLY_BYTES => return Err("incomplete answer".into()),
            _ => {}
        }
    }
}
