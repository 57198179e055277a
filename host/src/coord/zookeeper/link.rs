//! One connection to one server.
//!
//! The client would restore a connection by itself, but waits longer and longer between its attempts: half as long again
//! as the store was away. So it is given one connection only. When that is gone its task is ended, and the session goes on
//! with a new client: see [`super::keeper`].

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use spawns_core::{Spawn, Task};
use tokio::time::{self, Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use zookeeper_client::{Client, CreateMode, SessionInfo, SessionState, StateWatcher};

use super::{Access, CoordError, Lists, ZooKeeperAddress, failed, silent};

/// How long a server is waited for at first, at most: another may be alive, or the next attempt may get through.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// What a client lives by. Dropping it cuts the connection and leaves the session as it is.
pub(super) struct Lifeline {
    watcher: StateWatcher,
    _task: Option<AbortOnDropHandle<()>>,
}

/// How a connection ended.
pub(super) enum End {
    /// The session may go on.
    Cut,
    /// The session is over.
    Over,
}

impl Lifeline {
    /// Waits for the end of the connection.
    pub(super) async fn ended(&mut self) -> End {
        let mut now = self.watcher.state();
        loop {
            debug!("the client's session is {now}");
            match now {
                SessionState::SyncConnected => now = self.watcher.changed().await,
                SessionState::Disconnected | SessionState::ConnectedReadOnly => return End::Cut,
                SessionState::AuthFailed | SessionState::Expired | SessionState::Closed => return End::Over,
            }
        }
    }
}

/// Connects to one server after the other until one takes the session, or a new one when none is given. Fails when all
/// refuse, or none has answered within the timeout. What is read over the connection is not older than the call.
pub(super) async fn reach(
    address: &ZooKeeperAddress,
    timeout: Duration,
    session: Option<&SessionInfo>,
) -> Result<(Client, Lifeline), CoordError> {
    let mut servers: Vec<String> = address.hosts().split(',').map(str::to_owned).collect();
    fastrand::shuffle(&mut servers);
    let deadline = Instant::now() + timeout;
    let mut patience = FIRST_PATIENCE.min(timeout / 5);
    loop {
        let mut refusal = Ok(());
        let mut mute = false;
        for server in &servers {
            let limit = deadline.min(Instant::now() + patience);
            match time::timeout_at(limit, open(address, server, timeout, session)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) if error.is_refusal() || error == CoordError::SessionLost => return Err(error),
                Ok(Err(error)) => refusal = Err(error),
                Err(_) => mute = true,
            }
        }
        if !mute {
            refusal?;
        }
        if Instant::now() >= deadline {
            return Err(silent(timeout));
        }
        patience *= 2;
    }
}

async fn open(
    address: &ZooKeeperAddress,
    server: &str,
    timeout: Duration,
    session: Option<&SessionInfo>,
) -> Result<(Client, Lifeline), CoordError> {
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
            None => connector.connect(server).await.map_err(|e| failed(&e, server)),
            Some(tls) => {
                connector.with_tls(tls.options()?).secure_connect(server).await.map_err(|e| failed(&e, server))
            }
        }
    });
    let connected = poll_fn(|context| {
        let _scope = spawns_core::enter(&spawner);
        connecting.as_mut().poll(context)
    });
    let client = connected.await?;
    let lifeline = Lifeline { watcher: client.state_watcher(), _task: spawner.task() };
    // This server may lag behind the one that the session was with.
    client.sync("/").await.map_err(|e| failed(&e, server))?;
    match address.chroot() {
        None => Ok((client, lifeline)),
        Some(chroot) => Ok((enter(client, chroot, Lists::new(address)).await?, lifeline)),
    }
}

/// Goes on below a chroot, which is created where it does not exist.
async fn enter(client: Client, chroot: &str, lists: Lists) -> Result<Client, CoordError> {
    if client.check_stat(chroot).await.map_err(|e| failed(&e, chroot))?.is_none() {
        let options = CreateMode::Persistent.with_acls(lists.of(Access::Open));
        client.mkdir(chroot, &options).await.map_err(|e| failed(&e, chroot))?;
    }
    client.chroot(chroot).map_err(|_| CoordError::Unexpected(format!("{chroot} is not taken for a chroot")))
}

/// Keeps the task that the client starts, so that it can be ended.
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
