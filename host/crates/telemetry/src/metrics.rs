//! Counters of a pod, and the page of `/metrics`. The request is answered by `control::monitoring`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::prometheus_text::PrometheusText;

/// Result of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutResult {
    /// The cluster is configured.
    Completed,
    /// A pod or the store rejected it or failed; it is retried.
    Held,
    /// The leadership ended, or the pod shuts down.
    Abandoned,
}

/// Values at the time of reading.
#[allow(clippy::struct_excessive_bools, reason = "gauges that are 0 or 1, independent of each other")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Whether the pod is registered under the current session.
    pub registered: bool,
    /// Whether the pod leads.
    pub leader: bool,
    /// Whether the sub-process runs.
    pub process_up: bool,
    /// Whether the pod was configured.
    pub configured: bool,
    /// Whether `/readyz` returns 200.
    pub ready: bool,
    /// Whether the pod is configured and its sub-process does not run.
    pub off: bool,
    /// Whether the pod is dead.
    pub dead: bool,
    /// Number of pods of the cluster whose sub-process is off; 0 unless the pod leads.
    pub cluster_off: usize,
    /// Number of dead pods of the cluster; 0 unless the pod leads.
    pub cluster_dead: usize,
    /// Whether the plugin's lifecycle instance is suspended.
    pub lifecycle_suspended: bool,
    /// Whether the plugin's model instance is suspended.
    pub model_suspended: bool,
}

/// Counters of one pod since it started. Counting is cheap and possible from any thread.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: CounterVec<(&'static str, u16)>,
    process_starts: AtomicU64,
    process_ends: AtomicU64,
    process_restarts: AtomicU64,
    checks_failed: AtomicU64,
    plugin_traps: CounterVec<(&'static str, &'static str)>,
    plugin_deadlines: CounterVec<(&'static str, &'static str)>,
    plugin_rebuilds: CounterVec<&'static str>,
    plugin_memory: AtomicU64,
    rollouts: CounterVec<RolloutResult>,
    session_losses: AtomicU64,
}

impl Metrics {
    /// Counts a completed control request.
    pub fn request(&self, task: &'static str, code: u16) {
        self.requests.add((task, code));
    }

