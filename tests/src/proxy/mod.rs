//! Faults on the way to a server, at chosen messages.
//!
//! A [`Proxy`] stands in front of one target: a ZooKeeper, or a pod's control port. It carries whole messages and knows
//! what they ask for, so that a test can catch one that matches, before it is passed on or before its answer is, and
//! decide over it at leisure: pass it (after whatever the test did meanwhile), swallow it, or cut the connection. The
//! proxy as a whole can refuse connections, fall silent, cut all, and heal.

mod connection;
mod message;
#[cfg(test)]
mod tests;

pub use message::{Kind, Message};

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
};

use crate::{Result, SOON, port::free_port};
use connection::Connection;

/// How long a message may be waited for.
const CATCH: Duration = SOON.saturating_mul(2);

/// When a message is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it is passed on: the server knows nothing of it.
    Request,
    /// When the server has answered it, before the answer is passed on.
    Reply,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    ZooKeeper,
    Http,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
enum Decision {
    Pass,
    Swallow,
    Cut,
}

/// How the proxy behaves as a whole.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    refuses: bool,
    silent: bool,
    /// How often all connections were cut.
    cuts: usize,
}

/// A message that is waited for.
struct Trap {
    when: When,
    matching: Box<dyn FnMut(&Message) -> bool + Send>,
    caught: oneshot::Sender<Caught>,
}

struct Shared {
    protocol: Protocol,
    seen: Mutex<Vec<Message>>,
    traps: Mutex<Vec<Trap>>,
}

/// A proxy in front of one server. All of its connections end with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    _serving: JoinSet<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Proxy {
    /// In front of a ZooKeeper, at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no such port.
    pub async fn zookeeper(target: SocketAddr) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        Self::start(Protocol::ZooKeeper, address, target).await
    }

    /// In front of a server of HTTP, at a free port of its address.
    ///
    /// # Errors
    /// When there is no such port.
    pub async fn http(target: SocketAddr) -> Result<Self> {
        let address = SocketAddr::new(target.ip(), free_port()?);
        Self::start(Protocol::Http, address, target).await
    }

    async fn start(protocol: Protocol, address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        let shared = Arc::new(Shared { protocol, seen: Mutex::default(), traps: Mutex::default() });
        let state = watch::Sender::new(State::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, address, target, Arc::clone(&shared), state.subscribe()));
        Ok(Self { address, shared, state, _serving: serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that came so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Message> {
        locked(&self.shared.seen).clone()
    }

    /// Waits for the next message that matches, from now on: [`Catch::caught`] gives it. The message waits until the test
    /// has decided, and all others of its connection with it. Each message is caught once, by whoever waited first;
    /// dropping the result takes the wish back. What matches may count: it is asked about each message once.
    pub fn catch(&self, when: When, matching: impl FnMut(&Message) -> bool + Send + 'static) -> Catch {
        let (caught, receiver) = oneshot::channel();
        locked(&self.shared.traps).push(Trap { when, matching: Box::new(matching), caught });
        Catch { receiver }
    }

    /// Cuts all connections; new ones are welcome.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Cuts all connections and takes no new ones, as when the server's process is gone.
    pub fn refuse(&self) {
        self.state.send_modify(|state| *state = State { refuses: true, silent: false, cuts: state.cuts + 1 });
    }

    /// Passes nothing on any more, as when packets are dropped on the way: neither on connections that stand, nor on new
    /// ones, which are taken and never answered. What was sent meanwhile goes on when it is healed.
    pub fn black_hole(&self) {
        self.state.send_modify(|state| (state.refuses, state.silent) = (false, true));
    }

    /// Takes new connections, and carries on those that stand.
    pub fn heal(&self) {
        self.state.send_modify(|state| (state.refuses, state.silent) = (false, false));
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    shared: Arc<Shared>,
    mut state: watch::Receiver<State>,
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
            // The port is the proxy's: nobody else is given it.
            None => match TcpListener::bind(address).await {
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

    /// Gives a message to who waits for it, who decides over it; none when nobody does.
    fn hand_over(&self, when: When, message: &Message) -> Option<oneshot::Receiver<Decision>> {
        let mut traps = locked(&self.traps);
        traps.retain(|trap| !trap.caught.is_closed());
        let position = traps.iter_mut().position(|trap| trap.when == when && (trap.matching)(message))?;
        let trap = traps.remove(position);
        let (decide, decision) = oneshot::channel();
        trap.caught.send(Caught { message: message.clone(), decide }).is_ok().then_some(decision)
    }
}

/// A message that is waited for.
#[derive(Debug)]
pub struct Catch {
    receiver: oneshot::Receiver<Caught>,
}

impl Catch {
    /// Waits until it comes.
    ///
    /// # Errors
    /// When it does not.
    pub async fn caught(self) -> Result<Caught> {
        let caught = tokio::time::timeout(CATCH, self.receiver).await;
        caught.with_context(|| format!("no message that matches within {CATCH:?}"))?.context("the proxy is gone")
    }
}

/// A message that waits for the test's decision. Dropping it cuts the connection.
#[derive(Debug)]
#[must_use = "the connection is cut when it is dropped"]
pub struct Caught {
    message: Message,
    decide: oneshot::Sender<Decision>,
}

impl Caught {
    /// What it is.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Passes it, or its answer, on.
    pub fn pass(self) {
        self.decide(Decision::Pass);
    }

    /// Loses it, or its answer; the connection goes on.
    pub fn swallow(self) {
        self.decide(Decision::Swallow);
    }

    /// Cuts the connection.
    pub fn cut(self) {
        self.decide(Decision::Cut);
    }

    fn decide(self, decision: Decision) {
        // Who is gone has been cut.
        _ = self.decide.send(decision);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
