//! Sub-process that the pod supervises. Native unit tests have none.

use std::time::Duration;

use crate::{Result, bail, bindings::ochopod::pod::process as host};

/// Requests a reload, by custom.
pub const SIGHUP: u8 = 1;
/// Signal of Ctrl-C.
pub const SIGINT: u8 = 2;
/// Requests a graceful exit or a dump of the state, by custom.
pub const SIGQUIT: u8 = 3;
/// Free for the program's own use.
pub const SIGUSR1: u8 = 10;
/// Free for the program's own use.
pub const SIGUSR2: u8 = 12;
/// Requests an exit.
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

/// Returns the process id while the sub-process runs, or is being stopped and its process group is not empty yet. It is
/// also the id of the process group.
#[must_use]
pub fn pid() -> Option<u32> {
    if cfg!(target_family = "wasm") { host::pid() } else { None }
}

/// Returns the processes of earlier configurations that [`Settings::soft`](crate::Settings::soft) released and that
/// still run, oldest first.
#[must_use]
pub fn previous() -> Vec<u32> {
    if cfg!(target_family = "wasm") { host::previous() } else { Vec::new() }
}

/// Returns whether [`pid`] returns a process id.
#[must_use]
pub fn running() -> bool {
    cfg!(target_family = "wasm") && host::running()
}

/// Sends a signal to the process group of the sub-process. SIGCONT follows after SIGTERM, and after any signal while
/// the sub-process is being stopped.
///
/// # Errors
/// If the sub-process is not running, or the signal is unknown or a real-time signal.
pub fn signal(number: u8) -> Result<()> {
    if cfg!(target_family = "wasm") {
        Ok(host::signal(number)?)
    } else {
        bail!("signal {number} not sent: no sub-process outside a pod")
    }
}

/// Asks the sub-process to exit, as the default [`Lifecycle::tear_down`](crate::Lifecycle::tear_down) does: by SIGTERM
/// to its process group. If the host itself was stopped by SIGQUIT, SIGRTMIN+3, or SIGWINCH without a terminal, that
/// signal is sent to the process alone, and SIGTERM follows for the rest of its group once it exits. SIGCONT follows
/// for the group.
///
/// # Errors
/// If the sub-process is not running.
pub fn terminate() -> Result<()> {
    if cfg!(target_family = "wasm") {
        Ok(host::terminate()?)
    } else {
        bail!("stop signal not sent: no sub-process outside a pod")
    }
}

/// Returns the current usage; none if the sub-process is not running.
#[must_use]
pub fn usage() -> Option<Usage> {
    if cfg!(not(target_family = "wasm")) {
        return None;
    }
    let seconds = |value| Duration::try_from_secs_f64(value).unwrap_or_default();
    let used = host::usage()?;
    Some(Usage { cpu: seconds(used.cpu), memory: used.memory, uptime: seconds(used.uptime) })
}
