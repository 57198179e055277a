//! Results of the steps of a rollout.

use std::{collections::BTreeMap, sync::Arc};

use ochopod_model::{Digest, PodId, StoredHash, View};

use super::event::Effect;

/// Result of one step of a rollout.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Effects to execute, in order.
    pub(super) effects: Vec<Effect>,
    /// A pod that was found dead.
    pub(super) dead: Option<PodId>,
    /// Whether the lock has to be read.
    pub(super) needs_lock: bool,
    /// The hash that the store has now, or may have.
    pub(super) stored: Option<StoredHash>,
    /// Whether the rollout passed its check: pods may run from its view from now on.
    pub(super) has_started_pods: bool,
    /// Outcome of the rollout, once it has ended.
    pub(super) outcome: Option<RolloutOutcome>,
}

/// Outcome of a rollout.
#[derive(Debug)]
pub(super) enum RolloutOutcome {
    /// All pods are configured and ready, and the store has the new hash and view. These pods were left out, for these reasons.
    Completed(Digest, Arc<View>, BTreeMap<PodId, String>),
    /// It did not reach all pods: some left, or it was stopped.
    Incomplete,
    /// A pod or the store failed: retry later.
    Failed(String),
    /// A pod died while being configured: restart without it.
    PodDied(String),
    /// A pod of a batch died while being configured: the others keep running as they are for now.
    BatchFailed(String),
    /// No request numbers are left for this leadership.
    Exhausted(String),
}

impl Progress {
    /// Ends the rollout with this step.
    pub(super) fn end(mut self, outcome: RolloutOutcome) -> Self {
        self.outcome = Some(outcome);
        self
    }
}
