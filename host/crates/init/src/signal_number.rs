//! Signals by number: nix has no names for real-time signals.

use std::{fmt, io};

use nix::sys::signal::Signal;
use rustix_libc_wrappers::{
    process::SignalExt as _,
    rustix::process::{Pid, Signal as RawSignal, kill_process, kill_process_group},
};

/// Number that container runtimes and systemd call `RTMIN`, with any libc.
const RTMIN: i32 = 34;
/// Last signal of Linux.
const RTMAX: i32 = 64;

/// Any signal, real-time signals included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// Returns the real-time signal `RTMIN+<offset>`.
    #[must_use]
    pub const fn real_time(offset: i32) -> Self {
        Self(RTMIN + offset)
    }

    /// Returns all real-time signals. libc reserves the first ones: handlers for these fail.
    pub(super) fn all_real_time() -> impl Iterator<Item = Self> {
        (RTMIN..=RTMAX).map(Self)
    }

    pub(super) const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Sends this signal to a process.
    pub(super) fn send(self, pid: u32) -> io::Result<()> {
        Ok(kill_process(process(pid)?, self.raw()?)?)
    }

    /// Sends this signal to a process group.
    pub(super) fn send_to_group(self, group: u32) -> io::Result<()> {
        Ok(kill_process_group(process(group)?, self.raw()?)?)
    }

    fn raw(self) -> io::Result<RawSignal> {
        RawSignal::from_raw(self.0).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }
}

fn process(pid: u32) -> io::Result<Pid> {
    Pid::from_raw(pid.cast_signed()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

impl From<Signal> for SignalNumber {
    fn from(signal: Signal) -> Self {
        Self(signal as i32)
    }
}

impl PartialEq<Signal> for SignalNumber {
    fn eq(&self, signal: &Signal) -> bool {
        self.0 == *signal as i32
    }
}

/// The name without `SIG`, as `docker` and `kill -l` have it: `TERM`, `RTMIN+3`.
impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str().trim_start_matches("SIG")),
            Err(_) if self.0 == RTMIN => f.write_str("RTMIN"),
            Err(_) if self.0 > RTMIN => write!(f, "RTMIN+{}", self.0 - RTMIN),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_as_container_runtimes_name_them() {
        for (number, name) in
            [(15, "TERM"), (3, "QUIT"), (28, "WINCH"), (34, "RTMIN"), (37, "RTMIN+3"), (64, "RTMIN+30")]
        {
            assert_eq!(SignalNumber(number).to_string(), name);
        }
        assert_eq!(SignalNumber::real_time(3), SignalNumber(37));
        assert!(SignalNumber::from(Signal::SIGQUIT) == Signal::SIGQUIT);
    }

    #[test]
    fn signals_reserved_by_libc_and_process_0_are_refused() {
        for number in [0, 32, 33, 65] {
            assert!(SignalNumber(number).send(std::process::id()).is_err(), "{number}");
        }
        assert!(SignalNumber::from(Signal::SIGCONT).send(0).is_err());
        assert!(SignalNumber::from(Signal::SIGCONT).send_to_group(0).is_err());
    }
}
