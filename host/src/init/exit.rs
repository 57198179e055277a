//! Exit codes: how the host ends, and what it says of those that it waited for.

use std::{fmt, process::ExitCode};

use super::{Exit, SpawnError};

/// How the host ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Stopped on request.
    Stopped,
    /// Bad usage or settings.
    Usage,
    /// Bad plugin: not a component, of another world, or it does not compile.
    Plugin,
    /// `ZooKeeper` refused the credentials, or access without some.
    Credentials,
    /// Internal error.
    Internal,
    /// With the code of what the host accompanied: its application, or a hook.
    Accompanied(u8),
}

impl Ending {
    /// The exit code. The numbers are part of what pipelines rely on; they follow `sysexits.h`.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Usage => 64,
            Self::Plugin => 65,
            Self::Credentials => 69,
            Self::Internal => 70,
            Self::Accompanied(code) => code,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

impl Exit {
    /// The exit code that shells would report: that of the child, or 128 and the signal's number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code.to_le_bytes()[0],
            Self::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
        }
    }
}

impl SpawnError {
    /// The exit code that shells would report: 126 of a program that may not be executed, else 127.
    #[must_use]
    pub fn code(&self) -> u8 {
        if matches!(self, Self::Exec { found: true, .. }) { 126 } else { 127 }
    }
}

/// `code 3` or `signal 9`, to be put after "ended with".
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

    #[test]
    fn an_exit_has_the_code_that_a_shell_would_report() {
        assert_eq!(Exit::Code(3).code(), 3);
        assert_eq!(Exit::Signal(9).code(), 137);
    }

    #[test]
    fn what_was_not_started_has_the_code_that_a_shell_would_report() {
        let exec = |found| SpawnError::Exec { program: "x".to_owned(), found, reason: String::new() };
        assert_eq!((exec(true).code(), exec(false).code(), SpawnError::Gone.code()), (126, 127, 127));
    }

    #[test]
    fn an_exit_reads_as_words() {
        assert_eq!(Exit::Code(3).to_string(), "code 3");
        assert_eq!(Exit::Signal(15).to_string(), "signal 15");
    }
}
