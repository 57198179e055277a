//! What programs are run for, and how the log names them.

use std::fmt;

use crate::telemetry::SUB_PROCESS;

/// What a program is run for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A hook, by its key in the configuration. What it prints is the host's own output.
    Hook(&'static str),
    /// The check of a service.
    Health {
        /// The service's name.
        service: String,
        /// The id of its instance here.
        id: String,
    },
    /// The reaction to a change of a backend, by its name.
    OnChange(String),
    /// A task, by its name.
    Task(String),
    /// A coprocess, by its name.
    Coprocess(String),
    /// A sensor, by its metric. What it prints is its value.
    Sensor(String),
}

impl Purpose {
    /// Logs a line that the program printed, with the fields that ContainerPilot gives it.
    pub(super) fn log(&self, line: &str) {
        match self {
            Self::Health { service, id } => {
                tracing::info!(target: SUB_PROCESS, process = "health", serviceName = service, serviceID = id, "{line}");
            }
            Self::OnChange(backend) => {
                tracing::info!(target: SUB_PROCESS, process = "onChange", backend, "{line}");
            }
            Self::Task(task) => tracing::info!(target: SUB_PROCESS, process = "task", task, "{line}"),
            Self::Coprocess(coprocess) => {
                tracing::info!(target: SUB_PROCESS, process = "coprocess", coprocess, "{line}");
            }
            Self::Hook(_) | Self::Sensor(_) => tracing::info!(target: SUB_PROCESS, "{line}"),
        }
    }

    /// The name under which other programs are told its process id; none when it is of no use to them.
    pub(super) fn variable(&self) -> Option<String> {
        matches!(self, Self::Hook(_) | Self::Coprocess(_)).then(|| self.to_string())
    }
}

/// As the log names it: `app.health`, `coprocess[NAME]`, …
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(key) => f.write_str(key),
            Self::Health { service, .. } => write!(f, "{service}.health"),
            Self::OnChange(backend) => write!(f, "{backend}.onChange"),
            Self::Task(task) => write!(f, "task[{task}]"),
            Self::Coprocess(coprocess) => write!(f, "coprocess[{coprocess}]"),
            Self::Sensor(metric) => write!(f, "{metric}.sensor"),
        }
    }
}
