//! Sessions with a ZooKeeper ensemble.
//!
//! | module | owns |
//! |---|---|
//! | `address`, `tls` | servers, chroot, credentials and certificates |
//! | `acl` | ACLs that nodes are created with, and those that are not strict enough |
//! | `connection` | one connection to one server |
//! | `reconnector` | the session over one connection after the other; decides when it is lost |
//!
//! Watches are one-shot, and none outlives its connection. Each call has its own deadline, and fails immediately while there
//! is no connection.

mod acl;
pub(crate) mod address;
mod connection;
mod reconnector;
pub(crate) mod tls;

use std::{
    future::{self, Future},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug};
use zookeeper_client::{Client, CreateMode, Error, MultiWriteError, MultiWriteResult, OneshotWatcher, Stat};

use self::{acl::AclPolicy, address::ZooKeeperAddress, reconnector::Reconnector};
use super::{
    CoordError, SessionState,
    znodes::{Coordination, Exposure, Mode, Node, NodeAccess, NodeStore, Op, Watch, Watched, check_size, watch_until},
};

/// Version that a check accepts as any.
const ANY_VERSION: i32 = -1;

/// A ZooKeeper ensemble.
#[derive(Debug, Clone)]
pub(crate) struct ZooKeeperStore {
    pub(crate) address: ZooKeeperAddress,
    /// The session timeout to request.
    pub(crate) timeout: Duration,
}

impl NodeStore for ZooKeeperStore {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn servers(&self) -> &[(String, u16)] {
        self.address.servers()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Coordination>, CoordError>> {
        connect(&self.address, self.timeout).boxed()
    }
}

/// Opens a session; a missing chroot is created.
async fn connect(address: &ZooKeeperAddress, timeout: Duration) -> Result<Arc<dyn Coordination>, CoordError> {
    let (client, connection) = match connection::connect_any(address, timeout, None).await {
        Ok(connection) => connection,
        Err(error) => return Err(with_tls_diagnosis(error, address, timeout).await),
    };
    let (session, granted) = (client.session().clone(), client.session_timeout());
    debug!(session = %session.id(), timeout = granted.as_secs_f64(), %address, "session opened");
    let id = session.id().0;
    let shared = Arc::new(SessionShared {
        client: Mutex::new(Some(client)),
        closing: CancellationToken::new(),
        state: watch::Sender::new(SessionState::Connected),
    });
    let reconnector = Reconnector { address: address.clone(), timeout: granted, session, shared: Arc::clone(&shared) };
    // The task ends with the session, which may be some time after its last handle was dropped.
    tokio::spawn(reconnector.run(connection).in_current_span());
    Ok(Arc::new(ZooKeeperSession { shared, id, timeout: granted, acl: AclPolicy::new(address) }))
}

/// Replaces the error of the client, which reports no cause, by the cause of a failed TLS handshake.
async fn with_tls_diagnosis(error: CoordError, address: &ZooKeeperAddress, limit: Duration) -> CoordError {
    let (CoordError::Unavailable(_), Some(tls)) = (&error, address.tls()) else { return error };
    let diagnose_handshake = time::timeout(limit, tls.diagnose_handshake(address.servers())).await;
    diagnose_handshake.ok().flatten().map_or(error, CoordError::Unavailable)
}

struct ZooKeeperSession {
    shared: Arc<SessionShared>,
    id: i64,
    timeout: Duration,
    acl: AclPolicy,
}

/// State shared by a session and its reconnector.
struct SessionShared {
    /// None while there is no connection, and after the close: the store ends the session when the last clone is dropped.
    client: Mutex<Option<Client>>,
    /// Makes calls in flight drop their clones, and the reconnector store no new one.
    closing: CancellationToken,
    state: watch::Sender<SessionState>,
}

impl SessionShared {
    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closing.cancel();
        drop(self.client().take());
    }

    /// Removes and returns the client whose connection is gone.
    fn suspend(&self) -> Option<Client> {
        let client = self.client().take();
        self.set_state(SessionState::Suspended);
        client
    }

    fn resume(&self, client: Client) {
        {
            let mut current = self.client();
            if self.closing.is_cancelled() {
                return;
            }
            *current = Some(client);
        }
        self.set_state(SessionState::Connected);
    }

    fn mark_lost(&self) {
        drop(self.client().take());
        self.set_state(SessionState::Lost);
    }

    async fn lost(&self) {
        // An error means that the sender is gone, which cannot happen here.
        _ = self.state.subscribe().wait_for(|state| *state == SessionState::Lost).await;
    }

