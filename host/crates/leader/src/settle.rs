//! The current view as a leader takes it: which dependencies count, which pods fit, and when it may be compared at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_model::{PeerAddressError, PodId, Pods, Registration, StoredHash, View};
use ochopod_store::{Observation, ObservedDependency, StoredView, StoredViewFormat};

/// Size of a registration that is much larger than those of this host, which have at most 4 KiB.
const LARGE_REGISTRATION_BYTES: usize = 16 * 1024;

/// Derives the current view from what is observed and what was configured last.
#[derive(Debug)]
pub(super) struct Settling {
    /// Twice the session timeout: how long something may be absent before it counts as gone.
    absence_timeout: Duration,
    /// Set after a lost session or an interrupted connection: no comparison before this, unless everything awaited is
    /// present.
    settle_until: Option<Instant>,
    phase: SettlePhase,
    /// The view of the last configuration, once it is known.
    configured: Option<View>,
    /// The view of the last rollout that passed its check and is not complete: pods may run from it.
    sent: Option<Arc<View>>,
    /// The view of the rollout that is at its check.
    checking: Option<Arc<View>>,
    /// Time since which the cluster of a dependency has no snapshot and none of its configured pods is registered and alive.
    missing_since: BTreeMap<(String, String), Instant>,
    /// Clusters of dependencies that were missing for too long, until they have a snapshot again.
    expired: BTreeSet<(String, String)>,
    /// Result for the last view: encoding a large one takes time.
    fitted: Option<FittedView>,
}

/// The part of a view that one commit can carry.
#[derive(Debug)]
struct FittedView {
    /// All pods with an address.
    addressed: Pods,
    /// The dependencies, as they are in the view.
    dependencies: BTreeMap<String, Pods>,
    /// The pods that fit.
    pods: Pods,
    /// The others.
    excluded: BTreeSet<PodId>,
    /// How it is stored.
    format: StoredViewFormat,
}

/// Pods that may still register again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SettlePhase {
    /// The pods configured last.
    Members,
    /// The store has no trace of a configuration, although this pod returns to it: it was emptied. There were members, but
    /// which ones is unknown.
    UnknownMembers,
    /// After that: snapshots of those dependencies whose members are back, for as long again.
    Snapshots,
}

/// The current view, and what was excluded from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CurrentView {
    /// The pods of the next configuration: without those that are cordoned or left out now.
    pub(super) view: View,
    /// The same with the pods that are left out, which a configuration checks again.
    pub(super) registered: View,
    /// Pods that would exceed what the store can hold, the youngest ones.
    pub(super) excluded: BTreeSet<PodId>,
    /// How the store holds it.
    pub(super) format: StoredViewFormat,
    /// Pods without a usable address, and the cause.
    pub(super) unaddressed: BTreeMap<PodId, PeerAddressError>,
    /// Dependencies that are in the view with the last pods of a cluster without a snapshot.
    pub(super) unsettled: BTreeMap<String, SettleDeadline>,
}

impl CurrentView {
    /// Logs the pods that are newly excluded and the dependencies that are newly unsettled.
    pub(super) fn log_changes(&self, before: Option<&Self>) {
        let known = |id: &PodId| before.is_some_and(|before| before.unaddressed.contains_key(id));
        for (pod, error) in self.unaddressed.iter().filter(|(id, _)| !known(id)) {
            tracing::warn!(%pod, %error, "pod excluded, no usable address");
        }
        let known = |name: &String| before.is_some_and(|before| before.unsettled.contains_key(name));
        for dependency in self.unsettled.keys().filter(|name| !known(name)) {
            tracing::info!(dependency, "dependency has no snapshot, delaying configuration until it settles");
        }
    }
}

/// Latest time at which a dependency settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettleDeadline {
    /// Then it counts as empty: its last pods are no longer registered.
    At(Instant),
    /// As soon as it has a snapshot: some of its last pods are registered.
    Configured,
}

impl SettleDeadline {
    fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Self::At(one.max(other)),
            _ => Self::Configured,
        }
    }
}

impl Settling {
    pub(super) fn new(absence_timeout: Duration, settle_until: Option<Instant>) -> Self {
        Self {
            absence_timeout,
            settle_until,
            phase: SettlePhase::Members,
            configured: None,
            sent: None,
            checking: None,
            missing_since: BTreeMap::new(),
            expired: BTreeSet::new(),
            fitted: None,
        }
    }

    /// Sets the last configuration as read from the store.
    pub(super) fn set_stored(&mut self, hash: &StoredHash, view: View) {
        self.phase = if hash.content().is_empty() { SettlePhase::UnknownMembers } else { SettlePhase::Members };
        self.configured = Some(view);
    }

