//! Metrics of the services around an application.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use ochopod_telemetry::{CounterVec, HostUsage, PrometheusText};

use crate::sensors::Sensors;

/// Result of a run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunResult {
    /// The program exited with code 0.
    Succeeded,
    /// The program could not be started, or exited with another code or by a signal.
    Failed,
    /// The program exceeded its timeout and was killed.
    TimedOut,
}

/// Result of a configuration reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReloadResult {
    /// The new configuration is active.
    Applied,
    /// The previous configuration stays active.
    Rejected,
}

/// Sensor values, and counters since the start. Counting is cheap and possible from any thread.
#[derive(Debug, Default)]
pub struct PilotMetrics {
    /// Sensor values.
    pub sensors: Sensors,
    health_checks: CounterVec<(String, RunResult)>,
    on_changes: CounterVec<(String, RunResult)>,
    tasks: CounterVec<RunResult>,
    coprocess_restarts: AtomicU64,
    registrations: CounterVec<String>,
    discovery_errors: AtomicU64,
    reloads: CounterVec<ReloadResult>,
}

impl PilotMetrics {
    /// Counts a health check of a service.
    pub fn health_checked(&self, service: &str, run: RunResult) {
        self.health_checks.add((service.to_owned(), run));
    }

    /// Counts a run of a backend's `onChange`.
    pub fn on_change(&self, backend: &str, run: RunResult) {
        self.on_changes.add((backend.to_owned(), run));
    }

    /// Counts a run of a task.
    pub fn task(&self, run: RunResult) {
        self.tasks.add(run);
    }

    /// Counts a restart of a coprocess.
    pub fn coprocess_restarted(&self) {
        self.coprocess_restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a registration of a service.
    pub fn registered(&self, service: &str) {
        self.registrations.add(service.to_owned());
    }

    /// Counts a failed request to the service registry.
    pub fn discovery_failed(&self) {
        self.discovery_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a configuration reload.
    pub fn reloaded(&self, reload: ReloadResult) {
        self.reloads.add(reload);
    }

    /// Returns the page in Prometheus' text format, version 0.0.4. It shares no family with that of [`ochopod_telemetry::Metrics`].
    #[must_use]
    pub fn render(&self, usage: HostUsage, now: Instant) -> String {
        let mut page = PrometheusText::default();
        usage.write(&mut page);
        self.write(&mut page);
        self.sensors.write(&mut page, now);
        page.text()
    }

    fn write(&self, page: &mut PrometheusText) {
        let runs = [
            (
                "ochopod_pilot_health_checks_total",
                "Health checks, by service and result.",
                "service",
                &self.health_checks,
            ),
            (
                "ochopod_pilot_on_change_runs_total",
                "Runs of onChange, by backend and result.",
                "backend",
                &self.on_changes,
            ),
        ];
        for (name, help, label, counts) in runs {
            page.family(name, "counter", help);
            for ((whose, run), count) in counts.all() {
                page.sample(name, &[(label, &whose), ("result", run.label())], count);
            }
        }
        let tasks = "ochopod_pilot_task_runs_total";
        page.family(tasks, "counter", "Runs of tasks, by result.");
        for run in [RunResult::Succeeded, RunResult::Failed, RunResult::TimedOut] {
            page.sample(tasks, &[("result", run.label())], self.tasks.of(&run));
        }
        page.total("ochopod_pilot_coprocess_restarts_total", "Coprocess restarts.", &self.coprocess_restarts);
        let registrations = "ochopod_pilot_registrations_total";
        page.family(registrations, "counter", "Registrations, by service.");
        for (service, count) in self.registrations.all() {
            page.sample(registrations, &[("service", &service)], count);
        }
        page.total(
            "ochopod_pilot_discovery_errors_total",
            "Failed requests to the service registry.",
            &self.discovery_errors,
        );
        let reloads = "ochopod_pilot_reloads_total";
        page.family(reloads, "counter", "Configuration reloads, by result.");
        for (reload, label) in [(ReloadResult::Applied, "applied"), (ReloadResult::Rejected, "refused")] {
            page.sample(reloads, &[("result", label)], self.reloads.of(&reload));
        }
    }
}

impl RunResult {
    fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
        }
    }
}

#[cfg(test)]
mod tests {
    use ochopod_telemetry::{Gauges, Metrics, read_metrics_page};

    use super::*;
    use crate::sensors::{SensorKind, SensorSpec};

    #[test]
    fn page_has_all_counters() {
        let metrics = PilotMetrics::default();
        metrics.health_checked("web", RunResult::Succeeded);
        metrics.health_checked("web", RunResult::TimedOut);
        metrics.health_checked("web", RunResult::TimedOut);
        metrics.on_change("db", RunResult::Failed);
        metrics.task(RunResult::Succeeded);
        metrics.coprocess_restarted();
        metrics.registered("web");
        metrics.discovery_failed();
        metrics.reloaded(ReloadResult::Rejected);
        let samples = read_metrics_page(&metrics.render(HostUsage::default(), Instant::now()));
        for (sample, count) in [
            (r#"ochopod_pilot_health_checks_total{service="web",result="succeeded"}"#, "1"),
            (r#"ochopod_pilot_health_checks_total{service="web",result="timed out"}"#, "2"),
            (r#"ochopod_pilot_on_change_runs_total{backend="db",result="failed"}"#, "1"),
            (r#"ochopod_pilot_task_runs_total{result="succeeded"}"#, "1"),
            (r#"ochopod_pilot_task_runs_total{result="failed"}"#, "0"),
            ("ochopod_pilot_coprocess_restarts_total", "1"),
            (r#"ochopod_pilot_registrations_total{service="web"}"#, "1"),
            ("ochopod_pilot_discovery_errors_total", "1"),
            (r#"ochopod_pilot_reloads_total{result="applied"}"#, "0"),
            (r#"ochopod_pilot_reloads_total{result="refused"}"#, "1"),
        ] {
            assert_eq!(samples.get(sample).map(String::as_str), Some(count), "{sample}");
        }
    }

    #[test]
    fn host_usage_has_only_known_values() {
        let usage = HostUsage {
            cpu: Some(0.25),
            resident_memory: Some(7_000_000),
            descriptors: Some(12),
            started: Some(1_700_000_000.5),
            threads: Some(4),
            ..HostUsage::default()
        };
        let page = PilotMetrics::default().render(usage, Instant::now());
        for line in [
            "process_cpu_seconds_total 0.25",
            "process_resident_memory_bytes 7000000",
            "process_open_fds 12",
            "process_start_time_seconds 1.7000000005e+09",
            "process_threads 4",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("process_max_fds") && !page.contains("process_virtual_memory_bytes"), "{page}");
    }

    #[test]
    fn page_of_a_pod_and_page_of_its_pilot_can_be_joined() {
        let metrics = PilotMetrics::default();
        let taken =
            SensorSpec { metric: "process_threads".to_owned(), help: "Not ours.".to_owned(), kind: SensorKind::Gauge };
        let named = |metric: &str| SensorSpec { metric: metric.to_owned(), ..taken.clone() };
        metrics.sensors.declare(vec![taken.clone(), named("ochopod_leader"), named("queue_length")]);
        let usage = HostUsage { threads: Some(4), ..HostUsage::default() };
        let page = Metrics::default().render(Gauges::default()) + &metrics.render(usage, Instant::now());
        let samples = read_metrics_page(&page);
        assert_eq!((&*samples["process_threads"], &*samples["queue_length"]), ("4", "0"));
        assert!(samples.contains_key("ochopod_leader"));
    }
}