    /// Sets the state, unless it is `Lost`, which is final.
    fn set_state(&self, next: SessionState) {
        self.state.send_if_modified(|state| *state != SessionState::Lost && std::mem::replace(state, next) != next);
    }
}

impl Drop for ZooKeeperSession {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl ZooKeeperSession {
    async fn call<T, F>(&self, operation: impl FnOnce(Client) -> F) -> Result<T, CoordError>
    where
        F: Future<Output = Result<T, CoordError>>,
    {
        let client = self.shared.client().clone();
        let Some(client) = client else { return Err(self.unconnected()) };
        tokio::select! {
            biased;
            () = self.shared.closing.cancelled() => Err(CoordError::SessionLost),
            result = time::timeout(self.timeout, operation(client)) => result.map_err(|_| timed_out(self.timeout))?,
        }
    }

    fn unconnected(&self) -> CoordError {
        if self.shared.closing.is_cancelled() || *self.shared.state.borrow() == SessionState::Lost {
            return CoordError::SessionLost;
        }
        CoordError::Unavailable("connection lost".to_owned())
    }
}

impl Coordination for ZooKeeperSession {
    fn id(&self) -> i64 {
        self.id
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(move |client| async move {
            let read = client.get_data(path).await;
            Ok(none_if_missing(read, path)?.map(|(data, stat)| node(data, &stat)))
        })
        .boxed()
    }

    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>> {
        let state = self.shared.state.subscribe();
        self.call(move |client| async move {
            loop {
                let read = client.get_and_watch_data(path).await;
                if let Some((data, stat, watcher)) = none_if_missing(read, path)? {
                    return Ok((Some(node(data, &stat)), until_changed(watcher, state)));
                }
                if let Some(watcher) = watch_absent(&client, path).await? {
                    return Ok((None, until_changed(watcher, state)));
                }
            }
        })
        .boxed()
    }

    fn sync<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), CoordError>> {
        self.call(move |client| async move { none_if_missing(client.sync(path).await, path).map(drop) }).boxed()
    }

    fn read_synced<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(move |client| async move {
            // Both are sent now. The server executes the requests of a session in their order.
            let (synced, read) = (client.sync(path), client.get_data(path));
            none_if_missing(synced.await, path)?;
            Ok(none_if_missing(read.await, path)?.map(|(data, stat)| node(data, &stat)))
        })
        .boxed()
    }

    fn acl_mismatch<'a>(
        &'a self,
        path: &'a str,
        access: NodeAccess,
    ) -> BoxFuture<'a, Result<Option<String>, CoordError>> {
        let acl = self.acl.clone();
        self.call(move |client| async move {
            let read = none_if_missing(client.get_acl(path).await, path)?;
            Ok(read.and_then(|(list, _)| acl.acl_mismatch(&list, access)))
        })
        .boxed()
    }

    fn exposure<'a>(
        &'a self,
        path: &'a str,
        access: NodeAccess,
    ) -> BoxFuture<'a, Result<Option<Exposure>, CoordError>> {
        if !self.acl.is_strict() {
            return future::ready(Ok(None)).boxed();
        }
        let acl = self.acl.clone();
        self.call(move |client| async move {
            let Some((list, _)) = none_if_missing(client.get_acl(path).await, path)? else { return Ok(None) };
            let found = acl.exposure(path, &list, access, &[]);
            if found.is_none() || acl.address().tls().is_none() {
                return Ok(found);
            }
            // Nodes are also created for the user of the certificate.
            let users = match client.list_auth_users().await {
                // Servers before 3.7.
                Err(Error::Unimplemented) => Vec::new(),
                users => users.map_err(|e| client_error(&e, path))?,
            };
            Ok(acl.exposure(path, &list, access, &users))
        })
        .boxed()
    }

    fn create_root(&self) -> BoxFuture<'_, Result<(), CoordError>> {
        let Some(chroot) = self.acl.address().chroot() else { return future::ready(Ok(())).boxed() };
        self.call(move |client| async move {
            let unexpected = |_| CoordError::Unexpected("the client cannot leave its chroot".to_owned());
            let client = client.chroot("/").map_err(unexpected)?;
            connection::create_chroot(&client, chroot, &self.acl).await
        })
        .boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>> {
        self.call(move |client| async move { none_if_missing(client.list_children(path).await, path) }).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>> {
        let state = self.shared.state.subscribe();
        self.call(move |client| async move {
            loop {
                let listed = client.list_and_watch_children(path).await;
                if let Some((names, watcher)) = none_if_missing(listed, path)? {
                    return Ok((Some(names), until_changed(watcher, state)));
                }
                if let Some(watcher) = watch_absent(&client, path).await? {
                    return Ok((None, until_changed(watcher, state)));
                }
            }
        })
        .boxed()
    }

    fn commit(&self, operations: Vec<Op>) -> BoxFuture<'_, Result<Vec<String>, CoordError>> {
        let acl = self.acl.clone();
        self.call(move |client| async move {
            check_size(&operations)?;
            let mut writer = client.new_multi_writer();
            for operation in &operations {
                add(&mut writer, operation, &acl).map_err(|e| client_error(&e, operation.path()))?;
            }
            let results = writer.commit().await.map_err(|error| commit_error(error, &operations))?;
            let created = |result| match result {
                MultiWriteResult::Create { path, .. } => Some(path),
                _ => None,
            };
            Ok(results.into_iter().filter_map(created).collect())
        })
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.shared.close();
            if time::timeout(self.timeout, self.shared.lost()).await.is_err() {
                debug!(session = self.id, "session closed without confirmation");
            }
            self.shared.mark_lost();
        }
        .boxed()
    }
}

