//! The gate through which a guest reaches the network and other programs: asks the rules, and tells what it denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};

use super::network::{self, Endpoint, Peers, Rules, Verdict};
use crate::{
    cluster::PostedView,
    settings::{Grants, NetworkGrant},
};

/// How long the addresses of a name are taken for granted.
const NAMES_LAST: Duration = Duration::from_secs(30);
/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Different denials that are told.
const DENIALS: usize = 100;

/// One pod's gate, shared by its instances.
#[derive(Debug)]
pub(super) struct Gate {
    grants: Grants,
    closed: Vec<Endpoint>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: Arc<Peers>,
    rules: Option<Ruled>,
    told: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Ruled {
    rules: Arc<Rules>,
    until: Option<Instant>,
}

impl Gate {
    pub(super) fn new(grants: Grants, closed: Vec<Endpoint>) -> Self {
        Self { grants, closed, state: Mutex::default() }
    }

    /// Takes the pods of a new view as peers.
    pub(super) fn learn(&self, posted: &PostedView) {
        let peers = Peers::of(posted);
        self.with(|state| {
            if *state.peers != peers {
                state.peers = Arc::new(peers);
                state.rules = None;
            }
        });
    }

    /// Whether names may be looked up: only when something beyond loopback is granted.
    pub(super) fn may_look_up(&self) -> bool {
        !self.grants.network.is_empty()
    }

    /// Whether a guest may use an address. What it may not is told once, with the flag that would grant it.
    pub(super) async fn admits(&self, address: SocketAddr) -> bool {
        let verdict = self.rules().await.verdict(address);
        self.tell(verdict, &address.to_string());
        verdict == Verdict::Allowed
    }

    /// The address to which a request for this host and port goes, if a guest may reach it.
    pub(super) async fn route(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let named = network::literal(host).is_none() && self.names(host, port);
        let candidates = match network::literal(host) {
            Some(ip) => vec![ip],
            None if host == "localhost" || self.may_look_up() => look_up(host).await,
            None => Vec::new(),
        };
        let rules = self.rules().await;
        let mut worst = Verdict::Ungranted;
        for ip in candidates {
            let address = SocketAddr::new(ip, port);
            match rules.verdict(address) {
                Verdict::Allowed => return Some(address),
                Verdict::Ungranted if named => return Some(address),
                Verdict::Closed => worst = Verdict::Closed,
                Verdict::Ungranted => {}
            }
        }
        self.tell(worst, &format!("{host}:{port}"));
        None
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

    async fn rules(&self) -> Arc<Rules> {
        let (peers, made) = self.with(|state| (Arc::clone(&state.peers), state.rules.clone()));
        if let Some(Ruled { rules, until }) = made
            && until.is_none_or(|until| Instant::now() < until)
        {
            return rules;
        }
        let names: BTreeSet<&str> = network::names(&self.grants, &self.closed, &peers).collect();
        let until = (!names.is_empty()).then(|| Instant::now() + NAMES_LAST);
        let known: BTreeMap<&str, Vec<IpAddr>> =
            join_all(names.into_iter().map(async |name| (name, look_up(name).await))).await.into_iter().collect();
        let resolve = |host: &str| match network::literal(host) {
            Some(ip) => vec![ip],
            None => known.get(host).cloned().unwrap_or_default(),
        };
        let rules = Arc::new(Rules::new(&self.grants, &self.closed, &peers, resolve));
        self.with(|state| {
            if Arc::ptr_eq(&state.peers, &peers) {
                state.rules = Some(Ruled { rules: Arc::clone(&rules), until });
            }
        });
        rules
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

/// The addresses of a name; none when it has none, or they cannot be found out in time.
async fn look_up(name: &str) -> Vec<IpAddr> {
    match timeout(LOOK_UP, lookup_host((name, 0))).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
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
        assert_eq!(gate.route("127.0.0.1", 80).await, Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(gate.route("[::1]", 80).await, Some("[::1]:80".parse().unwrap()));
        assert!(gate.route("localhost", 80).await.unwrap().ip().is_loopback());
        assert_eq!(gate.route("localhost", 2181).await, None);
        assert_eq!(gate.route("0.0.0.0", 80).await, None);
        assert_eq!(gate.route("10.0.0.1", 80).await, None);
        assert_eq!(gate.route("example.com", 80).await, None);
    }

    #[test]
    fn only_granted_programs_run() {
        let gate = gate(Vec::new());
        assert!(gate.runs("redis-cli"));
        assert!(!gate.runs("sh"));
        assert!(!gate.runs("/tmp/redis-cli"));
    }
}
