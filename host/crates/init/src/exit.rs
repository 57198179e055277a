//! Exit codes of the host, and of the processes it waited for.

use std::{fmt, process::ExitCode};

use super::{Exit, Signal, SpawnError};

/// Exit of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostExit {
    /// Terminated on request, or finished.
    Stopped,
    /// The pod failed.
    Failed,
    /// Invalid usage or settings.
    Usage,
    /// Invalid plugin: not a component, of another world, or it does not compile.
    Plugin,
    /// `ZooKeeper` rejected the credentials, or requires some.
    Credentials,
    /// Internal error.
    Internal,
    /// Exit code of the application, or of a failed hook.
    Application(u8),
}

impl HostExit {
    /// Returns the exit code, as in `sysexits.h`. Pipelines rely on the numbers.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Plugin => 65,
            Self::Credentials => 69,
            Self::Internal => 70,
            Self::Application(code) => code,
        }
    }
}

impl From<HostExit> for ExitCode {
    fn from(exit: HostExit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    /// Returns the exit code that a shell would report: that of the child, or 128 plus the signal's number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code.to_le_bytes()[0],
            Self::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
        }
    }
}

impl Exit {
    /// Returns a description: `exited with code 1`, `killed by SIGTERM`.
    #[must_use]
    pub fn description(self) -> String {
        match self {
            Self::Code(code) => format!("exited with code {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => format!("killed by {signal}"),
                // Real-time signals have no names.
                Err(_) => format!("killed by signal {number}"),
            },
        }
    }
}

impl SpawnError {
    /// Returns the exit code that a shell would report: 126 for a program that cannot be executed, otherwise 127.
    #[must_use]
    pub fn code(&self) -> u8 {
        if matches!(self, Self::Exec { found: true, .. }) { 126 } else { 127 }
    }
}

/// Displays `code 3` or `signal 9`, to follow "exited with".
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    #[test]
    fn exit_has_the_code_that_a_shell_would_report() {
        assert_eq!(Exit::Code(3).code(), 3);
        assert_eq!(Exit::Signal(9).code(), 137);
    }

    #[test]
    fn failed_start_has_the_code_that_a_shell_would_report() {
        let exec = |found| SpawnError::Exec { program: "x".to_owned(), found, cause: Cause::refusal("") };
        assert_eq!((exec(true).code(), exec(false).code(), SpawnError::Gone.code()), (126, 127, 127));
    }

    #[test]
    fn exit_displays_as_text() {
        assert_eq!(Exit::Code(3).to_string(), "code 3");
        assert_eq!(Exit::Signal(15).to_string(), "signal 15");
        for (exit, text) in [
            (Exit::Code(3), "exited with code 3"),
            (Exit::Signal(15), "killed by SIGTERM"),
            (Exit::Signal(9), "killed by SIGKILL"),
            (Exit::Signal(37), "killed by signal 37"),
        ] {
            assert_eq!(exit.description(), text);
        }
    }
}