    /// Sets the last configuration as committed by this leader.
    pub(super) fn set_configured(&mut self, view: View) {
        self.configured = Some(view);
        (self.sent, self.checking) = (None, None);
    }

    /// Records that a rollout starts its check with this view.
    pub(super) fn check_started(&mut self, view: &Arc<View>) {
        self.checking = Some(Arc::clone(view));
    }

    /// Records that the rollout passed its check: pods may run from its view from now on.
    pub(super) fn check_passed(&mut self) {
        self.sent = self.checking.take().or(self.sent.take());
    }

    /// Records that no rollout is at its check any longer.
    pub(super) fn check_ended(&mut self) {
        self.checking = None;
    }

    /// Returns the pods of the last configuration.
    pub(super) fn members(&self) -> Option<&Pods> {
        self.configured.as_ref().map(|view| &view.pods)
    }

    /// Returns the current view; none while the last configuration is unknown or its members may still be on their way
    /// back to the store.
    pub(super) fn current_view(&mut self, observation: &Observation, now: Instant) -> Option<CurrentView> {
        let configured = self.configured.as_ref()?;
        while let Some(settle_until) = self.settle_until {
            let complete = match self.phase {
                SettlePhase::Members => all_returned(configured, observation),
                SettlePhase::UnknownMembers => false,
                SettlePhase::Snapshots => {
                    observation.dependencies.values().all(|observed| observed.unsettled.is_empty())
                }
            };
            if settle_until > now && !complete {
                return None;
            }
            self.settle_until =
                (self.phase == SettlePhase::UnknownMembers).then(|| settle_until + self.absence_timeout);
            self.phase = SettlePhase::Snapshots;
        }
        let (mut dependencies, mut unsettled) = (BTreeMap::new(), BTreeMap::new());
        for (name, observed) in &observation.dependencies {
            let (pods, deadline) = self.resolve_dependency(name, observed, now);
            unsettled.extend(deadline.map(|deadline| (name.clone(), deadline)));
            dependencies.insert(name.clone(), pods);
        }
        let unaddressed: BTreeMap<PodId, PeerAddressError> =
            observation.pods.iter().filter_map(|(id, pod)| Some((id.clone(), pod.control_address().err()?))).collect();
        let addressed = observation.pods.iter().filter(|(id, _)| !unaddressed.contains_key(*id));
        let addressed = addressed.map(|(id, pod)| (id.clone(), Arc::clone(pod))).collect();
        let fitted = self.fitted.take().filter(|fitted| fitted.is_of(&addressed, &dependencies));
        let fitted = self.fitted.insert(fitted.unwrap_or_else(|| FittedView::new(addressed, dependencies)));
        let view = View { pods: fitted.pods.clone(), dependencies: fitted.dependencies.clone() };
        let (excluded, format) = (fitted.excluded.clone(), fitted.format);
        Some(CurrentView { registered: view.clone(), view, excluded, format, unaddressed, unsettled })
    }

    /// Returns the time at which `current_view` may change although nothing new was observed.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.configured.as_ref()?;
        let missing_since = self.missing_since.values().map(|since| *since + self.absence_timeout);
        missing_since.chain(self.settle_until).min()
    }

    /// Returns whether members of the last configuration are still awaited.
    pub(super) fn is_waiting(&self) -> bool {
        self.settle_until.is_some()
    }

    /// Returns the pods of a dependency: the snapshots of its clusters. A cluster without one (its leader changes, or all of
    /// its pods are gone) keeps the pods configured last, until none of these has been registered for long enough. The
    /// deadline is the end of that time, if there are such pods.
    fn resolve_dependency(
        &mut self,
        name: &str,
        observed: &ObservedDependency,
        now: Instant,
    ) -> (Pods, Option<SettleDeadline>) {
        let present: BTreeSet<String> = observed.snapshot.values().map(|pod| pod.cluster()).collect();
        let view = self.checking.as_deref().or(self.sent.as_deref()).or(self.configured.as_ref());
        let last = view.and_then(|view| view.dependencies.get(name)).cloned().unwrap_or_default();
        let absent: BTreeSet<String> =
            last.values().map(|pod| pod.cluster()).filter(|c| !present.contains(c)).collect();
        self.missing_since.retain(|(of, cluster), _| of != name || absent.contains(cluster));
        self.expired.retain(|(of, cluster)| of != name || !present.contains(cluster));
        let (mut pods, mut deadline) = (observed.snapshot.clone(), None);
        for cluster in absent {
            let members = last.iter().filter(|(_, pod)| pod.cluster() == cluster);
            let is_live = members.clone().any(|(id, _)| observed.live.contains(id));
            let Some(own) = self.settle_deadline((name.to_owned(), cluster.clone()), is_live, now) else { continue };
            deadline = Some(deadline.map_or(own, |deadline: SettleDeadline| deadline.later(own)));
            pods.extend(members.map(|(id, pod)| (id.clone(), Arc::clone(pod))));
        }
        (pods, deadline)
    }

    /// Returns until when a cluster without a snapshot keeps its last pods; none if it no longer does.
    fn settle_deadline(&mut self, cluster: (String, String), is_live: bool, now: Instant) -> Option<SettleDeadline> {
        if self.expired.contains(&cluster) {
            return None;
        }
        if is_live {
            self.missing_since.remove(&cluster);
            return Some(SettleDeadline::Configured);
        }
        let end = *self.missing_since.entry(cluster.clone()).or_insert(now) + self.absence_timeout;
        if now < end {
            return Some(SettleDeadline::At(end));
        }
        self.missing_since.remove(&cluster);
        self.expired.insert(cluster);
        None
    }
}

