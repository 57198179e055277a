//! States that pods publish: written by each pod, observed by the leader of its cluster.
//!
//! Nothing else depends on them: a fault of these nodes affects neither registrations nor configurations.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use ochopod_model::{PodId, status::PodState};
use ochopod_timing::Backoff;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::{
    CoordError, Coordination, Mode, NodeAccess, Op, Watch, layout::Layout, observer::Observation, parent_nodes,
};
use crate::{Membership, RESYNC_INTERVAL};

/// Published states of the pods of a cluster. Pods that published none are absent.
pub type States = BTreeMap<PodId, PodState>;

/// Delay within which changes of a state are merged: a restart is written once.
const DEBOUNCE_DELAY: Duration = Duration::from_millis(250);
/// Bounds of the delays after an error, and before a node that another client changed is written again.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Bounds of the delays after failed reads.
const READ_RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));
/// Concurrent reads of states.
const MAX_CONCURRENT_READS: usize = 64;

/// Publishes the state of a pod for as long as it is registered under this session.
///
/// # Cancellation safety
/// Dropping the future stops it; the node is deleted with the session.
pub(super) async fn publish(
    session: Arc<dyn Coordination>,
    (layout, id): (Layout, PodId),
    mut states: watch::Receiver<Option<PodState>>,
    mut membership: watch::Receiver<Membership>,
) -> Infallible {
    let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
    loop {
        // A sender is gone only if the pod has deregistered.
        let registered = membership.wait_for(|m| m.registered.is_some()).await.is_ok();
        let known = registered && states.wait_for(Option::is_some).await.is_ok();
        let state = states.borrow_and_update().as_ref().map(PodState::to_json);
        let Some(state) = state.filter(|_| known) else { return pending().await };
        match write(&*session, &layout, &id, state.as_bytes()).await {
            Ok(foreign_change) => tokio::select! {
                biased;
                changed = states.changed() => match changed {
                    Ok(()) => {
                        backoff.reset();
                        sleep(DEBOUNCE_DELAY).await;
                    }
                    Err(_) => return pending().await,
                },
                () = foreign_change => sleep(backoff.delay()).await,
                () = sleep(RESYNC_INTERVAL) => backoff.reset(),
            },
            Err(CoordError::SessionLost) => return pending().await,
            Err(error) => {
                debug!(%error, "cannot publish pod state, retrying");
                sleep(backoff.delay()).await;
            }
        }
    }
}

/// Writes the node of the pod unless it has this content already; returns a watch on it.
async fn write(session: &dyn Coordination, layout: &Layout, id: &PodId, data: &[u8]) -> Result<Watch, CoordError> {
    let path = layout.state(id);
    let (node, watch) = session.read_and_watch(&path).await?;
    let own = node.as_ref().is_some_and(|node| node.owner == Some(session.id()));
    let create = || {
        let (path, data) = (path.clone(), data.to_vec());
        Op::Create { path, data, mode: Mode::Ephemeral, access: NodeAccess::Cluster }
    };
    let operations = match node {
        Some(node) if own && node.data == data => return Ok(watch),
        Some(_) if own => vec![Op::Set { path: path.clone(), data: data.to_vec() }],
        // It belongs to an earlier session of this pod.
        Some(_) => vec![Op::Delete(path.clone()), create()],
        None => vec![create()],
    };
    if let Err(error) = session.commit(operations).await {
        let CoordError::Conflict { .. } = error else { return Err(error) };
        // The parent may be missing: pods of an earlier version do not create it.
        parent_nodes::ensure_nodes(session, layout.parents()).await?;
        return Err(error);
    }
    let (node, watch) = session.read_and_watch(&path).await?;
    match node {
        Some(node) if node.data == data => Ok(watch),
        _ => Err(CoordError::Unexpected(format!("{path} was changed by another client"))),
    }
}

