//! Access of a guest to the network and to programs: consults the rules and logs denials.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use ochopod_loopback::{self as loopback, is_localhost, is_loopback};
use ochopod_model::PostedView;

use super::{
    loopback_ports::LoopbackPorts,
    network_rules::{self, AccessDecision, Endpoint, LOCALHOST, NetworkRules, PeerEndpoints},
    resolver::Resolver,
};
use crate::{Grants, NetworkGrant, truncate};

/// Maximum number of distinct denials that are logged.
const MAX_LOGGED_DENIALS: usize = 100;
/// Maximum length of what a denial is remembered by, and of its text in the log.
const MAX_DENIED_BYTES: usize = 256;
const MAX_DENIAL_BYTES: usize = 1024;
/// Maximum length of a name that is looked up.
const MAX_NAME_BYTES: usize = 253;

/// Access policy of one pod, shared by its instances.
#[derive(Debug)]
pub(super) struct SandboxPolicy {
    grants: Grants,
    blocked: Vec<Endpoint>,
    loopback: LoopbackPorts,
    resolver: Resolver,
    /// Whether the guest has a network at all, loopback included.
    network: bool,
    state: Mutex<PolicyState>,
}

#[derive(Debug)]
struct PolicyState {
    /// The latest view: its pods are the peers.
    view: Option<PostedView>,
    /// Rules for these peers, made when they are needed.
    rules: Option<Arc<NetworkRules>>,
    logged: BTreeSet<String>,
}

impl SandboxPolicy {
    pub(super) fn new(grants: Grants, blocked: Vec<Endpoint>, loopback: LoopbackPorts) -> Self {
        let resolver = Resolver::new(network_rules::names(&grants, &blocked));
        let state = Mutex::new(PolicyState { view: None, rules: None, logged: BTreeSet::new() });
        Self { grants, blocked, loopback, resolver, network: true, state }
    }

    /// Returns a policy that denies everything.
    pub(super) fn deny_all() -> Self {
        Self { network: false, ..Self::new(Grants::default(), Vec::new(), LoopbackPorts::default()) }
    }

    /// Returns the same policy for a plugin that declares these loopback ports.
    pub(super) fn with_loopback(&self, declared: Vec<Option<u16>>) -> Self {
        let loopback = LoopbackPorts { declared, ..self.loopback.clone() };
        let policy = Self { network: self.network, ..Self::new(self.grants.clone(), self.blocked.clone(), loopback) };
        policy.adopt_peers(self);
        policy
    }

    /// Sets the pods of a view as peers.
    pub(super) fn set_peers(&self, posted: &PostedView) {
        self.with(|state| {
            let is_same = |last: &PostedView| Arc::ptr_eq(&last.view, &posted.view) && last.key == posted.key;
            if !state.view.as_ref().is_some_and(is_same) {
                state.view = Some(PostedView::new(posted.key.clone(), Arc::clone(&posted.view)));
                state.rules = None;
            }
        });
    }

    /// Takes over the peers of another policy.
    pub(super) fn adopt_peers(&self, other: &Self) {
        if let Some(view) = other.with(|state| state.view.clone()) {
            self.set_peers(&view);
        }
    }

    /// Returns whether the guest has a network at all, loopback included.
    pub(super) fn has_network(&self) -> bool {
        self.network
    }

