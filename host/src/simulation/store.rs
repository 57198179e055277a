//! The store's server: ZooKeeper's rules over one tree, sessions that expire, servers that lag.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{lock, session::Line, weather::Weather};
use crate::coord::{self, CoordError, Node, Op, Subject, Tree};

/// How a host is connected.
#[derive(Debug, Clone, Copy, Default)]
struct Host {
    cut: bool,
    frozen: bool,
}

/// A session that has not expired.
struct Entry {
    host: usize,
    /// Its client is gone, or has given it up: nobody pings.
    abandoned: bool,
    /// Told that something may be different now.
    poke: Arc<Notify>,
    /// What the server that it talks to still shows, and until when.
    lag: Option<(Instant, Tree)>,
}

/// What a session's client can know of it right now.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Look {
    /// A server answers.
    pub(super) up: bool,
    /// The host can be heard.
    pub(super) reaches: bool,
    /// The host does nothing.
    pub(super) frozen: bool,
    /// The session has not expired.
    pub(super) exists: bool,
    /// See [`Entry`].
    pub(super) abandoned: bool,
}

pub(super) struct Server {
    tree: Tree,
    up: bool,
    hosts: Vec<Host>,
    sessions: BTreeMap<i64, Entry>,
    last_session: i64,
    watches: HashMap<Subject, Vec<oneshot::Sender<()>>>,
    violation: Option<String>,
}

/// The store. Clones are handles on the same.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) server: Arc<Mutex<Server>>,
    pub(super) weather: Weather,
    pub(super) timeout: Duration,
}

impl Store {
    pub(super) fn new(weather: Weather, timeout: Duration) -> Self {
        let server = Server {
            tree: Tree::default(),
            up: true,
            hosts: Vec::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            watches: HashMap::new(),
            violation: None,
        };
        Self { server: Arc::new(Mutex::new(server)), weather, timeout }
    }

    /// The store as one more host reaches it, and the host's number.
    pub(super) fn connect_host(&self) -> (Line, usize) {
        let mut server = lock(&self.server);
        server.hosts.push(Host::default());
        let host = server.hosts.len() - 1;
        (Line { store: self.clone(), host }, host)
    }

    pub(super) fn cut(&self, host: usize, cut: bool) {
        self.change(|server| server.hosts[host].cut = cut);
    }

    pub(super) fn freeze(&self, host: usize, frozen: bool) {
        self.change(|server| server.hosts[host].frozen = frozen);
    }

    /// The servers stop, or are back.
    pub(super) fn power(&self, up: bool) {
        self.change(|server| server.up = up);
    }

    /// The sessions of a host expire at once.
    pub(super) fn expire(&self, host: usize) {
        self.change(|server| {
            let ids: Vec<i64> = server.sessions.iter().filter(|(_, s)| s.host == host).map(|(id, _)| *id).collect();
            for id in ids {
                server.end(id);
            }
        });
    }

    /// Somebody deletes the lock node of the holder.
    pub(super) fn unlock(&self, coordinator: &str) {
        let mut server = lock(&self.server);
        let holder = coord::holder(&server.tree.children(coordinator).unwrap_or_default()).map(str::to_owned);
        if let Some(holder) = holder {
            let deletion = Op::Delete(format!("{coordinator}/{holder}"));
            let (_, changed) = server.tree.commit(0, vec![deletion]).unwrap();
            server.fire(&changed);
        }
    }

    /// The server that a host talks to shows for a while what is true now.
    pub(super) fn lag(&self, host: usize, time: Duration) {
        let mut server = lock(&self.server);
        let tree = server.tree.clone();
        for session in server.sessions.values_mut().filter(|session| session.host == host) {
            session.lag = Some((Instant::now() + time, tree.clone()));
        }
    }

