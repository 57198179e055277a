//! Cause for which the sub-process does not run, as `/info`, `/readyz` and the status of the leader report it.

use std::fmt;

use ochopod_init::Exit;

/// Cause for which the sub-process does not run, or the pod is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// `initialize` or `configure` cannot succeed yet.
    NotYet(String),
    /// Stopped with the cordon.
    Cordoned(String),
    /// Stopped by `/control/restart`.
    Restart,
    /// Configured, but not to be started without a request.
    NotStarted,
    /// Turned off by a client.
    TurnedOff,
    /// Stopped by the leader, or by a configuration that needs a restart.
    Configuration,
    /// Turned off because of too many failed sanity checks.
    Checks {
        /// Number of failures in a row.
        failed: u32,
        /// Error of the last one.
        error: String,
    },
    /// It exited unexpectedly, and is restarted.
    Exited(Exit),
    /// It exited and cannot be started again, which is retried.
    StartFailed(String),
    /// It could not be started by an `on` because the machine lacks resources. The leader repeats its requests.
    LacksResources(String),
    /// The pod could not be configured.
    ConfigurationFailed(String),
    /// It exited with code 0: the pod is done.
    Completed,
    /// Ended by `/control/kill`.
    Killed,
    /// The host is shutting down.
    ShutDown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(error) => write!(f, "not configured yet: {error}"),
            Self::Cordoned(reason) => write!(f, "stopped by /control/cordon: {reason}"),
            Self::Restart => f.write_str("stopped by /control/restart"),
            Self::NotStarted => f.write_str("not started: start=false"),
            Self::TurnedOff => f.write_str("turned off by /control/off"),
            Self::Configuration => f.write_str("stopped for a configuration"),
            Self::Checks { failed: 1, error } => write!(f, "turned off after a failed sanity check: {error}"),
            Self::Checks { failed, error } => write!(f, "turned off after {failed} failed sanity checks: {error}"),
            Self::Exited(exit) => write!(f, "sub-process {}, restarting", exit.description()),
            Self::StartFailed(error) => write!(f, "sub-process could not be started, retrying: {error}"),
            Self::LacksResources(error) => write!(f, "sub-process could not be started: {error}"),
            Self::ConfigurationFailed(error) => write!(f, "configuration failed: {error}"),
            Self::Completed => f.write_str("sub-process exited with code 0"),
            Self::Killed => f.write_str("killed by /control/kill"),
            Self::ShutDown => f.write_str("shutting down"),
        }
    }
}
