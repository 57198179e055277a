//! What is counted of a pod.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::page::Page;

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rollout {
    /// The cluster is configured.
    Completed,
    /// Something refused or failed; it is tried again.
    Held,
    /// Given up: the leadership ended, or the pod is leaving.
    Abandoned,
}

/// What is only true at the moment of reading.
#[allow(clippy::struct_excessive_bools, reason = "gauges that are 0 or 1, independent of each other")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Whether the pod is registered under the present session.
    pub registered: bool,
    /// Whether the pod leads.
    pub leader: bool,
    /// Whether the sub-process runs.
    pub process_up: bool,
    /// Whether the pod was configured.
    pub configured: bool,
    /// Whether the plugin's lifecycle waits for a rebuild.
    pub lifecycle_suspended: bool,
    /// Whether the plugin's model waits for a rebuild.
    pub model_suspended: bool,
}

/// Counts of one pod since it started. Cheap to count from anywhere.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Counts<(&'static str, u16)>,
    process_starts: AtomicU64,
    process_ends: AtomicU64,
    plugin_traps: Counts<(&'static str, &'static str)>,
    plugin_deadlines: Counts<(&'static str, &'static str)>,
    plugin_rebuilds: Counts<&'static str>,
    rollouts: Counts<Rollout>,
    session_losses: AtomicU64,
}

impl Metrics {
    /// A control request was answered.
    pub fn request(&self, task: &'static str, code: u16) {
        self.requests.add((task, code));
    }

    /// A sub-process was started.
    pub fn process_started(&self) {
        self.process_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// The sub-process ended without being asked to, and not with code 0.
    pub fn process_ended_unexpectedly(&self) {
        self.process_ends.fetch_add(1, Ordering::Relaxed);
    }

    /// This kind of instance (`lifecycle`, `model`, `tool`) trapped, or exhausted a limit, in this callback.
    pub fn plugin_trapped(&self, instance: &'static str, callback: &'static str) {
        self.plugin_traps.add((instance, callback));
    }

    /// This kind of instance ran past the deadline of this callback.
    pub fn plugin_overran(&self, instance: &'static str, callback: &'static str) {
        self.plugin_deadlines.add((instance, callback));
    }

    /// An instance of this kind was built to replace one that failed.
    pub fn plugin_rebuilt(&self, instance: &'static str) {
        self.plugin_rebuilds.add(instance);
    }

    /// A rollout of this pod's leadership ended.
    pub fn rollout(&self, result: Rollout) {
        self.rollouts.add(result);
    }

    /// A session with the store was lost.
    pub fn session_lost(&self) {
        self.session_losses.fetch_add(1, Ordering::Relaxed);
    }

    /// The page in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn page(&self, gauges: Gauges) -> String {
        let mut page = Page::default();
        page.single(
            "ochopod_registered",
            "gauge",
            "Whether the pod is registered under its present session.",
            u64::from(gauges.registered),
        );
        page.single("ochopod_leader", "gauge", "Whether the pod leads its cluster.", u64::from(gauges.leader));
        page.single("ochopod_process_up", "gauge", "Whether the sub-process runs.", u64::from(gauges.process_up));
        page.single("ochopod_configured", "gauge", "Whether the pod was configured.", u64::from(gauges.configured));

        page.family("ochopod_requests_total", "counter", "Control requests answered, by task and status code.");
        for ((task, code), count) in self.requests.all() {
            page.sample("ochopod_requests_total", &[("task", task), ("code", &code.to_string())], count);
        }
        page.total("ochopod_process_starts_total", "Starts of the sub-process.", &self.process_starts);
        page.total(
            "ochopod_process_unexpected_ends_total",
            "Ends of the sub-process nobody asked for.",
            &self.process_ends,
        );
        self.plugin(&mut page, gauges);
        page.family("ochopod_rollouts_total", "counter", "Rollouts that this pod led, by result.");
        for result in [Rollout::Completed, Rollout::Held, Rollout::Abandoned] {
            let label = match result {
                Rollout::Completed => "completed",
                Rollout::Held => "held",
                Rollout::Abandoned => "abandoned",
            };
            page.sample("ochopod_rollouts_total", &[("result", label)], self.rollouts.of(&result));
        }
        page.total("ochopod_session_losses_total", "Sessions with the store that were lost.", &self.session_losses);
        page.text()
    }

