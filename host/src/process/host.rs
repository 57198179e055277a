//! What the host itself uses, read from `/proc`.

use std::{
    fs,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    descriptors::most_descriptors,
    usage::{number, usage_of},
};
use crate::telemetry::HostUsage;

/// What this process uses now, its children left out.
#[must_use]
pub fn host_usage() -> HostUsage {
    let usage = usage_of("self");
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let count = |value: usize| u64::try_from(value).ok();
    // The look at them has one open itself.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1));
    HostUsage {
        cpu: usage.map(|usage| usage.cpu),
        resident_memory: usage.map(|usage| usage.memory),
        virtual_memory: number(&status, b"VmSize:").and_then(|kilobytes| kilobytes.checked_mul(1024)),
        descriptors: descriptors.and_then(count),
        most_descriptors: most_descriptors().and_then(count),
        started: usage.map(|usage| started(usage.uptime)),
        threads: number(&status, b"Threads:"),
    }
}

/// When this process started, in seconds since 1970. It is found out once: what is told has to stay the same, also when the
/// clock is set.
fn started(uptime: f64) -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    *STARTED.get_or_init(|| now() - uptime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_finds_all_of_it_and_its_start_stays_the_same() {
        let found = host_usage();
        assert!(found.resident_memory < found.virtual_memory && found.resident_memory > Some(100 * 1024), "{found:?}");
        assert!(found.descriptors >= Some(3) && found.descriptors <= found.most_descriptors, "{found:?}");
        assert!(found.threads >= Some(1) && found.cpu >= Some(0.0), "{found:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(found.started.is_some_and(|started| (now - 86_400.0..=now).contains(&started)), "{found:?}");
        assert_eq!(host_usage().started, found.started);
    }
}
