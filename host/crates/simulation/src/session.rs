//! Sessions of a host with the store, as its client observes them.

use std::{
    fmt,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_store::{
    CoordError, SessionState,
    znodes::{Coordination, Exposure, Node, NodeAccess, NodeStore, Op, Watch, WatchKey, Watched, watch_until},
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    fault_rates::millis,
    lock,
    store::{SimStore, StoreServer},
};

const MILLI: Duration = Duration::from_millis(1);
/// Bounds of the delays between two attempts to reach the store.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Connection of one host to the store.
#[derive(Clone)]
pub(crate) struct SimConnection {
    pub(super) store: SimStore,
    pub(super) host: usize,
}

impl fmt::Debug for SimConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimConnection").field("host", &self.host).finish_non_exhaustive()
    }
}

impl NodeStore for SimConnection {
    fn timeout(&self) -> Duration {
        self.store.timeout
    }

    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Coordination>, CoordError>> {
        Box::pin(self.open())
    }
}

impl SimConnection {
    async fn open(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        let store = &self.store;
        sleep(store.faults.latency()).await;
        if !lock(&store.server).session_view(0, self.host).reaches {
            sleep(store.timeout.mul_f64(fastrand::f64())).await;
            return Err(CoordError::Unavailable("no server answers".to_owned()));
        }
        let (id, poke) = lock(&store.server).open(self.host);
        let (sender, state) = watch::channel(SessionState::Connected);
        tokio::spawn(run_session(self.clone(), id, poke, sender));
        let session = SimSession { access: self.clone(), id, state, last: Mutex::new(Instant::now()) };
        sleep(store.faults.latency()).await;
        Ok(Arc::new(session))
    }
}

/// Runs the client's part of a session and the server's expiry timer, until both are over.
async fn run_session(access: SimConnection, id: i64, poke: Arc<Notify>, state: watch::Sender<SessionState>) {
    let SimConnection { store, host } = access;
    let set_state = |to| _ = state.send_if_modified(|state| std::mem::replace(state, to) != to);
    loop {
        poke.notified().await;
        let since = Instant::now();
        // The last ping was a while ago. A silent server is noticed after two thirds of the timeout, a cut immediately.
        let mut silent = store.timeout.mul_f64(fastrand::f64() / 3.0);
        let notice = store.timeout.mul_f64(fastrand::f64() * 2.0 / 3.0);
        loop {
            let away = since.elapsed();
            let pause = 5 * MILLI + (away / 5).clamp(20 * MILLI, 400 * MILLI).mul_f64(fastrand::f64());
            sleep(pause).await;
            let view = lock(&store.server).session_view(id, host);
            if view.reaches && view.exists && !view.abandoned {
                set_state(SessionState::Connected);
                break;
            }
            let unwanted = state.is_closed();
            if !view.exists && (view.reaches || unwanted) {
                set_state(SessionState::Lost);
                return;
            }
            // Restarted servers grant every session its full timeout.
            silent = if view.up { silent + pause } else { Duration::ZERO };
            if silent >= store.timeout {
                lock(&store.server).end(id);
            }
            if unwanted || view.paused {
                continue;
            }
            if away >= store.timeout.mul_f64(1.4) {
                set_state(SessionState::Lost);
                lock(&store.server).abandon(id);
            } else if away >= notice {
                set_state(SessionState::Suspended);
            }
        }
    }
}

struct SimSession {
    access: SimConnection,
    id: i64,
    state: watch::Receiver<SessionState>,
    /// Arrival of the last request: requests arrive in the order in which they were sent.
    last: Mutex<Instant>,
}

impl SimSession {
    fn arrival(&self) -> Instant {
        let mut last = lock(&self.last);
        *last = (Instant::now() + self.access.store.faults.latency()).max(*last + MILLI);
        *last
    }

