//! What a configuration says of the log.

/// What is logged, how and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Logging {
    /// From which severity on.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
    /// Where they go.
    pub output: LogOutput,
}

/// Severities, as ContainerPilot names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What is odd.
    Warn,
    /// What fails.
    Error,
    /// What ends the host.
    Fatal,
    /// The same.
    Panic,
}

impl LogLevel {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
            Self::Panic => "panic",
        }
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `2026/11/21 20:51:12 message`, as Go's log package has it.
    #[default]
    Default,
    /// `time="…" level=info msg=… key=value`, as logrus has it.
    Text,
    /// One JSON object a line, as logrus has it.
    Json,
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}
