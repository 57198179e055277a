//! The servers of the store: ZooKeeper's rules over one tree, sessions that expire, servers that lag.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use ochopod_store::{
    CoordError,
    znodes::{Node, NodeTree, Op, WatchKey, check_size, election},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{fault_rates::FaultSwitch, lock, session::SimConnection};

/// Link of a host to the store.
#[derive(Debug, Clone, Copy, Default)]
struct HostLink {
    cut: bool,
    paused: bool,
}

/// A session that has not expired.
struct SessionEntry {
    host: usize,
    /// Its client is gone or has abandoned it: no pings arrive.
    abandoned: bool,
    /// Notified when anything may have changed.
    poke: Arc<Notify>,
    /// The outdated tree that its server shows, and until when.
    lag: Option<(Instant, NodeTree)>,
}

/// State of a session as its client can observe it now.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct SessionView {
    /// A server answers.
    pub(super) up: bool,
    /// The host is reachable.
    pub(super) reaches: bool,
    /// The host is paused.
    pub(super) paused: bool,
    /// The session has not expired.
    pub(super) exists: bool,
    /// See [`SessionEntry`].
    pub(super) abandoned: bool,
}

pub(super) struct StoreServer {
    tree: NodeTree,
    up: bool,
    hosts: Vec<HostLink>,
    sessions: BTreeMap<i64, SessionEntry>,
    last_session: i64,
    watches: HashMap<WatchKey, Vec<oneshot::Sender<()>>>,
    violation: Option<String>,
}

/// The store of one run. Clones share their state.
#[derive(Clone)]
pub(super) struct SimStore {
    pub(super) server: Arc<Mutex<StoreServer>>,
    pub(super) faults: FaultSwitch,
    pub(super) timeout: Duration,
}

impl SimStore {
    pub(super) fn new(faults: FaultSwitch, timeout: Duration) -> Self {
        let server = StoreServer {
            tree: NodeTree::default(),
            up: true,
            hosts: Vec::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            watches: HashMap::new(),
            violation: None,
        };
        Self { server: Arc::new(Mutex::new(server)), faults, timeout }
    }

    /// Connects one more host. Returns its connection and its number.
    pub(super) fn connect_host(&self) -> (SimConnection, usize) {
        let mut server = lock(&self.server);
        server.hosts.push(HostLink::default());
        let host = server.hosts.len() - 1;
        (SimConnection { store: self.clone(), host }, host)
    }

    pub(super) fn cut(&self, host: usize, cut: bool) {
        self.change(|server| server.hosts[host].cut = cut);
    }

    pub(super) fn pause(&self, host: usize, paused: bool) {
        self.change(|server| server.hosts[host].paused = paused);
    }

    /// Stops or restarts the servers.
    pub(super) fn power(&self, up: bool) {
        self.change(|server| server.up = up);
    }

    /// Expires the sessions of a host.
    pub(super) fn expire(&self, host: usize) {
        self.change(|server| {
            let ids: Vec<i64> = server.sessions.iter().filter(|(_, s)| s.host == host).map(|(id, _)| *id).collect();
            for id in ids {
                server.end(id);
            }
        });
    }

    /// Deletes the lock node of the holder, as another client would.
    pub(super) fn unlock(&self, coordinator: &str) {
        let mut server = lock(&self.server);
        let holder = election::holder(&server.tree.children(coordinator).unwrap_or_default()).map(str::to_owned);
        if let Some(holder) = holder {
            let deletion = Op::Delete(format!("{coordinator}/{holder}"));
            let (_, changed) = server.tree.commit(0, vec![deletion]).unwrap();
            server.notify_watches(&changed);
        }
    }

    /// Makes the server of a host show the current tree for a while.
    pub(super) fn lag(&self, host: usize, time: Duration) {
        let mut server = lock(&self.server);
        let tree = server.tree.clone();
        for session in server.sessions.values_mut().filter(|session| session.host == host) {
            session.lag = Some((Instant::now() + time, tree.clone()));
        }
    }

    /// Ends all faults.
    pub(super) fn heal(&self) {
        self.change(|server| {
            server.up = true;
            server.hosts.iter_mut().for_each(|host| *host = HostLink::default());
        });
    }

