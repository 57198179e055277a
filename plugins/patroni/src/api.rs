//! REST API of Patroni.

use std::{
    io::{ErrorKind, Read, Write},
    time::Duration,
};

use ochopod_sdk::{Error, Result, Value, bail, net, serde_json};

const MAX_REPLY_BYTES: u64 = 1 << 20;
const SWITCHOVER_TIMEOUT: Duration = Duration::from_mins(1);

/// Reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) body: String,
}

/// Status of one PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// Whether it is the primary and holds the leader lock.
    pub(crate) is_primary: bool,
    /// Status that Patroni reports.
    pub(crate) value: Value,
}

impl Status {
    /// Returns `running`, `starting`, `stopped`…
    pub(crate) fn state(&self) -> &str {
        self.value.get("state").and_then(Value::as_str).unwrap_or("unknown")
    }

    /// Returns the role of the pod; empty while PostgreSQL does not run.
    pub(crate) fn role(&self) -> &'static str {
        match self.state() {
            "running" if self.is_primary => "primary",
            "running" => "replica",
            _ => "",
        }
    }
}

/// Member of the cluster, as Patroni lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) is_primary: bool,
    pub(crate) is_running: bool,
    /// `IP:PORT` of its PostgreSQL.
    pub(crate) address: String,
    /// Bytes that a replica has not replayed; none if that is unknown.
    pub(crate) lag: Option<u64>,
}

impl Member {
    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let port = value.get("port").and_then(Value::as_u64).unwrap_or_default();
        Some(Self {
            name: value.get("name")?.as_str()?.to_owned(),
            is_primary: text("role") == "leader",
            is_running: matches!(text("state"), "running" | "streaming"),
            address: format!("{}:{port}", text("host")),
            lag: value.get("lag").and_then(Value::as_u64),
        })
    }
}

/// Returns the status of the PostgreSQL whose Patroni listens at `IP:PORT`.
pub(crate) fn status(api: &str, timeout: Duration) -> Result<Status> {
    let reply = send(api, "GET", "/primary", "", timeout)?;
    match serde_json::from_str(&reply.body) {
        Ok(value @ Value::Object(_)) => Ok(Status { is_primary: reply.code == 200, value }),
        _ => bail!("Patroni at {api} answered {} {:?} to /primary", reply.code, reply.body),
    }
}

/// Returns the members, as the Patroni at `IP:PORT` lists them.
pub(crate) fn members(api: &str, timeout: Duration) -> Result<Vec<Member>> {
    let reply = send(api, "GET", "/cluster", "", timeout)?;
    let value: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    match value.get("members").and_then(Value::as_array) {
        Some(list) if reply.code == 200 => Ok(list.iter().filter_map(Member::parse).collect()),
        _ => bail!("Patroni at {api} answered {} to /cluster", reply.code),
    }
}

/// Makes a replica the primary: this one, or one of Patroni's choice. Returns what Patroni says once it is done.
pub(crate) fn switch_over(api: &str, from: &str, to: Option<&str>) -> Result<String> {
    let request = ochopod_sdk::json!({"leader": from, "candidate": to}).to_string();
    let reply = send(api, "POST", "/switchover", &request, SWITCHOVER_TIMEOUT)?;
    if reply.code != 200 {
        bail!("Patroni refused the switchover: {}", reply.body.trim());
    }
    Ok(reply.body.trim().to_owned())
}

fn send(api: &str, method: &str, path: &str, body: &str, timeout: Duration) -> Result<Reply> {
    let failed = |error: Error| format!("Patroni at {api} does not answer: {error}");
    let mut stream = match net::connect(api, timeout) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("Patroni of other pods cannot be reached: requires --net peers")
        }
        Err(error) => return Err(failed(error.into()).into()),
    };
    stream.set_read_timeout(Some(timeout))?;
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {api}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    stream.take(MAX_REPLY_BYTES).read_to_end(&mut bytes).map_err(|error| failed(error.into()))?;
    match parse(&String::from_utf8_lossy(&bytes)) {
        Some(reply) => Ok(reply),
        None => Err(failed("invalid reply".into()).into()),
    }
}

fn parse(reply: &str) -> Option<Reply> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { code, body: body.to_owned() })
}
