//! Which addresses a guest may use: the rules, and what they are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, UdpSocket},
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
    /// Addresses and names of all pods, with their mapped ports; any port where nothing is remapped.
    open: BTreeSet<(String, Option<u16>)>,
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
            let control = control_ports(pod);
            let mapped: Vec<_> = pod.ports().into_values().map(Some).collect();
            let open = if mapped.is_empty() { vec![None] } else { mapped };
            if pod.text("ip") == own {
                peers.local_control.extend(&control);
            }
            for host in [pod.text("ip"), pod.text("public")] {
                if host.is_empty() {
                    continue;
                }
                peers.open.extend(open.iter().map(|port| (host.to_owned(), *port)));
                peers.control.extend(control.iter().map(|port| Endpoint { host: host.to_owned(), port: *port }));
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

/// What is open and closed right now. Names count with the addresses that they have when somebody asks.
#[derive(Debug, Default)]
pub(super) struct Rules {
    open: BTreeMap<IpAddr, Vec<Option<u16>>>,
    open_names: Vec<(String, Option<u16>)>,
    closed: BTreeSet<(IpAddr, u16)>,
    closed_on_loopback: BTreeSet<u16>,
    closed_names: Vec<Endpoint>,
}

impl Rules {
    /// Makes rules of grants, closed endpoints and peers.
    pub(super) fn new(grants: &Grants, closed: &[Endpoint], peers: &Peers) -> Self {
        let mut rules = Self { closed_on_loopback: peers.local_control.clone(), ..Self::default() };
        for grant in &grants.network {
            match grant {
                NetworkGrant::Peers => peers.open.iter().for_each(|(host, port)| rules.open(host, *port)),
                NetworkGrant::Address { host, port } => rules.open(host, *port),
            }
        }
        for Endpoint { host, port } in closed {
            rules.close(host, *port, is_of_this_machine);
        }
        for Endpoint { host, port } in &peers.control {
            rules.close(host, *port, |ip| ip.is_loopback());
        }
        rules
    }

    fn open(&mut self, host: &str, port: Option<u16>) {
        match literal(host) {
            Some(ip) => self.open.entry(ip.to_canonical()).or_default().push(port),
            None => self.open_names.push((host.to_owned(), port)),
        }
    }

    fn close(&mut self, host: &str, port: u16, is_near: impl Fn(IpAddr) -> bool) {
        let Some(ip) = literal(host).map(|ip| ip.to_canonical()) else {
            self.closed_names.push(Endpoint { host: host.to_owned(), port });
            return;
        };
        self.closed.insert((ip, port));
        if is_near(ip) {
            self.closed_on_loopback.insert(port);
        }
    }

    /// The names whose addresses decide about this one: none that has nothing to do with its port.
    pub(super) fn names(&self, address: SocketAddr) -> impl Iterator<Item = &str> {
        let port = address.port();
        let decided = self.is_closed(address);
        let open = self.is_open(address);
        let closed = self.closed_names.iter().filter(move |endpoint| !decided && endpoint.port == port);
        let opening = self.open_names.iter().filter(move |(_, open_port)| !decided && !open && fits(*open_port, port));
        closed.map(|endpoint| endpoint.host.as_str()).chain(opening.map(|(host, _)| host.as_str()))
    }

    /// Whether a guest may use this address, to reach it or to be reached there. `known` has the addresses of
    /// [`Self::names`]. A closed name without an address closes its port everywhere: nobody can tell where it is.
    pub(super) fn verdict(&self, address: SocketAddr, known: &BTreeMap<&str, Vec<IpAddr>>) -> Verdict {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let is_named = |host: &str| {
            known.get(host).is_some_and(|addresses| addresses.iter().any(|known| known.to_canonical() == ip))
        };
        let closed =
            self.closed_names.iter().filter(|endpoint| endpoint.port == port).any(|Endpoint { host, .. }| {
                let near =
                    |addresses: &Vec<IpAddr>| ip.is_loopback() && addresses.iter().any(|&ip| is_of_this_machine(ip));
                is_named(host) || known.get(host.as_str()).is_none_or(near)
            });
        if closed || self.is_closed(address) {
            return Verdict::Closed;
        }
        let named = self.open_names.iter().any(|(host, open)| fits(*open, port) && is_named(host));
        if named || self.is_open(address) { Verdict::Allowed } else { Verdict::Ungranted }
    }

    fn is_closed(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        self.closed.contains(&(ip, port)) || ip.is_loopback() && self.closed_on_loopback.contains(&port)
    }

    fn is_open(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let granted = |ports: &Vec<Option<u16>>| ports.iter().any(|open| fits(*open, address.port()));
        ip.is_loopback() || self.open.get(&ip).is_some_and(granted)
    }
}

fn fits(open: Option<u16>, port: u16) -> bool {
    open.is_none_or(|open| open == port)
}

/// Whether packets to this address stay on this machine: only then a socket can have it.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Every name (not address) that the operator's settings depend on.
pub(super) fn names(grants: &Grants, closed: &[Endpoint]) -> BTreeSet<String> {
    let granted = grants.network.iter().filter_map(|grant| match grant {
        NetworkGrant::Peers => None,
        NetworkGrant::Address { host, .. } => Some(host),
    });
    let hosts = granted.chain(closed.iter().map(|endpoint| &endpoint.host));
    hosts.filter(|host| literal(host).is_none()).cloned().collect()
}

/// The address that a host is, unless it is a name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = r#"{"key":"a","pods":{
        "a":{"seq":1,"ip":"10.0.0.1","public":"54.0.0.1","port":"8080",
             "ports":{"8080":31000,"6379":31001}},
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
        Rules::new(&grants, &closed, &Peers::of(&PostedView::parse(VIEW.as_bytes()).unwrap()))
    }

    /// What names mean here; those that the rules do not ask for stay unknown.
    fn known<'a>(rules: &'a Rules, address: SocketAddr) -> BTreeMap<&'a str, Vec<IpAddr>> {
        let names = [("node-c", "10.0.0.3"), ("zk", "10.9.9.9"), ("db.example.com", "93.184.216.34")];
        let known = |name: &'a str| Some((name, vec![names.iter().find(|(n, _)| *n == name)?.1.parse().unwrap()]));
        rules.names(address).filter_map(known).collect()
    }

    fn check(rules: &Rules, table: &[(&str, Verdict)]) {
        for (address, expected) in table {
            let address = address.parse().unwrap();
            assert_eq!(rules.verdict(address, &known(rules, address)), *expected, "{address}");
        }
    }

    #[test]
    fn only_names_that_matter_are_asked_for() {
        let asked = |rules: &Rules, address: &str| -> Vec<String> {
            rules.names(address.parse().unwrap()).map(str::to_owned).collect()
        };
        assert!(asked(&rules(&[], false), "10.0.0.3:6379").is_empty());
        assert_eq!(asked(&rules(&[], false), "10.0.0.3:8080"), ["node-c"]);
        assert_eq!(asked(&rules(&[], true), "10.0.0.3:6379"), ["node-c"]);
        assert!(asked(&rules(&[], true), "10.0.0.2:6379").is_empty(), "that is a peer's address anyway");
        assert_eq!(asked(&rules(&[("db.example.com", Some(2181))], false), "10.0.0.3:2181"), ["zk", "db.example.com"]);
    }

    #[test]
    fn a_store_whose_name_is_unknown_closes_its_port_everywhere() {
        let rules = rules(&[("10.0.0.9", None)], false);
        let verdict = |address: &str| rules.verdict(address.parse().unwrap(), &BTreeMap::new());
        assert_eq!(verdict("10.0.0.9:2181"), Verdict::Closed);
        assert_eq!(verdict("127.0.0.1:2181"), Verdict::Closed);
        assert_eq!(verdict("10.0.0.9:2182"), Verdict::Allowed);
    }

    #[test]
    fn a_store_on_this_machine_is_closed_on_loopback_too() {
        let verdict = |host: &str, known: &[(&str, &str)]| {
            let closed = [Endpoint { host: host.to_owned(), port: 2181 }];
            let rules = Rules::new(&Grants::default(), &closed, &Peers::default());
            let known = known.iter().map(|(name, ip)| (*name, vec![ip.parse().unwrap()])).collect();
            rules.verdict("127.0.0.1:2181".parse().unwrap(), &known)
        };
        assert_eq!(verdict("0.0.0.0", &[]), Verdict::Closed);
        assert_eq!(verdict("zk", &[("zk", "127.0.1.1")]), Verdict::Closed);
        assert_eq!(verdict("192.0.2.1", &[]), Verdict::Allowed);
        assert_eq!(verdict("zk", &[("zk", "192.0.2.1")]), Verdict::Allowed);
    }

    #[test]
    fn of_a_pod_with_remapped_ports_only_those_are_open() {
        let view = br#"{"key":"a","pods":{"a":{"seq":1,"ip":"10.0.0.1","port":"8080",
            "ports":{"8080":31000,"6379":31001}}},"dependencies":{}}"#;
        let grants = Grants { network: vec![NetworkGrant::Peers], ..Grants::default() };
        let rules = Rules::new(&grants, &[], &Peers::of(&PostedView::parse(view).unwrap()));
        let verdict = |address: &str| rules.verdict(address.parse().unwrap(), &BTreeMap::new());
        assert_eq!(verdict("10.0.0.1:31001"), Verdict::Allowed);
        assert_eq!(verdict("10.0.0.1:31000"), Verdict::Closed);
        assert_eq!(verdict("10.0.0.1:22"), Verdict::Ungranted);
        assert_eq!(verdict("10.0.0.1:6379"), Verdict::Ungranted);
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
                ("54.0.0.1:31001", Allowed),
                ("54.0.0.1:6379", Ungranted),
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
