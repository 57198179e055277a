//! A host's sessions with the store: what its client knows, and when.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    lock,
    store::{Server, Store},
    weather::millis,
};
use crate::coord::{Access, CoordError, Coordination, Node, Op, SessionState, Subject, Watch, Watched, watch_until};

const MILLI: Duration = Duration::from_millis(1);
/// Waits between two looks at a store that is out of reach.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The store as one host reaches it.
#[derive(Clone)]
pub(crate) struct Line {
    pub(super) store: Store,
    pub(super) host: usize,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Line {
    pub(crate) fn timeout(&self) -> Duration {
        self.store.timeout
    }

    pub(crate) async fn connect(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        let store = &self.store;
        sleep(store.weather.latency()).await;
        if !lock(&store.server).look(0, self.host).reaches {
            sleep(store.timeout.mul_f64(fastrand::f64())).await;
            return Err(CoordError::Unavailable("no server answers".to_owned()));
        }
        let (id, poke) = lock(&store.server).open(self.host);
        let (sender, state) = watch::channel(SessionState::Connected);
        tokio::spawn(attend(self.clone(), id, poke, sender));
        let session = Session { access: self.clone(), id, state, last: Mutex::new(Instant::now()) };
        sleep(store.weather.latency()).await;
        Ok(Arc::new(session))
    }
}

/// The client's part of a session, and the server's count of its silence, until both are over.
async fn attend(access: Line, id: i64, poke: Arc<Notify>, state: watch::Sender<SessionState>) {
    let Line { store, host } = access;
    let turn = |to| _ = state.send_if_modified(|state| std::mem::replace(state, to) != to);
    loop {
        poke.notified().await;
        let since = Instant::now();
        // The last ping was a while ago; a silent server is noticed after two thirds of the timeout, a cut at once.
        let mut silent = store.timeout.mul_f64(fastrand::f64() / 3.0);
        let notice = store.timeout.mul_f64(fastrand::f64() * 2.0 / 3.0);
        loop {
            let away = since.elapsed();
            let pause = 5 * MILLI + (away / 5).clamp(20 * MILLI, 400 * MILLI).mul_f64(fastrand::f64());
            sleep(pause).await;
            let look = lock(&store.server).look(id, host);
            if look.reaches && look.exists && !look.abandoned {
                turn(SessionState::Connected);
                break;
            }
            let unwanted = state.is_closed();
            if !look.exists && (look.reaches || unwanted) {
                turn(SessionState::Lost);
                return;
            }
            // Servers that come back give every session its whole timeout.
            silent = if look.up { silent + pause } else { Duration::ZERO };
            if silent >= store.timeout {
                lock(&store.server).end(id);
            }
            if unwanted || look.frozen {
                continue;
            }
            if away >= store.timeout.mul_f64(1.4) {
                turn(SessionState::Lost);
                lock(&store.server).abandon(id);
            } else if away >= notice {
                turn(SessionState::Suspended);
            }
        }
    }
}

struct Session {
    access: Line,
    id: i64,
    state: watch::Receiver<SessionState>,
    /// When the last request arrives: they arrive in the order of asking.
    last: Mutex<Instant>,
}

impl Session {
    fn arrival(&self) -> Instant {
        let mut last = lock(&self.last);
        *last = (Instant::now() + self.access.store.weather.latency()).max(*last + MILLI);
        *last
    }

    /// Has the server do something: the request, or its answer, may be lost.
    async fn call<T>(
        &self,
        operation: impl FnOnce(&mut Server) -> Result<T, CoordError> + Send,
    ) -> Result<T, CoordError> {
        let store = &self.access.store;
        let deadline = Instant::now() + store.timeout;
        sleep_until(self.arrival()).await;
        let mut pause = LOOKS.0;
        while !self.reaches() {
            if *self.state.borrow() == SessionState::Lost {
                return Err(CoordError::SessionLost);
            }
            if Instant::now() >= deadline {
                return Err(unavailable());
            }
            sleep(pause).await;
            pause = (2 * pause).min(LOOKS.1);
        }
        if store.weather.strikes(|chances| chances.lost / 2.0) {
            sleep(millis(1..2000)).await;
            return Err(unavailable());
        }
        let result = {
            let mut server = lock(&store.server);
            if server.knows(self.id) { operation(&mut server) } else { Err(CoordError::SessionLost) }
        };
        sleep(store.weather.latency()).await;
        if !self.reaches() || store.weather.strikes(|chances| chances.lost / 2.0) {
            return Err(unavailable());
        }
        result
    }

    fn reaches(&self) -> bool {
        lock(&self.access.store.server).look(self.id, self.access.host).reaches
    }

    /// Reads, and places a watch that may come late. All chance is drawn now, whichever way the watch ends.
    async fn watched<T>(
        &self,
        look: impl FnOnce(&mut Server) -> (T, Subject) + Send,
    ) -> Result<(T, Watch), CoordError> {
        let mut state = self.state.clone();
        state.mark_unchanged();
        let (id, server) = (self.id, Arc::clone(&self.access.store.server));
        let (found, fired, lag) = self
            .call(|server| {
                let (found, subject) = look(server);
                Ok((found, server.watch(subject), server.lags_until(id)))
            })
            .await?;
        let delay = self.access.store.weather.latency();
        let event = async move {
            changed(fired, lag).await;
            sleep(delay).await;
            // Who lags hears of a change no sooner than it could see it.
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

/// Completes with the change, or when a lag ends in which it may have been missed.
async fn changed(fired: oneshot::Receiver<()>, lag: Option<Instant>) {
    match lag {
        None => _ = fired.await,
        Some(until) => _ = tokio::time::timeout_at(until, fired).await,
    }
}

fn unavailable() -> CoordError {
    CoordError::Unavailable("the connection was lost".to_owned())
}

impl Coordination for Session {
    fn id(&self) -> i64 {
        self.id
    }

    fn timeout(&self) -> Duration {
        self.access.store.timeout
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    fn unlike<'a>(&'a self, _: &'a str, _: Access) -> BoxFuture<'a, Result<Option<String>, CoordError>> {
        self.call(|_| Ok(None)).boxed()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(|server| Ok(server.seen_by(self.id).read(path))).boxed()
    }

    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>> {
        self.watched(|server| (server.seen_by(self.id).read(path), Subject::Node(path.to_owned()))).boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>> {
        self.call(|server| Ok(server.seen_by(self.id).children(path))).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>> {
        self.watched(|server| {
            let children = server.seen_by(self.id).children(path);
            let of = if children.is_some() { Subject::Children } else { Subject::Node };
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

    fn close(&self) -> BoxFuture<'_, ()> {
        let closed = self.call(|server| {
            server.end(self.id);
            Ok(())
        });
        closed.map(drop).boxed()
    }
}

/// The client is gone: the server hears nothing more of the session, until it expires.
impl Drop for Session {
    fn drop(&mut self) {
        lock(&self.access.store.server).abandon(self.id);
    }
}
