//! The model's reconciliation: when it is called, and when it is retried. When roles of dependencies change, the pods are
//! notified too.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_model::{Digest, PodId, Pods, Registration, View};
use ochopod_store::States;
use ochopod_timing::Backoff;

use super::event::{Effect, PeerRequest, RolloutTask};

/// Bounds of the delays after an error.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Inputs of a reconciliation in addition to the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Inputs {
    /// Role and readiness of the pods of the leader's cluster.
    pods: BTreeMap<PodId, (String, bool)>,
    /// Roles of the pods of the dependencies.
    dependencies: BTreeMap<(String, PodId), String>,
}

/// Decides when the model reconciles.
#[derive(Debug)]
pub(super) struct Reconciliation {
    inputs: Inputs,
    /// When it is called next.
    due: Option<Instant>,
    is_running: bool,
    error: Option<String>,
    retries: Backoff,
}

impl Default for Reconciliation {
    fn default() -> Self {
        let retries = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        Self { inputs: Inputs::default(), due: None, is_running: false, error: None, retries }
    }
}

impl Reconciliation {
    /// Requests a call: the cluster was configured.
    pub(super) fn request(&mut self, now: Instant) {
        self.due = Some(now);
        self.retries.reset();
    }

    /// Compares the pods with those of the last call, and requests another one if a role or readiness differs. Returns whether
    /// the role of a pod of a dependency differs.
    #[must_use]
    pub(super) fn observe(&mut self, view: &View, states: &States, now: Instant) -> bool {
        let own = view.pods.keys().map(|id| {
            let state = states.get(id);
            let role = state.and_then(|state| state.role.clone()).unwrap_or_default();
            (id.clone(), (role, state.is_some_and(|state| state.ready)))
        });
        let roles = |(name, pods): (&String, &Pods)| {
            let name = name.clone();
            let named = pods.iter().filter(|(_, pod)| !pod.role().is_empty());
            named.map(move |(id, pod)| ((name.clone(), id.clone()), pod.role().to_owned())).collect::<Vec<_>>()
        };
        let dependencies = view.dependencies.iter().flat_map(roles).collect();
        let inputs = Inputs { pods: own.collect(), dependencies };
        if inputs == self.inputs {
            return false;
        }
        let has_changed_roles = inputs.dependencies != self.inputs.dependencies;
        self.inputs = inputs;
        self.request(now);
        has_changed_roles
    }

    /// Returns the call, if one is due.
    #[must_use]
    pub(super) fn start(&mut self, view: &Arc<View>, now: Instant) -> Option<Effect> {
        if self.is_running || self.due.is_none_or(|due| due > now) {
            return None;
        }
        (self.due, self.is_running) = (None, true);
        Some(Effect::Reconcile(Arc::clone(view)))
    }

    /// Records the result of the call.
    pub(super) fn returned(&mut self, result: Result<(), String>, now: Instant) {
        self.is_running = false;
        match result {
            Ok(()) => {
                self.error = None;
                self.retries.reset();
            }
            Err(error) => {
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "reconcile failed, retrying");
                }
                self.error = Some(error);
                let retry_at = now + self.retries.delay();
                self.due = Some(self.due.map_or(retry_at, |due| due.min(retry_at)));
            }
        }
    }

    /// Stops the call in progress: the cluster changes. It is requested again once the cluster is configured.
    #[must_use]
    pub(super) fn cancel(&mut self) -> Option<Effect> {
        (self.due, self.error) = (None, None);
        std::mem::take(&mut self.is_running).then_some(Effect::CancelReconcile)
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns when the next call is due.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_running)
    }
}

/// Returns an `ok` to each pod of the view, which calls `configured` again. The requests are numbered above `last_call`.
pub(super) fn confirmations(view: &Arc<View>, last_call: &mut u64) -> Vec<Effect> {
    let generation = Digest::of(view);
    let mut pods: Vec<_> = view.pods.iter().collect();
    pods.sort_by_key(|(_, pod)| pod.seq());
    let confirmation = |(id, pod): (&PodId, &Arc<Registration>)| {
        *last_call += 1;
        Effect::Post(PeerRequest {
            call: *last_call,
            pod: id.clone(),
            address: pod.control_address().unwrap_or_default(),
            task: RolloutTask::Ok,
            generation: generation.clone(),
            view: Arc::clone(view),
            started: Arc::default(),
        })
    };
    pods.into_iter().map(confirmation).collect()
}
