//! The leader's access to the store: observation, the last configuration, and fenced commits.

use std::{convert::Infallible, fmt, future::Future, sync::Arc, time::Duration};

use ochopod_model::{ClusterName, Dependency, Digest, StoredHash, View};
use tokio::sync::watch;

use super::{
    CoordError,
    stored_view::{self, StoredView},
    znodes::{
        Coordination, configuration,
        layout::Layout,
        observer::{self, Observation},
        states::{self, States},
    },
};

/// A leadership of one cluster. It ends with the lock of the pod; commits fail from then on.
#[derive(Clone)]
pub struct Leadership {
    /// Number of the leadership: grows with every leadership over the life of a store.
    pub epoch: i64,
    lock: String,
    session: Arc<dyn Coordination>,
    cluster: ClusterName,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("epoch", &self.epoch).field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// A write of the leader.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreWrite {
    /// A configuration of this generation starts.
    Pending(Digest),
    /// The configuration is complete: the new hash, and the view whose pods are the new snapshot.
    Commit(Digest, Arc<View>),
    /// The snapshot alone: pods have died, or the previous leader's snapshot was deleted with its session.
    Snapshot(Arc<View>),
}

/// Result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// The write took effect.
    Done,
    /// The write may have taken effect.
    Unknown(String),
    /// The lock is no longer held. The write had no effect.
    Fenced,
}

/// The last configuration in the store.
#[derive(Debug)]
pub struct LastConfiguration {
    /// Its digest.
    pub hash: StoredHash,
    /// Its pods and dependencies; empty if missing or unreadable.
    pub view: View,
    /// Contents as read, without missing or unreadable ones.
    pub(crate) contents: Contents,
}

/// Contents that make up a configuration. None: unknown, or not to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) hash: Option<Vec<u8>>,
    pub(crate) view: Option<Vec<u8>>,
}

impl Contents {
    /// Returns the contents that a write sets.
    pub(crate) fn of(write: &StoreWrite) -> Result<Self, CoordError> {
        let hash = |stored: StoredHash| Some(stored.content().into_bytes());
        Ok(match write {
            StoreWrite::Pending(generation) => {
                Self { hash: hash(StoredHash::Pending(generation.clone())), ..Self::default() }
            }
            StoreWrite::Commit(digest, view) => {
                let StoredView { view, snapshot, .. } = StoredView::new(view)?;
                let hash = hash(StoredHash::Done(digest.clone()));
                Self { snapshot: Some(snapshot), hash, view: Some(view) }
            }
            StoreWrite::Snapshot(view) => Self { snapshot: Some(StoredView::new(view)?.snapshot), ..Self::default() },
        })
    }

    /// Adds the view of a write that does not set one itself.
    pub(crate) fn with_view(self, write: &StoreWrite) -> Result<Self, CoordError> {
        let StoreWrite::Snapshot(view) = write else { return Ok(self) };
        Ok(Self { view: Some(StoredView::new(view)?.view), ..self })
    }
}

impl Leadership {
    pub(crate) fn new(epoch: i64, lock: String, session: Arc<dyn Coordination>, cluster: ClusterName) -> Self {
        Self { epoch, lock, session, cluster }
    }

    /// Returns the session timeout that the store granted.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.session.timeout()
    }

    /// Observes the pods of the cluster and its dependencies, and publishes each complete observation. `reading` is set while
    /// something may have changed that is not published yet. Returns the error that ended it: the session is lost, or access is
    /// denied.
    ///
    /// # Cancellation safety
    /// Dropping the future removes the watches.
    pub fn observe(
        &self,
        dependencies: Vec<Dependency>,
        publish: watch::Sender<Option<Arc<Observation>>>,
        reading: watch::Sender<bool>,
    ) -> impl Future<Output = CoordError> + Send + 'static {
        observer::observe(Arc::clone(&self.session), self.cluster.clone(), dependencies, publish, reading)
    }

    /// Observes the states that the pods of these observations publish, for as long as the session lasts. None is published
    /// until the states of all pods of the first observation were read.
    ///
    /// # Cancellation safety
    /// Dropping the future removes the watches.
    pub fn observe_states(
        &self,
        observations: watch::Receiver<Option<Arc<Observation>>>,
        publish: watch::Sender<Option<Arc<States>>>,
    ) -> impl Future<Output = Infallible> + Send + 'static {
        states::observe_states(Arc::clone(&self.session), self.layout(), observations, publish)
    }

    /// Reads the last configuration.
    ///
    /// # Errors
    /// Fails if the store cannot be read; invalid contents are not an error.
    pub async fn read_configuration(&self) -> Result<LastConfiguration, CoordError> {
        let (hash, view) = configuration::read(&*self.session, &self.layout()).await?;
        let parsed: Option<View> = view.as_ref().and_then(|data| stored_view::parse(data).ok());
        let contents = Contents {
            snapshot: None,
            hash: Some(hash.clone()).filter(|hash| !hash.is_empty()),
            view: view.filter(|_| parsed.is_some()),
        };
        Ok(LastConfiguration { hash: StoredHash::parse(&hash), view: parsed.unwrap_or_default(), contents })
    }

    /// Writes atomically, unless the lock is no longer held.
    ///
    /// # Cancellation safety
    /// The result of a dropped write is unknown.
    pub async fn commit(&self, write: &StoreWrite) -> WriteResult {
        match Contents::of(write) {
            Ok(contents) => self.put(&contents).await,
            Err(error) => WriteResult::Unknown(error.to_string()),
        }
    }

    /// Writes contents atomically, unless the lock is no longer held.
    pub(crate) async fn put(&self, contents: &Contents) -> WriteResult {
        configuration::put(&*self.session, &self.layout(), &self.lock, contents).await
    }

    /// Waits until contents may differ from `expected`; returns those that do.
    pub(crate) async fn changed(&self, expected: &Contents) -> Result<Contents, CoordError> {
        configuration::changed(&*self.session, &self.layout(), expected).await
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.cluster)
    }

    #[cfg(test)]
    pub(crate) fn session(&self) -> i64 {
        self.session.id()
    }

    #[cfg(test)]
    pub(crate) fn lock(&self) -> &str {
        &self.lock
    }
}
