//! Signal state that a process inherits from its parent: blocked and ignored signals.

use std::{fs, io};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal},
};
use tokio::{
    runtime,
    signal::unix::{self, SignalKind},
};

use super::SignalNumber;

/// Blocks exactly these signals and all real-time signals on this thread. Signals that the parent left blocked are
/// unblocked.
pub(super) fn block_only(blocked: &[Signal]) -> Result<(), Errno> {
    let mut mask = SigSet::all();
    for signal in Signal::iterator().filter(|signal| !blocked.contains(signal)) {
        mask.remove(signal);
    }
    mask.thread_set_mask()
}

/// Unblocks all signals on this thread.
pub(super) fn unblock_all() -> Result<(), Errno> {
    SigSet::empty().thread_set_mask()
}

/// Resets the signals that the parent ignored, so that the executed program starts with their default dispositions.
///
/// A handler is installed for each, which the kernel replaces by the default on exec. Exceptions are signals for which
/// no handler may be installed: those of faults, and those reserved by libc.
pub(super) fn reset_ignored() -> io::Result<()> {
    let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
    if ignored.is_empty() {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    for signal in ignored {
        // The program starts despite an exception.
        drop(unix::signal(SignalKind::from_raw(signal.as_raw())));
    }
    Ok(())
}

/// Parses the ignored signals of a `/proc/<pid>/status`. SIGPIPE is omitted: the runtime of this program ignores it,
/// and resets it on exec.
fn ignored(status: &str) -> Vec<SignalNumber> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let numbers = (1..=u64::BITS.cast_signed()).filter(|number| mask & (1 << (number - 1)) != 0);
    numbers.map(SignalNumber::from_raw).filter(|signal| *signal != Signal::SIGPIPE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask_without_pipe() {
        let read = |mask: &str| {
            let signals = ignored(&format!("Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t{mask}\nSigCgt:\t0\n"));
            signals.into_iter().map(SignalNumber::as_raw).collect::<Vec<_>>()
        };
        assert_eq!(read("0000000000000000"), Vec::<i32>::new());
        assert_eq!(read("0000000000001001"), [1]);
        assert_eq!(read("8000000000010004"), [3, 17, 64]);
        assert!(ignored("").is_empty());
    }

    #[test]
    fn only_the_given_and_real_time_signals_are_blocked() {
        let inherited: SigSet = [Signal::SIGCHLD, Signal::SIGHUP].into_iter().collect();
        inherited.thread_block().unwrap();
        block_only(&[Signal::SIGTERM]).unwrap();
        let mask = SigSet::thread_get_mask().unwrap();
        assert_eq!(mask.iter().collect::<Vec<_>>(), [Signal::SIGTERM]);
        unblock_all().unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap().iter().count(), 0);
    }
}
