//! Errors that prevent the start of the command, and their exit codes.

use std::io;

use ochopod_entry::{CommandError, ErrorLines, SystemError};
use ochopod_init::{HostExit, InitError};
use ochopod_pilot::{ConfigLoadError, TelemetryBindError};
use ochopod_settings::SettingError;
use ochopod_telemetry::LogError;

/// Error that prevents the start of the command, or of the services around a pod.
#[derive(Debug, thiserror::Error)]
pub enum PilotError {
    /// Invalid flags or variables.
    #[error("{}", ErrorLines(.0))]
    Settings(Vec<SettingError>),
    /// The configuration cannot be read, or is invalid.
    #[error(transparent)]
    Config(ConfigLoadError),
    /// The telemetry cannot be served.
    #[error(transparent)]
    Telemetry(TelemetryBindError),
    /// The log cannot be started.
    #[error(transparent)]
    Log(LogError),
    /// Init cannot be started.
    #[error(transparent)]
    Init(InitError),
    /// The output of `--template` is not one.
    #[error("invalid --out {value:?}: expected - or file://PATH")]
    OutputTarget {
        /// Value of the flag.
        value: String,
    },
    /// The output cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The process cannot be set up.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl CommandError for PilotError {
    fn exit(&self) -> HostExit {
        match self {
            Self::Settings(_)
            | Self::Config(_)
            | Self::Telemetry(_)
            | Self::OutputTarget { .. }
            | Self::Write { .. }
            | Self::Log(LogError::File { .. }) => HostExit::Usage,
            Self::Log(_) | Self::Init(_) | Self::System(_) => HostExit::Internal,
        }
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Config(_))
    }
}
