//! What a leader takes for the present view: which dependencies count, which pods fit, and when it may compare at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cluster::{PodId, Pods, Registration, Stored, View},
    coord::{COMMIT_LIMIT, Observed, World},
};

/// Room in a commit for everything but registrations: hash, paths, names of dependencies.
const OVERHEAD: usize = 16 * 1024;

/// Judges what was observed by what was configured last.
#[derive(Debug)]
pub(super) struct Settling {
    /// Twice the session timeout: how long something may be away before it is taken as gone.
    patience: Duration,
    /// After a lost session, or an interrupted connection: no comparison before this, unless all that is awaited is there.
    until: Option<Instant>,
    awaited: Awaited,
    /// The view of the last configuration, once it is known.
    configured: Option<View>,
    /// Since when a cluster of a dependency has neither a snapshot nor a live member.
    vanished: BTreeMap<(String, String), Instant>,
}

/// What may be on its way back to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Who was configured last.
    Members,
    /// The store has no trace of a configuration. To who has just come back to it, it was emptied: there were members, and
    /// who they are is not known.
    Anybody,
    /// After that: snapshots of those dependencies whose members are back. They were given as long.
    Snapshots,
}

/// The present view, and what was left out of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Present {
    pub(super) view: View,
    /// Pods that would exceed what the store can hold, the youngest ones.
    pub(super) refused: BTreeSet<PodId>,
}

impl Settling {
    pub(super) fn new(patience: Duration, until: Option<Instant>) -> Self {
        Self { patience, until, awaited: Awaited::Members, configured: None, vanished: BTreeMap::new() }
    }

    /// The last configuration, as the store says.
    pub(super) fn stored(&mut self, hash: &Stored, view: View) {
        self.awaited = if hash.content().is_empty() { Awaited::Anybody } else { Awaited::Members };
        self.configured = Some(view);
    }

    /// The last configuration, as the own commit says.
    pub(super) fn configured(&mut self, view: View) {
        self.configured = Some(view);
    }

    /// The present view, or none while the last configuration is not known or its members may still be on their way back
    /// to the store.
    pub(super) fn present(&mut self, world: &World, now: Instant) -> Option<Present> {
        let configured = self.configured.as_ref()?;
        while let Some(until) = self.until {
            let complete = match self.awaited {
                Awaited::Members => everybody_is_back(configured, world),
                Awaited::Anybody => false,
                Awaited::Snapshots => world.dependencies.values().all(|observed| observed.unsettled.is_empty()),
            };
            if until > now && !complete {
                return None;
            }
            self.until = (self.awaited == Awaited::Anybody).then(|| until + self.patience);
            self.awaited = Awaited::Snapshots;
        }
        let names: Vec<String> = world.dependencies.keys().cloned().collect();
        let dependencies = names.into_iter().map(|name| (name.clone(), self.dependency(world, &name, now))).collect();
        let (pods, refused) = fitting(&world.pods, &dependencies);
        Some(Present { view: View { pods, dependencies }, refused })
    }

    /// When `present` may give something else although nothing was observed.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.configured.as_ref()?;
        let vanished = self.vanished.values().map(|since| *since + self.patience);
        vanished.chain(self.until).min()
    }

    /// Whether members of the last configuration are still waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.until.is_some()
    }

    /// A dependency is the snapshots of its clusters. While one of them has none (its leader changes), its pods are those
    /// configured last, until none of its members has been registered for long enough.
    fn dependency(&mut self, world: &World, name: &str, now: Instant) -> Pods {
        let Some(observed) = world.dependencies.get(name) else { return Pods::new() };
        let Some(last) = self.configured.as_mut().and_then(|view| view.dependencies.get_mut(name)) else {
            return observed.snapshot.clone();
        };
        let present: BTreeSet<String> = observed.snapshot.values().map(|pod| pod.cluster()).collect();
        let absent: BTreeSet<String> =
            last.values().map(|pod| pod.cluster()).filter(|c| !present.contains(c)).collect();
        self.vanished.retain(|(of, cluster), _| of != name || absent.contains(cluster));
        for cluster in absent {
            let key = (name.to_owned(), cluster);
            if is_unsettled(observed, &key.1) {
                self.vanished.remove(&key);
                continue;
            }
            let since = *self.vanished.entry(key.clone()).or_insert(now);
            if now >= since + self.patience {
                self.vanished.remove(&key);
                last.retain(|_, pod| pod.cluster() != key.1);
            }
        }
        let kept = last.iter().filter(|(_, pod)| !present.contains(&pod.cluster()));
        let kept: Pods = kept.map(|(id, pod)| (id.clone(), Arc::clone(pod))).collect();
        kept.into_iter().chain(observed.snapshot.clone()).collect()
    }
}

/// Whether the cluster has live members but no snapshot. One that does not tell its name is any of them.
fn is_unsettled(observed: &Observed, cluster: &str) -> bool {
    observed.unsettled.contains(cluster) || (cluster == "." && !observed.unsettled.is_empty())
}

fn everybody_is_back(configured: &View, world: &World) -> bool {
    let own = configured.pods.keys().all(|id| world.pods.contains_key(id));
    own && configured.dependencies.iter().all(|(name, pods)| {
        world.dependencies.get(name).is_none_or(|observed| pods.keys().all(|id| observed.snapshot.contains_key(id)))
    })
}

/// The pods whose registrations fit into one commit together with the dependencies, oldest first. The commit has them
/// twice, as `snapshot` and in `view`.
fn fitting(pods: &Pods, dependencies: &BTreeMap<String, Pods>) -> (Pods, BTreeSet<PodId>) {
    let taken: usize = dependencies.values().flatten().map(size).sum();
    let mut room = COMMIT_LIMIT.saturating_sub(OVERHEAD + taken);
    let mut by_seq: Vec<_> = pods.iter().collect();
    by_seq.sort_by_key(|(_, pod)| pod.seq());
    let (mut kept, mut refused) = (Pods::new(), BTreeSet::new());
    for (id, pod) in by_seq {
        let needed = 2 * size((id, pod));
        if needed <= room {
            room -= needed;
            kept.insert(id.clone(), Arc::clone(pod));
        } else {
            refused.insert(id.clone());
        }
    }
    (kept, refused)
}

fn size((id, pod): (&PodId, &Arc<Registration>)) -> usize {
    /// Quotes, colon and comma.
    const PUNCTUATION: usize = 4;
    id.as_str().len() + PUNCTUATION + serde_json::to_vec(pod).map_or(COMMIT_LIMIT, |json| json.len())
}
