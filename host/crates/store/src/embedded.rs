//! A store of nodes inside this process, with ZooKeeper's guarantees: for development on one machine and for tests.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{oneshot, watch};

use super::{
    CoordError, SessionState,
    znodes::{
        Coordination, Exposure, Node, NodeAccess, NodeStore, NodeTree, Op, Watch, WatchKey, Watched, check_size,
        watch_until,
    },
};

/// A store inside this process. Clones refer to the same store, which exists as long as any of them or of its sessions.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Mutex<StoreState>>,
    timeout: Duration,
}

struct StoreState {
    tree: NodeTree,
    sessions: BTreeMap<i64, watch::Sender<SessionState>>,
    last_session: i64,
    watches: HashMap<WatchKey, Vec<oneshot::Sender<()>>>,
}

impl EmbeddedStore {
    /// Creates an empty store; `timeout` is that of its sessions.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let store = StoreState {
            tree: NodeTree::default(),
            sessions: BTreeMap::new(),
            last_session: 0,
            watches: HashMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(store)), timeout }
    }

    /// Returns the timeout of its sessions: the deadline of their calls. They do not expire automatically.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Opens a session on its nodes.
    #[must_use]
    pub fn connect(&self) -> Arc<dyn Coordination> {
        let mut store = lock(&self.shared);
        store.last_session += 1;
        let id = store.last_session;
        let (sender, state) = watch::channel(SessionState::Connected);
        store.sessions.insert(id, sender);
        Arc::new(EmbeddedSession { shared: Arc::clone(&self.shared), id, timeout: self.timeout, state })
    }

    /// Injects a fault, for demonstrations and tests: the session expires immediately.
    pub fn expire(&self, session: i64) {
        lock(&self.shared).end(session);
    }

    /// Injects a fault: the session loses its connection until [`EmbeddedStore::resume`]; its nodes stay.
    pub fn suspend(&self, session: i64) {
        lock(&self.shared).set_state(session, SessionState::Suspended);
    }

    /// Ends the fault of [`EmbeddedStore::suspend`]: the session is connected again.
    pub fn resume(&self, session: i64) {
        lock(&self.shared).set_state(session, SessionState::Connected);
    }

    /// Injects a fault: the store loses everything, including sessions and numbering, as a server that restarts with an
    /// empty disk does.
    pub fn wipe(&self) {
        let mut store = lock(&self.shared);
        let sessions: Vec<i64> = store.sessions.keys().copied().collect();
        for session in sessions {
            store.end(session);
        }
        store.tree = NodeTree::default();
        store.watches.clear();
    }
}

impl NodeStore for EmbeddedStore {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Coordination>, CoordError>> {
        ready(Ok(Self::connect(self))).boxed()
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl StoreState {
    fn set_state(&mut self, session: i64, state: SessionState) {
        if let Some(sender) = self.sessions.get(&session) {
            sender.send_if_modified(|now| std::mem::replace(now, state) != state);
        }
    }

    fn end(&mut self, session: i64) {
        if let Some(sender) = self.sessions.remove(&session) {
            sender.send_replace(SessionState::Lost);
            let changed = self.tree.end(session);
            self.notify_watches(&changed);
        }
    }

    fn notify_watches(&mut self, changed: &[WatchKey]) {
        for subject in changed {
            for watcher in self.watches.remove(subject).unwrap_or_default() {
                // The receiver of a dropped watch is gone.
                let _ = watcher.send(());
            }
        }
    }

    fn watch(&mut self, subject: WatchKey, state: watch::Receiver<SessionState>) -> Watch {
        let (sender, receiver) = oneshot::channel();
        let watchers = self.watches.entry(subject).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        watch_until(receiver.map(|_| ()), state)
    }
}

fn lock(shared: &Mutex<StoreState>) -> MutexGuard<'_, StoreState> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct EmbeddedSession {
    shared: Arc<Mutex<StoreState>>,
    id: i64,
    timeout: Duration,
    state: watch::Receiver<SessionState>,
}

impl EmbeddedSession {
    /// Executes one operation on the store, once the session is connected.
    async fn call<T>(&self, operation: impl FnOnce(&mut StoreState) -> Result<T, CoordError>) -> Result<T, CoordError> {
        let connected = async {
            let mut state = self.state.clone();
            loop {
                // The sender is gone only if the session is lost, and then there is nothing to wait for.
                let _ = state.wait_for(|state| *state != SessionState::Suspended).await;
                let store = lock(&self.shared);
                match store.sessions.get(&self.id).map(|state| *state.borrow()) {
                    Some(SessionState::Connected) => return Ok(store),
                    Some(SessionState::Suspended) => {}
                    Some(SessionState::Lost) | None => return Err(CoordError::SessionLost),
                }
            }
        };
        let suspended = |_| CoordError::Unavailable("session suspended".to_owned());
        let result = tokio::time::timeout(self.timeout, connected.map(|store| operation(&mut *store?))).await;
        result.map_err(suspended)?
    }

    /// Returns the state and its changes from now on.
    fn state_from_now(&self) -> watch::Receiver<SessionState> {
        let mut state = self.state.clone();
        state.mark_unchanged();
        state
    }
}

impl Coordination for EmbeddedSession {
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
            let watch = store.watch(WatchKey::Node(path.to_owned()), state);
            Ok((store.tree.read(path), watch))
        })
        .boxed()
    }

    fn sync<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), CoordError>> {
        self.call(|_| Ok(())).boxed()
    }

    fn read_synced<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.read(path)
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

    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>> {
        self.call(|store| Ok(store.tree.children(path))).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>> {
        let state = self.state_from_now();
        self.call(|store| {
            let children = store.tree.children(path);
            let of = if children.is_some() { WatchKey::Children } else { WatchKey::Node };
            Ok((children, store.watch(of(path.to_owned()), state)))
        })
        .boxed()
    }

    fn commit(&self, operations: Vec<Op>) -> BoxFuture<'_, Result<Vec<String>, CoordError>> {
        self.call(|store| {
            check_size(&operations)?;
            let (created, changed) = store.tree.commit(self.id, operations)?;
            store.notify_watches(&changed);
            Ok(created)
        })
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            // A store that cannot be reached ends the session when it would have expired anyway.
            let mut state = self.state.clone();
            let reachable = state.wait_for(|state| *state != SessionState::Suspended);
            let _ = tokio::time::timeout(self.timeout, reachable).await;
            lock(&self.shared).end(self.id);
        }
        .boxed()
    }
}

impl Drop for EmbeddedSession {
    fn drop(&mut self) {
        lock(&self.shared).end(self.id);
    }
}
