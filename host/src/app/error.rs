//! Everything that can keep the host from starting, and the exit code for it.

use std::{fmt, io, net::SocketAddr};

use crate::{
    cluster::DependencyError,
    init::{Ending, InitError},
    pilot::{LoadError, OutletError},
    plugin::{self, EngineError},
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
    Plugin(#[source] plugin::LoadError),
    #[error("the plugin's model: {0}")]
    Dependency(DependencyError),
    #[error(transparent)]
    Log(LogError),
    #[error(transparent)]
    Engine(EngineError),
    #[error(transparent)]
    Init(InitError),
    #[error(transparent)]
    Configuration(LoadError),
    #[error(transparent)]
    Telemetry(OutletError),
    #[error("{value:?} is no place for --out, expected - or file://PATH")]
    Out { value: String },
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
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
            | Self::Plugin(plugin::LoadError::Sandbox { .. })
            | Self::Configuration(_)
            | Self::Telemetry(_)
            | Self::Out { .. }
            | Self::Write { .. }
            | Self::Log(LogError::File { .. }) => Ending::Usage,
            Self::Plugin(plugin::LoadError::Store { .. })
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
