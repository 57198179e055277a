//! A store inside this process, with ZooKeeper's guarantees: for development on one machine and for tests.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{oneshot, watch};

use super::{
    Access, CoordError, Coordination, Node, Op, SessionState, Watch, Watched, check_size,
    tree::{Subject, Tree},
    watch_until,
};

/// A store inside this process. Clones are handles on the same store; it lasts as long as any of them or of its sessions.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Mutex<Store>>,
    timeout: Duration,
}

struct Store {
    tree: Tree,
    sessions: BTreeMap<i64, watch::Sender<SessionState>>,
    last_session: i64,
    watches: HashMap<Subject, Vec<oneshot::Sender<()>>>,
}

impl Embedded {
    /// An empty store; `timeout` is that of its sessions.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let store =
            Store { tree: Tree::default(), sessions: BTreeMap::new(), last_session: 0, watches: HashMap::new() };
        Self { shared: Arc::new(Mutex::new(store)), timeout }
    }

    /// The timeout of its sessions: the deadline of their calls. They do not expire by themselves.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Opens a session.
    #[must_use]
    pub fn connect(&self) -> Arc<dyn Coordination> {
        let mut store = lock(&self.shared);
        store.last_session += 1;
        let id = store.last_session;
        let (sender, state) = watch::channel(SessionState::Connected);
        store.sessions.insert(id, sender);
        Arc::new(Session { shared: Arc::clone(&self.shared), id, timeout: self.timeout, state })
    }

    /// A fault on demand, for demonstrations and tests: the session expires at once, as if its client had been silent for
    /// too long.
    pub fn expire(&self, session: i64) {
        lock(&self.shared).end(session);
    }

    /// A fault on demand: the session loses its connection until [`Embedded::resume`]; its nodes stay.
    pub fn suspend(&self, session: i64) {
        lock(&self.shared).turn(session, SessionState::Suspended);
    }

    /// The end of the fault: a suspended session has its connection back.
    pub fn resume(&self, session: i64) {
        lock(&self.shared).turn(session, SessionState::Connected);
    }

    /// A fault on demand: the store loses everything, sessions and numbering included, as a server that restarts with an
    /// empty disk does.
    pub fn wipe(&self) {
        let mut store = lock(&self.shared);
        let sessions: Vec<i64> = store.sessions.keys().copied().collect();
        for session in sessions {
            store.end(session);
        }
        store.tree = Tree::default();
        store.watches.clear();
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Store {
    fn turn(&mut self, session: i64, state: SessionState) {
        if let Some(sender) = self.sessions.get(&session) {
            sender.send_if_modified(|now| std::mem::replace(now, state) != state);
        }
    }

    fn end(&mut self, session: i64) {
        if let Some(sender) = self.sessions.remove(&session) {
            sender.send_replace(SessionState::Lost);
            let changed = self.tree.end(session);
            self.fire(&changed);
        }
    }

    fn fire(&mut self, changed: &[Subject]) {
        for subject in changed {
            for watcher in self.watches.remove(subject).unwrap_or_default() {
                // A watch that nobody waits for any more is no loss.
                let _ = watcher.send(());
            }
        }
    }

    fn watch(&mut self, subject: Subject, state: watch::Receiver<SessionState>) -> Watch {
        let (sender, receiver) = oneshot::channel();
        let watchers = self.watches.entry(subject).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        watch_until(receiver.map(|_| ()), state)
    }
}

fn lock(shared: &Mutex<Store>) -> MutexGuard<'_, Store> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session {
    shared: Arc<Mutex<Store>>,
    id: i64,
    timeout: Duration,
    state: watch::Receiver<SessionState>,
}

impl Session {
    /// Runs one operation on the store, as soon as the session is connected.
    async fn call<T>(&self, operation: impl FnOnce(&mut Store) -> Result<T, CoordError>) -> Result<T, CoordError> {
        let connected = async {
            let mut state = self.state.clone();
            loop {
                // The sender is gone only with a session that is lost, and then there is nothing to wait for.
                let _ = state.wait_for(|state| *state != SessionState::Suspended).await;
                let store = lock(&self.shared);
                match store.sessions.get(&self.id).map(|state| *state.borrow()) {
                    Some(SessionState::Connected) => return Ok(store),
                    Some(SessionState::Suspended) => {}
                    Some(SessionState::Lost) | None => return Err(CoordError::SessionLost),
                }
            }
        };
        let silent = |_| CoordError::Unavailable("the session is suspended".to_owned());
        let result = tokio::time::timeout(self.timeout, connected.map(|store| operation(&mut *store?))).await;
        result.map_err(silent)?
    }

    /// The state from now on.
    fn state_from_now(&self) -> watch::Receiver<SessionState> {
        let mut state = self.state.clone();
        state.mark_unchanged();
        state
    }
}

impl Coordination for Session {
    fn id(&self) -> i64 {
        self.id
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(|store| Ok(store.tree.read(path))).boxed()
    }

    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>> {
        let state = self.state_from_now();
        self.call(|store| {
            let watch = store.watch(Subject::Node(path.to_owned()), state);
            Ok((store.tree.read(path), watch))
        })
        .boxed()
    }

    fn sync<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), CoordError>> {
        self.call(|_| Ok(())).boxed()
    }

    fn unlike<'a>(&'a self, _: &'a str, _: Access) -> BoxFuture<'a, Result<Option<String>, CoordError>> {
        self.call(|_| Ok(None)).boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>> {
        self.call(|store| Ok(store.tree.children(path))).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>> {
        let state = self.state_from_now();
        self.call(|store| {
            let children = store.tree.children(path);
            let of = if children.is_some() { Subject::Children } else { Subject::Node };
            Ok((children, store.watch(of(path.to_owned()), state)))
        })
        .boxed()
    }

    fn commit(&self, operations: Vec<Op>) -> BoxFuture<'_, Result<Vec<String>, CoordError>> {
        self.call(|store| {
            check_size(&operations)?;
            let (created, changed) = store.tree.commit(self.id, operations)?;
            store.fire(&changed);
            Ok(created)
        })
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            // Out of reach, the store hears of it only when the session would have expired anyway.
            let mut state = self.state.clone();
            let reachable = state.wait_for(|state| *state != SessionState::Suspended);
            let _ = tokio::time::timeout(self.timeout, reachable).await;
            lock(&self.shared).end(self.id);
        }
        .boxed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        lock(&self.shared).end(self.id);
    }
}
