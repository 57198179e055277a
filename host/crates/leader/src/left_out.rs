//! Pods that were left out of the last configuration: why, and when they are checked again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_model::{Digest, PodId, Pods, View};
use ochopod_timing::Backoff;

use super::event::{Effect, PeerReply, PeerRequest, RolloutTask};

/// Bounds of the delays between two checks of the pods that are left out.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Reason of pods that were left out by an earlier leader, until they answer.
const NOT_CONFIGURED: &str = "not in the last configuration";

/// Pods that reject configurations or do not answer, as far as the model tolerates them.
#[derive(Debug)]
pub(super) struct LeftOutPods {
    reasons: BTreeMap<PodId, String>,
    /// Checks that were not answered yet.
    in_flight: BTreeMap<u64, PodId>,
    retry_at: Option<Instant>,
    retries: Backoff,
}

impl Default for LeftOutPods {
    fn default() -> Self {
        let retries = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        Self { reasons: BTreeMap::new(), in_flight: BTreeMap::new(), retry_at: None, retries }
    }
}

impl LeftOutPods {
    pub(super) fn contains(&self, pod: &PodId) -> bool {
        self.reasons.contains_key(pod)
    }

    /// Replaces the pods, after a configuration.
    pub(super) fn set(&mut self, reasons: BTreeMap<PodId, String>, now: Instant) {
        self.retries.reset();
        self.retry_at = (!reasons.is_empty()).then(|| now + self.retries.delay());
        self.reasons = reasons;
    }

    /// Leaves pods out that an earlier leader left out; they are checked immediately.
    pub(super) fn restore(&mut self, pods: Vec<PodId>, now: Instant) {
        self.retry_at = Some(now);
        self.reasons = pods.into_iter().map(|pod| (pod, NOT_CONFIGURED.to_owned())).collect();
    }

    /// Forgets pods that are no longer registered.
    pub(super) fn retain_registered(&mut self, registered: &Pods) {
        self.reasons.retain(|pod, _| registered.contains_key(pod));
        self.stop_if_empty();
    }

    /// Includes pods again: their cordons have changed.
    pub(super) fn include<'a>(&mut self, pods: impl Iterator<Item = &'a PodId>) {
        for pod in pods {
            self.reasons.remove(pod);
        }
        self.stop_if_empty();
    }

    fn stop_if_empty(&mut self) {
        if self.reasons.is_empty() {
            self.retry_at = None;
        }
    }

    /// Requests a check of all of them, with the view that they would be part of, if it is time. Calls are numbered above
    /// `last_call`, which is advanced.
    #[must_use]
    pub(super) fn request_checks(&mut self, registered: &Arc<View>, last_call: &mut u64, now: Instant) -> Vec<Effect> {
        if self.retry_at.is_none_or(|at| at > now) || !self.in_flight.is_empty() {
            return Vec::new();
        }
        // Pods that cannot be reached now may be reachable later.
        self.retry_at = Some(now + self.retries.delay());
        let generation = Digest::of(registered);
        let pods = self.reasons.keys().filter_map(|pod| Some((pod, registered.pods.get(pod)?)));
        let requests = pods.map(|(pod, registration)| {
            *last_call += 1;
            self.in_flight.insert(*last_call, pod.clone());
            Effect::Post(PeerRequest {
                call: *last_call,
                pod: pod.clone(),
                address: registration.control_address().unwrap_or_default(),
                task: RolloutTask::Check,
                generation: generation.clone(),
                view: Arc::clone(registered),
                started: Arc::default(),
            })
        });
        requests.collect()
    }

    /// Applies the reply to a check. Returns whether the pod can be included again.
    pub(super) fn answered(&mut self, call: u64, reply: &PeerReply, now: Instant) -> bool {
        let Some(pod) = self.in_flight.remove(&call) else { return false };
        let is_included = matches!(reply, PeerReply::Status(200 | 410, _));
        if is_included {
            tracing::info!(%pod, "pod included again");
            self.reasons.remove(&pod);
        } else if let Some(reason) = self.reasons.get_mut(&pod) {
            *reason = reply.to_string();
        }
        if self.in_flight.is_empty() && !self.reasons.is_empty() {
            self.retry_at = Some(now + self.retries.delay());
        }
        self.stop_if_empty();
        is_included
    }

    /// Stops waiting for replies: a configuration checks them too. If none starts, they are checked again.
    #[must_use]
    pub(super) fn cancel(&mut self, now: Instant) -> Vec<Effect> {
        if !self.in_flight.is_empty() {
            self.retry_at = Some(now);
        }
        self.stop_if_empty();
        std::mem::take(&mut self.in_flight).into_keys().map(Effect::Cancel).collect()
    }

    /// Returns the pods and the reasons.
    pub(super) fn reasons(&self) -> &BTreeMap<PodId, String> {
        &self.reasons
    }

    /// Returns when they are checked next.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.in_flight.is_empty())
    }
}
