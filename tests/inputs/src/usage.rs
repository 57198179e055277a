//! Process statistics of `/proc`.

use std::{fs, process};

/// Checks that a process has usage under any name.
pub fn usage(bytes: &[u8]) {
    fs::write("/proc/self/comm", if bytes.is_empty() { b"\n" } else { bytes }).expect("a process may name itself");
    let usage = ochopod_init::process::usage(process::id()).expect("this process runs");
    assert!(usage.memory > 0 && usage.cpu.is_finite() && usage.cpu >= 0.0 && usage.uptime >= 0.0, "{usage:?}");
}
