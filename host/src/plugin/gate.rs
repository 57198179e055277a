//! The gate through which a guest reaches the network and other programs: asks the rules, and tells what it denied.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    names::Names,
    network::{self, Endpoint, Peers, Rules, Verdict},
};
use crate::{
    cluster::PostedView,
    settings::{Grants, NetworkGrant},
};

/// Different denials that are told.
const DENIALS: usize = 100;

/// One pod's gate, shared by its instances.
#[derive(Debug)]
pub(super) struct Gate {
    grants: Grants,
    closed: Vec<Endpoint>,
    names: Names,
    /// Whether there is any network at all, loopback included.
    network: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    peers: Peers,
    rules: Arc<Rules>,
    told: BTreeSet<String>,
}

impl Gate {
    pub(super) fn new(grants: Grants, closed: Vec<Endpoint>) -> Self {
        let peers = Peers::default();
        let rules = Arc::new(Rules::new(&grants, &closed, &peers));
        let names = Names::new(network::names(&grants, &closed));
        let state = Mutex::new(State { peers, rules, told: BTreeSet::new() });
        Self { grants, closed, names, network: true, state }
    }

    /// A gate that lets nothing through.
    pub(super) fn shut() -> Self {
        Self { network: false, ..Self::new(Grants::default(), Vec::new()) }
    }

    /// Takes the pods of a new view as peers.
    pub(super) fn learn(&self, posted: &PostedView) {
        let peers = Peers::of(posted);
        self.with(|state| {
            if state.peers != peers {
                state.rules = Arc::new(Rules::new(&self.grants, &self.closed, &peers));
                state.peers = peers;
            }
        });
    }

    /// Whether there is any network, loopback included.
    pub(super) fn has_network(&self) -> bool {
        self.network
    }

    /// Whether names may be looked up: only when something beyond loopback is granted.
    pub(super) fn may_look_up(&self) -> bool {
        !self.grants.network.is_empty()
    }

    /// Whether a guest may use an address. What it may not is told once, with the flag that would grant it.
    pub(super) async fn admits(&self, address: SocketAddr) -> bool {
        if !self.network {
            return false;
        }
        let verdict = self.verdict(address).await;
        self.tell(verdict, &address.to_string());
        verdict == Verdict::Allowed
    }

