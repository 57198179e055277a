//! The rules, on views and addresses.

use super::*;

const VIEW: &str = r#"{"key":"a","pods":{
    "a":{"seq":1,"ip":"10.0.0.1","public":"54.0.0.1","port":"8080",
         "ports":{"8080":31000,"6379":31001}},
    "b":{"seq":2,"ip":"10.0.0.2","port":"9000"},
    "c":{"seq":3,"ip":"node-c","port":"8080"},
    "d":{"seq":4,"ip":"10.0.0.1","port":"8081"}},
    "dependencies":{"db":{"x":{"seq":1,"ip":"10.0.1.1","port":"8080"}}}}"#;

fn rules(grants: &[(&str, Option<u16>)], peers: bool) -> NetworkRules {
    declaring(&[], grants, peers)
}

fn declaring(ports: &[Option<u16>], grants: &[(&str, Option<u16>)], peers: bool) -> NetworkRules {
    let mut network: Vec<_> =
        grants.iter().map(|(host, port)| NetworkGrant::Address { host: (*host).to_owned(), port: *port }).collect();
    if peers {
        network.push(NetworkGrant::Peers);
    }
    let grants = Grants { network, ..Grants::default() };
    let blocked = [Endpoint { host: "zk".to_owned(), port: 2181 }];
    let loopback = LoopbackPorts { declared: ports.to_vec(), ..LoopbackPorts::default() };
    NetworkRules::new(&grants, &blocked, &peers_of(VIEW), &loopback)
}

fn peers_of(view: &str) -> PeerEndpoints {
    PeerEndpoints::of(&PostedView::parse(view.as_bytes()).unwrap())
}

/// Addresses of names; names that the rules do not request stay unknown.
fn known<'a>(rules: &'a NetworkRules, address: SocketAddr) -> BTreeMap<&'a str, Vec<IpAddr>> {
    let names = [("node-c", "10.0.0.3"), ("zk", "10.9.9.9"), ("db.example.com", "93.184.216.34")];
    let known = |name: &'a str| Some((name, vec![names.iter().find(|(n, _)| *n == name)?.1.parse().unwrap()]));
    rules.names(address).filter_map(known).collect()
}

fn check(rules: &NetworkRules, table: &[(&str, AccessDecision)]) {
    for (address, expected) in table {
        let address = address.parse().unwrap();
        assert_eq!(rules.decide(address, &known(rules, address)), *expected, "{address}");
    }
}

#[test]
fn only_relevant_names_are_resolved() {
    let resolved = |rules: &NetworkRules, address: &str| -> Vec<String> {
        rules.names(address.parse().unwrap()).map(str::to_owned).collect()
    };
    assert!(resolved(&rules(&[], false), "10.0.0.3:6379").is_empty());
    assert_eq!(resolved(&rules(&[], false), "10.0.0.3:8080"), ["node-c"]);
    assert_eq!(resolved(&rules(&[], true), "10.0.0.3:6379"), ["node-c"]);
    assert!(resolved(&rules(&[], true), "10.0.0.2:6379").is_empty(), "that is a peer's address anyway");
    assert_eq!(resolved(&rules(&[("db.example.com", Some(2181))], false), "10.0.0.3:2181"), ["zk", "db.example.com"]);
}

#[test]
fn a_store_whose_name_is_unknown_closes_its_port_everywhere() {
    let rules = rules(&[("10.0.0.9", None)], false);
    let decide = |address: &str| rules.decide(address.parse().unwrap(), &BTreeMap::new());
    assert_eq!(decide("10.0.0.9:2181"), AccessDecision::Blocked);
    assert_eq!(decide("127.0.0.1:2181"), AccessDecision::Blocked);
    assert_eq!(decide("10.0.0.9:2182"), AccessDecision::Allowed);
}

