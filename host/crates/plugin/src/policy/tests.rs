//! Decisions of the policy: access, routes and names.

use super::*;

fn policy(network: Vec<NetworkGrant>) -> SandboxPolicy {
    declaring(&[], network)
}

fn declaring(ports: &[Option<u16>], network: Vec<NetworkGrant>) -> SandboxPolicy {
    let blocked = vec![Endpoint { host: "127.0.0.1".to_owned(), port: 2181 }];
    let grants = Grants { network, programs: vec!["redis-cli".to_owned()], ..Grants::default() };
    SandboxPolicy::new(grants, blocked, LoopbackPorts { declared: ports.to_vec(), ..LoopbackPorts::default() })
}

async fn allows(policy: &SandboxPolicy, address: &str) -> bool {
    policy.allows(address.parse().unwrap()).await
}

#[tokio::test]
async fn peers_become_reachable_with_the_view_that_has_them_and_unreachable_with_the_next() {
    let policy = policy(vec![NetworkGrant::Peers]);
    assert!(!allows(&policy, "10.0.0.2:6379").await);
    let with = br#"{"key":"a","pods":{"a":{"seq":1},"b":{"seq":2,"ip":"10.0.0.2","port":"8080"}},"dependencies":{}}"#;
    policy.set_peers(&PostedView::parse(with).unwrap());
    assert!(allows(&policy, "10.0.0.2:6379").await);
    assert!(!allows(&policy, "10.0.0.2:8080").await);
    policy.set_peers(&PostedView::parse(br#"{"key":"a","pods":{"a":{"seq":1}},"dependencies":{}}"#).unwrap());
    assert!(!allows(&policy, "10.0.0.2:6379").await);
}

#[tokio::test]
async fn requests_go_to_the_address_that_was_checked() {
    let undeclared = policy(Vec::new());
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        assert_eq!(undeclared.route(host, 80, false).await, None, "{host}");
    }
    let policy = declaring(&[None], Vec::new());
    assert_eq!(policy.route("127.0.0.1", 80, false).await, Some("127.0.0.1:80".parse().unwrap()));
    assert_eq!(policy.route("[::1]", 80, false).await, Some("[::1]:80".parse().unwrap()));
    assert!(policy.route("localhost", 80, false).await.unwrap().ip().is_loopback());
    assert_eq!(policy.route("localhost", 2181, false).await, None);
    assert_eq!(policy.route("0.0.0.0", 80, false).await, None);
    assert_eq!(policy.route("10.0.0.1", 80, false).await, None);
    assert_eq!(policy.route("example.com", 80, false).await, None);
}

#[tokio::test]
async fn requests_with_tls_go_to_addresses_and_to_names_that_are_granted_as_such() {
    let address = |host: &str, port| vec![NetworkGrant::Address { host: host.to_owned(), port }];
    let granted = policy(address("192.0.2.1", Some(443)));
    assert_eq!(granted.route("192.0.2.1", 443, true).await, Some("192.0.2.1:443".parse().unwrap()));
    assert_eq!(granted.route("192.0.2.1", 444, true).await, None);
    assert_eq!(granted.route("example.com", 443, true).await, None);
}

#[tokio::test]
async fn requests_with_tls_do_not_go_to_loopback_even_where_it_is_granted() {
    let granted = NetworkGrant::Address { host: "localhost".to_owned(), port: Some(443) };
    let policy = declaring(&[None], vec![granted]);
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(policy.route(host, 443, true).await, None, "{host}");
    }
    assert!(policy.route("localhost", 443, false).await.unwrap().ip().is_loopback());
}

#[tokio::test]
async fn control_ports_that_any_ochopod_announces_are_closed() {
    let policy = declaring(&[None], vec![NetworkGrant::Address { host: "127.0.0.78".to_owned(), port: None }]);
    let announced = loopback::Announcement::new("127.0.0.78:4712".parse().unwrap()).unwrap();
    assert!(!allows(&policy, "127.0.0.78:4712").await);
    assert_eq!(policy.route("127.0.0.78", 4712, false).await, None);
    assert!(allows(&policy, "127.0.0.79:4712").await);
    drop(announced);
    assert!(allows(&policy, "127.0.0.78:4712").await);
}

#[test]
fn link_local_addresses_may_be_of_this_machine() {
    for (address, is_local) in [("fe80::1", true), ("127.0.0.9", true), ("::1", true), ("192.0.2.7", false)] {
        assert_eq!(network_rules::is_of_this_machine(address.parse().unwrap()), is_local, "{address}");
    }
}

#[tokio::test]
async fn names_that_are_not_granted_are_not_looked_up() {
    let address = NetworkGrant::Address { host: "192.0.2.1".to_owned(), port: None };
    let policy = declaring(&[Some(80)], vec![address]);
    for name in ["example.com", "data.attacker.example", "\u{202e}"] {
        assert_eq!(policy.look_up(name).await, Err(LookUpError::Denied), "{name}");
        assert_eq!(policy.route(name, 80, false).await, None, "{name}");
    }
    assert_eq!(policy.look_up(&"x".repeat(MAX_NAME_BYTES + 1)).await, Err(LookUpError::Invalid));
    assert_eq!(policy.look_up("192.0.2.7").await, Ok(vec!["192.0.2.7".parse().unwrap()]));
    assert!(policy.look_up("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    let undeclared = declaring(&[], Vec::new());
    assert_eq!(undeclared.look_up("localhost").await, Err(LookUpError::Denied));
    assert_eq!(SandboxPolicy::deny_all().look_up("127.0.0.1").await, Err(LookUpError::Denied));
}

#[tokio::test]
async fn a_shut_gate_lets_nothing_through_not_even_to_loopback() {
    let policy = SandboxPolicy::deny_all();
    assert!(!allows(&policy, "127.0.0.1:80").await);
    assert_eq!(policy.route("127.0.0.1", 80, false).await, None);
    assert!(!policy.allows_program("redis-cli"));
}

#[tokio::test]
async fn a_store_that_was_never_found_is_closed_wherever_it_may_be() {
    let blocked = vec![Endpoint { host: "zk.invalid".to_owned(), port: 2181 }];
    let network = vec![NetworkGrant::Address { host: "10.0.0.9".to_owned(), port: None }];
    let policy = SandboxPolicy::new(Grants { network, ..Grants::default() }, blocked, LoopbackPorts::default());
    assert!(!allows(&policy, "10.0.0.9:2181").await);
    assert!(!allows(&policy, "127.0.0.1:2181").await);
    assert!(allows(&policy, "10.0.0.9:80").await);
}

#[test]
fn only_granted_programs_run() {
    let policy = policy(Vec::new());
    assert!(policy.allows_program("redis-cli"));
    assert!(!policy.allows_program("sh"));
    assert!(!policy.allows_program("/tmp/redis-cli"));
    for letter in ["a", "b"] {
        assert!(!policy.allows_program(&letter.repeat(1 << 20)));
    }
    let kept = policy.with(|state| state.logged.iter().map(String::len).max());
    assert_eq!(kept, Some(MAX_DENIED_BYTES), "a guest fills memory with denials");
}