    /// Returns the addresses of a name that is granted, or that belongs to a granted peer. Each denial is logged once,
    /// with the flag that grants it.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, LookUpError> {
        if !self.network {
            return Err(LookUpError::Denied);
        }
        if let Some(ip) = network_rules::literal(name) {
            return Ok(vec![ip.to_canonical()]);
        }
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(LookUpError::Invalid);
        }
        if !self.rules().may_look_up(name, None) {
            let flag = if is_localhost(name) { "loopback:PORT".to_owned() } else { format!("{name}:PORT") };
            let (what, flag) = (format!("look up {name}"), flag.escape_debug().to_string());
            self.log_denial_once(&what, format_args!("name {name:?} (grant with --net {flag})"));
            return Err(LookUpError::Denied);
        }
        let addresses = self.addresses(name).await;
        if addresses.is_empty() { Err(LookUpError::Unknown) } else { Ok(addresses) }
    }

    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        if is_localhost(name) {
            return LOCALHOST.iter().filter_map(|ip| network_rules::literal(ip)).collect();
        }
        self.resolver.addresses(name).await.unwrap_or_default()
    }

    /// Returns whether a guest may use an address. Each denial is logged once, with the flag that grants it.
    pub(super) async fn allows(&self, address: SocketAddr) -> bool {
        if !self.network {
            return false;
        }
        let decision = self.decide(address).await;
        self.log_denial(decision, &address.to_string(), &self.rules().flag(address));
        decision == AccessDecision::Allowed
    }

    /// Returns the address for a request to this host and port, if a guest may reach it.
    ///
    /// A TLS connection is made by name. The name is looked up again and may have another address then, so TLS is
    /// allowed for addresses and for names that are granted as such.
    pub(super) async fn route(&self, host: &str, port: u16, tls: bool) -> Option<SocketAddr> {
        if !self.network {
            return None;
        }
        let literal = network_rules::literal(host);
        let named = literal.is_none() && self.names(host, port);
        let candidates = match literal {
            Some(ip) => vec![ip],
            None if named || !tls && self.rules().may_look_up(host, Some(port)) => self.addresses(host).await,
            None => Vec::new(),
        };
        if tls && candidates.iter().any(|ip| is_loopback(*ip)) {
            // The connection is made by name: neither its source address nor its destination would be known.
            self.log_denial_once(host, format_args!("https to {host}:{port} (loopback supports only http)"));
            return None;
        }
        let (mut route, mut worst) = (None, AccessDecision::NotGranted);
        // The unspecified address is another spelling of loopback.
        for ip in candidates.into_iter().map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified()) {
            let address = SocketAddr::new(ip, port);
            match self.decide(address).await {
                AccessDecision::Allowed => route = route.or(Some(address)),
                AccessDecision::NotGranted if named && !network_rules::is_of_this_machine(ip) => {
                    route = route.or(Some(address));
                }
                AccessDecision::Blocked => worst = AccessDecision::Blocked,
                AccessDecision::NotGranted => {}
            }
        }
        // TLS may pick any of the addresses, so none may be blocked.
        let route = route.filter(|_| !(tls && worst == AccessDecision::Blocked));
        if route.is_none() {
            let flag = match literal {
                Some(ip) => self.rules().flag(SocketAddr::new(ip, port)),
                None if is_localhost(host) => format!("--net loopback:{port}"),
                None => format!("--net {host}:{port}"),
            };
            self.log_denial(worst, &format!("{host}:{port}"), &flag);
        }
        route
    }

    async fn decide(&self, address: SocketAddr) -> AccessDecision {
        let rules = self.rules();
        let known = self.resolver.all(rules.names(address)).await;
        let decision = rules.decide(address, &known);
        if decision == AccessDecision::Allowed && self.is_control_port(address) {
            AccessDecision::Blocked
        } else {
            decision
        }
    }

    /// Returns whether a control server of any ochopod in this network namespace listens at this address. If the kernel
    /// does not report its sockets, all of loopback counts as such.
    fn is_control_port(&self, address: SocketAddr) -> bool {
        if !network_rules::is_of_this_machine(address.ip()) {
            return false;
        }
        match loopback::announced() {
            Ok(servers) => servers.into_iter().any(|server| loopback::covers(server, address)),
            Err(error) => {
                let text = format_args!("loopback (cannot determine its control ports: {error})");
                self.log_denial_once("control ports", text);
                true
            }
        }
    }

    fn rules(&self) -> Arc<NetworkRules> {
        self.with(|state| {
            let rules = state.rules.take().unwrap_or_else(|| {
                let peers = state.view.as_ref().map(PeerEndpoints::of).unwrap_or_default();
                Arc::new(NetworkRules::new(&self.grants, &self.blocked, &peers, &self.loopback))
            });
            Arc::clone(state.rules.insert(rules))
        })
    }

    /// Returns whether a program is granted by this exact text. Each denial is logged once.
    pub(super) fn allows_program(&self, program: &str) -> bool {
        let granted = self.grants.programs.iter().any(|granted| granted == program);
        if !granted {
            self.log_denial_once(program, format_args!("program {program} (grant with --run {program})"));
        }
        granted
    }

    /// Returns whether a name itself is granted: addresses of some names differ from one look-up to the next.
    fn names(&self, name: &str, wanted: u16) -> bool {
        self.grants.network.iter().any(|grant| match grant {
            NetworkGrant::Peers | NetworkGrant::Loopback { .. } => false,
            NetworkGrant::Address { host, port } => {
                network_rules::is_same_name(host, name) && port.is_none_or(|port| port == wanted)
            }
        })
    }

    fn log_denial(&self, decision: AccessDecision, what: &str, flag: &str) {
        match decision {
            AccessDecision::Allowed => {}
            AccessDecision::Blocked => self
                .log_denial_once(what, format_args!("address {what} (control ports and ZooKeeper are never granted)")),
            AccessDecision::NotGranted => {
                self.log_denial_once(what, format_args!("address {what} (grant with {flag})"));
            }
        }
    }

    fn log_denial_once(&self, what: &str, text: std::fmt::Arguments<'_>) {
        let what = truncate(what, MAX_DENIED_BYTES);
        let first = self.with(|state| state.logged.len() < MAX_LOGGED_DENIALS && state.logged.insert(what.to_owned()));
        if first {
            tracing::warn!("plugin access denied: {}", truncate(&text.to_string(), MAX_DENIAL_BYTES));
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut PolicyState) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reason why a look-up returns no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUpError {
    /// The name is not granted.
    Denied,
    /// The text is not a name.
    Invalid,
    /// The name has no address.
    Unknown,
}

#[cfg(test)]
mod tests;
