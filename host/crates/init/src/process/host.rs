//! Resource usage of the host, read from `/proc`.

use std::{
    fs,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use ochopod_telemetry::HostUsage;

use super::{
    fd_limit::max_descriptors,
    usage::{number, usage_of},
};

/// Returns the current usage of this process, without its children.
#[must_use]
pub fn host_usage() -> HostUsage {
    let usage = usage_of("self");
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let count = |value: usize| u64::try_from(value).ok();
    // Reading the directory opens one itself.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1));
    HostUsage {
        cpu: usage.map(|usage| usage.cpu),
        resident_memory: usage.map(|usage| usage.memory),
        virtual_memory: number(&status, b"VmSize:").and_then(|kilobytes| kilobytes.checked_mul(1024)),
        descriptors: descriptors.and_then(count),
        max_descriptors: max_descriptors().and_then(count),
        started: usage.map(|usage| started(usage.uptime)),
        threads: number(&status, b"Threads:"),
    }
}

/// Returns the start time of this process, in seconds since 1970. It is computed once, so that setting the clock does
/// not change it.
fn started(uptime: f64) -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    *STARTED.get_or_init(|| now() - uptime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_usage_is_complete_and_its_start_time_is_constant() {
        let found = host_usage();
        assert!(found.resident_memory < found.virtual_memory && found.resident_memory > Some(100 * 1024), "{found:?}");
        assert!(found.descriptors >= Some(3) && found.descriptors <= found.max_descriptors, "{found:?}");
        assert!(found.threads >= Some(1) && found.cpu >= Some(0.0), "{found:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(found.started.is_some_and(|started| (now - 86_400.0..=now).contains(&started)), "{found:?}");
        assert_eq!(host_usage().started, found.started);
    }
}
