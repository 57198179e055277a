//! As much of Redis' protocol as the plugin needs.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use ochopod_sdk::{Result, Value, bail, json, net};

use crate::{Role, server};

const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Address of a redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: String,
    pub(crate) port: u16,
}

/// A connection to one redis.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    timeout: Duration,
}

impl Client {
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        Self::connect_within(address, TIMEOUT)
    }

    /// Connects within this time, which is also that of each reply.
    pub(crate) fn connect_within(address: &Address, timeout: Duration) -> io::Result<Self> {
        let stream = net::connect((address.ip.as_str(), address.port), timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(stream), timeout })
    }

    /// Sends one command and returns the reply's text.
    pub(crate) fn call(&mut self, command: &[&str]) -> Result<String> {
        let mut request = Vec::new();
        write!(request, "*{}\r\n", command.len())?;
        for word in command {
            write!(request, "${}\r\n{word}\r\n", word.len())?;
        }
        self.stream.get_mut().write_all(&request)?;

        let mut line = String::new();
        match self.stream.by_ref().take(MAX_REPLY_BYTES as u64).read_line(&mut line) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("redis did not answer {} within {} s", command.join(" "), self.timeout.as_secs_f64())
            }
            read => read?,
        };
        match line.trim_end().split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(text.to_owned()),
            Some(("-", text)) => bail!("redis refused {}: {text}", command.join(" ")),
            Some(("$", length)) => self.bulk(length.parse()?),
            _ => bail!("redis answered {:?} to {}", line, command.join(" ")),
        }
    }

    pub(crate) fn info(&mut self) -> Result<Info> {
        Ok(Info::parse(&self.call(&["INFO"])?))
    }

    fn bulk(&mut self, length: usize) -> Result<String> {
        if length > MAX_REPLY_BYTES {
            bail!("redis reply too large: {length} bytes, limit is {MAX_REPLY_BYTES}");
        }
        let mut reply = vec![0; length + 2];
        self.stream.read_exact(&mut reply)?;
        reply.truncate(length);
        Ok(String::from_utf8(reply)?)
    }
}

/// Fields of `INFO` that the plugin reads.
pub(crate) struct Info(BTreeMap<String, String>);

impl Info {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.trim_end().to_owned())).collect())
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.text("role") == "master"
    }

    /// Returns its role; none if it was started and has no role yet.
    pub(crate) fn role(&self) -> Option<Role> {
        if self.is_primary() { Some(Role::Primary) } else { self.primary().map(Role::ReplicaOf) }
    }

    /// Address of the server it replicates; none for a primary, and for one that has no role yet.
    pub(crate) fn primary(&self) -> Option<Address> {
        let ip = self.0.get("master_host")?.clone();
        let address = Address { ip, port: self.0.get("master_port")?.parse().ok()? };
        Some(address).filter(|address| !server::is_none(address))
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.text("loading") == "1"
    }

    /// Returns the id of its data: the same for all servers that replicate it.
    pub(crate) fn replication_id(&self) -> &str {
        self.text("master_replid")
    }

    /// Returns the id of the data that it has continued as a primary, or its primary has.
    pub(crate) fn previous_id(&self) -> &str {
        self.text("master_replid2")
    }

    /// Returns how much of the data it has.
    pub(crate) fn offset(&self) -> u64 {
        self.number("master_repl_offset")
    }

    pub(crate) fn connected_replicas(&self) -> u64 {
        self.number("connected_slaves")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys() == 0
    }

    /// Returns whether it has data that `other` lacks. Replicas in memory differ by what was in transit, which does not count.
    /// With `is_new`, one of them has read its data from a file, and it counts.
    pub(crate) fn is_ahead_of(&self, other: &Self, is_new: bool) -> bool {
        let has_more = || self.replication_id() == other.replication_id() && self.offset() > other.offset();
        let has_continued = || self.previous_id() == other.replication_id();
        self.keys() > 0 && (other.keys() == 0 || has_continued() || is_new && has_more())
    }

    /// Returns whether it is a replica that has all the data of its primary.
    pub(crate) fn in_sync(&self) -> bool {
        self.text("master_link_status") == "up" && self.text("master_sync_in_progress") == "0"
    }

    pub(crate) fn metrics(&self) -> Value {
        let mut metrics = json!({
            "version": self.text("redis_version"),
            "uptime": self.number("uptime_in_seconds"),
            "connected_clients": self.number("connected_clients"),
            "used_memory": self.number("used_memory"),
            "keys": self.keys(),
        });
        let role = match self.role() {
            None => json!({"role": "none"}),
            Some(Role::Primary) => json!({
                "role": "primary",
                "connected_replicas": self.connected_replicas(),
                "replication_offset": self.offset(),
            }),
            Some(Role::ReplicaOf(Address { ip, port })) => json!({
                "role": "replica",
                "primary": format!("{ip}:{port}"),
                "in_sync": self.in_sync(),
                "replication_offset": self.number("slave_repl_offset"),
            }),
        };
        if let (Value::Object(metrics), Value::Object(role)) = (&mut metrics, role) {
            metrics.extend(role);
        }
        metrics
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_default()
    }

    /// Keys in all databases: `db0:keys=3,expires=0,…`.
    fn keys(&self) -> u64 {
        let databases = self.0.values().filter_map(|value| value.strip_prefix("keys="));
        databases.filter_map(|value| value.split(',').next()?.parse::<u64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// Starts a server that answers one command with `reply`, and returns what it received.
    fn answering(reply: &'static str) -> (Address, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address { ip: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut sent = [0; 256];
            let length = stream.read(&mut sent).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            String::from_utf8_lossy(&sent[..length]).into_owned()
        });
        (address, server)
    }

    fn call(reply: &'static str) -> Result<String> {
        let (address, server) = answering(reply);
        let result = Client::connect(&address).unwrap().call(&["REPLICAOF", "NO", "ONE"]);
        assert_eq!(server.join().unwrap(), "*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n$3\r\nONE\r\n");
        result
    }

    #[test]
    fn replies_are_read_as_text_and_refusals_name_the_command() {
        assert_eq!(call("+OK\r\n").unwrap(), "OK");
        assert_eq!(call(":7\r\n").unwrap(), "7");
        assert_eq!(call("$5\r\na\r\nbc\r\n").unwrap(), "a\r\nbc");
        let refused = call("-LOADING Redis is loading\r\n").unwrap_err().to_string();
        assert_eq!(refused, "redis refused REPLICAOF NO ONE: LOADING Redis is loading");
    }

    #[test]
    fn an_invalid_reply_is_an_error() {
        for bad in ["", "?\r\n", "\u{e9}\r\n", "$-1\r\n", "$9999999999\r\n", "$5\r\nab"] {
            assert!(call(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metrics_name_the_primary_of_a_replica() {
        let info = Info::parse(
            "# Replication\r\nrole:slave\r\nmaster_host:127.0.0.2\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
             master_sync_in_progress:0\r\nslave_repl_offset:42\r\ndb0:keys=3,expires=0\r\ndb1:keys=4,expires=0\r\n",
        );
        let metrics = info.metrics();
        assert_eq!(metrics["role"], "replica");
        assert_eq!(metrics["primary"], "127.0.0.2:6379");
        assert_eq!(metrics["replication_offset"], 42);
        assert_eq!(metrics["keys"], 7);
        assert!(info.in_sync() && !info.is_primary());
    }
}
