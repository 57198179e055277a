//! Errors that prevent the start of the host, and their exit codes.

use std::{io, net::SocketAddr};

use ochopod_entry::{CommandError, ErrorLines, SystemError};
use ochopod_init::{HostExit, InitError};
use ochopod_model::DependencyError;
#[cfg(feature = "pilot")]
use ochopod_pilot_command::PilotError;
use ochopod_plugin::{self as plugin, EngineError};
use ochopod_settings::SettingError;
use ochopod_telemetry::LogError;

/// Error that prevents the start of the host.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("{}", ErrorLines(.0))]
    Settings(Vec<SettingError>),
    #[error("cannot listen on {address} (set --listen or --port)")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot add pod {0}: one process has at most {max} pods", max = crate::cli::MAX_PODS)]
    NoAddress(usize),
    #[error("{0}")]
    Plugin(#[source] plugin::LoadError),
    #[error("settings of the plugin with those of --set: {0}")]
    ModelSettings(String),
    #[error("invalid dependency in the plugin's model: {0}")]
    Dependency(DependencyError),
    #[error(transparent)]
    Log(LogError),
    #[error(transparent)]
    Engine(EngineError),
    #[error(transparent)]
    Init(InitError),
    #[cfg(feature = "pilot")]
    #[error(transparent)]
    Pilot(#[from] PilotError),
    #[cfg(not(feature = "pilot"))]
    #[error("--config (ochopod_config): this build has no pilot services, use a build with the feature pilot")]
    NoPilot,
    #[error(transparent)]
    System(#[from] SystemError),
}

impl CommandError for StartError {
    fn is_list(&self) -> bool {
        match self {
            Self::Settings(_) => true,
            #[cfg(feature = "pilot")]
            Self::Pilot(error) => error.is_list(),
            _ => false,
        }
    }

    fn exit(&self) -> HostExit {
        match self {
            #[cfg(feature = "pilot")]
            Self::Pilot(error) => error.exit(),
            #[cfg(not(feature = "pilot"))]
            Self::NoPilot => HostExit::Usage,
            Self::Settings(_)
            | Self::Listen { .. }
            | Self::NoAddress(_)
            | Self::ModelSettings(_)
            | Self::Plugin(plugin::LoadError::Sandbox { .. })
            | Self::Log(LogError::File { .. }) => HostExit::Usage,
            Self::Plugin(plugin::LoadError::Store { .. })
            | Self::Log(_)
            | Self::Engine(_)
            | Self::Init(_)
            | Self::System(_) => HostExit::Internal,
            Self::Plugin(_) | Self::Dependency(_) => HostExit::Plugin,
        }
    }
}
