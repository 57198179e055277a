//! HAProxy's runtime API: commands as text, on loopback ports.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use ochopod_sdk::{Error, Result, Value, bail, json, net};

use crate::configuration::ServerName;

const TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a new worker to start.
const RELOAD_TIMEOUT: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_REPLY_BYTES: u64 = 1 << 22;
/// Bit of the administrative state of a server: out of service by a command or by the configuration.
const MAINTENANCE: u64 = 1;

/// The runtime API of one HAProxy. Each command is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runtime {
    pub(crate) worker: SocketAddr,
    pub(crate) master: SocketAddr,
}

impl Runtime {
    fn call(self, command: &str) -> Result<String> {
        Self::call_at(self.worker, command)
    }

    fn call_at(address: SocketAddr, command: &str) -> Result<String> {
        let mut stream = match net::connect(address, TIMEOUT) {
            Ok(stream) => stream,
            Err(error) => bail!("runtime API of haproxy at {address} cannot be reached: {error}"),
        };
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut reply = String::new();
        let sent = stream.write_all(format!("{command}\n").as_bytes());
        match sent.and_then(|()| stream.take(MAX_REPLY_BYTES).read_to_string(&mut reply)) {
            Ok(_) => Ok(reply),
            Err(error) => {
                bail!("runtime API of haproxy at {address} did not answer {command:?}: {}", Error::from(error))
            }
        }
    }

    /// Sends a command that answers nothing if it succeeds.
    fn set(self, command: &str) -> Result<()> {
        match self.call(command)?.trim() {
            "" => Ok(()),
            answer => bail!("haproxy answered {command:?} with {answer:?}"),
        }
    }

