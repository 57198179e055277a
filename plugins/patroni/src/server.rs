//! Addresses and files of one pod's Patroni and PostgreSQL.

use std::{
    collections::BTreeMap,
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ochopod_sdk::{Cluster, Pod, Result, Value, bail, json};

/// Path of the granted directory, as the plugin sees it.
pub(crate) const DIRECTORY: &str = "/data";
/// Name of the cluster of ZooKeeper servers.
pub(crate) const ZOOKEEPER: &str = "zookeeper";
/// Ports of the container.
pub(crate) const DATABASE_PORT: u16 = 5432;
pub(crate) const API_PORT: u16 = 8008;
const ZOOKEEPER_PORT: u16 = 2181;
/// Number of ZooKeeper servers that survives the loss of one.
const MIN_ZOOKEEPERS: usize = 3;
/// Seconds without its primary after which Patroni promotes another server.
const TTL: u64 = 30;
const MIN_TTL: u64 = 6;
const MAX_LAG_ON_FAILOVER_BYTES: u64 = 1 << 20;
/// 127.0.0.0/8 as a server that listens on all addresses of both families sees it.
const MAPPED_LOOPBACK: &str = "::ffff:127.0.0.0/104";

/// Addresses and settings of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Name of the member. Its files have the same name, so a pod that returns finds them again.
    pub(crate) name: String,
    /// `IP:PORT` under which other pods and clients reach PostgreSQL.
    pub(crate) database: String,
    /// `IP:PORT` under which other pods reach Patroni.
    pub(crate) api: String,
    /// `IP:PORT` under which the pod itself reaches its Patroni.
    pub(crate) own_api: String,
    listen_database: String,
    listen_api: String,
    /// Directory of the data, as PostgreSQL sees it.
    pub(crate) directory: String,
    ttl: u64,
}

impl Server {
    /// Returns what follows from the registration of a pod.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let (database, api) = (pod.address(DATABASE_PORT, false)?, api_of(pod)?);
        let is_mapped = !pod.ports.is_empty();
        let (own_api, listen_database, listen_api) = if is_loopback(&pod.ip) {
            // It shares the ports of its machine with other pods.
            (api.clone(), database.clone(), api.clone())
        } else {
            // All addresses of both families, or of IPv4 alone.
            let all = if is_ipv6(&pod.ip) { "*" } else { "0.0.0.0" };
            // Behind a mapping the pod's address is another machine's.
            let hosts = if is_mapped { all.to_owned() } else { format!("{},127.0.0.1", pod.ip) };
            let listen_api = format!("{all}:{API_PORT}");
            (format!("127.0.0.1:{API_PORT}"), format!("{hosts}:{DATABASE_PORT}"), listen_api)
        };
        let name = format!("postgres-{}", database.replace([':', '[', ']'], "-"));
        let directory = directory(pod)?.trim_end_matches('/').to_owned();
        Ok(Self { name, database, api, own_api, listen_database, listen_api, directory, ttl: ttl(pod)? })
    }

    /// Returns the same for this pod from its environment, which needs no view of the cluster.
    pub(crate) fn from_env() -> Result<Self> {
        Self::by(|name| env::var(name).ok())
    }

    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
        let mapped = |port: u16| Some((port, variable(&format!("PORT_{port}"))?.trim().parse().ok()?));
        let ports: BTreeMap<u16, u16> = [DATABASE_PORT, API_PORT].into_iter().filter_map(mapped).collect();
        let setting = |name: &str| Some((name.to_owned(), variable(&format!("ochopod_{name}"))?));
        let settings = ["patroni_dir", "patroni_ttl"].into_iter().filter_map(setting).collect();
        Self::of(&Pod { ip, ports, settings, ..Pod::default() })
    }

    /// Returns the path of PostgreSQL's data, as PostgreSQL sees it.
    pub(crate) fn data(&self) -> String {
        format!("{}/{}", self.directory, self.name)
    }

    /// Returns the path of Patroni's configuration, as Patroni sees it.
    pub(crate) fn configuration(&self) -> String {
        format!("{}/{}.yml", self.directory, self.name)
    }

    /// Returns the path of the program that runs Patroni.
    pub(crate) fn launcher(&self) -> String {
        format!("{}/{}.py", self.directory, self.name)
    }

    /// Returns Patroni's configuration. Passwords are variables of the sub-process: the file has none.
    pub(crate) fn render(&self, cluster: &Cluster) -> Result<String> {
        let Self { name, ttl, .. } = self;
        let third = (ttl / 3).max(1);
        let value = json!({
            "scope": format!("{}.{}", cluster.namespace(), cluster.name()),
            "name": name,
            "zookeeper": {"hosts": zookeepers(cluster)?},
            "restapi": {
                "listen": self.listen_api,
                "connect_address": self.api,
                // Anyone may read. Changes are accepted from this machine and from members.
                "allowlist": ["127.0.0.0/8", "::1/128", MAPPED_LOOPBACK],
                "allowlist_include_members": true,
            },
            "bootstrap": {
                "dcs": {
                    "ttl": ttl,
                    "loop_wait": third,
                    "retry_timeout": third,
                    "maximum_lag_on_failover": MAX_LAG_ON_FAILOVER_BYTES,
                    "postgresql": {"use_pg_rewind": true, "use_slots": true},
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "watchdog": {"mode": "off"},
            "postgresql": {
                "listen": self.listen_database,
                "connect_address": self.database,
                "data_dir": self.data(),
                "pgpass": format!("{}/{name}.pgpass", self.directory),
                "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"}},
                // Pods of one machine would share the directory of sockets.
                "parameters": {"unix_socket_directories": ""},
                "pg_hba": [
                    "host replication replicator all scram-sha-256",
                    "host all all all scram-sha-256",
                ],
            },
        });
        Ok(format!("{value:#}\n"))
    }
}

