//! The report of the leader machine: role and status of the cluster.

use std::{collections::BTreeMap, time::Instant};

use ochopod_model::{
    PodId,
    status::{LeaderReport, Role},
};

use ochopod_store::StoredViewFormat;

use super::{LeaderMachine, LeaderState};
use crate::{rollout::pod_name, settle::SettleDeadline};

/// Number of pods or plugins of one kind that the status lists.
const MAX_SHOWN: usize = 5;

impl LeaderMachine {
    /// Returns the pod's report about its cluster.
    #[must_use]
    pub fn report(&self) -> LeaderReport {
        let error = self.last_error.as_deref();
        let (role, status, due) = match &self.state {
            LeaderState::Observing { .. } if self.settling.is_waiting() => {
                (Role::Pending, "* waiting for previously configured pods to return".to_owned(), None)
            }
            LeaderState::Observing { .. } => (Role::Pending, "* reading cluster state".to_owned(), None),
            LeaderState::Clean { .. } => (Role::Leader, self.clean_status(), None),
            LeaderState::Dirty { .. } | LeaderState::BackingOff { .. } if self.is_paused() => self.paused_status(),
            LeaderState::Dirty { .. } | LeaderState::BackingOff { .. } if !self.is_settled() => self.unsettled_status(),
            LeaderState::Dirty { since, delay } => {
                (Role::Pending, "* configuring".to_owned(), Some(self.burst.due(*since, *delay)))
            }
            LeaderState::BackingOff { until, .. } => {
                (Role::Pending, format!("* {}, retrying", error.unwrap_or("configuration on hold")), Some(*until))
            }
            LeaderState::Rollout(rollout) => {
                let waiting = rollout.unready_text(&self.states).map(|pods| format!(", waiting until ready: {pods}"));
                let error = error.map(|text| format!(" (last error: {text})")).unwrap_or_default();
                let text = format!("* configuring {} pods{}{error}", rollout.size(), waiting.unwrap_or_default());
                (Role::Configuring, text, None)
            }
            LeaderState::Ended => (Role::Follower, String::new(), None),
        };
        // A configuration stops and starts pods: a pod that is off meanwhile is expected.
        let is_listed = !matches!(self.state, LeaderState::Rollout(_) | LeaderState::Ended);
        LeaderReport { role, status, next_action_at: due, down: self.down_pods.report(is_listed) }
    }

    /// Returns the status of a configured cluster: what is wrong with it, or the text of the probe.
    fn clean_status(&self) -> String {
        let is_cordoned = |id: &PodId| self.states.get(id).is_some_and(|state| state.cordon.is_some());
        let left_out = self.left_out.reasons().iter().filter(|(id, _)| !is_cordoned(id));
        let left_out = left_out.take(MAX_SHOWN).map(|(id, reason)| {
            let registration = self.observation.as_ref().and_then(|observation| observation.pods.get(id));
            let name = registration.map_or_else(|| id.to_string(), |registration| pod_name(id, registration));
            format!("{name}: {reason}")
        });
        let left_out: Vec<String> = left_out.collect();
        let left_out = (!left_out.is_empty()).then(|| format!("* left out, {}", left_out.join(", ")));
        let paused = self.observation.as_ref().and_then(|observation| observation.paused.as_ref());
        let paused = paused.map(|pause| format!("* configurations paused: {}", pause.reason));
        let reconcile = self.reconciliation.error().map(|error| format!("* reconcile: {error}"));
        let faults = [paused, self.excluded_status(), left_out, reconcile, self.mixed_plugins()];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        let texts = if faults.is_empty() { vec![self.probe_text.clone()] } else { faults };
        let texts = texts.into_iter().chain(self.compressed_status()).filter(|text| !text.is_empty());
        texts.collect::<Vec<_>>().join(", ")
    }

    /// Returns a note if dependants of the Python SDK cannot read the snapshot.
    fn compressed_status(&self) -> Option<String> {
        let (current, _) = self.current.as_ref()?;
        let is_compressed = current.format == StoredViewFormat::Compressed;
        is_compressed.then(|| "snapshot compressed: pods of the Python SDK cannot read it".to_owned())
    }

    /// Returns which plugins the pods run, if these are not all the same.
    fn mixed_plugins(&self) -> Option<String> {
        let (current, _) = self.current.as_ref()?;
        let mut plugins: BTreeMap<&str, usize> = BTreeMap::new();
        for id in current.view.pods.keys() {
            if let Some(plugin) = self.states.get(id).and_then(|state| state.plugin.as_deref()) {
                *plugins.entry(plugin).or_default() += 1;
            }
        }
        let counts = plugins.iter().take(MAX_SHOWN).map(|(plugin, pods)| format!("{plugin} on {pods}"));
        (plugins.len() > 1).then(|| format!("* mixed plugins: {}", counts.collect::<Vec<_>>().join(", ")))
    }

    fn paused_status(&self) -> (Role, String, Option<Instant>) {
        let paused = self.observation.as_ref().and_then(|observation| observation.paused.as_ref());
        let reason = paused.map(|pause| pause.reason.as_str()).unwrap_or_default();
        (Role::Pending, format!("* configurations paused: {reason}"), None)
    }

    fn excluded_status(&self) -> Option<String> {
        let (current, _) = self.current.as_ref()?;
        let too_large: Vec<&str> = current.excluded.iter().map(PodId::as_str).collect();
        let too_large =
            (!too_large.is_empty()).then(|| format!("view exceeds the store's size limit: {}", too_large.join(", ")));
        let unaddressed = current.unaddressed.iter().take(MAX_SHOWN);
        let unaddressed: Vec<_> = unaddressed.map(|(id, error)| format!("pod {id}: {error}")).collect();
        let more = current.unaddressed.len().saturating_sub(MAX_SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let unaddressed =
            (!unaddressed.is_empty()).then(|| format!("no usable address: {}{more}", unaddressed.join(", ")));
        let reasons: Vec<String> = unaddressed.into_iter().chain(too_large).collect();
        (!reasons.is_empty()).then(|| format!("* excluded, {}", reasons.join("; ")))
    }

    fn unsettled_status(&self) -> (Role, String, Option<Instant>) {
        let unsettled = self.current.iter().flat_map(|(current, _)| &current.unsettled);
        let names: Vec<&str> = unsettled.clone().map(|(name, _)| name.as_str()).collect();
        let ends = unsettled.map(|(_, deadline)| match deadline {
            SettleDeadline::At(end) => Some(*end),
            SettleDeadline::Configured => None,
        });
        let ends: Option<Vec<Instant>> = ends.collect();
        let end = ends.and_then(|ends| ends.into_iter().max());
        let cause = if end.is_some() {
            "its last pods are not registered, treated as empty"
        } else {
            "its pods are registered but not configured yet"
        };
        (Role::Pending, format!("* waiting for dependency {} to settle: {cause}", names.join(", ")), end)
    }
}