#[test]
fn a_store_on_this_machine_is_closed_on_loopback_too() {
    let decide = |host: &str, known: &[(&str, &str)]| {
        let blocked = [Endpoint { host: host.to_owned(), port: 2181 }];
        let loopback = LoopbackPorts { declared: vec![None], ..LoopbackPorts::default() };
        let rules = NetworkRules::new(&Grants::default(), &blocked, &PeerEndpoints::default(), &loopback);
        let known = known.iter().map(|(name, ip)| (*name, vec![ip.parse().unwrap()])).collect();
        rules.decide("127.0.0.1:2181".parse().unwrap(), &known)
    };
    assert_eq!(decide("0.0.0.0", &[]), AccessDecision::Blocked);
    assert_eq!(decide("localhost", &[]), AccessDecision::Blocked);
    assert_eq!(decide("zk", &[("zk", "127.0.1.1")]), AccessDecision::Blocked);
    assert_eq!(decide("192.0.2.1", &[]), AccessDecision::Allowed);
    assert_eq!(decide("zk", &[("zk", "192.0.2.1")]), AccessDecision::Allowed);
}

#[test]
fn of_a_pod_with_remapped_ports_only_those_are_open() {
    let view = r#"{"key":"a","pods":{"a":{"seq":1,"ip":"10.0.0.1","port":"8080",
        "ports":{"8080":31000,"6379":31001}}},"dependencies":{}}"#;
    let grants = Grants { network: vec![NetworkGrant::Peers], ..Grants::default() };
    let rules = NetworkRules::new(&grants, &[], &peers_of(view), &LoopbackPorts::default());
    let decide = |address: &str| rules.decide(address.parse().unwrap(), &BTreeMap::new());
    assert_eq!(decide("10.0.0.1:31001"), AccessDecision::Allowed);
    assert_eq!(decide("10.0.0.1:31000"), AccessDecision::Blocked);
    assert_eq!(decide("10.0.0.1:22"), AccessDecision::NotGranted);
    assert_eq!(decide("10.0.0.1:6379"), AccessDecision::NotGranted);
}

#[test]
fn without_declaration_and_grants_nothing_is_open_not_even_loopback() {
    use AccessDecision::{Blocked, NotGranted};
    check(
        &rules(&[], false),
        &[
            ("127.0.0.1:6379", NotGranted),
            ("127.9.9.9:6379", NotGranted),
            ("[::1]:6379", NotGranted),
            ("[::ffff:127.0.0.1]:6379", NotGranted),
            ("127.0.0.1:8080", Blocked),
            ("[::1]:31000", Blocked),
            ("127.0.0.1:8081", Blocked),
            ("10.0.0.2:6379", NotGranted),
            ("10.0.0.2:9000", Blocked),
            ("0.0.0.0:6379", NotGranted),
            ("[::]:6379", NotGranted),
            ("1.1.1.1:53", NotGranted),
        ],
    );
}

#[test]
fn declared_loopback_ports_are_open_and_control_ports_are_closed_there_anyway() {
    use AccessDecision::{Allowed, Blocked, NotGranted};
    let one = [
        ("127.0.0.1:6379", Allowed),
        ("127.9.9.9:6379", Allowed),
        ("[::1]:6379", Allowed),
        ("[::ffff:127.0.0.1]:6379", Allowed),
        ("127.0.0.1:6380", NotGranted),
        ("0.0.0.0:6379", NotGranted),
        ("10.0.0.1:6379", NotGranted),
    ];
    check(&declaring(&[Some(6379)], &[], false), &one);
    let all = [
        ("127.0.0.1:6379", Allowed),
        ("127.0.0.1:8080", Blocked),
        ("[::1]:31000", Blocked),
        ("127.0.0.1:8081", Blocked),
        ("[::]:6379", NotGranted),
    ];
    check(&declaring(&[None], &[], false), &all);
    check(&rules(&[("localhost", Some(443))], false), &[("127.0.0.1:443", Allowed), ("[::1]:443", Allowed)]);
    check(&rules(&[("127.0.0.1", Some(443))], false), &[("127.0.0.1:443", Allowed), ("[::1]:443", NotGranted)]);
}

#[test]
fn granted_address_that_is_loopback_by_another_spelling_reaches_no_closed_port() {
    let rules = rules(&[("0.0.0.0", None), ("::", None)], false);
    check(&rules, &[("0.0.0.0:8080", AccessDecision::Blocked), ("[::]:8080", AccessDecision::Blocked)]);
}

