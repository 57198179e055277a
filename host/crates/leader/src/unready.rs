//! Pods that answered that they are not ready.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ochopod_model::PodId;

/// Delay before a pod that is only not ready is requested again.
const REPEAT_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Unready {
    reason: String,
    /// When it is requested again; none while the request is in flight.
    retry_at: Option<Instant>,
}

/// Pods that a rollout waits for because their last reply said that they are not ready.
#[derive(Debug, Default)]
pub(super) struct UnreadyPods(BTreeMap<PodId, Unready>);

impl UnreadyPods {
    /// Adds a pod, or its next reply.
    pub(super) fn insert(&mut self, pod: PodId, reason: String, now: Instant) {
        let is_known = self.reason(&pod).is_some_and(|known| *known == reason);
        if !is_known {
            tracing::info!(%pod, reason, "pod not ready, waiting for it");
        }
        self.0.insert(pod, Unready { reason, retry_at: Some(now + REPEAT_DELAY) });
    }

    /// Takes the pods whose time has come: the caller requests them again.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PodId> {
        let due = self.0.iter_mut().filter(|(_, unready)| unready.retry_at.is_some_and(|at| at <= now));
        due.map(|(pod, unready)| {
            unready.retry_at = None;
            pod.clone()
        })
        .collect()
    }

    /// Returns the latest time of the next [`take_due`](Self::take_due).
    pub(super) fn wake(&self) -> Option<Instant> {
        self.0.values().filter_map(|unready| unready.retry_at).min()
    }

    /// Removes a pod that gave another reply.
    pub(super) fn remove(&mut self, pod: &PodId) {
        self.0.remove(pod);
    }

    /// Keeps only these.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&PodId) -> bool) {
        self.0.retain(|pod, _| keeps(pod));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, pod: &PodId) -> bool {
        self.0.contains_key(pod)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &PodId> {
        self.0.keys()
    }

    /// Returns why a pod is not ready, as it answered.
    pub(super) fn reason(&self, pod: &PodId) -> Option<&String> {
        self.0.get(pod).map(|unready| &unready.reason)
    }
}
