//! Values queried from the system before anything runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use ochopod_environment::Env;
use ochopod_init as init;
use ochopod_interfaces::InterfaceTable;

use crate::{binding::is_container, container, lookup};

/// Addresses of documentation networks, which are routed like any unknown address.
const PROBE_ADDRESSES: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// Values of the system that this process runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemInfo {
    /// Host name.
    pub hostname: String,
    /// Source address of packets to the store, or else to any other host.
    pub address: IpAddr,
    /// Address that `$HOST` (set by some platforms) resolves to, if it is set and does.
    pub host: Option<IpAddr>,
    /// Addresses of all interfaces.
    pub interfaces: InterfaceTable,
    /// Whether this process runs in a container of Docker or Podman.
    pub container: bool,
    /// Whether this process is PID 1.
    pub init: bool,
    /// UID of this process.
    pub user: u32,
    /// GID of this process.
    pub group: u32,
    /// Memory limit of the container in bytes, if there is one.
    pub memory: Option<u64>,
}

impl SystemInfo {
    /// Queries the system. `servers` are host and port of the store's servers, `prefix` precedes the name of the variable
    /// `HOST`. Blocks while `$HOST` is resolved, and the names of the servers if there is no default route.
    #[must_use]
    pub fn detect(env: &Env, servers: &[(String, u16)], prefix: &str) -> Self {
        let own = init::own_user_and_group();
        Self {
            hostname: hostname(),
            address: source_address(servers),
            host: env.text(&format!("{prefix}HOST")).and_then(resolve),
            interfaces: InterfaceTable::read().unwrap_or_default(),
            container: is_container(),
            init: std::process::id() == 1,
            user: own.0,
            group: own.1,
            memory: container::memory_limit(),
        }
    }
}

/// Returns whether this machine is an EC2 instance, by its firmware and by variables of ECS.
#[must_use]
pub fn is_ec2(env: &Env) -> bool {
    lookup::is_ec2(env)
}

/// Returns the name of this machine or container.
#[must_use]
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Returns the source address of a packet to the store, or else to any other host: a UDP socket is connected, which sends
/// nothing. Names are resolved last, because a failing lookup takes long.
fn source_address(servers: &[(String, u16)]) -> IpAddr {
    let literal = servers.iter().filter_map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, *port)));
    let probes = PROBE_ADDRESSES.iter().filter_map(|address| address.parse().ok());
    let named = servers.iter().filter_map(|(host, port)| Some(SocketAddr::new(resolve(host)?, *port)));
    let found = literal.chain(probes).chain(named).find_map(source_towards);
    found.unwrap_or(Ipv4Addr::LOCALHOST.into())
}

fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

fn resolve(host: &str) -> Option<IpAddr> {
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    let addresses: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
    addresses.iter().find(|ip| ip.is_ipv4()).or(addresses.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_on_loopback_is_reached_from_loopback() {
        let loopback = ("127.0.0.1".to_owned(), 2181);
        for servers in [vec![loopback.clone()], vec![("store".to_owned(), 1), loopback]] {
            assert_eq!(source_address(&servers), IpAddr::from(Ipv4Addr::LOCALHOST), "{servers:?}");
        }
    }

    #[test]
    fn system_has_a_host_name_and_literal_hosts_need_no_lookup() {
        let env = Env::from_iter([("HOST", "10.1.2.3")]);
        let system = SystemInfo::detect(&env, &[], "");
        assert!(!system.hostname.is_empty());
        assert_eq!(system.host, "10.1.2.3".parse().ok());
        assert!(system.interfaces.contains(Ipv4Addr::LOCALHOST.into()));
        assert!(!system.init);
    }
}
