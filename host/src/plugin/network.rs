//! Which addresses a guest may use: the rules, and what they are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    cluster::{PostedView, Registration},
    settings::{Grants, NetworkGrant},
};

/// A host, by address or name, and a port on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// An IP address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The pods of the latest view, as far as the network is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Peers {
    /// Addresses and names of all pods.
    hosts: BTreeSet<String>,
    /// Where their control servers are.
    control: BTreeSet<Endpoint>,
    /// Control ports of the pods on this machine: closed on loopback too.
    local_control: BTreeSet<u16>,
}

impl Peers {
    /// All pods of a view, its dependencies' included.
    pub(super) fn of(posted: &PostedView) -> Self {
        let mut peers = Self::default();
        let own = posted.own().map(|pod| pod.text("ip")).unwrap_or_default();
        let pods = posted.view.pods.values().chain(posted.view.dependencies.values().flat_map(BTreeMap::values));
        for pod in pods {
            let ports = control_ports(pod);
            if pod.text("ip") == own {
                peers.local_control.extend(&ports);
            }
            for host in [pod.text("ip"), pod.text("public")] {
                if host.is_empty() {
                    continue;
                }
                peers.hosts.insert(host.to_owned());
                peers.control.extend(ports.iter().map(|port| Endpoint { host: host.to_owned(), port: *port }));
            }
        }
        peers
    }
}

/// The control port as the container knows it, and as others reach it.
fn control_ports(pod: &Registration) -> BTreeSet<u16> {
    let Ok(port) = pod.control_port() else { return BTreeSet::new() };
    let mapped = pod.ports().get(&port).copied();
    [Some(port), mapped].into_iter().flatten().collect()
}

/// What the rules say about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Granted, or loopback.
    Allowed,
    /// A control port or the store: never granted.
    Closed,
    /// Not granted.
    Ungranted,
}

/// The addresses that are open and closed right now.
#[derive(Debug, Default)]
pub(super) struct Rules {
    open: BTreeMap<IpAddr, Vec<Option<u16>>>,
    closed: BTreeSet<(IpAddr, u16)>,
    closed_on_loopback: BTreeSet<u16>,
}

impl Rules {
    /// Makes rules of grants, closed endpoints and peers, with the addresses that `resolve` has for each name.
    pub(super) fn new(
        grants: &Grants,
        closed: &[Endpoint],
        peers: &Peers,
        resolve: impl Fn(&str) -> Vec<IpAddr>,
    ) -> Self {
        let mut rules = Self { closed_on_loopback: peers.local_control.clone(), ..Self::default() };
        let mut open = |host: &str, port: Option<u16>| {
            for ip in resolve(host) {
                rules.open.entry(ip.to_canonical()).or_default().push(port);
            }
        };
        for grant in &grants.network {
            match grant {
                NetworkGrant::Peers => peers.hosts.iter().for_each(|host| open(host, None)),
                NetworkGrant::Address { host, port } => open(host, *port),
            }
        }
        for Endpoint { host, port } in closed.iter().chain(&peers.control) {
            for ip in resolve(host) {
                rules.closed.insert((ip.to_canonical(), *port));
                if ip.to_canonical().is_loopback() {
                    rules.closed_on_loopback.insert(*port);
                }
            }
        }
        rules
    }

    /// Whether a guest may use this address, to reach it or to be reached there.
    pub(super) fn verdict(&self, address: SocketAddr) -> Verdict {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if self.closed.contains(&(ip, port)) || ip.is_loopback() && self.closed_on_loopback.contains(&port) {
            return Verdict::Closed;
        }
        let open =
            self.open.get(&ip).is_some_and(|ports| ports.iter().any(|open| open.is_none_or(|open| open == port)));
        if open || ip.is_loopback() { Verdict::Allowed } else { Verdict::Ungranted }
    }
}

/// Every name (not address) that the rules depend on.
pub(super) fn names<'a>(grants: &'a Grants, closed: &'a [Endpoint], peers: &'a Peers) -> impl Iterator<Item = &'a str> {
    let granted = grants.network.iter().filter_map(|grant| match grant {
        NetworkGrant::Peers => None,
        NetworkGrant::Address { host, .. } => Some(host.as_str()),
    });
    let closed = closed.iter().map(|endpoint| endpoint.host.as_str());
    granted.chain(closed).chain(peers.hosts.iter().map(String::as_str)).filter(|host| literal(host).is_none())
}

