//! A session with a ZooKeeper ensemble.
//!
//! | module | owns |
//! |---|---|
//! | `link` | one connection to one server |
//! | `keeper` | the session over one connection after the other |
//!
//! One-shot watches only, and none outlives its connection. Every call has a deadline of its own here, and fails at once
//! while there is no connection.

mod keeper;
mod link;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use zookeeper_client::{Client, CreateMode, Error, MultiWriteError, MultiWriteResult, OneshotWatcher, Stat};

use super::{
    Access, CoordError, Coordination, Mode, Node, Op, SessionState, Watch, Watched, ZooKeeperAddress, access::Lists,
    check_size, watch_until,
};
use keeper::Keeper;

/// Version that a check takes for any.
const ANY_VERSION: i32 = -1;

/// Opens a session; a chroot that does not exist is created.
pub(super) async fn connect(
    address: &ZooKeeperAddress,
    timeout: Duration,
) -> Result<Arc<dyn Coordination>, CoordError> {
    let (client, lifeline) = match link::reach(address, timeout, None).await {
        Ok(link) => link,
        Err(error) => return Err(explained(error, address, timeout).await),
    };
    let (session, granted) = (client.session().clone(), client.session_timeout());
    debug!(session = %session.id(), timeout = ?granted, "connected to {address}");
    let id = session.id().0;
    let shared = Arc::new(Shared {
        client: Mutex::new(Some(client)),
        closing: CancellationToken::new(),
        state: watch::Sender::new(SessionState::Connected),
    });
    let keeper = Keeper { address: address.clone(), timeout: granted, session, shared: Arc::clone(&shared) };
    // It ends with the session, which may be some time after the last handle on it is gone.
    tokio::spawn(keeper.run(lifeline));
    Ok(Arc::new(Session { shared, id, timeout: granted, lists: Lists::new(address) }))
}

/// The client only says that it could not connect: why TLS does not come about is found out here.
async fn explained(error: CoordError, address: &ZooKeeperAddress, limit: Duration) -> CoordError {
    let (CoordError::Unavailable(_), Some(tls)) = (&error, address.tls()) else { return error };
    let complaint = time::timeout(limit, tls.complaint(address.servers())).await;
    complaint.ok().flatten().map_or(error, CoordError::Unavailable)
}

struct Session {
    shared: Arc<Shared>,
    id: i64,
    timeout: Duration,
    lists: Lists,
}

/// What a session and its keeper share.
struct Shared {
    /// None while there is no connection, and once closed: the store ends the session when the last clone is dropped.
    client: Mutex<Option<Client>>,
    /// Makes calls under way drop their clones, and the keeper keep none.
    closing: CancellationToken,
    state: watch::Sender<SessionState>,
}