    /// Executes an operation at the server. The request or its reply may be lost.
    async fn call<T>(
        &self,
        operation: impl FnOnce(&mut StoreServer) -> Result<T, CoordError> + Send,
    ) -> Result<T, CoordError> {
        let store = &self.access.store;
        let deadline = Instant::now() + store.timeout;
        sleep_until(self.arrival()).await;
        let mut pause = RETRY_DELAY.0;
        while !self.reaches() {
            if *self.state.borrow() == SessionState::Lost {
                return Err(CoordError::SessionLost);
            }
            if Instant::now() >= deadline {
                return Err(unavailable());
            }
            sleep(pause).await;
            pause = (2 * pause).min(RETRY_DELAY.1);
        }
        if store.faults.occurs(|rates| rates.lost / 2.0) {
            sleep(millis(1..2000)).await;
            return Err(unavailable());
        }
        let result = {
            let mut server = lock(&store.server);
            if server.has_session(self.id) { operation(&mut server) } else { Err(CoordError::SessionLost) }
        };
        sleep(store.faults.latency()).await;
        if !self.reaches() || store.faults.occurs(|rates| rates.lost / 2.0) {
            return Err(unavailable());
        }
        result
    }

    fn reaches(&self) -> bool {
        lock(&self.access.store.server).session_view(self.id, self.access.host).reaches
    }

    /// Reads, and places a watch that may fire late. All random numbers are drawn now, however the watch ends.
    async fn watched<T>(
        &self,
        read: impl FnOnce(&mut StoreServer) -> (T, WatchKey) + Send,
    ) -> Result<(T, Watch), CoordError> {
        let mut state = self.state.clone();
        state.mark_unchanged();
        let (id, server) = (self.id, Arc::clone(&self.access.store.server));
        let (found, fired, lag) = self
            .call(|server| {
                let (found, subject) = read(server);
                Ok((found, server.watch(subject), server.lags_until(id)))
            })
            .await?;
        let delay = self.access.store.faults.latency();
        let event = async move {
            changed(fired, lag).await;
            sleep(delay).await;
            // A lagging server notifies no earlier than it shows the change.
            while let Some(until) = {
                let server = lock(&server);
                server.lags_until(id)
            } {
                sleep_until(until).await;
            }
        };
        Ok((found, watch_until(event, state)))
    }
}

/// Completes with the change, or at the end of a lag in which it may have been missed.
async fn changed(fired: oneshot::Receiver<()>, lag: Option<Instant>) {
    match lag {
        None => _ = fired.await,
        Some(until) => _ = tokio::time::timeout_at(until, fired).await,
    }
}

fn unavailable() -> CoordError {
    CoordError::Unavailable("the connection was lost".to_owned())
}

impl Coordination for SimSession {
    fn id(&self) -> i64 {
        self.id
    }

    fn timeout(&self) -> Duration {
        self.access.store.timeout
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    fn acl_mismatch<'a>(&'a self, _: &'a str, _: NodeAccess) -> BoxFuture<'a, Result<Option<String>, CoordError>> {
        self.call(|_| Ok(None)).boxed()
    }

    fn exposure<'a>(&'a self, _: &'a str, _: NodeAccess) -> BoxFuture<'a, Result<Option<Exposure>, CoordError>> {
        ready(Ok(None)).boxed()
    }

    fn create_root(&self) -> BoxFuture<'_, Result<(), CoordError>> {
        ready(Ok(())).boxed()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(|server| Ok(server.seen_by(self.id).read(path))).boxed()
    }

    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>> {
        self.watched(|server| (server.seen_by(self.id).read(path), WatchKey::Node(path.to_owned()))).boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>> {
        self.call(|server| Ok(server.seen_by(self.id).children(path))).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>> {
        self.watched(|server| {
            let children = server.seen_by(self.id).children(path);
            let of = if children.is_some() { WatchKey::Children } else { WatchKey::Node };
            (children, of(path.to_owned()))
        })
        .boxed()
    }

    fn commit(&self, operations: Vec<Op>) -> BoxFuture<'_, Result<Vec<String>, CoordError>> {
        self.call(|server| server.commit(self.id, operations)).boxed()
    }

    fn sync<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), CoordError>> {
        self.call(|server| {
            server.catch_up(self.id);
            Ok(())
        })
        .boxed()
    }

    fn read_synced<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(|server| {
            server.catch_up(self.id);
            Ok(server.seen_by(self.id).read(path))
        })
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let closed = self.call(|server| {
            server.end(self.id);
            Ok(())
        });
        closed.map(drop).boxed()
    }
}

/// The client is gone: the server receives nothing from the session until it expires.
impl Drop for SimSession {
    fn drop(&mut self) {
        lock(&self.access.store.server).abandon(self.id);
    }
}
