//! What is asked of the machine itself, before anything runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use super::{Env, Flags};
use crate::{coord::ZooKeeperAddress, init};

/// Addresses of documentation networks: nobody's, so they are routed the way everything unknown is.
const ANYWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// What the machine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// The address from which it reaches ZooKeeper, or the world.
    pub address: IpAddr,
    /// What `$HOST` (of the platform above) resolves to, when it is set and does.
    pub host: Option<IpAddr>,
    /// Whether this process is the container's init.
    pub init: bool,
    /// The user that this process runs as.
    pub user: u32,
    /// The group that this process runs as.
    pub group: u32,
}

impl Machine {
    /// Looks around. May take as long as resolving `$HOST` takes, and the names of ZooKeeper's servers where there is no
    /// default route; sends nothing otherwise.
    #[must_use]
    pub fn look(env: &Env, flags: &Flags) -> Self {
        let zk = flags.zk.as_deref().or_else(|| env.text("ochopod_zk")).unwrap_or_default();
        let own = init::own_user_and_group();
        Self {
            hostname: hostname(),
            address: source_address(zk),
            host: env.text("HOST").and_then(resolve),
            init: std::process::id() == 1,
            user: own.0,
            group: own.1,
        }
    }
}

/// What this machine, or container, is called.
#[must_use]
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The address that a packet to ZooKeeper would carry, or else one to the world: a UDP socket is connected, which sends
/// nothing. Names are resolved last, for that takes long where it does not succeed.
fn source_address(zk: &str) -> IpAddr {
    let servers = zk.parse::<ZooKeeperAddress>().map(|address| address.servers().to_vec()).unwrap_or_default();
    let literal = servers.iter().filter_map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, *port)));
    let anywhere = ANYWHERE.iter().filter_map(|address| address.parse().ok());
    let named = servers.iter().filter_map(|(host, port)| Some(SocketAddr::new(resolve(host)?, *port)));
    let found = literal.chain(anywhere).chain(named).find_map(source_towards);
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
    fn a_store_on_loopback_is_reached_from_loopback() {
        for zk in ["127.0.0.1:2181", "zk://user:password@127.0.0.1:2181/chroot", "store:1,127.0.0.1:2181"] {
            assert_eq!(source_address(zk), IpAddr::from(Ipv4Addr::LOCALHOST), "{zk}");
        }
    }

    #[test]
    fn the_machine_has_a_name_and_literal_hosts_need_no_resolver() {
        let env = Env::from_iter([("HOST", "10.1.2.3")]);
        let machine = Machine::look(&env, &Flags::default());
        assert!(!machine.hostname.is_empty());
        assert_eq!(machine.host, "10.1.2.3".parse().ok());
        assert!(!machine.init);
    }
}