    fn change(&self, change: impl FnOnce(&mut StoreServer)) {
        let mut server = lock(&self.server);
        let pokes: Vec<_> = server.sessions.values().map(|session| Arc::clone(&session.poke)).collect();
        change(&mut server);
        for poke in &pokes {
            poke.notify_one();
        }
    }

    /// Returns a node.
    pub(super) fn read(&self, path: &str) -> Option<Node> {
        lock(&self.server).tree.read(path)
    }

    /// Returns the children of a node.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        lock(&self.server).tree.children(path).unwrap_or_default()
    }

    /// Returns the first write without the right to it.
    pub(super) fn violation(&self) -> Option<String> {
        lock(&self.server).violation.clone()
    }
}

impl StoreServer {
    pub(super) fn open(&mut self, host: usize) -> (i64, Arc<Notify>) {
        self.last_session += 1;
        let poke = Arc::new(Notify::new());
        let entry = SessionEntry { host, abandoned: false, poke: Arc::clone(&poke), lag: None };
        self.sessions.insert(self.last_session, entry);
        (self.last_session, poke)
    }

    pub(super) fn session_view(&self, id: i64, host: usize) -> SessionView {
        let (session, at) = (self.sessions.get(&id), self.hosts[host]);
        SessionView {
            up: self.up,
            reaches: self.up && !at.cut && !at.paused,
            paused: at.paused,
            exists: session.is_some(),
            abandoned: session.is_some_and(|session| session.abandoned),
        }
    }

    pub(super) fn abandon(&mut self, id: i64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.abandoned = true;
            session.poke.notify_one();
        }
    }

    /// Ends a session and deletes its nodes.
    pub(super) fn end(&mut self, id: i64) {
        if let Some(session) = self.sessions.remove(&id) {
            session.poke.notify_one();
            let changed = self.tree.end(id);
            self.notify_watches(&changed);
        }
    }

    /// Returns whether the session exists.
    pub(super) fn has_session(&self, id: i64) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Returns until when the session's server lags, if it does.
    pub(super) fn lags_until(&self, id: i64) -> Option<Instant> {
        let lag = self.sessions.get(&id).and_then(|session| session.lag.as_ref());
        lag.map(|(until, _)| *until).filter(|until| *until > Instant::now())
    }

    /// Ends the lag of the session's server.
    pub(super) fn catch_up(&mut self, id: i64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.lag = None;
        }
    }

    /// Returns the tree as the session's server shows it.
    pub(super) fn seen_by(&self, id: i64) -> &NodeTree {
        let lag = self.sessions.get(&id).and_then(|session| session.lag.as_ref());
        lag.filter(|(until, _)| *until > Instant::now()).map_or(&self.tree, |(_, tree)| tree)
    }

    pub(super) fn watch(&mut self, subject: WatchKey) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let watchers = self.watches.entry(subject).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        receiver
    }

    pub(super) fn commit(&mut self, id: i64, operations: Vec<Op>) -> Result<Vec<String>, CoordError> {
        check_size(&operations)?;
        let unfenced = operations.iter().find_map(|op| self.unfenced(id, op));
        let (created, changed) = self.tree.commit(id, operations)?;
        self.violation = self.violation.take().or(unfenced);
        self.notify_watches(&changed);
        self.catch_up(id);
        Ok(created)
    }

    /// Returns an error if a leader's node is written by a session that does not hold the lock.
    fn unfenced(&self, id: i64, op: &Op) -> Option<String> {
        let (Op::Set { path, data } | Op::Create { path, data, .. }) = op else { return None };
        let (root, name) = path.rsplit_once('/')?;
        if !["hash", "snapshot", "view"].contains(&name) || data.is_empty() {
            return None;
        }
        let coordinator = format!("{root}/coordinator");
        let holder = election::holder(&self.tree.children(&coordinator)?)
            .and_then(|lock| self.tree.read(&format!("{coordinator}/{lock}")))
            .and_then(|node| node.owner);
        (holder != Some(id)).then(|| format!("{path} written by session {id}, but {holder:?} holds the lock"))
    }

    fn notify_watches(&mut self, changed: &[WatchKey]) {
        for subject in changed {
            for watcher in self.watches.remove(subject).unwrap_or_default() {
                // The watch may have been dropped.
                let _ = watcher.send(());
            }
        }
    }
}
