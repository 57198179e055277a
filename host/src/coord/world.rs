//! What a leader watches: its own pods and its dependencies, read whole and published whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tokio::{sync::watch, time};
use tracing::{debug, warn};

use super::{
    CoordError, Coordination, REREAD, SessionState, Watch,
    picture::{Found, Part, Picture},
};
use crate::{
    backoff::Backoff,
    cluster::{ClusterName, Dependency, Pods},
};

/// Reads under way at a time.
const READS: usize = 64;

/// How often it is tried whether a dependency that may not be read can be by now.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// Bounds of the waits after failed reads.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// One dependency as it is right now: all matching clusters together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The pods in the matching clusters' snapshots: those of their last configurations.
    pub snapshot: Pods,
    /// Whole names of matching clusters that have no snapshot, or an empty one, but a registered pod that is not dead.
    pub unsettled: BTreeSet<String>,
}

/// Everything that a configuration is made from. Published only when all of it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// All registered pods of the own cluster, dead ones included: one entry per identity.
    pub pods: Pods,
    /// Each dependency, by the name under which it was declared.
    pub dependencies: BTreeMap<String, Observed>,
}

/// Watches and publishes until the session is lost, which is what it returns.
///
/// One-shot watches only, placed anew at each change and re-read on each reconnection; a slow re-read is the safety net.
///
/// # Cancellation safety
/// Dropping the future takes the watches back.
pub async fn observe(
    session: Arc<dyn Coordination>,
    own: ClusterName,
    dependencies: Vec<Dependency>,
    publish: watch::Sender<Option<Arc<World>>>,
) -> CoordError {
    let picture = Picture::new(&own, dependencies);
    let stale = picture.parts();
    let mut observer = Observer { session, picture, stale, watches: FuturesUnordered::new() };
    loop {
        if let Err(error) = observer.catch_up().await {
            return error;
        }
        let world = observer.picture.world();
        publish.send_if_modified(|published| {
            let news = published.as_deref() != Some(&world);
            if news {
                debug!(pods = world.pods.len(), "the world has changed");
                *published = Some(Arc::new(world));
            }
            news
        });
        observer.next_change().await;
    }
}

struct Observer {
    session: Arc<dyn Coordination>,
    picture: Picture,
    /// What has to be read.
    stale: BTreeSet<Part>,
    /// What was read, each until it changes.
    watches: FuturesUnordered<BoxFuture<'static, Part>>,
}

impl Observer {
    /// Reads until nothing is stale; fails only when nothing can be read any more.
    async fn catch_up(&mut self) -> Result<(), CoordError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut state = self.session.state();
        while !self.stale.is_empty() {
            let connected = state.wait_for(|state| *state != SessionState::Suspended).await;
            if !connected.is_ok_and(|state| *state == SessionState::Connected) {
                return Err(CoordError::SessionLost);
            }
            match self.read_stale().await {
                Ok(()) => backoff.reset(),
                Err(error) if error == CoordError::SessionLost || error.is_refusal() => return Err(error),
                Err(error) => {
                    debug!("reading again what could not be read: {error}");
                    time::sleep(backoff.delay()).await;
                }
            }
        }
        Ok(())
    }

    /// One round: reads what is stale, all at once. What failed stays stale; what turned out to be needed becomes so.
    async fn read_stale(&mut self) -> Result<(), CoordError> {
        let stale = std::mem::take(&mut self.stale);
        let (session, picture) = (&self.session, &self.picture);
        let reads = stream::iter(stale.into_iter().filter(|part| picture.wants(part)));
        let reads = reads.map(|part| async { (read(&**session, &part).await, part) });
        let results: Vec<_> = reads.buffer_unordered(READS).collect().await;
        let mut failure = Ok(());
        for (result, part) in results {
            match result {
                Ok((found, watch)) => {
                    let watched = part.clone();
                    self.watches.push(watch.map(|()| watched).boxed());
                    self.stale.extend(self.picture.take(part, found));
                }
                // Another cluster may be closed to us: that must not keep our own from being configured.
                Err(CoordError::Denied(path)) if self.picture.is_foreign(&part) => {
                    if self.picture.close(&part) {
                        warn!(
                            "a dependency is closed to the credentials of this pod and is taken as it was last seen, or as \
                             empty: no access to {path} (--zk-read world of the pods over there opens it to all)"
                        );
                    }
                    self.watches.push(time::sleep(ASK_AGAIN).map(|()| part).boxed());
                }
                Err(error) => {
                    self.stale.insert(part);
                    failure = Err(error);
                }
            }
        }
        failure
    }

    /// Waits until something has changed, or may have: it, and all else that has by now, is stale then.
    async fn next_change(&mut self) {
        let Ok(changed) = time::timeout(REREAD, self.watches.next()).await else {
            self.watches.clear();
            self.stale = self.picture.parts();
            return;
        };
        self.stale.extend(changed);
        while let Some(Some(changed)) = self.watches.next().now_or_never() {
            self.stale.insert(changed);
        }
    }
}

/// Reads a part and places its watch.
async fn read(session: &dyn Coordination, part: &Part) -> Result<(Found, Watch), CoordError> {
    let path = part.path();
    match part {
        Part::Clusters | Part::Pods(_) => {
            let (names, watch) = session.children_and_watch(&path).await?;
            Ok((Found::Names(names.unwrap_or_default()), watch))
        }
        Part::Snapshot(_) | Part::Registration(..) => {
            let (node, watch) = session.read_and_watch(&path).await?;
            Ok((Found::Content(node), watch))
        }
    }
}

#[cfg(test)]
mod tests;
