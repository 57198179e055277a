//! ZooKeeper: an instance is an ephemeral node `/ochopod/services/<name>/<id>`, which lives as long as the session that
//! registered it. The session timeout takes the place of the `ttl`.

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
use ochopod_store::{
    CoordError, SessionState, StoreBackend,
    znodes::{Coordination, Mode, NodeAccess, Op, Watch, layout::SERVICES, parent_nodes},
};
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};
use tracing::debug;

use super::{
    ChangeIndex, QueryResult, Registry, RegistryError, ServiceInstance, ServiceQuery, ServiceRegistration,
    candidate::{Candidate, InstanceFilter},
    stored_instance::{OwnIds, StoredInstance, segment},
};

/// Timeout of a request, a new session included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts to register an instance when other clients interfere.
const MAX_ATTEMPTS: usize = 5;

/// Most instances read concurrently.
const MAX_CONCURRENT_READS: usize = 64;

/// Client of a ZooKeeper ensemble. It opens a session at the first request, and another one when that is lost. The
/// session ends soon after the client was dropped, and its registrations with it. Must be used within a Tokio runtime.
pub struct ZooKeeper {
    backend: StoreBackend,
    session: Mutex<Option<Arc<dyn Coordination>>>,
    registered: OwnIds,
    filter: InstanceFilter,
}

impl ZooKeeper {
    /// Creates a client of the ensemble, whether it can be reached or not. Instances of a dead host stay for the
    /// session timeout.
    #[must_use]
    pub fn new(backend: StoreBackend) -> Self {
        Self { backend, session: Mutex::default(), registered: OwnIds::default(), filter: InstanceFilter::default() }
    }