    /// Everything is well again.
    pub(super) fn heal(&self) {
        self.change(|server| {
            server.up = true;
            server.hosts.iter_mut().for_each(|host| *host = Host::default());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Server)) {
        let mut server = lock(&self.server);
        let pokes: Vec<_> = server.sessions.values().map(|session| Arc::clone(&session.poke)).collect();
        change(&mut server);
        for poke in &pokes {
            poke.notify_one();
        }
    }

    /// A node as it is.
    pub(super) fn read(&self, path: &str) -> Option<Node> {
        lock(&self.server).tree.read(path)
    }

    /// A node's children as they are.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        lock(&self.server).tree.children(path).unwrap_or_default()
    }

    /// What somebody wrote who had no right to.
    pub(super) fn violation(&self) -> Option<String> {
        lock(&self.server).violation.clone()
    }
}

impl Server {
    pub(super) fn open(&mut self, host: usize) -> (i64, Arc<Notify>) {
        self.last_session += 1;
        let poke = Arc::new(Notify::new());
        let entry = Entry { host, abandoned: false, poke: Arc::clone(&poke), lag: None };
        self.sessions.insert(self.last_session, entry);
        (self.last_session, poke)
    }

    pub(super) fn look(&self, id: i64, host: usize) -> Look {
        let (session, at) = (self.sessions.get(&id), self.hosts[host]);
        Look {
            up: self.up,
            reaches: self.up && !at.cut && !at.frozen,
            frozen: at.frozen,
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

    /// The session is over: its nodes go.
    pub(super) fn end(&mut self, id: i64) {
        if let Some(session) = self.sessions.remove(&id) {
            session.poke.notify_one();
            let changed = self.tree.end(id);
            self.fire(&changed);
        }
    }

    /// Whether the session is known here.
    pub(super) fn knows(&self, id: i64) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Until when the session's server lags.
    pub(super) fn lags_until(&self, id: i64) -> Option<Instant> {
        let lag = self.sessions.get(&id).and_then(|session| session.lag.as_ref());
        lag.map(|(until, _)| *until).filter(|until| *until > Instant::now())
    }

    /// The session's server has everything by now.
    pub(super) fn catch_up(&mut self, id: i64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.lag = None;
        }
    }

    /// The nodes as this session sees them.
    pub(super) fn seen_by(&self, id: i64) -> &Tree {
        let lag = self.sessions.get(&id).and_then(|session| session.lag.as_ref());
        lag.filter(|(until, _)| *until > Instant::now()).map_or(&self.tree, |(_, tree)| tree)
    }

    pub(super) fn watch(&mut self, subject: Subject) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let watchers = self.watches.entry(subject).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        receiver
    }

    pub(super) fn commit(&mut self, id: i64, operations: Vec<Op>) -> Result<Vec<String>, CoordError> {
        coord::check_size(&operations)?;
        let unfenced = operations.iter().find_map(|op| self.unfenced(id, op));
        let (created, changed) = self.tree.commit(id, operations)?;
        self.violation = self.violation.take().or(unfenced);
        self.fire(&changed);
        self.catch_up(id);
        Ok(created)
    }

    /// What a leader writes is written by who holds the lock.
    fn unfenced(&self, id: i64, op: &Op) -> Option<String> {
        let (Op::Set { path, data } | Op::Create { path, data, .. }) = op else { return None };
        let (root, name) = path.rsplit_once('/')?;
        if !["hash", "snapshot", "view"].contains(&name) || data.is_empty() {
            return None;
        }
        let coordinator = format!("{root}/coordinator");
        let holder = coord::holder(&self.tree.children(&coordinator)?)
            .and_then(|lock| self.tree.read(&format!("{coordinator}/{lock}")))
            .and_then(|node| node.owner);
        (holder != Some(id)).then(|| format!("{path} is written by session {id}, but {holder:?} holds the lock"))
    }

    fn fire(&mut self, changed: &[Subject]) {
        for subject in changed {
            for watcher in self.watches.remove(subject).unwrap_or_default() {
                // A watch that nobody waits for any more is no loss.
                let _ = watcher.send(());
            }
        }
    }
}
