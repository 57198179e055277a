//! What a configuration says: services, backends, tasks, coprocesses, hooks and telemetry, ready to be carried out; and how
//! it is read, with all its mistakes told at once, each at its line and column.
//!
//! A [`Source`] has the text, the template engine carries out what is to be replaced in it, and [`Config::read`] reads the rest.
//!
//! | module | what it holds |
//! |---|---|
//! | `source` | where the text comes from |
//! | `json5` | JSON5 as values that know where they stand |
//! | `field` | values under their names, on their way to what they mean; keys that nobody knows |
//! | `note` | what is wrong, and what is odd |
//! | `value`, `duration`, `command` | plain values, durations and commands |
//! | `read` | the configuration as a whole |
//! | `place`, `logging`, `services`, `interfaces`, `backends`, `crew`, `telemetry` | its parts |

mod backends;
mod command;
mod crew;
mod duration;
mod field;
mod interfaces;
mod json5;
mod logging;
mod note;
mod place;
mod read;
mod services;
mod source;
mod telemetry;
#[cfg(test)]
mod tests;
mod value;

pub use json5::Position;
pub use note::{ConfigError, Note};
pub use read::Reading;
pub use source::{Source, SourceError};

use std::{net::IpAddr, time::Duration};

pub use crate::telemetry::{LogFormat, LogLevel, LogOutput, Logging, SensorKind};

use crate::{discovery::Place, telemetry::Instrument};

/// A configuration that can be carried out. Two that are equal mean the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where services are registered and backends found.
    pub place: Place,
    /// What is logged.
    pub logging: Logging,
    /// Runs before the application starts.
    pub pre_start: Option<Command>,
    /// Runs before the application is asked to end.
    pub pre_stop: Option<Command>,
    /// Runs after the application ended.
    pub post_stop: Option<Command>,
    /// How long the application may take to end when asked; none: it is killed at once.
    pub stop_timeout: Option<Duration>,
    /// What is registered, but for the telemetry.
    pub services: Vec<Service>,
    /// What is watched.
    pub backends: Vec<Backend>,
    /// What runs again and again.
    pub tasks: Vec<Task>,
    /// What runs beside the application.
    pub coprocesses: Vec<Coprocess>,
    /// What is told of it all by HTTP.
    pub telemetry: Option<Telemetry>,
    /// What is no mistake but worth a warning.
    pub remarks: Vec<String>,
}

impl Config {
    /// What is registered: the services, and that of the telemetry.
    #[must_use]
    pub fn registered(&self) -> Vec<Service> {
        self.services.iter().cloned().chain(self.telemetry.as_ref().map(Telemetry::service)).collect()
    }

    /// Tells in the log what is worth a warning.
    pub fn tell_remarks(&self) {
        for remark in &self.remarks {
            tracing::warn!("{remark}");
        }
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to be looked up.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Whether a service is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Always.
    Always,
    /// When this ends with code 0.
    Command(Command),
    /// When the plugin's sanity checks say so: of a pod's services only.
    SanityCheck,
}

/// Something to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: IpAddr,
    /// Where it is reached.
    pub port: u16,
    /// How often its health is checked, and told.
    pub poll: Duration,
    /// How long it counts as healthy after that was told.
    pub ttl: Duration,
    /// How its health is checked.
    pub health: Health,
    /// How long a check may take.
    pub limit: Duration,
    /// Its tags.
    pub tags: Vec<String>,
    /// Consul: whether others may change the tags.
    pub enable_tag_override: bool,
    /// Consul: for how long it stays listed once it is critical, as Consul takes it.
    pub deregister_critical_service_after: Option<String>,
}

/// Something to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The service.
    pub name: String,
    /// Only instances with this tag.
    pub tag: Option<String>,
    /// When it is first looked at, and how often where its place cannot be waited for.
    pub poll: Duration,
    /// Runs when the instances changed.
    pub on_change: Command,
    /// How long that may take.
    pub limit: Duration,
}

/// Something to run again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name, for the log; the command where it has none.
    pub name: String,
    /// What to run.
    pub command: Command,
    /// How often.
    pub frequency: Duration,
    /// How long it may take.
    pub limit: Duration,
}

/// How often a coprocess that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarts {
    /// So often, and then no more.
    Most(u64),
    /// Whenever it ends.
    Unlimited,
}

/// Something that runs beside the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coprocess {
    /// Its name; the command line where it has none.
    pub name: String,
    /// What to run.
    pub command: Command,
    /// How often it is started again.
    pub restarts: Restarts,
}

/// The page for Prometheus and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Where it listens, and is advertised.
    pub address: IpAddr,
    /// Where it listens, and is advertised.
    pub port: u16,
    /// Its tags.
    pub tags: Vec<String>,
    /// What is measured.
    pub sensors: Vec<Sensor>,
}

impl Sensor {
    /// What is told of its values.
    #[must_use]
    pub fn instrument(&self) -> Instrument {
        Instrument { metric: self.metric.clone(), help: self.help.clone(), kind: self.kind }
    }
}

/// Something to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    /// The whole name of the metric.
    pub metric: String,
    /// What it is.
    pub help: String,
    /// What becomes of its values.
    pub kind: SensorKind,
    /// How often it is measured.
    pub poll: Duration,
    /// Prints a value.
    pub check: Command,
    /// How long that may take.
    pub limit: Duration,
}
