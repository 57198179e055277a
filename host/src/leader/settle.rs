//! What a leader takes for the present view: which dependencies count, which pods fit, and when it may compare at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cluster::{PodId, Pods, View},
    coord::World,
};

/// What the store lets a node hold (1 MiB), less room for what surrounds the pods in `view`.
const LARGEST_VIEW: usize = 1_000_000;

/// Judges what was observed by what was configured last.
#[derive(Debug)]
pub(super) struct Settling {
    /// Twice the session timeout: how long something may be away before it is taken as gone.
    patience: Duration,
    /// After a lost session: no comparison before this, unless every member is back.
    until: Option<Instant>,
    /// The view of the last configuration.
    configured: View,
    /// Since when a dependency has neither a snapshot nor a live member.
    vanished: BTreeMap<String, Instant>,
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
        Self { patience, until, configured: View::default(), vanished: BTreeMap::new() }
    }

    /// The last configuration, as the store or the own commit says.
    pub(super) fn configured(&mut self, view: View) {
        self.configured = view;
    }

    /// The present view, or none while members may still be on their way back after a lost session.
    pub(super) fn present(&mut self, world: &World, now: Instant) -> Option<Present> {
        if self.until.is_some_and(|until| until > now) && !self.everybody_is_back(world) {
            return None;
        }
        self.until = None;
        let dependencies =
            world.dependencies.keys().map(|name| (name.clone(), self.dependency(world, name, now))).collect();
        let (pods, refused) = fitting(&world.pods, &dependencies);
        Some(Present { view: View { pods, dependencies }, refused })
    }

    /// When `present` may give something else although nothing was observed.
    pub(super) fn wake(&self) -> Option<Instant> {
        let vanished = self.vanished.values().map(|since| *since + self.patience);
        vanished.chain(self.until).min()
    }

    fn everybody_is_back(&self, world: &World) -> bool {
        let own = self.configured.pods.keys().all(|id| world.pods.contains_key(id));
        own && self.configured.dependencies.iter().all(|(name, pods)| {
            world.dependencies.get(name).is_none_or(|observed| pods.keys().all(|id| observed.snapshot.contains_key(id)))
        })
    }

    /// A dependency is its snapshot. While that is missing or empty (its leader changes), it is what was configured last,
    /// until none of its members has been registered for long enough.
    fn dependency(&mut self, world: &World, name: &str, now: Instant) -> Pods {
        let Some(observed) = world.dependencies.get(name) else { return Pods::new() };
        let last = self.configured.dependencies.get(name).filter(|pods| !pods.is_empty());
        match last {
            Some(last) if observed.snapshot.is_empty() => {
                if observed.unsettled {
                    self.vanished.remove(name);
                    return last.clone();
                }
                let since = *self.vanished.entry(name.to_owned()).or_insert(now);
                if now < since + self.patience {
                    return last.clone();
                }
                self.vanished.remove(name);
                self.configured.dependencies.remove(name);
                Pods::new()
            }
            _ => {
                self.vanished.remove(name);
                observed.snapshot.clone()
            }
        }
    }
}

/// The pods whose registrations fit into one node together with the dependencies, oldest first.
fn fitting(pods: &Pods, dependencies: &BTreeMap<String, Pods>) -> (Pods, BTreeSet<PodId>) {
    let mut room = LARGEST_VIEW.saturating_sub(dependencies.values().flatten().map(size).sum());
    let mut by_seq: Vec<_> = pods.iter().collect();
    by_seq.sort_by_key(|(_, pod)| pod.seq());
    let (mut kept, mut refused) = (Pods::new(), BTreeSet::new());
    for (id, pod) in by_seq {
        let needed = size((id, pod));
        if needed <= room {
            room -= needed;
            kept.insert(id.clone(), Arc::clone(pod));
        } else {
            refused.insert(id.clone());
        }
    }
    (kept, refused)
}

fn size((id, pod): (&PodId, &Arc<crate::cluster::Registration>)) -> usize {
    /// Quotes, colon and comma.
    const PUNCTUATION: usize = 4;
    id.as_str().len() + PUNCTUATION + serde_json::to_vec(pod).map_or(LARGEST_VIEW, |json| json.len())
}
