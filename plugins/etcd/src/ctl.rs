//! etcdctl: health, status, and changes of the members.

use std::{collections::BTreeSet, time::Duration};

use ochopod_sdk::{Result, Value, bail, exec, serde_json};

use crate::peer::Listed;

const PROGRAM: &str = "etcdctl";

/// Status of one etcd, which it reports without a quorum too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) database_bytes: u64,
    pub(crate) raft_index: u64,
    /// None while there is no leader.
    pub(crate) is_leader: Option<bool>,
}

/// The cluster as one of its members lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    /// Id, in hexadecimal.
    pub(crate) cluster: String,
    pub(crate) list: Vec<Listed>,
}

impl Members {
    /// Returns the number of members that are a quorum.
    pub(crate) fn quorum(&self) -> usize {
        quorum(self.list.len())
    }

    pub(crate) fn find(&self, peer_url: &str) -> Option<&Listed> {
        self.list.iter().find(|member| member.is_at(peer_url))
    }

    /// Returns the URLs of all members for clients.
    pub(crate) fn client_urls(&self) -> Vec<String> {
        self.list.iter().flat_map(|member| member.client_urls.clone()).collect()
    }
}

/// Returns the number that is a quorum of so many members.
pub(crate) fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Returns those of these endpoints that answer a read that needs a quorum.
pub(crate) fn healthy(endpoints: &[String], limit: Duration) -> Result<BTreeSet<String>> {
    if endpoints.is_empty() {
        return Ok(BTreeSet::new());
    }
    // It fails if one of them is not healthy, and prints the list in any case.
    let output = run(endpoints, limit, &["endpoint", "health", "-w", "json"])?;
    let list = parse(&output.stdout);
    let entries = list.as_array().into_iter().flatten();
    let healthy = entries.filter(|entry| entry.get("health").and_then(Value::as_bool) == Some(true));
    Ok(healthy.filter_map(|entry| Some(entry.get("endpoint")?.as_str()?.to_owned())).collect())
}

/// Returns an error unless this endpoint answers a read that needs a quorum.
pub(crate) fn check_health(endpoint: &str, limit: Duration) -> Result<()> {
    let output = run(&[endpoint.to_owned()], limit, &["endpoint", "health", "-w", "json"])?;
    let list = parse(&output.stdout);
    let entry = list.get(0).cloned().unwrap_or_default();
    if entry.get("health").and_then(Value::as_bool) == Some(true) {
        return Ok(());
    }
    match entry.get("error").and_then(Value::as_str) {
        Some(error) => bail!("etcd cannot read with a quorum: {error}"),
        None => bail!("etcd cannot read with a quorum: {}", last_line(&output)),
    }
}

/// Returns the members, as one of these endpoints lists them.
pub(crate) fn members(endpoints: &[String], limit: Duration) -> Result<Members> {
    let value = parse(&successful(run(endpoints, limit, &["member", "list", "-w", "json"])?)?);
    let cluster = value.get("header").and_then(|header| header.get("cluster_id")).and_then(Value::as_u64);
    let list = Listed::parse(value.get("members").unwrap_or(&Value::Null));
    match cluster {
        Some(cluster) if !list.is_empty() => Ok(Members { cluster: format!("{cluster:x}"), list }),
        _ => bail!("{PROGRAM} member list returned no members"),
    }
}

/// Returns the status of one etcd.
pub(crate) fn status(endpoint: &str, limit: Duration) -> Result<Status> {
    let output = run(&[endpoint.to_owned()], limit, &["endpoint", "status", "-w", "json"])?;
    let value = parse(&successful(output)?);
    let Some(status) = value.get(0).and_then(|entry| entry.get("Status")) else {
        bail!("{PROGRAM} endpoint status returned no status")
    };
    let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or_default();
    let own = status.get("header").and_then(|header| header.get("member_id")).and_then(Value::as_u64);
    Ok(Status {
        version: status.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
        database_bytes: number("dbSize"),
        raft_index: number("raftIndex"),
        is_leader: (number("leader") != 0).then(|| Some(number("leader")) == own),
    })
}

/// Adds a member. etcd itself rejects it if the cluster could lose its quorum.
pub(crate) fn add(endpoints: &[String], name: &str, peer_url: &str, limit: Duration) -> Result<()> {
    let peer_urls = format!("--peer-urls={peer_url}");
    successful(run(endpoints, limit, &["member", "add", name, &peer_urls])?).map(drop)
}

/// Removes a member. etcd itself rejects it if the cluster would lose its quorum.
pub(crate) fn remove(endpoints: &[String], id: u64, limit: Duration) -> Result<()> {
    successful(run(endpoints, limit, &["member", "remove", &format!("{id:x}")])?).map(drop)
}

fn run(endpoints: &[String], limit: Duration, arguments: &[&str]) -> Result<exec::Output> {
    let timeout = format!("{}ms", limit.as_millis());
    let flags = [
        format!("--endpoints={}", endpoints.join(",")),
        format!("--command-timeout={timeout}"),
        format!("--dial-timeout={timeout}"),
    ];
    let argv = std::iter::once(PROGRAM.to_owned()).chain(flags).chain(arguments.iter().map(ToString::to_string));
    // Start and exit may take as long again on a loaded machine.
    match exec::run(argv, b"", limit * 2) {
        Ok(output) => Ok(output),
        Err(exec::Error::Timeout) => bail!("{PROGRAM} {} timed out after {timeout}", arguments.join(" ")),
        Err(error) => Err(error.into()),
    }
}

fn successful(output: exec::Output) -> Result<Vec<u8>> {
    if output.code != 0 {
        bail!("{}", last_line(&output));
    }
    Ok(output.stdout)
}

/// Returns the error of the program: the last line that it wrote.
fn last_line(output: &exec::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    let line = line.strip_prefix("Error: ").unwrap_or(&line).to_owned();
    if line.is_empty() { format!("{PROGRAM} exited with code {}", output.code) } else { line }
}

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}