/// The address that a host is, unless it is a name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = r#"{"key":"a","pods":{
        "a":{"seq":1,"ip":"10.0.0.1","public":"54.0.0.1","port":"8080","ports":{"8080":31000}},
        "b":{"seq":2,"ip":"10.0.0.2","port":"9000"},
        "c":{"seq":3,"ip":"node-c","port":"8080"},
        "d":{"seq":4,"ip":"10.0.0.1","port":"8081"}},
        "dependencies":{"db":{"x":{"seq":1,"ip":"10.0.1.1","port":"8080"}}}}"#;

    fn rules(grants: &[(&str, Option<u16>)], peers: bool) -> Rules {
        let mut network: Vec<_> =
            grants.iter().map(|(host, port)| NetworkGrant::Address { host: (*host).to_owned(), port: *port }).collect();
        if peers {
            network.push(NetworkGrant::Peers);
        }
        let grants = Grants { network, ..Grants::default() };
        let closed = [Endpoint { host: "zk".to_owned(), port: 2181 }];
        let names = [("node-c", "10.0.0.3"), ("zk", "10.9.9.9"), ("db.example.com", "93.184.216.34")];
        let resolve = |host: &str| {
            let name = names.iter().find(|(name, _)| *name == host).map(|(_, ip)| ip.parse().unwrap());
            literal(host).or(name).into_iter().collect()
        };
        Rules::new(&grants, &closed, &Peers::of(&PostedView::parse(VIEW.as_bytes()).unwrap()), resolve)
    }

    fn check(rules: &Rules, table: &[(&str, Verdict)]) {
        for (address, expected) in table {
            assert_eq!(rules.verdict(address.parse().unwrap()), *expected, "{address}");
        }
    }

    #[test]
    fn without_grants_only_loopback_is_open_and_control_ports_are_closed_there_too() {
        use Verdict::{Allowed, Closed, Ungranted};
        check(
            &rules(&[], false),
            &[
                ("127.0.0.1:6379", Allowed),
                ("127.9.9.9:6379", Allowed),
                ("[::1]:6379", Allowed),
                ("[::ffff:127.0.0.1]:6379", Allowed),
                ("127.0.0.1:8080", Closed),
                ("[::1]:31000", Closed),
                ("127.0.0.1:8081", Closed),
                ("127.0.0.1:9000", Allowed),
                ("10.0.0.2:6379", Ungranted),
                ("10.0.0.2:9000", Closed),
                ("0.0.0.0:6379", Ungranted),
                ("[::]:6379", Ungranted),
                ("1.1.1.1:53", Ungranted),
            ],
        );
    }

    #[test]
    fn peers_are_the_pods_of_the_view_and_its_dependencies_but_never_their_control_ports() {
        use Verdict::{Allowed, Closed, Ungranted};
        check(
            &rules(&[], true),
            &[
                ("10.0.0.2:6379", Allowed),
                ("54.0.0.1:6379", Allowed),
                ("10.0.0.3:6379", Allowed),
                ("10.0.1.1:5432", Allowed),
                ("54.0.0.1:31000", Closed),
                ("10.0.0.1:8080", Closed),
                ("10.0.0.3:8080", Closed),
                ("10.0.1.1:8080", Closed),
                ("10.0.0.4:6379", Ungranted),
            ],
        );
    }

    #[test]
    fn an_address_is_granted_with_one_port_or_all_and_the_store_never_is() {
        use Verdict::{Allowed, Closed, Ungranted};
        let grants = [("93.184.216.35", None), ("db.example.com", Some(5432)), ("10.9.9.9", None), ("10.0.0.2", None)];
        check(
            &rules(&grants, false),
            &[
                ("93.184.216.35:1", Allowed),
                ("[::ffff:93.184.216.35]:1", Allowed),
                ("93.184.216.34:5432", Allowed),
                ("93.184.216.34:5433", Ungranted),
                ("10.9.9.9:2182", Allowed),
                ("10.9.9.9:2181", Closed),
                ("10.0.0.2:9000", Closed),
            ],
        );
    }
}