    /// The address to which a request for this host and port goes, if a guest may reach it.
    ///
    /// With TLS the connection is made by name, which is looked up once more and may mean another address then: that is
    /// for addresses, and for names that are granted as such.
    pub(super) async fn route(&self, host: &str, port: u16, tls: bool) -> Option<SocketAddr> {
        if !self.network {
            return None;
        }
        let literal = network::literal(host);
        let named = literal.is_none() && self.names(host, port);
        let plain = !tls && (host == "localhost" || self.may_look_up());
        let candidates = match literal {
            Some(ip) => vec![ip],
            None if named || plain => self.names.addresses(host).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let (mut route, mut worst) = (None, Verdict::Ungranted);
        for ip in candidates {
            let address = SocketAddr::new(ip, port);
            match self.verdict(address).await {
                Verdict::Allowed => route = route.or(Some(address)),
                Verdict::Ungranted if named => route = route.or(Some(address)),
                Verdict::Closed => worst = Verdict::Closed,
                Verdict::Ungranted => {}
            }
        }
        // Which of its addresses TLS would take is not known: all have to be open.
        let route = route.filter(|_| !(tls && worst == Verdict::Closed));
        if route.is_none() {
            self.tell(worst, &format!("{host}:{port}"));
        }
        route
    }

    async fn verdict(&self, address: SocketAddr) -> Verdict {
        let rules = self.with(|state| Arc::clone(&state.rules));
        let known = self.names.all(rules.names(address)).await;
        rules.verdict(address, &known)
    }

    /// Whether a program is granted by this very text. What is not is told once.
    pub(super) fn runs(&self, program: &str) -> bool {
        let granted = self.grants.programs.iter().any(|granted| granted == program);
        if !granted {
            self.tell_once(program, format_args!("running {program}: --run {program} would grant it"));
        }
        granted
    }

    /// Whether a name is granted as such: the addresses of some names differ from one look-up to the next.
    fn names(&self, name: &str, wanted: u16) -> bool {
        self.grants.network.iter().any(|grant| match grant {
            NetworkGrant::Peers => false,
            NetworkGrant::Address { host, port } => {
                host.eq_ignore_ascii_case(name) && port.is_none_or(|port| port == wanted)
            }
        })
    }

    fn tell(&self, verdict: Verdict, what: &str) {
        match verdict {
            Verdict::Allowed => {}
            Verdict::Closed => self.tell_once(
                what,
                format_args!("the address {what}: control ports of pods and ZooKeeper are never granted"),
            ),
            Verdict::Ungranted => {
                self.tell_once(what, format_args!("the address {what}: --net {what} would grant it"));
            }
        }
    }

    fn tell_once(&self, what: &str, text: std::fmt::Arguments<'_>) {
        let first = self.with(|state| state.told.len() < DENIALS && state.told.insert(what.to_owned()));
        if first {
            tracing::warn!("the plugin was denied {text}");
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(network: Vec<NetworkGrant>) -> Gate {
        let closed = vec![Endpoint { host: "127.0.0.1".to_owned(), port: 2181 }];
        Gate::new(Grants { network, programs: vec!["redis-cli".to_owned()], ..Grants::default() }, closed)
    }

    async fn admits(gate: &Gate, address: &str) -> bool {
        gate.admits(address.parse().unwrap()).await
    }

    #[tokio::test]
    async fn peers_become_reachable_with_the_view_that_has_them_and_unreachable_with_the_next() {
        let gate = gate(vec![NetworkGrant::Peers]);
        assert!(!admits(&gate, "10.0.0.2:6379").await);
        let with =
            br#"{"key":"a","pods":{"a":{"seq":1},"b":{"seq":2,"ip":"10.0.0.2","port":"8080"}},"dependencies":{}}"#;
        gate.learn(&PostedView::parse(with).unwrap());
        assert!(admits(&gate, "10.0.0.2:6379").await);
        assert!(!admits(&gate, "10.0.0.2:8080").await);
        gate.learn(&PostedView::parse(br#"{"key":"a","pods":{"a":{"seq":1}},"dependencies":{}}"#).unwrap());
        assert!(!admits(&gate, "10.0.0.2:6379").await);
    }

    #[tokio::test]
    async fn requests_go_to_the_address_that_was_checked() {
        let gate = gate(Vec::new());
        assert_eq!(gate.route("127.0.0.1", 80, false).await, Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(gate.route("[::1]", 80, false).await, Some("[::1]:80".parse().unwrap()));
        assert!(gate.route("localhost", 80, false).await.unwrap().ip().is_loopback());
        assert_eq!(gate.route("localhost", 2181, false).await, None);
        assert_eq!(gate.route("0.0.0.0", 80, false).await, None);
        assert_eq!(gate.route("10.0.0.1", 80, false).await, None);
        assert_eq!(gate.route("example.com", 80, false).await, None);
    }

    #[tokio::test]
    async fn requests_with_tls_go_to_addresses_and_to_names_that_are_granted_as_such() {
        let ungranted = gate(Vec::new());
        assert_eq!(ungranted.route("127.0.0.1", 443, true).await, Some("127.0.0.1:443".parse().unwrap()));
        assert_eq!(ungranted.route("localhost", 443, true).await, None);
        let granted = gate(vec![NetworkGrant::Address { host: "localhost".to_owned(), port: Some(443) }]);
        assert!(granted.route("localhost", 443, true).await.unwrap().ip().is_loopback());
        assert_eq!(granted.route("localhost", 444, true).await, None);
        let store = gate(vec![NetworkGrant::Address { host: "localhost".to_owned(), port: None }]);
        assert_eq!(store.route("localhost", 2181, true).await, None);
    }

    #[tokio::test]
    async fn a_shut_gate_lets_nothing_through_not_even_to_loopback() {
        let gate = Gate::shut();
        assert!(!admits(&gate, "127.0.0.1:80").await);
        assert_eq!(gate.route("127.0.0.1", 80, false).await, None);
        assert!(!gate.runs("redis-cli"));
    }

    #[tokio::test]
    async fn a_store_that_was_never_found_is_closed_wherever_it_may_be() {
        let closed = vec![Endpoint { host: "zk.invalid".to_owned(), port: 2181 }];
        let network = vec![NetworkGrant::Address { host: "10.0.0.9".to_owned(), port: None }];
        let gate = Gate::new(Grants { network, ..Grants::default() }, closed);
        assert!(!admits(&gate, "10.0.0.9:2181").await);
        assert!(!admits(&gate, "127.0.0.1:2181").await);
        assert!(admits(&gate, "10.0.0.9:80").await);
    }

    #[test]
    fn only_granted_programs_run() {
        let gate = gate(Vec::new());
        assert!(gate.runs("redis-cli"));
        assert!(!gate.runs("sh"));
        assert!(!gate.runs("/tmp/redis-cli"));
    }
}
