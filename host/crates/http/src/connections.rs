//! Limits of connections, and which one is closed for a new one.
//!
//! A new connection is always accepted. If all are taken, one without a request in progress is closed for it: of the address
//! that holds most of them, the one that is idle for longest. So many connections from one address close only its own, and many
//! from many addresses only idle ones; a client that sends its request immediately is served. A connection is never closed
//! while it [is held](ConnectionInfo::hold); callers hold fewer than all.
//!
//! Connections use half of the file descriptors that the process may have, shared by its servers: the rest is for children,
//! the store, peers and plugins.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use ochopod_init::process;
use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Maximum number of connections of one server.
const MAX_CONNECTIONS: usize = 1024;
/// Number that each server may have, however few descriptors there are.
const MIN_CONNECTIONS: usize = 16;
/// Share of the descriptors of the process that its connections may use, as a divisor.
const DESCRIPTOR_SHARE: usize = 2;

/// Servers of this process.
static SERVERS: AtomicUsize = AtomicUsize::new(0);
/// Maximum number of connections of all of them. The limit of the process is raised before any serves.
static MAX_TOTAL: LazyLock<usize> =
    LazyLock::new(|| process::max_descriptors().map_or(usize::MAX, |most| most / DESCRIPTOR_SHARE));

/// Returns the maximum number of connections of each server.
pub fn max_connections() -> usize {
    let servers = SERVERS.load(Ordering::Relaxed).max(1);
    (*MAX_TOTAL / servers).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// All connections of a server.
pub(super) struct ConnectionSet {
    tasks: JoinSet<()>,
    connections: HashMap<Id, (Arc<ConnectionInfo>, AbortHandle)>,
}

/// State of one connection.
pub struct ConnectionInfo {
    /// Address of the client.
    pub address: IpAddr,
    /// None while it is held.
    idle_since: Mutex<Option<Instant>>,
    /// Cancelled when its client disconnects while it is watched.
    gone: CancellationToken,
    watched: AtomicBool,
}

impl Drop for ConnectionSet {
    fn drop(&mut self) {
        SERVERS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionSet {
    pub(super) fn new() -> Self {
        SERVERS.fetch_add(1, Ordering::Relaxed);
        Self { tasks: JoinSet::new(), connections: HashMap::new() }
    }

    /// Serves a connection until it ends, or is closed for another.
    pub(super) fn insert<F>(&mut self, address: IpAddr, connection: impl FnOnce(Arc<ConnectionInfo>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // More than one if servers were added: each may have fewer then.
        while self.connections.len() >= max_connections() {
            let Some((_, connection)) = self.eviction_candidate().and_then(|id| self.connections.remove(&id)) else {
                break;
            };
            connection.abort();
        }
        let info = Arc::new(ConnectionInfo::new(address.to_canonical()));
        let task = self.tasks.spawn(connection(Arc::clone(&info)).in_current_span());
        self.connections.insert(task.id(), (info, task));
    }

    /// Completes when a connection has ended; never if there is none.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    pub(super) async fn reap_next(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => _ = self.connections.remove(&id),
            Some(Err(error)) => _ = self.connections.remove(&error.id()),
            None => std::future::pending().await,
        }
    }

    /// Completes when all connections have ended.
    pub(super) async fn join_all(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    fn eviction_candidate(&self) -> Option<Id> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for (info, _) in self.connections.values() {
            *held.entry(info.address).or_default() += 1;
        }
        let quiet = self.connections.iter().filter_map(|(id, (info, _))| {
            let since = (*info.idle_since())?;
            Some((held.get(&info.address).copied(), std::cmp::Reverse(since), *id))
        });
        quiet.max_by_key(|(held, since, _)| (*held, *since)).map(|(_, _, id)| id)
    }
}

impl ConnectionInfo {
    /// Returns the state of a new connection from this address.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        let idle_since = Mutex::new(Some(Instant::now()));
        Self { address, idle_since, gone: CancellationToken::new(), watched: AtomicBool::new(false) }
    }

    /// Marks it as in use, until it is [touched](Self::touch): it is not closed for another.
    pub fn hold(&self) {
        *self.idle_since() = None;
    }

    /// Returns whether its client is watched for disconnecting.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Sets whether its client is watched for disconnecting.
    pub fn watch(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Returns the token that is cancelled when its client has disconnected.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Records that a request arrived or ended: it is idle from now on.
    pub fn touch(&self) {
        *self.idle_since() = Some(Instant::now());
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
