//! ZooKeeper: an instance is an ephemeral node `/ochopod/services/<name>/<id>`, which lives as long as the session that
//! registered it: the `ttl` of what is registered means nothing here, the session timeout of the ensemble's address does.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{self, BoxFuture},
    stream,
};
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};
use tracing::debug;

use super::{
    Discovery, DiscoveryError, Found, Instance, Mark, Registration, Sought,
    entry::{Entry, segment},
};
use crate::coord::{
    Access, CoordError, Coordination, Ensemble, Mode, Op, SessionState, Watch, layout::SERVICES, parents,
};

/// How long an answer may take, a new session included.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often something is registered when others get in between.
const ATTEMPTS: usize = 5;

/// Instances read at a time.
const READS: usize = 64;

/// An ensemble. A session is opened when one is first needed, and another when that is lost; it ends soon after this was
/// dropped, and with it what is still registered. Must be used within a Tokio runtime.
pub struct ZooKeeper {
    ensemble: Ensemble,
    session: Mutex<Option<Arc<dyn Coordination>>>,
}

impl ZooKeeper {
    /// The ensemble, whether it is there or not. Its session timeout is how long an instance is found after its host died.
    #[must_use]
    pub fn new(ensemble: Ensemble) -> Self {
        Self { ensemble, session: Mutex::default() }
    }

    async fn session(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref().filter(|session| *session.state().borrow() != SessionState::Lost) {
            return Ok(Arc::clone(session));
        }
        let session = self.ensemble.connect().await?;
        debug!(session = session.id(), "opened a session for services");
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn remove(&self, registration: &Registration) -> Result<(), DiscoveryError> {
        answered(async {
            match self.session().await?.commit(vec![Op::Delete(path(registration))]).await {
                // It is not there.
                Ok(_) | Err(CoordError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

impl Discovery for ZooKeeper {
    fn register<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        answered(async { register(&*self.session().await?, registration).await }).boxed()
    }

    fn pass<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        async {
            let stands = answered(async {
                let session = self.session().await?;
                let node = session.read(&path(registration)).await?;
                // That of an earlier session goes with it.
                Ok(node.is_some_and(|node| node.owner == Some(session.id())))
            });
            if stands.await? { Ok(()) } else { Err(DiscoveryError::Forgotten(registration.id.clone())) }
        }
        .boxed()
    }

    fn fail<'a>(&'a self, registration: &'a Registration, _: &'a str) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(registration).boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(registration).boxed()
    }

    fn instances<'a>(
        &'a self,
        sought: &'a Sought,
        since: Option<Mark>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Found, DiscoveryError>> {
        async move {
            let deadline = Instant::now() + patience;
            loop {
                let (instances, watches) = answered(async { look(&*self.session().await?, sought).await }).await?;
                let found = Found { mark: Some(mark(&instances)), instances };
                if found.mark != since || time::timeout_at(deadline, future::select_all(watches)).await.is_err() {
                    return Ok(found);
                }
            }
        }
        .boxed()
    }
}

/// Creates the node in one commit with the deletion of what stands there, which may be an earlier session's.
async fn register(session: &dyn Coordination, registration: &Registration) -> Result<(), CoordError> {
    let (path, data) = (path(registration), Entry::content(registration).into_bytes());
    let mut attempts = 0;
    loop {
        let mut operations = Vec::new();
        if session.read(&path).await?.is_some() {
            operations.push(Op::Delete(path.clone()));
        }
        let (path, data) = (path.clone(), data.clone());
        operations.push(Op::Create { path, data, mode: Mode::Ephemeral, access: Access::Readable });
        attempts += 1;
        match session.commit(operations).await {
            Err(conflict @ CoordError::Conflict { .. }) => {
                // There is no parent yet, or somebody was faster.
                let denied = parents::create(session, parents(&registration.name)).await?;
                if attempts == ATTEMPTS {
                    return Err(denied.unwrap_or(conflict));
                }
            }
            done => return done.map(drop),
        }
    }
}

/// The instances right now, and watches of which one completes when that changes.
async fn look(session: &dyn Coordination, sought: &Sought) -> Result<(Vec<Instance>, Vec<Watch>), CoordError> {
    let service = service(&sought.name);
    let (names, watch) = session.children_and_watch(&service).await?;
    let reads = names.unwrap_or_default().into_iter().map(|name| {
        let path = format!("{service}/{name}");
        async move { session.read_and_watch(&path).await.map(|(node, watch)| (path, node, watch)) }
    });
    let read: Vec<_> = stream::iter(reads).buffer_unordered(READS).try_collect().await?;
    let (mut instances, mut watches) = (Vec::new(), vec![watch]);
    for (path, node, watch) in read {
        watches.push(watch);
        let entry = node.and_then(|node| Entry::read(&path, &node.data));
        instances.extend(entry.filter(|entry| entry.has_tag(sought)).map(Instance::from));
    }
    instances.sort_unstable();
    Ok((instances, watches))
}

/// ZooKeeper counts nothing that covers both the list of instances and their contents: what they are is their mark.
fn mark(instances: &[Instance]) -> Mark {
    let mut hasher = DefaultHasher::new();
    instances.hash(&mut hasher);
    Mark(hasher.finish())
}

fn service(name: &str) -> String {
    format!("{SERVICES}/{}", segment(name))
}

fn path(registration: &Registration) -> String {
    format!("{}/{}", service(&registration.name), segment(&registration.id))
}

/// The nodes above the instances of a service.
fn parents(name: &str) -> [(String, Access); 3] {
    let above = SERVICES.rsplit_once('/').map_or(SERVICES, |(above, _)| above);
    [above.to_owned(), SERVICES.to_owned(), service(name)].map(|path| (path, Access::Open))
}

async fn answered<T>(answer: impl Future<Output = Result<T, CoordError>>) -> Result<T, DiscoveryError> {
    let answer = time::timeout(DEADLINE, answer).await;
    let silent = |_| DiscoveryError::Unavailable(format!("ZooKeeper did not answer within {DEADLINE:?}"));
    answer.map_err(silent)?.map_err(|error| {
        let told = format!("ZooKeeper: {error}");
        match error {
            CoordError::Unavailable(_) | CoordError::SessionLost | CoordError::Conflict { .. } => {
                DiscoveryError::Unavailable(told)
            }
            CoordError::AuthFailed(_) | CoordError::Denied(_) | CoordError::TooLarge { .. } => {
                DiscoveryError::Refused(told)
            }
            CoordError::Unexpected(_) => DiscoveryError::Unexpected(told),
        }
    })
}