fn until_changed(watcher: OneshotWatcher, state: watch::Receiver<SessionState>) -> Watch {
    watch_until(watcher.changed().map(|_| ()), state)
}

/// Watches for the creation of a node; none if it has been created meanwhile.
async fn watch_absent(client: &Client, path: &str) -> Result<Option<OneshotWatcher>, CoordError> {
    let (stat, watcher) = client.check_and_watch_stat(path).await.map_err(|e| client_error(&e, path))?;
    Ok(stat.is_none().then_some(watcher))
}

fn node(data: Vec<u8>, stat: &Stat) -> Node {
    Node { data, created: stat.czxid, owner: (stat.ephemeral_owner != 0).then_some(stat.ephemeral_owner) }
}

fn add(writer: &mut zookeeper_client::MultiWriter<'_>, operation: &Op, acl: &AclPolicy) -> Result<(), Error> {
    match operation {
        Op::Check(path) => writer.add_check_version(path, ANY_VERSION),
        Op::Create { path, data, mode, access } => {
            writer.add_create(path, data, &created_as(*mode).with_acls(acl.of(*access)))
        }
        Op::Set { path, data } => writer.add_set_data(path, data, None),
        Op::Delete(path) => writer.add_delete(path, None),
    }
}

fn created_as(mode: Mode) -> CreateMode {
    match mode {
        Mode::Persistent => CreateMode::Persistent,
        Mode::Ephemeral => CreateMode::Ephemeral,
        Mode::EphemeralSequential => CreateMode::EphemeralSequential,
    }
}

fn none_if_missing<T>(result: Result<T, Error>, path: &str) -> Result<Option<T>, CoordError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(client_error(&error, path)),
    }
}

fn commit_error(error: MultiWriteError, operations: &[Op]) -> CoordError {
    let (index, source) = match error {
        MultiWriteError::RequestFailed { source } => return client_error(&source, "commit"),
        MultiWriteError::OperationFailed { index, source } => (index, source),
    };
    let path = operations.get(index).map(|op| op.path().to_owned()).unwrap_or_default();
    match source {
        Error::NoNode | Error::NodeExists | Error::BadVersion | Error::NotEmpty | Error::NoChildrenForEphemerals => {
            CoordError::Conflict { index, path, reason: source.to_string() }
        }
        other => client_error(&other, &path),
    }
}

/// Converts an error of the client. Unknown errors count as a lost connection, which has many names.
fn client_error(error: &Error, what: &str) -> CoordError {
    match error {
        Error::SessionExpired => CoordError::SessionLost,
        Error::AuthFailed => CoordError::AuthFailed(format!("{what}: {error}")),
        Error::NoAuth => CoordError::AccessDenied(what.to_owned()),
        Error::BadArguments(_)
        | Error::UnmarshalError { .. }
        | Error::MarshallingError
        | Error::Unimplemented
        | Error::InvalidAcl
        | Error::QuotaExceeded => CoordError::Unexpected(format!("{what}: {error}")),
        other => CoordError::Unavailable(format!("{what}: {other}")),
    }
}

fn timed_out(timeout: Duration) -> CoordError {
    CoordError::Unavailable(format!("no response within {} s", timeout.as_secs_f64()))
}
