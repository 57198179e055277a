//! One connection to one server.
//!
//! The client would reconnect automatically, but with growing delays: it may notice a recovered store as late as 1.5 times
//! the outage. Each client therefore gets one connection only. When that is lost, its task is ended, and the session
//! continues with a new client: see [`super::reconnector`].

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use spawns_core::{Spawn, Task};
use tokio::time::{self, Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use zookeeper_client::{Client, CreateMode, SessionInfo, SessionState, StateWatcher};

use super::{AclPolicy, CoordError, NodeAccess, ZooKeeperAddress, client_error, timed_out};

/// Limit of the first attempt per server: another server may be alive, or the next attempt may succeed.
const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection of a client. Dropping it closes the connection and leaves the session unchanged.
pub(super) struct Connection {
    watcher: StateWatcher,
    task: Option<AbortOnDropHandle<()>>,
}

/// End of a connection.
pub(super) enum ConnectionEnd {
    /// The session may continue.
    Cut,
    /// The session has ended.
    Over,
}

impl Connection {
    /// Waits for the end of the connection.
    pub(super) async fn ended(&mut self) -> ConnectionEnd {
        let mut now = self.watcher.state();
        loop {
            debug!(state = %now, "client session state");
            match now {
                SessionState::SyncConnected => {
                    now = tokio::select! {
                        biased;
                        state = self.watcher.changed() => state,
                        () = finished(&mut self.task) => match self.watcher.state() {
                            // The task failed without reporting a state.
                            SessionState::SyncConnected => return ConnectionEnd::Cut,
                            state => state,
                        },
                    };
                }
                SessionState::Disconnected | SessionState::ConnectedReadOnly => return ConnectionEnd::Cut,
                SessionState::AuthFailed | SessionState::Expired | SessionState::Closed => return ConnectionEnd::Over,
            }
        }
    }
}

/// Waits until the client's task ends or panics.
async fn finished(task: &mut Option<AbortOnDropHandle<()>>) {
    match task {
        Some(task) => _ = task.await,
        None => pending().await,
    }
}

/// Connects to one server after the other until one accepts the session, or a new one if none is given. Fails if all servers
/// refuse, or none has answered within the timeout. Reads over the connection are not older than the call.
pub(super) async fn connect_any(
    address: &ZooKeeperAddress,
    timeout: Duration,
    session: Option<&SessionInfo>,
) -> Result<(Client, Connection), CoordError> {
    let mut servers: Vec<String> = address.hosts().split(',').map(str::to_owned).collect();
    fastrand::shuffle(&mut servers);
    let deadline = Instant::now() + timeout;
    let mut connect_timeout = FIRST_CONNECT_TIMEOUT.min(timeout / 5);
    loop {
        let mut refusal = Ok(());
        let mut timed_out_once = false;
        for server in &servers {
            let limit = deadline.min(Instant::now() + connect_timeout);
            match time::timeout_at(limit, connect_server(address, server, timeout, session)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) if error.is_auth_error() || error == CoordError::SessionLost => return Err(error),
                Ok(Err(error)) => refusal = Err(error),
                Err(_) => timed_out_once = true,
            }
        }
        if !timed_out_once {
            refusal?;
        }
        if Instant::now() >= deadline {
            return Err(timed_out(timeout));
        }
        connect_timeout *= 2;
    }
}

async fn connect_server(
    address: &ZooKeeperAddress,
    server: &str,
    timeout: Duration,
    session: Option<&SessionInfo>,
) -> Result<(Client, Connection), CoordError> {
    let mut connector = Client::connector().with_session_timeout(timeout).with_fail_eagerly();
    if let Some(credentials) = address.credentials() {
        connector = connector.with_auth("digest", credentials.as_bytes());
    }
    if let Some(session) = session {
        connector = connector.with_session(session.clone());
    }
    let spawner = Spawner::default();
    let mut connecting = pin!(async {
        match address.tls() {
            None => connector.connect(server).await.map_err(|e| client_error(&e, server)),
            Some(tls) => {
                connector.with_tls(tls.options()?).secure_connect(server).await.map_err(|e| client_error(&e, server))
            }
        }
    });
    let connected = poll_fn(|context| {
        let _scope = spawns_core::enter(&spawner);
        connecting.as_mut().poll(context)
    });
    let client = connected.await?;
    let connection = Connection { watcher: client.state_watcher(), task: spawner.task() };
    // This server may lag behind the previous server of the session.
    client.sync("/").await.map_err(|e| client_error(&e, server))?;
    match address.chroot() {
        None => Ok((client, connection)),
        Some(chroot) => Ok((enter_chroot(client, chroot, &AclPolicy::new(address)).await?, connection)),
    }
}

/// Restricts a client to a chroot, which is created if it is missing.
async fn enter_chroot(client: Client, chroot: &str, acl: &AclPolicy) -> Result<Client, CoordError> {
    create_chroot(&client, chroot, acl).await?;
    client.chroot(chroot).map_err(|_| CoordError::Unexpected(format!("invalid chroot {chroot:?}")))
}

/// Creates a chroot and its parents if they are missing. The client itself must have no chroot.
pub(super) async fn create_chroot(client: &Client, chroot: &str, acl: &AclPolicy) -> Result<(), CoordError> {
    if client.check_stat(chroot).await.map_err(|e| client_error(&e, chroot))?.is_none() {
        let options = CreateMode::Persistent.with_acls(acl.of(NodeAccess::Open));
        client.mkdir(chroot, &options).await.map_err(|e| client_error(&e, chroot))?;
    }
    Ok(())
}

/// Stores the task that the client spawns, so that it can be ended.
#[derive(Default)]
struct Spawner(Mutex<Option<AbortOnDropHandle<()>>>);

impl Spawn for Spawner {
    fn spawn(&self, task: Task) {
        let task = AbortOnDropHandle::new(tokio::spawn(Box::into_pin(task.future)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }
}

impl Spawner {
    fn task(self) -> Option<AbortOnDropHandle<()>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
