//! The configuration: services, backends, tasks, coprocesses, hooks and telemetry, and how it is read. All errors are
//! reported together, each with its line and column.
//!
//! A [`ConfigSource`] provides the text, the template engine renders it, and [`Config::read`] reads the result.
//!
//! | module | content |
//! |---|---|
//! | `source` | sources of the text |
//! | `read` | reading of a whole configuration |
//! | `field` | values with their names, unknown and duplicate keys |
//! | `diagnostic` | errors and warnings |
//! | `value`, `duration`, `command`, `shell` | plain values, durations and commands; shell syntax in commands |
//! | `registry`, `logging`, `services`, `interfaces`, `backends`, `template`, `tasks`, `telemetry` | the parts |

mod backends;
mod command;
mod diagnostic;
mod duration;
mod field;
mod interfaces;
mod logging;
mod read;
mod registry;
mod services;
mod shell;
mod source;
mod tasks;
mod telemetry;
mod template;
#[cfg(test)]
mod tests;
mod value;

use std::{net::IpAddr, path::PathBuf, time::Duration};

pub use diagnostic::{ConfigError, Diagnostic};
use ochopod_discovery::RegistryConfig;
pub use ochopod_json5::Position;
pub use read::ReadContext;
pub use source::{ConfigSource, ConfigSourceError};

use crate::sensors::SensorSpec;
pub use crate::{
    log::{LogFormat, LogLevel, LogOutput, LoggingConfig},
    sensors::SensorKind,
};

/// A valid configuration. Equal ones have the same meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Registry of services and backends.
    pub registry: RegistryConfig,
    /// Level, format and output of the log.
    pub logging: LoggingConfig,
    /// Runs before the application starts.
    pub pre_start: Option<CommandLine>,
    /// Runs before the application receives SIGTERM.
    pub pre_stop: Option<CommandLine>,
    /// Runs after the application exited.
    pub post_stop: Option<CommandLine>,
    /// Grace of the application after SIGTERM; `None` kills it immediately.
    pub stop_timeout: Option<Duration>,
    /// Services to register, except that of the telemetry.
    pub services: Vec<Service>,
    /// Services to watch.
    pub backends: Vec<Backend>,
    /// Programs that run periodically.
    pub tasks: Vec<Task>,
    /// Programs that run alongside the application.
    pub coprocesses: Vec<Coprocess>,
    /// The HTTP server of metrics and status.
    pub telemetry: Option<Telemetry>,
    /// Warnings about valid settings, with their positions.
    pub warnings: Vec<String>,
}

impl Config {
    /// Returns all services to register, including that of the telemetry.
    #[must_use]
    pub fn registered_services(&self) -> Vec<Service> {
        self.services.iter().cloned().chain(self.telemetry.as_ref().map(Telemetry::service)).collect()
    }

    /// Logs the warnings.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// A path, or a name that is searched in `PATH`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Health check of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheck {
    /// The service is always healthy.
    Always,
    /// The service is healthy if this command exits with code 0.
    Command(CommandLine),
    /// The service is healthy if the plugin's sanity checks pass; only for services of pods.
    SanityCheck,
}

/// A service to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Address that is advertised.
    pub address: IpAddr,
    /// Port that is advertised.
    pub port: u16,
    /// Interval of health checks and registry updates.
    pub poll: Duration,
    /// Time after a registry update until the registration expires.
    pub ttl: Duration,
    /// Health check.
    pub health: HealthCheck,
    /// Timeout of the health check.
    pub limit: Duration,
    /// Tags.
    pub tags: Vec<String>,
    /// Consul only: whether other clients may change the tags.
    pub enable_tag_override: bool,
    /// Consul only: time until a critical service is deregistered, in Consul's notation.
    pub deregister_critical_service_after: Option<String>,
}

/// A service to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Name of the service.
    pub name: String,
    /// Tag that instances must have.
    pub tag: Option<String>,
    /// Delay of the first query, and interval of queries if the registry has no blocking ones.
    pub poll: Duration,
    /// Runs after the instances changed.
    pub on_change: CommandLine,
    /// Timeout of `on_change`.
    pub limit: Duration,
    /// File that is rendered before `on_change` runs.
    pub template: Option<BackendTemplate>,
}

/// A file that is rendered from the instances of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTemplate {
    /// Template file.
    pub source: PathBuf,
    /// Rendered file.
    pub destination: PathBuf,
    /// Permissions of the rendered file. If `None`, it keeps its permissions, or has 0644 if it is new.
    pub mode: Option<u32>,
}

/// A program that runs periodically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Name in the log; default: the command.
    pub name: String,
    /// Command.
    pub command: CommandLine,
    /// Interval between starts.
    pub frequency: Duration,
    /// Timeout of a run.
    pub limit: Duration,
}

/// Limit of a coprocess's restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartLimit {
    /// Restarts this often.
    AtMost(u64),
    /// Restarts after each exit.
    Unlimited,
}

/// A program that runs alongside the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coprocess {
    /// Name; default: the command.
    pub name: String,
    /// Command.
    pub command: CommandLine,
    /// Limit of restarts.
    pub restarts: RestartLimit,
}

/// HTTP server of the metrics page, and its sensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Address that it listens on and advertises.
    pub address: IpAddr,
    /// Port that it listens on and advertises.
    pub port: u16,
    /// Tags.
    pub tags: Vec<String>,
    /// Sensors.
    pub sensors: Vec<Sensor>,
}

impl Sensor {
    /// Returns the metric of the sensor.
    #[must_use]
    pub fn spec(&self) -> SensorSpec {
        SensorSpec { metric: self.metric.clone(), help: self.help.clone(), kind: self.kind }
    }
}

/// A program that measures a value periodically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    /// Full name of the metric.
    pub metric: String,
    /// Help text of the metric.
    pub help: String,
    /// Kind of the metric.
    pub kind: SensorKind,
    /// Interval of measurements.
    pub poll: Duration,
    /// Command that prints a value.
    pub check: CommandLine,
    /// Timeout of the command.
    pub limit: Duration,
}
