//! Observer of the pods of a cluster and of its dependencies: read completely and published completely.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use ochopod_model::{ClusterName, Dependency, PodId, Pods, Registration};
use ochopod_timing::Backoff;
use tokio::{sync::watch, time};
use tracing::{debug, warn};

use super::{
    CoordError, Coordination, Node, SessionState, Watch,
    layout::Layout,
    watch_cache::{ReadResult, WatchCache, WatchTarget, newest},
};
use crate::{Pause, RESYNC_INTERVAL};

/// Concurrent reads.
const MAX_CONCURRENT_READS: usize = 64;

/// Interval between attempts to read a dependency to which access is denied.
const DENIED_RETRY: Duration = Duration::from_mins(1);

/// Bounds of the delays after failed reads.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Current state of one dependency: all matching clusters together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedDependency {
    /// Pods in the snapshots of the matching clusters: those of their last configurations.
    pub snapshot: Pods,
    /// Whole names of matching clusters without a snapshot, or with an empty one, that have a registered pod that is not dead.
    pub unsettled: BTreeSet<String>,
    /// Registered pods of those clusters that are not dead.
    pub live: BTreeSet<PodId>,
}

/// Input of a configuration. Published only if all of it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// All registered pods of the cluster, including dead ones: one entry per identity.
    pub pods: Pods,
    /// Dependencies by their declared names.
    pub dependencies: BTreeMap<String, ObservedDependency>,
    /// Pause of the configurations of the cluster, if there is one.
    pub paused: Option<Pause>,
}

/// Watches and publishes until the session is lost or access is denied, and returns that error.
///
/// Watches are one-shot, placed again after each change and reconnection. A slow resync is the safety net. `reading` is set
/// while something may have changed that is not published yet.
///
/// # Cancellation safety
/// Dropping the future removes the watches.
pub async fn observe(
    session: Arc<dyn Coordination>,
    own: ClusterName,
    dependencies: Vec<Dependency>,
    publish: watch::Sender<Option<Arc<Observation>>>,
    reading: watch::Sender<bool>,
) -> CoordError {
    let cache = WatchCache::new(&own, dependencies);
    let stale = cache.targets();
    let mut observer = Observer { session, cache, stale, watches: FuturesUnordered::new() };
    loop {
        if let Err(error) = observer.read_all().await {
            return error;
        }
        let observation = observer.cache.observation();
        publish.send_if_modified(|published| {
            let is_changed = published.as_deref() != Some(&observation);
            if is_changed {
                debug!(pods = observation.pods.len(), "cluster state changed");
                *published = Some(Arc::new(observation));
            }
            is_changed
        });
        reading.send_replace(false);
        observer.next_change().await;
        reading.send_replace(true);
    }
}

struct Observer {
    session: Arc<dyn Coordination>,
    cache: WatchCache,
    /// Targets to read.
    stale: BTreeSet<WatchTarget>,
    /// Each completes with its target when that may have changed.
    watches: FuturesUnordered<BoxFuture<'static, WatchTarget>>,
}

impl Observer {
    /// Reads until nothing is stale; fails only if no further read can succeed.
    async fn read_all(&mut self) -> Result<(), CoordError> {
        let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        let mut state = self.session.state();
        while !self.stale.is_empty() {
            let connected = state.wait_for(|state| *state != SessionState::Suspended).await;
            if !connected.is_ok_and(|state| *state == SessionState::Connected) {
                return Err(CoordError::SessionLost);
            }
            match self.read_stale().await {
                Ok(()) => backoff.reset(),
                Err(error) if error == CoordError::SessionLost || error.is_auth_error() => return Err(error),
                Err(error) => {
                    debug!(%error, "cannot read cluster state, retrying");
                    time::sleep(backoff.delay()).await;
                }
            }
        }
        Ok(())
    }

    /// Reads all stale targets concurrently. Failed ones stay stale; newly needed ones become stale.
    async fn read_stale(&mut self) -> Result<(), CoordError> {
        let stale = std::mem::take(&mut self.stale);
        let (session, cache) = (&self.session, &self.cache);
        let reads = stream::iter(stale.into_iter().filter(|target| cache.is_needed(target)));
        let reads = reads.map(|target| async { (read(&**session, &target).await, target) });
        let results: Vec<_> = reads.buffer_unordered(MAX_CONCURRENT_READS).collect().await;
        let mut failure = Ok(());
        for (result, target) in results {
            match result {
                Ok((found, watch)) => {
                    let watched = target.clone();
                    self.watches.push(watch.map(|()| watched).boxed());
                    self.stale.extend(self.cache.apply(target, found));
                }
                // A denied dependency must not prevent the configuration of this cluster.
                Err(CoordError::AccessDenied(path)) if self.cache.is_remote(&target) => {
                    if self.cache.mark_denied(&target) {
                        warn!(
                            path,
                            "dependency not readable with this pod's credentials, using its last known state; \
                             set --zk-read world on that cluster"
                        );
                    }
                    self.watches.push(time::sleep(DENIED_RETRY).map(|()| target).boxed());
                }
                Err(error) => {
                    self.stale.insert(target);
                    failure = Err(error);
                }
            }
        }
        failure
    }

    /// Waits until a target may have changed, and marks it and all others that have changed by then as stale.
    async fn next_change(&mut self) {
        let Ok(changed) = time::timeout(RESYNC_INTERVAL, self.watches.next()).await else {
            self.watches.clear();
            self.stale = self.cache.targets();
            return;
        };
        self.stale.extend(changed);
        while let Some(Some(changed)) = self.watches.next().now_or_never() {
            self.stale.insert(changed);
        }
    }
}

/// Reads the registered pods of a cluster.
pub(crate) async fn read_pods(session: &dyn Coordination, layout: &Layout) -> Result<Pods, CoordError> {
    let pods = layout.pods();
    session.sync(&pods).await?;
    let names = session.children(&pods).await?.unwrap_or_default();
    let read = |name: String| {
        let path = format!("{pods}/{name}");
        async move { Ok((name, session.read(&path).await?)) }
    };
    let found: Vec<_> = stream::iter(names).map(read).buffer_unordered(MAX_CONCURRENT_READS).try_collect().await?;
    let parse = |node: Node| Registration::parse(&node.data).ok().map(Into::into);
    Ok(newest(&found.into_iter().map(|(name, node)| (name, node.and_then(parse))).collect()))
}

/// Reads a target and places its watch.
async fn read(session: &dyn Coordination, target: &WatchTarget) -> Result<(ReadResult, Watch), CoordError> {
    let path = target.path();
    match target {
        WatchTarget::Clusters | WatchTarget::Pods(_) => {
            let (names, watch) = session.children_and_watch(&path).await?;
            Ok((ReadResult::Names(names.unwrap_or_default()), watch))
        }
        WatchTarget::Snapshot(_) | WatchTarget::Registration(..) | WatchTarget::Paused(_) => {
            let (node, watch) = session.read_and_watch(&path).await?;
            Ok((ReadResult::Content(node), watch))
        }
    }
}

#[cfg(test)]
mod tests;