impl Shared {
    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closing.cancel();
        drop(self.client().take());
    }

    /// Gives the client whose connection is gone.
    fn suspend(&self) -> Option<Client> {
        let client = self.client().take();
        self.turn(SessionState::Suspended);
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
        self.turn(SessionState::Connected);
    }

    fn lose(&self) {
        drop(self.client().take());
        self.turn(SessionState::Lost);
    }

    async fn lost(&self) {
        // An error would say that nobody is left to tell.
        _ = self.state.subscribe().wait_for(|state| *state == SessionState::Lost).await;
    }

    /// `Lost` is final.
    fn turn(&self, next: SessionState) {
        self.state.send_if_modified(|state| *state != SessionState::Lost && std::mem::replace(state, next) != next);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Session {
    async fn call<T, F>(&self, operation: impl FnOnce(Client) -> F) -> Result<T, CoordError>
    where
        F: Future<Output = Result<T, CoordError>>,
    {
        let client = self.shared.client().clone();
        let Some(client) = client else { return Err(self.unconnected()) };
        tokio::select! {
            biased;
            () = self.shared.closing.cancelled() => Err(CoordError::SessionLost),
            result = time::timeout(self.timeout, operation(client)) => result.map_err(|_| silent(self.timeout))?,
        }
    }

    fn unconnected(&self) -> CoordError {
        if self.shared.closing.is_cancelled() || *self.shared.state.borrow() == SessionState::Lost {
            return CoordError::SessionLost;
        }
        CoordError::Unavailable("the connection is gone".to_owned())
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
        self.shared.state.subscribe()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(move |client| async move {
            let read = client.get_data(path).await;
            Ok(present(read, path)?.map(|(data, stat)| node(data, &stat)))
        })
        .boxed()
    }

    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>> {
        let state = self.shared.state.subscribe();
        self.call(move |client| async move {
            loop {
                let read = client.get_and_watch_data(path).await;
                if let Some((data, stat, watcher)) = present(read, path)? {
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
        self.call(move |client| async move { present(client.sync(path).await, path).map(drop) }).boxed()
    }

    fn unlike<'a>(&'a self, path: &'a str, access: Access) -> BoxFuture<'a, Result<Option<String>, CoordError>> {
        let lists = self.lists;
        self.call(move |client| async move {
            let read = present(client.get_acl(path).await, path)?;
            Ok(read.and_then(|(list, _)| lists.unlike(&list, access)))
        })
        .boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>> {
        self.call(move |client| async move { present(client.list_children(path).await, path) }).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>> {
        let state = self.shared.state.subscribe();
        self.call(move |client| async move {
            loop {
                let listed = client.list_and_watch_children(path).await;
                if let Some((names, watcher)) = present(listed, path)? {
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
        let lists = self.lists;
        self.call(move |client| async move {
            check_size(&operations)?;
            let mut writer = client.new_multi_writer();
            for operation in &operations {
                add(&mut writer, operation, lists).map_err(|e| failed(&e, operation.path()))?;
            }
            let results = writer.commit().await.map_err(|error| refused(error, &operations))?;
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
                debug!(session = self.id, "closed a session without hearing from the store");
            }
            self.shared.lose();
        }
        .boxed()
    }
}

fn until_changed(watcher: OneshotWatcher, state: watch::Receiver<SessionState>) -> Watch {
    watch_until(watcher.changed().map(|_| ()), state)
}

/// A watch for the creation of a node, or none when it has been created meanwhile.
async fn watch_absent(client: &Client, path: &str) -> Result<Option<OneshotWatcher>, CoordError> {
    let (stat, watcher) = client.check_and_watch_stat(path).await.map_err(|e| failed(&e, path))?;
    Ok(stat.is_none().then_some(watcher))
}

fn node(data: Vec<u8>, stat: &Stat) -> Node {
    Node { data, created: stat.czxid, owner: (stat.ephemeral_owner != 0).then_some(stat.ephemeral_owner) }
}

fn add(writer: &mut zookeeper_client::MultiWriter<'_>, operation: &Op, lists: Lists) -> Result<(), Error> {
    match operation {
        Op::Check(path) => writer.add_check_version(path, ANY_VERSION),
        Op::Create { path, data, mode, access } => {
            writer.add_create(path, data, &created_as(*mode).with_acls(lists.of(*access)))
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

fn present<T>(result: Result<T, Error>, path: &str) -> Result<Option<T>, CoordError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(failed(&error, path)),
    }
}

fn refused(error: MultiWriteError, operations: &[Op]) -> CoordError {
    let (index, source) = match error {
        MultiWriteError::RequestFailed { source } => return failed(&source, "a commit"),
        MultiWriteError::OperationFailed { index, source } => (index, source),
    };
    let path = operations.get(index).map(|op| op.path().to_owned()).unwrap_or_default();
    match source {
        Error::NoNode | Error::NodeExists | Error::BadVersion | Error::NotEmpty | Error::NoChildrenForEphemerals => {
            CoordError::Conflict { index, path, reason: source.to_string() }
        }
        other => failed(&other, &path),
    }
}

/// A failure of the client: what is not known to be something else is a matter of the connection, whose end has many names.
fn failed(error: &Error, what: &str) -> CoordError {
    match error {
        Error::SessionExpired => CoordError::SessionLost,
        Error::AuthFailed => CoordError::AuthFailed(format!("{what}: {error}")),
        Error::NoAuth => CoordError::Denied(what.to_owned()),
        Error::BadArguments(_)
        | Error::UnmarshalError { .. }
        | Error::MarshallingError
        | Error::Unimplemented
        | Error::InvalidAcl
        | Error::QuotaExceeded => CoordError::Unexpected(format!("{what}: {error}")),
        other => CoordError::Unavailable(format!("{what}: {other}")),
    }
}

fn silent(timeout: Duration) -> CoordError {
    CoordError::Unavailable(format!("nothing was heard for {timeout:?}"))
}
