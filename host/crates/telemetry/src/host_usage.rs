//! Metrics of the host process.

use super::prometheus_text::{GoFloat, PrometheusText};

/// Resource usage of the host process without its children. Values that the system does not report are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostUsage {
    /// CPU time since the start, in seconds.
    pub cpu: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_memory: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// Number of open descriptors.
    pub descriptors: Option<u64>,
    /// Maximum number of open descriptors; `None` if unlimited.
    pub max_descriptors: Option<u64>,
    /// Start time, in seconds since 1970.
    pub started: Option<f64>,
    /// Number of threads.
    pub threads: Option<u64>,
}

/// Names, types and help texts of the metrics of [`HostUsage`], as in Prometheus' clients, in the order of its fields.
const PROCESS_METRICS: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    ("process_open_fds", "gauge", "Number of open file descriptors."),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors."),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("process_threads", "gauge", "Number of threads of the process."),
];

impl HostUsage {
    /// Adds the known values to a page.
    pub fn write(&self, page: &mut PrometheusText) {
        let values = [
            self.cpu.map(|seconds| GoFloat(seconds).to_string()),
            self.resident_memory.map(|bytes| bytes.to_string()),
            self.virtual_memory.map(|bytes| bytes.to_string()),
            self.descriptors.map(|count| count.to_string()),
            self.max_descriptors.map(|count| count.to_string()),
            self.started.map(|seconds| GoFloat(seconds).to_string()),
            self.threads.map(|count| count.to_string()),
        ];
        for ((name, kind, help), value) in PROCESS_METRICS.into_iter().zip(values) {
            if let Some(value) = value {
                page.single(name, kind, help, value);
            }
        }
    }
}

/// Returns whether a metric of [`HostUsage`] has this name.
#[must_use]
pub fn is_process_metric(name: &str) -> bool {
    PROCESS_METRICS.iter().any(|(metric, _, _)| *metric == name)
}