    /// Makes the master read its configuration, and waits until a worker has these servers. A signal would not do: the master
    /// loses one that arrives while it reloads, and accepts no connection meanwhile.
    #[allow(clippy::disallowed_methods, reason = "a guest has no event to wait for")]
    pub(crate) fn reload(self, servers: &BTreeMap<ServerName, bool>) -> Result<()> {
        let begin = Instant::now();
        let mut is_requested = false;
        loop {
            let failure = if is_requested {
                match self.servers() {
                    Ok(states) if states.keys().eq(servers.keys()) => return Ok(()),
                    Ok(_) => Error::new("haproxy did not load the new configuration, see its log"),
                    Err(error) => error,
                }
            } else {
                match Self::call_at(self.master, "reload") {
                    Ok(_) => {
                        is_requested = true;
                        continue;
                    }
                    Err(error) => error,
                }
            };
            if begin.elapsed() > RELOAD_TIMEOUT {
                return Err(failure);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Returns whether no worker listens.
    pub(crate) fn is_down(self) -> bool {
        net::connect(self.worker, TIMEOUT).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Returns the administrative state of each server.
    pub(crate) fn servers(self) -> Result<BTreeMap<ServerName, u64>> {
        servers_state(&self.call("show servers state")?)
    }

    /// Takes no more requests to these servers, except those that belong to a connection that they serve.
    pub(crate) fn drain<'a>(self, servers: impl IntoIterator<Item = &'a ServerName>) -> Result<()> {
        for ServerName { proxy, server } in servers {
            self.set(&format!("set server {proxy}/{server} state drain"))?;
        }
        Ok(())
    }

    /// Makes the servers of these proxies serve as expected, and returns those that it changed.
    pub(crate) fn apply(self, expected: &BTreeMap<ServerName, bool>) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        if expected.is_empty() {
            return Ok(changed);
        }
        let states = self.servers()?;
        for (name, serves) in expected {
            let ServerName { proxy, server } = name;
            match states.get(name) {
                Some(state) if (state & MAINTENANCE == 0) == *serves => continue,
                Some(_) if *serves => self.set(&format!("set server {proxy}/{server} state ready"))?,
                Some(_) => {
                    self.set(&format!("set server {proxy}/{server} state maint"))?;
                    self.set(&format!("shutdown sessions server {proxy}/{server}"))?;
                }
                None => bail!("haproxy has no server {proxy}/{server}"),
            }
            changed.push(format!("{proxy}/{server} {}", if *serves { "serves" } else { "does not serve" }));
        }
        Ok(changed)
    }

    /// Returns servers, sessions and requests of each proxy.
    pub(crate) fn metrics(self) -> Result<Value> {
        metrics(&self.call("show stat -1 -1 -1")?)
    }
}

/// Reads `show servers state`: the administrative state of each server.
fn servers_state(reply: &str) -> Result<BTreeMap<ServerName, u64>> {
    let mut lines = reply.lines().skip_while(|line| !line.starts_with('#'));
    let columns: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches('#').split_whitespace().collect();
    let place = |name: &str| columns.iter().position(|column| *column == name);
    let (Some(proxy), Some(server), Some(state)) = (place("be_name"), place("srv_name"), place("srv_admin_state"))
    else {
        bail!("haproxy answered \"show servers state\" with {:?}", reply.chars().take(80).collect::<String>());
    };
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |place: usize| words.get(place).map(|word| (*word).to_owned());
        Some((ServerName { proxy: word(proxy)?, server: word(server)? }, word(state)?.parse().ok()?))
    };
    Ok(lines.filter_map(row).collect())
}

/// Reads `show stat`, a table with the names of its columns in the first line.
fn metrics(reply: &str) -> Result<Value> {
    let mut lines = reply.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let place = |name: &str| columns.iter().position(|column| *column == name);
    let (Some(_), Some(_), Some(_)) = (place("pxname"), place("svname"), place("status")) else {
        bail!("haproxy answered \"show stat\" with {:?}", reply.chars().take(80).collect::<String>());
    };
    let mut proxies: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let text = |name: &str| place(name).and_then(|place| fields.get(place).copied()).unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or_default();
        let proxy = proxies.entry(text("pxname").to_owned()).or_default();
        match text("svname") {
            "FRONTEND" => _ = proxy.insert("sessions", number("scur")),
            "BACKEND" => proxy.extend([
                ("requests", number("req_tot")),
                ("connections", number("stot")),
                ("connection_errors", number("econ")),
                ("response_errors", number("eresp")),
                ("retries", number("wretr")),
                ("servers_up", number("act")),
            ]),
            // A server out of service waits for its role.
            _ => *proxy.entry("servers").or_default() += u64::from(!text("status").starts_with("MAINT")),
        }
    }
    Ok(json!(proxies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_is_read_from_the_state_of_servers() {
        let reply = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
                     2 port-5432 1 db-0 127.0.0.2 2 0 1\n2 port-5432 2 db-1 127.0.0.3 0 5 1\n\n";
        let states = servers_state(reply).unwrap();
        let name = |server: &str| ServerName { proxy: "port-5432".into(), server: server.into() };
        assert_eq!(states, [(name("db-0"), 0), (name("db-1"), 5)].into());
        assert!(servers_state("Unknown command").is_err());
    }

    #[test]
    fn statistics_become_metrics_of_each_proxy() {
        let reply = "# pxname,svname,scur,stot,econ,eresp,wretr,status,act,req_tot,\nport-80,FRONTEND,3,9,,,,OPEN,,50,\n\
                     port-80,web-0,1,5,0,0,0,UP,1,,\nport-80,web-1,0,4,0,0,0,DOWN,1,,\nport-80,web-2,0,0,0,0,0,MAINT,1,,\n\
                     port-80,BACKEND,2,9,1,2,3,UP,1,48,\n\n";
        let metrics = metrics(reply).unwrap();
        let expected = json!({"servers": 2, "servers_up": 1, "sessions": 3, "requests": 48, "connections": 9,
            "connection_errors": 1, "response_errors": 2, "retries": 3});
        assert_eq!(metrics["port-80"], expected);
        assert!(super::metrics("Unknown command").is_err());
    }
}
