//! Rules for the addresses that a guest may use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, UdpSocket},
};

use nix::errno::Errno;
use ochopod_loopback::{is_localhost, is_loopback};
use ochopod_model::{PostedView, Registration};

use super::loopback_ports::{self, LoopbackPorts};
use crate::{Grants, NetworkGrant};

/// Addresses of `localhost`, independent of any resolver.
pub(super) const LOCALHOST: [&str; 2] = ["127.0.0.1", "::1"];

/// A host, by address or name, and a port on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// An IP address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Endpoints of the pods of the latest view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PeerEndpoints {
    /// Addresses and names of all pods, with their mapped ports; any port where nothing is remapped.
    open: BTreeSet<(String, Option<u16>)>,
    /// Their control servers.
    control: BTreeSet<Endpoint>,
    /// Control ports of the pods on this machine: blocked on loopback too.
    local_control: BTreeSet<u16>,
}

impl PeerEndpoints {
    /// Collects the endpoints of all pods of a view, its dependencies included.
    pub(super) fn of(posted: &PostedView) -> Self {
        let mut peers = Self::default();
        let own = posted.own().map(|pod| pod.text("ip")).unwrap_or_default();
        let pods = posted.view.pods.values().chain(posted.view.dependencies.values().flat_map(BTreeMap::values));
        for pod in pods {
            let ports = pod.ports();
            let control = control_ports(pod, &ports);
            let mapped: Vec<_> = ports.into_values().map(Some).collect();
            let is_mapped = !mapped.is_empty();
            let open = if is_mapped { mapped } else { vec![None] };
            if pod.text("ip") == own {
                peers.local_control.extend(&control);
            }
            for host in [pod.text("ip"), pod.text("public")] {
                if host.is_empty() {
                    continue;
                }
                peers.control.extend(control.iter().map(|port| Endpoint { host: host.to_owned(), port: *port }));
                if !is_peers_own(host, own, is_mapped) {
                    continue;
                }
                peers.open.extend(open.iter().map(|port| (host.to_owned(), *port)));
            }
        }
        peers
    }
}

/// Returns whether the pod that registered this address is the one that listens there. A loopback address belongs to
/// this machine. It is a peer's only if pods live on loopback, and a shared one only if ports are mapped.
fn is_peers_own(host: &str, own: &str, is_mapped: bool) -> bool {
    let own_is_loopback = literal(own).is_some_and(is_loopback);
    match literal(host) {
        Some(ip) if loopback_ports::is_shared(ip) => own_is_loopback && is_mapped,
        Some(ip) if is_loopback(ip) => own_is_loopback && !ip.is_unspecified(),
        Some(_) => true,
        None => !is_localhost(host),
    }
}

/// Returns the control port in the container, and the one that others reach.
fn control_ports(pod: &Registration, ports: &BTreeMap<u16, u16>) -> BTreeSet<u16> {
    let Ok(port) = pod.control_port() else { return BTreeSet::new() };
    let mapped = ports.get(&port).copied();
    [Some(port), mapped].into_iter().flatten().collect()
}

/// Decision of the rules on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessDecision {
    /// The address is granted, or declared by the plugin.
    Allowed,
    /// The address is a control port or the store, and never granted.
    Blocked,
    /// The address is not granted.
    NotGranted,
}

/// Allowed and blocked addresses. Names count with the addresses they have at the time of a decision.
#[derive(Debug, Default)]
pub(super) struct NetworkRules {
    open: BTreeMap<IpAddr, Vec<Option<u16>>>,
    own: LoopbackPorts,
    open_on_loopback: BTreeSet<Option<u16>>,
    open_names: Vec<(String, Option<u16>)>,
    blocked: BTreeSet<(IpAddr, u16)>,
    blocked_on_loopback: BTreeSet<u16>,
    blocked_names: Vec<Endpoint>,
}

impl NetworkRules {
    /// Creates rules from grants, blocked endpoints, peers and the declared loopback ports.
    pub(super) fn new(grants: &Grants, blocked: &[Endpoint], peers: &PeerEndpoints, loopback: &LoopbackPorts) -> Self {
        let mut rules = Self {
            own: loopback.clone(),
            open_on_loopback: loopback.open(grants),
            blocked_on_loopback: peers.local_control.clone(),
            ..Self::default()
        };
        for grant in &grants.network {
            match grant {
                NetworkGrant::Peers => peers.open.iter().for_each(|(host, port)| rules.allow(host, *port)),
                NetworkGrant::Loopback { .. } => {}
                NetworkGrant::Address { host, port } if is_localhost(host) => {
                    for ip in LOCALHOST {
                        rules.allow(ip, *port);
                    }
                }
                NetworkGrant::Address { host, port } => rules.allow(host, *port),
            }
        }
        for Endpoint { host, port } in blocked {
            rules.block(host, *port, is_of_this_machine);
        }
        for Endpoint { host, port } in &peers.control {
            rules.block(host, *port, |ip| ip.is_loopback());
        }
        rules
    }

    fn allow(&mut self, host: &str, port: Option<u16>) {
        match literal(host) {
            Some(ip) => self.open.entry(ip.to_canonical()).or_default().push(port),
            None => self.open_names.push((host.to_owned(), port)),
        }
    }