/// Watches the states of the registered pods in the observations and publishes them, for as long as the session lasts.
///
/// Only nodes named like a registered pod are read; invalid or unreadable content counts as no state. None is published
/// until the states of all pods of the first observation were read.
///
/// # Cancellation safety
/// Dropping the future removes the watches.
pub(crate) async fn observe_states(
    session: Arc<dyn Coordination>,
    layout: Layout,
    mut observation: watch::Receiver<Option<Arc<Observation>>>,
    publish: watch::Sender<Option<Arc<States>>>,
) -> Infallible {
    let mut observer = StatesObserver {
        session,
        layout,
        has_observed: false,
        is_known: false,
        registered: BTreeSet::new(),
        states: States::new(),
        stale: BTreeSet::new(),
        watches: FuturesUnordered::new(),
    };
    let mut backoff = Backoff::new(READ_RETRY_DELAY.0, READ_RETRY_DELAY.1);
    let mut reread = Instant::now() + RESYNC_INTERVAL;
    loop {
        let complete = observer.read_stale().await;
        publish.send_if_modified(|published| {
            let is_changed = observer.is_known && published.as_deref() != Some(&observer.states);
            if is_changed {
                *published = Some(Arc::new(observer.states.clone()));
            }
            is_changed
        });
        let retry = Instant::now() + if complete { RESYNC_INTERVAL } else { backoff.delay() };
        if complete {
            backoff.reset();
        }
        tokio::select! {
            biased;
            changed = observation.changed() => match changed {
                Ok(()) => observer.follow(observation.borrow_and_update().as_deref()),
                Err(_) => return pending().await,
            },
            Some(pod) = observer.watches.next() => observer.invalidate(pod),
            () = sleep_until(retry.min(reread)) => {}
        }
        if Instant::now() >= reread {
            reread = Instant::now() + RESYNC_INTERVAL;
            observer.invalidate_all();
        }
    }
}

struct StatesObserver {
    session: Arc<dyn Coordination>,
    layout: Layout,
    has_observed: bool,
    /// Whether the states of all pods of the first observation were read.
    is_known: bool,
    registered: BTreeSet<PodId>,
    states: States,
    /// Pods whose state must be read.
    stale: BTreeSet<PodId>,
    /// Each completes with its pod when the state may have changed.
    watches: FuturesUnordered<BoxFuture<'static, PodId>>,
}

impl StatesObserver {
    /// Reads all stale states concurrently. Returns false if a read failed; that state stays stale.
    async fn read_stale(&mut self) -> bool {
        let stale = std::mem::take(&mut self.stale);
        let (session, layout) = (&self.session, &self.layout);
        let reading = stream::iter(stale).map(|pod| async {
            let path = layout.state(&pod);
            (session.read_and_watch(&path).await, pod)
        });
        let mut has_failed = false;
        let results: Vec<_> = reading.buffer_unordered(MAX_CONCURRENT_READS).collect().await;
        for (outcome, pod) in results {
            match outcome {
                Ok((node, watch)) => {
                    match node.and_then(|node| PodState::parse(&node.data)) {
                        Some(found) => _ = self.states.insert(pod.clone(), found),
                        None => _ = self.states.remove(&pod),
                    }
                    self.watches.push(watch.map(|()| pod).boxed());
                }
                Err(error) => {
                    debug!(%pod, %error, "cannot read pod state, retrying");
                    if error.is_auth_error() {
                        self.states.remove(&pod);
                    } else {
                        has_failed = true;
                    }
                    self.stale.insert(pod);
                }
            }
        }
        self.is_known |= self.has_observed && !has_failed;
        self.stale.is_empty()
    }

    /// Applies the pods of an observation.
    fn follow(&mut self, observation: Option<&Observation>) {
        self.has_observed |= observation.is_some();
        let registered: BTreeSet<PodId> =
            observation.map(|observation| observation.pods.keys().cloned().collect()).unwrap_or_default();
        self.stale.extend(registered.difference(&self.registered).cloned());
        self.stale.retain(|pod| registered.contains(pod));
        self.states.retain(|pod, _| registered.contains(pod));
        self.registered = registered;
    }

    fn invalidate(&mut self, pod: PodId) {
        if self.registered.contains(&pod) {
            self.stale.insert(pod);
        }
    }

    fn invalidate_all(&mut self) {
        self.watches.clear();
        self.stale.clone_from(&self.registered);
    }
}

#[cfg(test)]
mod tests;