#[test]
fn granted_name_opens_no_loopback_address_that_it_resolves_to() {
    let rules = rules(&[("evil.example.com", Some(6379))], false);
    let known =
        BTreeMap::from([("evil.example.com", ["127.0.0.1", "10.0.0.7"].map(|ip| ip.parse().unwrap()).to_vec())]);
    let decide = |address: &str| rules.decide(address.parse().unwrap(), &known);
    assert_eq!(decide("127.0.0.1:6379"), AccessDecision::NotGranted);
    assert_eq!(decide("10.0.0.7:6379"), AccessDecision::Allowed);
}

#[test]
fn peers_on_loopback_are_peers_only_where_pods_live_there() {
    let grants = Grants { network: vec![NetworkGrant::Peers], ..Grants::default() };
    let decide = |view: &str, address: &str| {
        let rules = NetworkRules::new(&grants, &[], &peers_of(view), &LoopbackPorts::default());
        rules.decide(address.parse().unwrap(), &BTreeMap::new())
    };
    let view = |own: &str, other: &str| {
        format!(r#"{{"key":"a","pods":{{"a":{{"seq":1,"ip":"{own}"}},"b":{{"seq":2,{other}}}}},"dependencies":{{}}}}"#)
    };
    let dedicated = r#""ip":"127.0.0.3""#;
    assert_eq!(decide(&view("127.0.0.2", dedicated), "127.0.0.3:6379"), AccessDecision::Allowed);
    assert_eq!(decide(&view("10.0.0.1", dedicated), "127.0.0.3:6379"), AccessDecision::NotGranted);
    let shared = r#""ip":"127.0.0.1""#;
    assert_eq!(decide(&view("127.0.0.1", shared), "127.0.0.1:8500"), AccessDecision::NotGranted);
    let mapped = r#""ip":"127.0.0.1","ports":{"6379":7001}"#;
    assert_eq!(decide(&view("127.0.0.1", mapped), "127.0.0.1:7001"), AccessDecision::Allowed);
    assert_eq!(decide(&view("10.0.0.1", mapped), "127.0.0.1:7001"), AccessDecision::NotGranted);
}

#[test]
fn only_granted_names_may_be_looked_up() {
    let granted = rules(&[("db.example.com", Some(5432)), ("10.0.0.9", None)], true);
    for (name, port, expected) in [
        ("db.example.com", None, true),
        ("DB.example.com.", None, true),
        ("db.example.com", Some(5432), true),
        ("db.example.com", Some(5433), false),
        ("node-c", Some(80), true),
        ("secret.db.example.com", None, false),
        ("example.com", None, false),
        ("localhost", None, false),
    ] {
        assert_eq!(granted.may_look_up(name, port), expected, "{name} {port:?}");
    }
    assert!(!rules(&[("10.0.0.9", None)], false).may_look_up("node-c", None), "peers are not granted");
    assert!(declaring(&[Some(80)], &[], false).may_look_up("localhost", None));
    assert!(rules(&[("localhost", Some(80))], false).may_look_up("localhost", Some(80)));
}

#[test]
fn peers_are_the_pods_of_the_view_and_its_dependencies_but_never_their_control_ports() {
    use AccessDecision::{Allowed, Blocked, NotGranted};
    check(
        &rules(&[], true),
        &[
            ("10.0.0.2:6379", Allowed),
            ("54.0.0.1:31001", Allowed),
            ("54.0.0.1:6379", NotGranted),
            ("10.0.0.3:6379", Allowed),
            ("10.0.1.1:5432", Allowed),
            ("54.0.0.1:31000", Blocked),
            ("10.0.0.1:8080", Blocked),
            ("10.0.0.3:8080", Blocked),
            ("10.0.1.1:8080", Blocked),
            ("10.0.0.4:6379", NotGranted),
        ],
    );
}

#[test]
fn an_address_is_granted_with_one_port_or_all_and_the_store_never_is() {
    use AccessDecision::{Allowed, Blocked, NotGranted};
    let grants = [("93.184.216.35", None), ("db.example.com", Some(5432)), ("10.9.9.9", None), ("10.0.0.2", None)];
    check(
        &rules(&grants, false),
        &[
            ("93.184.216.35:1", Allowed),
            ("[::ffff:93.184.216.35]:1", Allowed),
            ("93.184.216.34:5432", Allowed),
            ("93.184.216.34:5433", NotGranted),
            ("10.9.9.9:2182", Allowed),
            ("10.9.9.9:2181", Blocked),
            ("10.0.0.2:9000", Blocked),
        ],
    );
}
