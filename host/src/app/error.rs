//! Everything that can keep the host from starting, and the exit code for it.

use std::{fmt, io, net::SocketAddr};

use crate::{
    cluster::DependencyError,
    init::{Ending, InitError},
    plugin::{EngineError, LoadError},
    settings::SettingError,
    telemetry::LogError,
};

/// Why the host does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("{}", Lines(.0))]
    Settings(Vec<SettingError>),
    #[error("cannot listen on {address} (--listen or --port changes it)")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("address {0} is beyond 127.0.0.0/8: too many pods")]
    Address(usize),
    #[error("{0}")]
    Plugin(#[source] LoadError),
    #[error("the plugin's model: {0}")]
    Dependency(DependencyError),
    #[error(transparent)]
    Log(LogError),
    #[error(transparent)]
    Engine(EngineError),
    #[error(transparent)]
    Init(InitError),
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

impl StartError {
    /// The exit code that tells this kind of error.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Settings(_)
            | Self::Listen { .. }
            | Self::Address(_)
            | Self::Plugin(LoadError::Sandbox { .. })
            | Self::Log(LogError::File { .. }) => Ending::Usage,
            Self::Plugin(LoadError::Store { .. })
            | Self::Log(_)
            | Self::Engine(_)
            | Self::Init(_)
            | Self::System { .. } => Ending::Internal,
            Self::Plugin(_) | Self::Dependency(_) => Ending::Plugin,
        }
    }
}

/// One error per line.
struct Lines<'a>(&'a [SettingError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.0.iter().enumerate() {
            write!(f, "{}{line}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