    /// Counts a start of the sub-process.
    pub fn process_started(&self) {
        self.process_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an unexpected exit of the sub-process: without a request and with a code other than 0.
    pub fn process_ended_unexpectedly(&self) {
        self.process_ends.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a start of the sub-process after an unexpected exit.
    pub fn process_restarted(&self) {
        self.process_restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed sanity check.
    pub fn check_failed(&self) {
        self.checks_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a trap or an exceeded limit of an instance (`lifecycle`, `model` or `tool`) in this callback.
    pub fn plugin_trapped(&self, instance: &'static str, callback: &'static str) {
        self.plugin_traps.add((instance, callback));
    }

    /// Counts a callback of an instance that exceeded its deadline.
    pub fn plugin_timed_out(&self, instance: &'static str, callback: &'static str) {
        self.plugin_deadlines.add((instance, callback));
    }

    /// Counts an instance that was rebuilt after a failure.
    pub fn plugin_rebuilt(&self, instance: &'static str) {
        self.plugin_rebuilds.add(instance);
    }

    /// Sets the memory of all instances, in bytes.
    pub fn plugin_memory(&self, bytes: usize) {
        self.plugin_memory.store(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a rollout that this pod led.
    pub fn rollout(&self, result: RolloutResult) {
        self.rollouts.add(result);
    }

    /// Counts a lost session with the store.
    pub fn session_lost(&self) {
        self.session_losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the page in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self, gauges: Gauges) -> String {
        let mut page = PrometheusText::default();
        page.single(
            "ochopod_registered",
            "gauge",
            "Whether the pod is registered under its current session.",
            u64::from(gauges.registered),
        );
        page.single("ochopod_leader", "gauge", "Whether the pod leads its cluster.", u64::from(gauges.leader));
        page.single("ochopod_process_up", "gauge", "Whether the sub-process runs.", u64::from(gauges.process_up));
        page.single("ochopod_configured", "gauge", "Whether the pod was configured.", u64::from(gauges.configured));
        Self::health(&mut page, gauges);

        page.family("ochopod_requests_total", "counter", "Control requests answered, by task and status code.");
        for ((task, code), count) in self.requests.all() {
            page.sample("ochopod_requests_total", &[("task", task), ("code", &code.to_string())], count);
        }
        page.total("ochopod_process_starts_total", "Starts of the sub-process.", &self.process_starts);
        page.total("ochopod_process_unexpected_ends_total", "Unexpected exits of the sub-process.", &self.process_ends);
        page.total(
            "ochopod_process_restarts_total",
            "Starts of the sub-process after an unexpected exit.",
            &self.process_restarts,
        );
        page.total("ochopod_checks_failed_total", "Failed sanity checks of the sub-process.", &self.checks_failed);
        self.plugin(&mut page, gauges);
        page.family("ochopod_rollouts_total", "counter", "Rollouts that this pod led, by result.");
        for result in [RolloutResult::Completed, RolloutResult::Held, RolloutResult::Abandoned] {
            let label = match result {
                RolloutResult::Completed => "completed",
                RolloutResult::Held => "held",
                RolloutResult::Abandoned => "abandoned",
            };
            page.sample("ochopod_rollouts_total", &[("result", label)], self.rollouts.of(&result));
        }
        page.total("ochopod_session_losses_total", "Lost sessions with the store.", &self.session_losses);
        page.text()
    }

    fn health(page: &mut PrometheusText, gauges: Gauges) {
        page.single("ochopod_ready", "gauge", "Whether /readyz answers 200.", u64::from(gauges.ready));
        page.single(
            "ochopod_off",
            "gauge",
            "Whether the pod is configured and its sub-process is off.",
            u64::from(gauges.off),
        );
        page.single("ochopod_dead", "gauge", "Whether the pod is dead.", u64::from(gauges.dead));
        let pods = "ochopod_cluster_pods";
        page.family(
            pods,
            "gauge",
            "Pods of the cluster that are off or dead, as its leader sees them; 0 on followers.",
        );
        page.sample(pods, &[("state", "off")], gauges.cluster_off);
        page.sample(pods, &[("state", "dead")], gauges.cluster_dead);
    }

    fn plugin(&self, page: &mut PrometheusText, gauges: Gauges) {
        let failures = [
            (
                "ochopod_plugin_traps_total",
                "Plugin traps and exceeded limits; each discards an instance.",
                &self.plugin_traps,
            ),
            (
                "ochopod_plugin_deadlines_total",
                "Plugin calls stopped at their deadline; each discards an instance.",
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
        page.family(rebuilds, "counter", "Plugin instances rebuilt after a failure.");
        for instance in ["lifecycle", "model"] {
            page.sample(rebuilds, &[("instance", instance)], self.plugin_rebuilds.of(&instance));
        }
        let memory = self.plugin_memory.load(Ordering::Relaxed);
        page.single("ochopod_plugin_memory_bytes", "gauge", "Memory and tables of all plugin instances.", memory);
        let suspended = "ochopod_plugin_suspended";
        page.family(suspended, "gauge", "Whether the plugin instance is suspended after repeated failures.");
        for (instance, is_suspended) in [("lifecycle", gauges.lifecycle_suspended), ("model", gauges.model_suspended)] {
            page.sample(suspended, &[("instance", instance)], u64::from(is_suspended));
        }
    }
}

/// Counters by label values.
#[derive(Debug)]
pub struct CounterVec<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for CounterVec<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> CounterVec<K> {
    /// Adds one to the counter of these label values.
    pub fn add(&self, key: K) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Returns the counter of these label values.
    #[must_use]
    pub fn of(&self, key: &K) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    /// Returns all counters in the order of their label values.
    #[must_use]
    pub fn all(&self) -> Vec<(K, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_metrics_page;

    #[test]
    fn page_has_all_counters_and_gauges() {
        let metrics = Metrics::default();
        metrics.request("on", 200);
        metrics.request("on", 200);
        metrics.request("check", 406);
        metrics.process_started();
        metrics.process_ended_unexpectedly();
        metrics.process_restarted();
        metrics.check_failed();
        metrics.check_failed();
        metrics.plugin_trapped("lifecycle", "configure");
        metrics.plugin_timed_out("lifecycle", "sanity-check");
        metrics.plugin_rebuilt("model");
        metrics.plugin_memory(65_536);
        metrics.rollout(RolloutResult::Held);
        metrics.session_lost();
        let gauges =
            Gauges { registered: true, model_suspended: true, dead: true, cluster_off: 2, ..Gauges::default() };
        let page = metrics.render(gauges);
        for line in [
            "ochopod_registered 1",
            "ochopod_leader 0",
            r#"ochopod_requests_total{task="on",code="200"} 2"#,
            r#"ochopod_requests_total{task="check",code="406"} 1"#,
            "ochopod_process_starts_total 1",
            "ochopod_process_unexpected_ends_total 1",
            "ochopod_process_restarts_total 1",
            "ochopod_checks_failed_total 2",
            "ochopod_dead 1",
            "ochopod_off 0",
            "ochopod_ready 0",
            r#"ochopod_cluster_pods{state="off"} 2"#,
            r#"ochopod_cluster_pods{state="dead"} 0"#,
            r#"ochopod_plugin_traps_total{instance="lifecycle",callback="configure"} 1"#,
            r#"ochopod_plugin_deadlines_total{instance="lifecycle",callback="sanity-check"} 1"#,
            r#"ochopod_plugin_rebuilds_total{instance="lifecycle"} 0"#,
            r#"ochopod_plugin_rebuilds_total{instance="model"} 1"#,
            "ochopod_plugin_memory_bytes 65536",
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
    fn every_sample_follows_its_family() {
        assert!(!read_metrics_page(&Metrics::default().render(Gauges::default())).is_empty());
    }
}
