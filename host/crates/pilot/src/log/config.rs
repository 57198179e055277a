//! Logging settings of a configuration.

/// Level, format and output of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoggingConfig {
    /// Minimum severity.
    pub level: LogLevel,
    /// Format of lines.
    pub format: LogFormat,
    /// Destination.
    pub output: LogOutput,
}

/// Severities with ContainerPilot's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Details of single operations.
    Debug,
    /// State changes.
    #[default]
    Info,
    /// Degraded operation.
    Warn,
    /// Failures.
    Error,
    /// Failures that end the host.
    Fatal,
    /// Same as `Fatal`.
    Panic,
}

impl LogLevel {
    /// Returns the printed name.
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

/// Format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `2026/11/21 20:51:12 message`, as Go's log package.
    #[default]
    Default,
    /// `time="…" level=info msg=… key=value`, as logrus.
    Text,
    /// One JSON object per line, as logrus.
    Json,
}

/// Destination of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}
