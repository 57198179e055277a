//! Faults between clients and a server, at chosen messages.
//!
//! A [`Proxy`] is in front of one target: a ZooKeeper, or a pod's control port. It forwards complete messages and
//! parses them, so that a test can intercept one that matches, before the request or before its reply is forwarded. The
//! test then forwards it, drops it, or cuts the connection. The proxy as a whole can refuse connections, stop
//! forwarding, cut all connections, and recover.

mod connection;
mod message;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use connection::Connection;
pub use message::{Message, MessageKind};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
};

use crate::{
    DEFAULT_TIMEOUT, Result,
    port::{free_port, listen_again},
};

/// Time limit for an intercepted message.
const INTERCEPT_TIMEOUT: Duration = DEFAULT_TIMEOUT.saturating_mul(2);

/// Point at which a message is intercepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchPoint {
    /// Before it is forwarded: the server has not received it.
    Request,
    /// After the server has answered it, before the reply is forwarded.
    Reply,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    ZooKeeper,
    Http,
}

/// Disposition of a message.
#[derive(Debug, Clone, Copy)]
enum Disposition {
    Pass,
    Swallow,
    ConnectionCut,
}

/// State of the whole proxy.
#[derive(Debug, Clone, Copy, Default)]
struct ProxyState {
    refuses: bool,
    silent: bool,
    /// Number of cuts of all connections.
    cuts: usize,
}

/// A message that is awaited.
struct Interceptor {
    when: CatchPoint,
    matching: Box<dyn FnMut(&Message) -> bool + Send>,
    caught: oneshot::Sender<Intercepted>,
}

struct Shared {
    protocol: Protocol,
    seen: Mutex<Vec<Message>>,
    traps: Mutex<Vec<Interceptor>>,
}

/// A proxy in front of one server. All of its connections end with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    state: watch::Sender<ProxyState>,
    _serving: JoinSet<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts a proxy in front of a ZooKeeper, at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn zookeeper(target: SocketAddr) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        Self::start(Protocol::ZooKeeper, address, target).await
    }

    /// Starts a proxy in front of an HTTP server, at a free port of its address.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn http(target: SocketAddr) -> Result<Self> {
        let address = SocketAddr::new(target.ip(), free_port()?);
        Self::start(Protocol::Http, address, target).await
    }

    async fn start(protocol: Protocol, address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        let shared = Arc::new(Shared { protocol, seen: Mutex::default(), traps: Mutex::default() });
        let state = watch::Sender::new(ProxyState::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, address, target, Arc::clone(&shared), state.subscribe()));
        Ok(Self { address, shared, state, _serving: serving })
    }

    /// Returns its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Message> {
        locked(&self.shared.seen).clone()
    }

    /// Intercepts the next message that matches, from now on: [`PendingIntercept::caught`] returns it. The message
    /// waits until the test has decided, and all others of its connection with it. Each message is intercepted once, by
    /// the caller that waited first; dropping the result cancels the interception. The closure may count: it is called
    /// once for each message.
    pub fn intercept(
        &self,
        when: CatchPoint,
        matching: impl FnMut(&Message) -> bool + Send + 'static,
    ) -> PendingIntercept {
        let (caught, receiver) = oneshot::channel();
        locked(&self.shared.traps).push(Interceptor { when, matching: Box::new(matching), caught });
        PendingIntercept { receiver }
    }

    /// Cuts all connections; new ones are accepted.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Cuts all connections and refuses new ones, as if the server's process were gone.
    pub fn refuse(&self) {
        self.state.send_modify(|state| *state = ProxyState { refuses: true, silent: false, cuts: state.cuts + 1 });
    }

    /// Forwards nothing, as if packets were dropped: neither on open connections, nor on new ones, which are accepted
    /// and never answered. Data sent in the meantime is forwarded after it has recovered.
    pub fn black_hole(&self) {
        self.state.send_modify(|state| (state.refuses, state.silent) = (false, true));
    }

    /// Accepts new connections, and continues open ones.
    pub fn heal(&self) {
        self.state.send_modify(|state| (state.refuses, state.silent) = (false, false));
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    shared: Arc<Shared>,
    mut state: watch::Receiver<ProxyState>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if state.borrow_and_update().refuses {
            listener = None;
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let listening = match listener.take() {
            Some(listening) => listening,
            None => match listen_again(address).await {
                Ok(listening) => listening,
                Err(_) => return,
            },
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            Ok((client, _)) = listening.accept() => {
                connections.spawn(Connection::new(Arc::clone(&shared), state.clone()).carry(client, target));
            }
        }
        while connections.try_join_next().is_some() {}
        listener = Some(listening);
    }
}

impl Shared {
    fn saw(&self, message: &Message) {
        locked(&self.seen).push(message.clone());
    }

    /// Passes a message to the caller that waits for it; none if no caller does.
    fn hand_over(&self, when: CatchPoint, message: &Message) -> Option<oneshot::Receiver<Disposition>> {
        let mut traps = locked(&self.traps);
        traps.retain(|trap| !trap.caught.is_closed());
        let position = traps.iter_mut().position(|trap| trap.when == when && (trap.matching)(message))?;
        let trap = traps.remove(position);
        let (decide, decision) = oneshot::channel();
        trap.caught.send(Intercepted { message: message.clone(), decide }).is_ok().then_some(decision)
    }
}

/// A message that is awaited.
#[derive(Debug)]
pub struct PendingIntercept {
    receiver: oneshot::Receiver<Intercepted>,
}

impl PendingIntercept {
    /// Waits until it arrives.
    ///
    /// # Errors
    /// If it does not arrive.
    pub async fn caught(self) -> Result<Intercepted> {
        let caught = tokio::time::timeout(INTERCEPT_TIMEOUT, self.receiver).await;
        caught
            .with_context(|| format!("no message that matches within {INTERCEPT_TIMEOUT:?}"))?
            .context("the proxy is gone")
    }
}

/// A message that waits for the test's decision. Dropping it cuts the connection.
#[derive(Debug)]
#[must_use = "the connection is cut when it is dropped"]
pub struct Intercepted {
    message: Message,
    decide: oneshot::Sender<Disposition>,
}

impl Intercepted {
    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Forwards it, or its reply.
    pub fn pass(self) {
        self.decide(Disposition::Pass);
    }

    /// Drops it, or its reply; the connection continues.
    pub fn drop_message(self) {
        self.decide(Disposition::Swallow);
    }

    /// Cuts the connection.
    pub fn cut(self) {
        self.decide(Disposition::ConnectionCut);
    }

    fn decide(self, decision: Disposition) {
        // Who is gone has been cut.
        _ = self.decide.send(decision);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
