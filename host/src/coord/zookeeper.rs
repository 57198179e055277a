//! A session with a ZooKeeper ensemble.
//!
//! One-shot watches only: the client loses persistent ones when it reconnects. Requests made while the connection is gone
//! are queued by the client, so every call has a deadline of its own here.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::debug;
use zookeeper_client::{
    Client, CreateMode, Error, MultiWriteError, MultiWriteResult, OneshotWatcher, SessionState as ClientState, Stat,
    StateWatcher,
};

use super::{
    Access, CoordError, Coordination, Mode, Node, Op, SessionState, Watch, Watched, ZooKeeperAddress, access::Lists,
    check_size, watch_until,
};

/// Version that a check takes for any.
const ANY_VERSION: i32 = -1;

/// Opens a session; a chroot that does not exist is created.
pub(super) async fn connect(
    address: &ZooKeeperAddress,
    timeout: Duration,
) -> Result<Arc<dyn Coordination>, CoordError> {
    // The client's own retrying waits longer and longer between attempts, up to the whole timeout; the caller's does not.
    let mut connector = Client::connector().with_session_timeout(timeout).with_fail_eagerly();
    if let Some(credentials) = address.credentials() {
        connector = connector.with_auth("digest", credentials.as_bytes());
    }
    let (hosts, lists) = (address.hosts(), Lists::new(address));
    let open = async {
        let connected = match address.tls() {
            None => connector.connect(&hosts).await.map_err(|e| failed(&e, &hosts)),
            Some(tls) => match connector.with_tls(tls.options()?).secure_connect(&hosts).await {
                Ok(client) => Ok(client),
                Err(error) => Err(match tls.complaint(address.servers()).await {
                    Some(complaint) => CoordError::Unavailable(complaint),
                    None => failed(&error, &hosts),
                }),
            },
        };
        match address.chroot() {
            None => connected,
            Some(chroot) => enter(connected?, chroot, lists).await,
        }
    };
    let client = time::timeout(timeout, open).await.map_err(|_| silent(timeout))??;
    debug!(session = %client.session_id(), timeout = ?client.session_timeout(), "connected to {address}");
    Ok(Arc::new(Session::new(client, lists)))
}

async fn enter(client: Client, chroot: &str, lists: Lists) -> Result<Client, CoordError> {
    if client.check_stat(chroot).await.map_err(|e| failed(&e, chroot))?.is_none() {
        let options = CreateMode::Persistent.with_acls(lists.of(Access::Open));
        client.mkdir(chroot, &options).await.map_err(|e| failed(&e, chroot))?;
    }
    client.chroot(chroot).map_err(|_| CoordError::Unexpected(format!("{chroot} is not taken for a chroot")))
}

struct Session {
    /// None once closed: the session ends when the last clone is dropped.
    client: Mutex<Option<Client>>,
    /// Makes calls under way drop their clones.
    closing: CancellationToken,
    id: i64,
    timeout: Duration,
    lists: Lists,
    state: Arc<watch::Sender<SessionState>>,
    _following: AbortOnDropHandle<()>,
}

impl Session {
    fn new(client: Client, lists: Lists) -> Self {
        let (id, timeout, watcher) = (client.session_id().0, client.session_timeout(), client.state_watcher());
        let state = Arc::new(watch::Sender::new(translated(watcher.peek_state())));
        let following = AbortOnDropHandle::new(tokio::spawn(follow(watcher, Arc::clone(&state))));
        let closing = CancellationToken::new();
        Self { client: Mutex::new(Some(client)), closing, id, timeout, lists, state, _following: following }
    }

    async fn call<T, F>(&self, operation: impl FnOnce(Client) -> F) -> Result<T, CoordError>
    where
        F: Future<Output = Result<T, CoordError>>,
    {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let client = client.ok_or(CoordError::SessionLost)?;
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(CoordError::SessionLost),
            result = time::timeout(self.timeout, operation(client)) => result.map_err(|_| silent(self.timeout))?,
        }
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
        self.state.subscribe()
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>> {
        self.call(move |client| async move {
            let read = client.get_data(path).await;
            Ok(present(read, path)?.map(|(data, stat)| node(data, &stat)))
        })
        .boxed()
    }

    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>> {
        let state = self.state.subscribe();
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
        let state = self.state.subscribe();
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
            let mut state = self.state.subscribe();
            drop(self.client.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.closing.cancel();
            if time::timeout(self.timeout, state.wait_for(|state| *state == SessionState::Lost)).await.is_err() {
                debug!(session = self.id, "closed a session without hearing from the store");
            }
            self.state.send_replace(SessionState::Lost);
        }
        .boxed()
    }
}

/// Publishes the client's state until its last.
async fn follow(mut watcher: StateWatcher, state: Arc<watch::Sender<SessionState>>) {
    let mut now = watcher.state();
    loop {
        debug!("the client's session is {now}");
        let next = translated(now);
        state.send_if_modified(|state| *state != SessionState::Lost && std::mem::replace(state, next) != next);
        if now.is_terminated() {
            return;
        }
        now = watcher.changed().await;
    }
}

fn translated(state: ClientState) -> SessionState {
    match state {
        ClientState::SyncConnected => SessionState::Connected,
        ClientState::Disconnected | ClientState::ConnectedReadOnly => SessionState::Suspended,
        ClientState::AuthFailed | ClientState::Expired | ClientState::Closed => SessionState::Lost,
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
        Error::SessionExpired | Error::ClientClosed => CoordError::SessionLost,
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
