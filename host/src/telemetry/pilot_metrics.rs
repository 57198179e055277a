//! What is told of the services around an application, and of the host itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use super::{
    metrics::Counts,
    page::{Float, Page},
    sensors::Sensors,
};

/// What came of running something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Run {
    /// It ended with code 0.
    Succeeded,
    /// It could not be started, or ended with another code or by a signal of others.
    Failed,
    /// It was ended for taking too long.
    TimedOut,
}

/// What became of a request to read the configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// It is in force.
    Applied,
    /// The one before stays in force.
    Refused,
}

/// What the host itself uses, its children left out. None of what the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostUsage {
    /// Processor time since its start, in seconds.
    pub cpu: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_memory: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Most descriptors that may be open; none where that is unlimited.
    pub most_descriptors: Option<u64>,
    /// When it started, in seconds since 1970.
    pub started: Option<f64>,
    /// Its threads.
    pub threads: Option<u64>,
}

/// Name, kind and help of what [`HostUsage`] says, as Prometheus' clients have it; in the order of its fields.
pub(super) const OF_THE_PROCESS: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    ("process_open_fds", "gauge", "Number of open file descriptors."),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors."),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("process_threads", "gauge", "Number of threads of the process."),
];

/// What sensors measured, and counts since the start. Cheap to count from anywhere.
#[derive(Debug, Default)]
pub struct PilotMetrics {
    /// What sensors measured.
    pub sensors: Sensors,
    health_checks: Counts<(String, Run)>,
    on_changes: Counts<(String, Run)>,
    tasks: Counts<Run>,
    coprocess_restarts: AtomicU64,
    registrations: Counts<String>,
    discovery_errors: AtomicU64,
    reloads: Counts<Reload>,
}

impl PilotMetrics {
    /// The health of this service was checked.
    pub fn health_checked(&self, service: &str, run: Run) {
        self.health_checks.add((service.to_owned(), run));
    }

    /// What this backend has for changes ran.
    pub fn on_change(&self, backend: &str, run: Run) {
        self.on_changes.add((backend.to_owned(), run));
    }

    /// A task ran.
    pub fn task(&self, run: Run) {
        self.tasks.add(run);
    }

    /// A coprocess that had ended was started again.
    pub fn coprocess_restarted(&self) {
        self.coprocess_restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// This service was registered, for the first time or again.
    pub fn registered(&self, service: &str) {
        self.registrations.add(service.to_owned());
    }

    /// The place where services are registered and found did not do as asked.
    pub fn discovery_failed(&self) {
        self.discovery_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The configuration was to be read again.
    pub fn reloaded(&self, reload: Reload) {
        self.reloads.add(reload);
    }

    /// The page in Prometheus' text format, version 0.0.4. It has no family in common with that of [`super::Metrics`].
    #[must_use]
    pub fn page(&self, usage: HostUsage, now: Instant) -> String {
        let mut page = Page::default();
        usage.write(&mut page);
        self.write(&mut page);
        self.sensors.write(&mut page, now);
        page.text()
    }

    fn write(&self, page: &mut Page) {
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
        for run in [Run::Succeeded, Run::Failed, Run::TimedOut] {
            page.sample(tasks, &[("result", run.label())], self.tasks.of(&run));
        }
        page.total(
            "ochopod_pilot_coprocess_restarts_total",
            "Coprocesses started again after they ended.",
            &self.coprocess_restarts,
        );
        let registrations = "ochopod_pilot_registrations_total";
        page.family(registrations, "counter", "Registrations, by service.");
        for (service, count) in self.registrations.all() {
            page.sample(registrations, &[("service", &service)], count);
        }
        page.total(
            "ochopod_pilot_discovery_errors_total",
            "Requests that the place where services are registered and found did not carry out.",
            &self.discovery_errors,
        );
        let reloads = "ochopod_pilot_reloads_total";
        page.family(reloads, "counter", "Requests to read the configuration again, by result.");
        for (reload, label) in [(Reload::Applied, "applied"), (Reload::Refused, "refused")] {
            page.sample(reloads, &[("result", label)], self.reloads.of(&reload));
        }
    }
}

impl Run {
    fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
        }
    }
}

impl HostUsage {
    fn write(&self, page: &mut Page) {
        let values = [
            self.cpu.map(|seconds| Float(seconds).to_string()),
            self.resident_memory.map(|bytes| bytes.to_string()),
            self.virtual_memory.map(|bytes| bytes.to_string()),
            self.descriptors.map(|count| count.to_string()),
            self.most_descriptors.map(|count| count.to_string()),
            self.started.map(|seconds| Float(seconds).to_string()),
            self.threads.map(|count| count.to_string()),
        ];
        for ((name, kind, help), value) in OF_THE_PROCESS.into_iter().zip(values) {
            if let Some(value) = value {
                page.single(name, kind, help, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Gauges, Instrument, Metrics, SensorKind, page::read};

    #[test]
    fn the_page_counts_what_happened() {
        let metrics = PilotMetrics::default();
        metrics.health_checked("web", Run::Succeeded);
        metrics.health_checked("web", Run::TimedOut);
        metrics.health_checked("web", Run::TimedOut);
        metrics.on_change("db", Run::Failed);
        metrics.task(Run::Succeeded);
        metrics.coprocess_restarted();
        metrics.registered("web");
        metrics.discovery_failed();
        metrics.reloaded(Reload::Refused);
        let samples = read(&metrics.page(HostUsage::default(), Instant::now()));
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
    fn the_host_tells_of_itself_what_it_knows() {
        let usage = HostUsage {
            cpu: Some(0.25),
            resident_memory: Some(7_000_000),
            descriptors: Some(12),
            started: Some(1_700_000_000.5),
            threads: Some(4),
            ..HostUsage::default()
        };
        let page = PilotMetrics::default().page(usage, Instant::now());
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
    fn a_pod_s_page_and_this_one_are_one_page() {
        let metrics = PilotMetrics::default();
        let taken =
            Instrument { metric: "process_threads".to_owned(), help: "Not ours.".to_owned(), kind: SensorKind::Gauge };
        let named = |metric: &str| Instrument { metric: metric.to_owned(), ..taken.clone() };
        metrics.sensors.declare(vec![taken.clone(), named("ochopod_leader"), named("queue_length")]);
        let usage = HostUsage { threads: Some(4), ..HostUsage::default() };
        let page = Metrics::default().page(Gauges::default()) + &metrics.page(usage, Instant::now());
        let samples = read(&page);
        assert_eq!((&*samples["process_threads"], &*samples["queue_length"]), ("4", "0"));
        assert!(samples.contains_key("ochopod_leader"));
    }
}