    async fn session(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref().filter(|session| *session.state().borrow() != SessionState::Lost) {
            return Ok(Arc::clone(session));
        }
        let session = self.backend.nodes().connect().await?;
        debug!(session = session.id(), "registry session opened");
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn delete(&self, registration: &ServiceRegistration) -> Result<(), RegistryError> {
        with_deadline(async {
            match self.session().await?.commit(vec![Op::Delete(path(registration))]).await {
                // It does not exist.
                Ok(_) | Err(CoordError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

impl Registry for ZooKeeper {
    fn register<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        async {
            with_deadline(async { register(&*self.session().await?, registration).await }).await?;
            self.registered.insert(&registration.id);
            Ok(())
        }
        .boxed()
    }

    fn pass<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        async {
            let path = path(registration);
            let stored = with_deadline(async {
                let session = self.session().await?;
                Ok(session.read(&path).await?.map(|node| (node.owner == Some(session.id()), node.data)))
            });
            let other = match stored.await? {
                Some((true, data)) if data == StoredInstance::content(registration).into_bytes() => return Ok(()),
                Some((false, data)) => {
                    StoredInstance::read(&path, &data).filter(|entry| entry.is_another(registration))
                }
                // Another client replaced the content of the node.
                Some((true, _)) | None => None,
            };
            match other.filter(|_| self.registered.contains(&registration.id)) {
                Some(other) => Err(other.taken(registration)),
                // The node of an earlier session goes with it.
                None => Err(RegistryError::NotRegistered(registration.id.clone())),
            }
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.delete(registration).boxed()
    }

    fn instances<'a>(
        &'a self,
        query: &'a ServiceQuery,
        since: Option<ChangeIndex>,
        max_wait: Duration,
    ) -> BoxFuture<'a, Result<QueryResult, RegistryError>> {
        async move {
            let deadline = Instant::now() + max_wait;
            loop {
                let (entries, watches) =
                    with_deadline(async { list_instances(&*self.session().await?, query).await }).await?;
                let instances = self.filter.instances(entries.into_iter().map(Candidate::from));
                let found = QueryResult { index: Some(change_index(&instances)), instances };
                if found.index != since || time::timeout_at(deadline, future::select_all(watches)).await.is_err() {
                    return Ok(found);
                }
            }
        }
        .boxed()
    }
}

/// Creates the node in one commit with the deletion of an existing one, which may be an earlier session's.
async fn register(session: &dyn Coordination, registration: &ServiceRegistration) -> Result<(), CoordError> {
    let (path, data) = (path(registration), StoredInstance::content(registration).into_bytes());
    let mut attempts = 0;
    loop {
        parent_nodes::verify(session, parents(&registration.name)).await?;
        let mut operations = Vec::new();
        if session.read(&path).await?.is_some() {
            operations.push(Op::Delete(path.clone()));
        }
        let (path, data) = (path.clone(), data.clone());
        operations.push(Op::Create { path, data, mode: Mode::Ephemeral, access: NodeAccess::Readable });
        attempts += 1;
        match session.commit(operations).await {
            Err(conflict @ CoordError::Conflict { .. }) => {
                // A parent is missing, or another client was faster.
                let denied = parent_nodes::ensure_nodes(session, parents(&registration.name)).await?;
                if attempts == MAX_ATTEMPTS {
                    return Err(denied.unwrap_or(conflict));
                }
            }
            done => return done.map(drop),
        }
    }
}

/// Returns the current entries, and watches one of which completes when they change.
async fn list_instances(
    session: &dyn Coordination,
    query: &ServiceQuery,
) -> Result<(Vec<StoredInstance>, Vec<Watch>), CoordError> {
    let service = service(&query.name);
    let (names, watch) = session.children_and_watch(&service).await?;
    let reads = names.unwrap_or_default().into_iter().map(|name| {
        let path = format!("{service}/{name}");
        async move { session.read_and_watch(&path).await.map(|(node, watch)| (path, node, watch)) }
    });
    let read: Vec<_> = stream::iter(reads).buffer_unordered(MAX_CONCURRENT_READS).try_collect().await?;
    let (mut entries, mut watches) = (Vec::new(), vec![watch]);
    for (path, node, watch) in read {
        watches.push(watch);
        let entry = node.and_then(|node| StoredInstance::read(&path, &node.data));
        entries.extend(entry.filter(|entry| entry.has_tag(query)));
    }
    Ok((entries, watches))
}

/// Hashes the instances: ZooKeeper has no version that covers both their list and their contents.
fn change_index(instances: &[ServiceInstance]) -> ChangeIndex {
    let mut hasher = DefaultHasher::new();
    instances.hash(&mut hasher);
    ChangeIndex(hasher.finish())
}

fn service(name: &str) -> String {
    format!("{SERVICES}/{}", segment(name))
}

fn path(registration: &ServiceRegistration) -> String {
    format!("{}/{}", service(&registration.name), segment(&registration.id))
}

/// Returns the nodes above the instances of a service. The last one is the service's: with credentials, only clients
/// that have them add instances.
fn parents(name: &str) -> [(String, NodeAccess); 3] {
    let above = SERVICES.rsplit_once('/').map_or(SERVICES, |(above, _)| above);
    [
        (above.to_owned(), NodeAccess::Open),
        (SERVICES.to_owned(), NodeAccess::Open),
        (service(name), NodeAccess::Readable),
    ]
}

async fn with_deadline<T>(answer: impl Future<Output = Result<T, CoordError>>) -> Result<T, RegistryError> {
    let answer = time::timeout(REQUEST_TIMEOUT, answer).await;
    let silent = |_| RegistryError::Unavailable(format!("no response from ZooKeeper within {REQUEST_TIMEOUT:?}"));
    answer.map_err(silent)?.map_err(|error| {
        let message = format!("ZooKeeper: {error}");
        match error {
            CoordError::Unavailable(_) | CoordError::SessionLost | CoordError::Conflict { .. } => {
                RegistryError::Unavailable(message)
            }
            CoordError::AuthFailed(_)
            | CoordError::AccessDenied(_)
            | CoordError::Exposed(_)
            | CoordError::TooLarge { .. } => RegistryError::Rejected(message),
            CoordError::Unexpected(_) => RegistryError::InvalidResponse(message),
        }
    })
}
