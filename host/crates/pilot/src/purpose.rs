//! Purpose of a program, and its name in the log.

use std::fmt;

use ochopod_telemetry::SUB_PROCESS;

/// Purpose of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A hook, by its key in the configuration. It writes to the host's own output.
    Hook(&'static str),
    /// The health check of a service.
    Health {
        /// Name of the service.
        service: String,
        /// ID of its registration.
        id: String,
    },
    /// `onChange` of a backend, by its name.
    OnChange(String),
    /// A task, by its name.
    Task(String),
    /// A coprocess, by its name.
    Coprocess(String),
    /// A sensor, by its metric. Its output is the value.
    Sensor(String),
}

impl Purpose {
    /// Logs a line of the program's output, with the fields of ContainerPilot.
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

    /// Returns the name of the variable with its process id; none if other programs have no use for it.
    pub(super) fn variable(&self) -> Option<String> {
        matches!(self, Self::Hook(_) | Self::Coprocess(_)).then(|| self.to_string())
    }
}

/// Writes the name of the program in the log: `app.health`, `coprocess[NAME]`, …
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