/// Returns whether all pods of the last configuration, its dependencies included, are present again.
fn all_returned(configured: &View, observation: &Observation) -> bool {
    let own = configured.pods.keys().all(|id| observation.pods.contains_key(id));
    own && configured.dependencies.iter().all(|(name, pods)| {
        observation
            .dependencies
            .get(name)
            .is_none_or(|observed| pods.keys().all(|id| observed.snapshot.contains_key(id)))
    })
}

impl FittedView {
    /// Splits pods into those that one commit can carry together with the dependencies, oldest first and large ones last, and the
    /// others. The commit has them twice, as `snapshot` and in `view`.
    fn new(addressed: Pods, dependencies: BTreeMap<String, Pods>) -> Self {
        let used: usize = dependencies.values().flatten().chain(&addressed).map(size).sum();
        if StoredView::fits_plain(used + addressed.iter().map(size).sum::<usize>()) {
            let (pods, excluded) = (addressed.clone(), BTreeSet::new());
            return Self { addressed, dependencies, pods, excluded, format: StoredViewFormat::Plain };
        }
        let mut by_seq: Vec<_> = addressed.iter().collect();
        // Large registrations come last, so that one of them keeps no other pod out.
        by_seq.sort_by_key(|(_, pod)| (pod.json().len() > LARGE_REGISTRATION_BYTES, pod.seq()));
        let of = |pods: &[(&PodId, &Arc<Registration>)]| -> Pods {
            pods.iter().map(|(id, pod)| ((*id).clone(), Arc::clone(pod))).collect()
        };
        let stored = |count: usize| {
            let pods = of(by_seq.get(..count).unwrap_or_default());
            let stored = StoredView::new(&View { pods, dependencies: dependencies.clone() });
            stored.ok().filter(StoredView::fits).map(|stored| stored.format)
        };
        // Usually, all of them fit.
        let (mut kept, mut format) = (by_seq.len(), stored(by_seq.len()));
        if format.is_none() {
            let (mut fitting, mut exceeding) = (0, by_seq.len());
            while exceeding - fitting > 1 {
                let count = usize::midpoint(fitting, exceeding);
                if stored(count).is_some() { fitting = count } else { exceeding = count }
            }
            (kept, format) = (fitting, stored(fitting));
        }
        let (kept, excluded) = by_seq.split_at(kept);
        let (pods, excluded) = (of(kept), excluded.iter().map(|(id, _)| (*id).clone()).collect());
        let format = format.unwrap_or(StoredViewFormat::Compressed);
        Self { addressed, dependencies, pods, excluded, format }
    }

    /// Returns whether it is of these pods and dependencies: the same registrations, not equal ones.
    fn is_of(&self, addressed: &Pods, dependencies: &BTreeMap<String, Pods>) -> bool {
        let is_same = |one: &Pods, other: &Pods| {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.all(|((id, pod), (key, value))| id == key && Arc::ptr_eq(pod, value))
        };
        let mut pairs = self.dependencies.iter().zip(dependencies);
        is_same(&self.addressed, addressed)
            && self.dependencies.len() == dependencies.len()
            && pairs.all(|((name, pods), (key, value))| name == key && is_same(pods, value))
    }
}

/// Returns the bytes of one pod in the JSON of a view.
fn size((id, pod): (&PodId, &Arc<Registration>)) -> usize {
    /// Quotes, colon and comma.
    const PUNCTUATION_BYTES: usize = 4;
    /// A role that the pod may publish, with its key.
    const ROLE_BYTES: usize = 80;
    id.as_str().len() + PUNCTUATION_BYTES + ROLE_BYTES + pod.json().len()
}
