//! The sub-process that the pod supervises. In native unit tests there is none.

use std::time::Duration;

use crate::{Result, bail, bindings::ochopod::pod::process as host};

/// Asks for a reload, by custom.
pub const SIGHUP: u8 = 1;
/// What Ctrl-C sends.
pub const SIGINT: u8 = 2;
/// Asks for a graceful end or a dump of the state, by custom.
pub const SIGQUIT: u8 = 3;
/// Free for the program's own use.
pub const SIGUSR1: u8 = 10;
/// Free for the program's own use.
pub const SIGUSR2: u8 = 12;
/// Asks to end.
pub const SIGTERM: u8 = 15;

/// Resources used by the running sub-process alone (not by its children).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Time since it started.
    pub uptime: Duration,
}

/// The process id while it runs. It is also the id of its process group.
#[must_use]
pub fn pid() -> Option<u32> {
    if cfg!(target_family = "wasm") { host::pid() } else { None }
}

/// Processes of earlier configurations that [`Settings::soft`](crate::Settings::soft) released and that still live,
/// oldest first.
#[must_use]
pub fn previous() -> Vec<u32> {
    if cfg!(target_family = "wasm") { host::previous() } else { Vec::new() }
}

/// Whether it runs right now.
#[must_use]
pub fn running() -> bool {
    cfg!(target_family = "wasm") && host::running()
}

/// Sends a signal to the group of the running sub-process.
///
/// # Errors
/// When it is not running or when there is no such signal.
pub fn signal(number: u8) -> Result<()> {
    if cfg!(target_family = "wasm") {
        Ok(host::signal(number)?)
    } else {
        bail!("signal {number} not sent: outside of a pod there is no sub-process")
    }
}

/// What it uses right now; none when it is not running.
#[must_use]
pub fn usage() -> Option<Usage> {
    if cfg!(not(target_family = "wasm")) {
        return None;
    }
    let seconds = |value| Duration::try_from_secs_f64(value).unwrap_or_default();
    let used = host::usage()?;
    Some(Usage { cpu: seconds(used.cpu), memory: used.memory, uptime: seconds(used.uptime) })
}