/// Returns `IP:PORT` under which other pods reach the Patroni of a pod.
pub(crate) fn api_of(pod: &Pod) -> Result<String> {
    pod.address(API_PORT, false)
}

/// Returns the addresses of the ZooKeeper servers.
///
/// # Errors
/// If they are fewer than three.
pub(crate) fn zookeepers(cluster: &Cluster) -> Result<Vec<String>> {
    let size = cluster.dependency_size(ZOOKEEPER)?;
    if size < MIN_ZOOKEEPERS {
        bail!("{size} of {MIN_ZOOKEEPERS} pods of the cluster {ZOOKEEPER}");
    }
    Ok(cluster.grep(ZOOKEEPER, ZOOKEEPER_PORT, false)?.split(',').map(str::to_owned).collect())
}

fn is_loopback(ip: &str) -> bool {
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_ipv6(ip: &str) -> bool {
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())
}

fn directory(pod: &Pod) -> Result<&str> {
    match pod.settings.get("patroni_dir").map(String::as_str) {
        Some(directory) if directory.starts_with('/') => Ok(directory),
        Some(other) => bail!("invalid ochopod_patroni_dir {other:?}: expected an absolute path"),
        None => bail!("ochopod_patroni_dir is not set: expected the directory for the data, as in /var/lib/patroni"),
    }
}

fn ttl(pod: &Pod) -> Result<u64> {
    match pod.settings.get("patroni_ttl") {
        None => Ok(TTL),
        Some(text) => match text.trim().parse() {
            Ok(ttl) if ttl >= MIN_TTL => Ok(ttl),
            _ => bail!("invalid ochopod_patroni_ttl {text:?}: expected seconds, at least {MIN_TTL}"),
        },
    }
}

/// Files of one pod, in the directory that was granted.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    guest: PathBuf,
    name: String,
}

impl Files {
    pub(crate) fn of(server: &Server, guest: &Path) -> Self {
        Self { guest: guest.to_owned(), name: server.name.clone() }
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.guest.is_dir()
    }

    /// Writes the files of Patroni. Returns whether its configuration has changed.
    pub(crate) fn write(&self, configuration: &str, launcher: &str) -> Result<bool> {
        self.replace("py", launcher)?;
        self.replace("yml", configuration)
    }

    /// Returns whether PostgreSQL runs, or did not stop cleanly.
    pub(crate) fn has_server(&self) -> bool {
        self.guest.join(&self.name).join("postmaster.pid").exists()
    }

    /// Replaces a file as a whole, if its text differs.
    fn replace(&self, kind: &str, text: &str) -> Result<bool> {
        let path = self.guest.join(format!("{}.{kind}", self.name));
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        let new = self.guest.join(format!("{}.{kind}.new", self.name));
        fs::write(&new, text)?;
        fs::rename(&new, path)?;
        Ok(true)
    }
}

/// Returns the number at a key of a JSON object, 0 if it has none.
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}
