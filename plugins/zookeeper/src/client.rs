//! Questions to a running server: four-letter words, and the configuration of its ensemble.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use ochopod_sdk::{Error, Result, bail, net};

use crate::ensemble::Ensemble;

const MAX_REPLY_BYTES: usize = 1 << 20;
const CONFIG: &str = "/zookeeper/config";
const GET_DATA: i32 = 4;
const CLOSE: i32 = -11;
/// Time after which the server ends a session that was not closed.
const SESSION_MS: i32 = 5000;

/// State of a server, as a query found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// Nothing listens.
    NotListening,
    /// It listens, without a quorum.
    NoQuorum,
    /// It serves.
    Serving(State),
}

/// State of a server that serves: the words of `mntr`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State(BTreeMap<String, String>);

impl State {
    fn parse(reply: &str) -> Self {
        let pair = |line: &str| line.split_once('\t').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Self(reply.lines().filter_map(pair).collect())
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.text("zk_server_state") == "leader"
    }

    /// Returns the role that the pod publishes.
    pub(crate) fn role(&self) -> &'static str {
        if self.is_leader() { "leader" } else { "follower" }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or_default()
    }
}

/// Queries the state of the server at `IP:PORT`.
///
/// # Errors
/// If that is unknown: something accepts connections and does not answer, or the machine is not reachable.
pub(crate) fn query(address: &str, timeout: Duration) -> Result<ServerState> {
    let Some(mut stream) = connect(address, timeout)? else { return Ok(ServerState::NotListening) };
    stream.write_all(b"mntr")?;
    let mut reply = Vec::new();
    match stream.take(MAX_REPLY_BYTES as u64).read_to_end(&mut reply) {
        Ok(_) => {}
        Err(error) => bail!("no answer from {address}: {}", Error::from(error)),
    }
    let reply = String::from_utf8_lossy(&reply);
    let state = State::parse(&reply);
    if !state.text("zk_server_state").is_empty() {
        return Ok(ServerState::Serving(state));
    }
    if reply.contains("not currently serving requests") {
        return Ok(ServerState::NoQuorum);
    }
    if reply.starts_with("mntr is not executed") {
        bail!("{address} is in use by another ZooKeeper, which refuses mntr: stop it, or map another port (PORT_2181)");
    }
    bail!(
        "{address} is in use by another program, expected ZooKeeper: it answered {:?}",
        reply.trim_end().chars().take(80).collect::<String>()
    );
}

/// Returns the id of the server at `IP:PORT`; none if it does not report one.
pub(crate) fn id(address: &str, timeout: Duration) -> Option<u64> {
    let mut stream = connect(address, timeout).ok()??;
    stream.write_all(b"conf").ok()?;
    let mut reply = Vec::new();
    stream.take(MAX_REPLY_BYTES as u64).read_to_end(&mut reply).ok()?;
    let reply = String::from_utf8_lossy(&reply);
    reply.lines().find_map(|line| line.strip_prefix("serverId="))?.trim().parse().ok()
}

/// Returns the ensemble as the server at `IP:PORT` knows it.
pub(crate) fn ensemble(address: &str, timeout: Duration) -> Result<Ensemble> {
    let Some(mut stream) = connect(address, timeout)? else { bail!("no answer from {address}: connection refused") };
    // A new session: protocol 0, no transaction seen, its timeout, id 0, a password of 16 bytes, not read-only.
    let mut hello = Vec::new();
    hello.extend(0_i32.to_be_bytes());
    hello.extend(0_i64.to_be_bytes());
    hello.extend(SESSION_MS.to_be_bytes());
    hello.extend(0_i64.to_be_bytes());
    hello.extend(16_i32.to_be_bytes());
    hello.extend([0; 17]);
    send(&mut stream, &hello)?;
    receive(&mut stream)?;
    let mut request = Vec::new();
    request.extend(1_i32.to_be_bytes());
    request.extend(GET_DATA.to_be_bytes());
    request.extend(i32::try_from(CONFIG.len())?.to_be_bytes());
    request.extend(CONFIG.as_bytes());
    request.push(0);
    send(&mut stream, &request)?;
    let reply = receive(&mut stream)?;
    // The server warns about clients that do not wait for the end of their session.
    send(&mut stream, &[2_i32.to_be_bytes(), CLOSE.to_be_bytes()].concat())?;
    _ = receive(&mut stream);
    // Number of the request, transaction, error; then the data with its length.
    let error = number(&reply, 12)?;
    if error != 0 {
        bail!("{address} answered error {error} to a read of {CONFIG}");
    }
    let length = usize::try_from(number(&reply, 16)?)?;
    let Some(data) = reply.get(20..20 + length) else { bail!("{address} answered an incomplete {CONFIG}") };
    Ensemble::parse(std::str::from_utf8(data)?)
}

fn connect(address: &str, timeout: Duration) -> Result<Option<TcpStream>> {
    let stream = match net::connect(address, timeout) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("servers of other pods cannot be reached: requires --net peers");
        }
        Err(error) => bail!("no answer from {address}: {error}"),
    };
    stream.set_read_timeout(Some(timeout))?;
    Ok(Some(stream))
}

fn send(stream: &mut TcpStream, packet: &[u8]) -> Result<()> {
    let length = i32::try_from(packet.len())?.to_be_bytes();
    Ok(stream.write_all(&[&length, packet].concat())?)
}

fn receive(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    if length > MAX_REPLY_BYTES {
        bail!("zookeeper reply too large: {length} bytes, limit is {MAX_REPLY_BYTES}");
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet)?;
    Ok(packet)
}

/// Reads the number at this position.
fn number(packet: &[u8], position: usize) -> Result<i32> {
    let bytes = packet.get(position..position + 4).and_then(|bytes| bytes.try_into().ok());
    match bytes {
        Some(bytes) => Ok(i32::from_be_bytes(bytes)),
        None => bail!("incomplete answer of zookeeper: {} bytes", packet.len()),
    }
}