    fn plugin(&self, page: &mut Page, gauges: Gauges) {
        let failures = [
            (
                "ochopod_plugin_traps_total",
                "Traps and exhausted limits of the plugin, each of which cost an instance.",
                &self.plugin_traps,
            ),
            (
                "ochopod_plugin_deadlines_total",
                "Calls of the plugin stopped at their deadline, which cost the instance too.",
                &self.plugin_deadlines,
            ),
        ];
        for (name, help, counts) in failures {
            page.family(name, "counter", help);
            for ((instance, callback), count) in counts.all() {
                page.sample(name, &[("instance", instance), ("callback", callback)], count);
            }
        }
        let rebuilds = "ochopod_plugin_rebuilds_total";
        page.family(
            rebuilds,
            "counter",
            "Instances built to replace one that failed: ten at once, then one per minute.",
        );
        for instance in ["lifecycle", "model"] {
            page.sample(rebuilds, &[("instance", instance)], self.plugin_rebuilds.of(&instance));
        }
        let suspended = "ochopod_plugin_suspended";
        page.family(suspended, "gauge", "Whether this instance failed so often that it waits for a rebuild.");
        for (instance, is_suspended) in [("lifecycle", gauges.lifecycle_suspended), ("model", gauges.model_suspended)] {
            page.sample(suspended, &[("instance", instance)], u64::from(is_suspended));
        }
    }
}

/// Counts by what was counted.
#[derive(Debug)]
pub(super) struct Counts<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Counts<K> {
    pub(super) fn add(&self, key: K) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    pub(super) fn of(&self, key: &K) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    /// In the order of what was counted.
    pub(super) fn all(&self) -> Vec<(K, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::page::read;

    #[test]
    fn the_page_counts_what_happened() {
        let metrics = Metrics::default();
        metrics.request("on", 200);
        metrics.request("on", 200);
        metrics.request("check", 406);
        metrics.process_started();
        metrics.process_ended_unexpectedly();
        metrics.plugin_trapped("lifecycle", "configure");
        metrics.plugin_overran("lifecycle", "sanity-check");
        metrics.plugin_rebuilt("model");
        metrics.rollout(Rollout::Held);
        metrics.session_lost();
        let page = metrics.page(Gauges { registered: true, model_suspended: true, ..Gauges::default() });
        for line in [
            "ochopod_registered 1",
            "ochopod_leader 0",
            r#"ochopod_requests_total{task="on",code="200"} 2"#,
            r#"ochopod_requests_total{task="check",code="406"} 1"#,
            "ochopod_process_starts_total 1",
            "ochopod_process_unexpected_ends_total 1",
            r#"ochopod_plugin_traps_total{instance="lifecycle",callback="configure"} 1"#,
            r#"ochopod_plugin_deadlines_total{instance="lifecycle",callback="sanity-check"} 1"#,
            r#"ochopod_plugin_rebuilds_total{instance="lifecycle"} 0"#,
            r#"ochopod_plugin_rebuilds_total{instance="model"} 1"#,
            r#"ochopod_plugin_suspended{instance="lifecycle"} 0"#,
            r#"ochopod_plugin_suspended{instance="model"} 1"#,
            r#"ochopod_rollouts_total{result="held"} 1"#,
            r#"ochopod_rollouts_total{result="completed"} 0"#,
            "ochopod_session_losses_total 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn every_sample_belongs_to_a_family_declared_before_it() {
        assert!(!read(&Metrics::default().page(Gauges::default())).is_empty());
    }
}