    fn block(&mut self, host: &str, port: u16, is_near: impl Fn(IpAddr) -> bool) {
        if is_localhost(host) {
            self.blocked_on_loopback.insert(port);
            return;
        }
        let Some(ip) = literal(host).map(|ip| ip.to_canonical()) else {
            self.blocked_names.push(Endpoint { host: host.to_owned(), port });
            return;
        };
        self.blocked.insert((ip, port));
        if is_near(ip) {
            self.blocked_on_loopback.insert(port);
        }
    }

    /// Returns the names whose addresses decide on this one, limited to those that concern its port.
    pub(super) fn names(&self, address: SocketAddr) -> impl Iterator<Item = &str> {
        let port = address.port();
        let decided = self.is_blocked(address);
        let open = self.is_open(address);
        let blocked = self.blocked_names.iter().filter(move |endpoint| !decided && endpoint.port == port);
        let named = !decided && !open && !is_loopback(address.ip());
        let opening = self.open_names.iter().filter(move |(_, open_port)| named && port_matches(*open_port, port));
        blocked.map(|endpoint| endpoint.host.as_str()).chain(opening.map(|(host, _)| host.as_str()))
    }

    /// Decides whether a guest may connect to this address, or listen there. `known` has the addresses of
    /// [`Self::names`]. A blocked name without an address blocks its port everywhere, because its location is unknown.
    pub(super) fn decide(&self, address: SocketAddr, known: &BTreeMap<&str, Vec<IpAddr>>) -> AccessDecision {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let is_named = |host: &str| {
            known.get(host).is_some_and(|addresses| addresses.iter().any(|known| known.to_canonical() == ip))
        };
        let blocked =
            self.blocked_names.iter().filter(|endpoint| endpoint.port == port).any(|Endpoint { host, .. }| {
                let near =
                    |addresses: &Vec<IpAddr>| is_loopback(ip) && addresses.iter().any(|&ip| is_of_this_machine(ip));
                is_named(host) || known.get(host.as_str()).is_none_or(near)
            });
        if blocked || self.is_blocked(address) {
            return AccessDecision::Blocked;
        }
        // A name server must not open loopback through a granted name.
        let named =
            !is_loopback(ip) && self.open_names.iter().any(|(host, open)| port_matches(*open, port) && is_named(host));
        if named || self.is_open(address) { AccessDecision::Allowed } else { AccessDecision::NotGranted }
    }

    fn is_blocked(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        self.blocked.contains(&(ip, port)) || is_loopback(ip) && self.blocked_on_loopback.contains(&port)
    }

    fn is_open(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let granted = |ports: &Vec<Option<u16>>| ports.iter().any(|open| port_matches(*open, address.port()));
        self.opens_loopback(ip, address.port()) || self.open.get(&ip).is_some_and(granted)
    }

    fn opens_loopback(&self, ip: IpAddr, port: u16) -> bool {
        self.own.is_own(ip) && self.open_on_loopback.iter().any(|open| port_matches(*open, port))
    }

    /// Returns whether this name may be looked up, to reach a port or any: only names that are granted.
    pub(super) fn may_look_up(&self, name: &str, port: Option<u16>) -> bool {
        let port_matches = |open: Option<u16>| port.is_none_or(|port| port_matches(open, port));
        if is_localhost(name) {
            let literal = LOCALHOST.iter().filter_map(|ip| self.open.get(&literal(ip)?)).flatten();
            return self.open_on_loopback.iter().chain(literal).any(|open| port_matches(*open));
        }
        self.open_names.iter().any(|(host, open)| is_same_name(host, name) && port_matches(*open))
    }

    /// Returns the flag that would grant this address.
    pub(super) fn flag(&self, address: SocketAddr) -> String {
        if self.own.is_own(address.ip().to_canonical()) {
            format!("--net loopback:{}", address.port())
        } else {
            format!("--net {address}")
        }
    }
}

/// Returns whether two texts are the same name, ignoring case and a final dot.
pub(super) fn is_same_name(one: &str, other: &str) -> bool {
    let name = |text: &str| text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    name(one) == name(other)
}

fn port_matches(open: Option<u16>, port: u16) -> bool {
    open.is_none_or(|open| open == port)
}

/// Returns whether packets to this address may stay on this machine: only then a socket can be bound to it. If that cannot be
/// determined, they may. This includes all link-local IPv6 addresses, which are bound with an interface only.
pub(super) fn is_of_this_machine(ip: IpAddr) -> bool {
    if is_loopback(ip) || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return true;
    }
    let bound = UdpSocket::bind((ip, 0)).map(drop).map_err(|error| error.raw_os_error().map(Errno::from_raw));
    !matches!(bound, Err(Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT)))
}

/// Returns every name (not address) that the operator's settings depend on.
pub(super) fn names(grants: &Grants, blocked: &[Endpoint]) -> BTreeSet<String> {
    let granted = grants.network.iter().filter_map(|grant| match grant {
        NetworkGrant::Peers | NetworkGrant::Loopback { .. } => None,
        NetworkGrant::Address { host, .. } => Some(host),
    });
    let hosts = granted.chain(blocked.iter().map(|endpoint| &endpoint.host));
    hosts.filter(|host| literal(host).is_none() && !is_localhost(host)).cloned().collect()
}

/// Parses a host as an address; none if it is a name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests;
