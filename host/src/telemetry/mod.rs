//! What the host says about itself: the log, the counters, and what sensors measured.
//!
//! A pod's log ([`Log`]) goes to standard error always, to a rotating file where one is set, and to a small ring in memory,
//! which answers `/log` where there is no file. Writing never waits: each destination has a bounded queue and a thread of its
//! own, and lines are dropped, and counted, where a destination does not keep up. The log of a plain command ([`PilotLog`])
//! has ContainerPilot's formats and outputs, and is written in the same way.

mod drain;
mod entry;
mod format;
mod logging;
mod metrics;
mod page;
mod pilot_log;
mod pilot_metrics;
mod ring;
mod rotate;
mod sensors;
mod tail;

pub use drain::Drain;
pub use logging::{LogFormat, LogLevel, LogOutput, Logging};
pub use metrics::{Gauges, Metrics, Rollout};
pub use pilot_log::PilotLog;
pub use pilot_metrics::{HostUsage, PilotMetrics, Reload, Run};
pub use sensors::{Instrument, SensorError, SensorKind, Sensors, is_taken};
pub use tail::LogTail;

use std::{io, io::Write as _, sync::Arc, time::Duration};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt as _,
};

use self::{format::TextFormat, ring::Ring, rotate::RotatingFile};
use crate::settings::LogFile;

/// Newest lines that are kept for `/log`, in bytes.
const KEPT: usize = 32 * 1024;
/// How long the last lines may take to be written when the host ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Target of what plugins say.
pub const PLUGIN: &str = "plugin";
/// Target of what sub-processes print, where it is piped.
pub const SUB_PROCESS: &str = "subprocess";
/// Target of what the host says, as an error, when it ends for it: shown at each level, and as fatal by a [`PilotLog`].
pub const LAST_WORD: &str = "last-word";

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `time - LEVEL - message`, one line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file that was asked for cannot be written: a bad setting.
    #[error("cannot write the log file {path}")]
    File {
        /// As given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread for the log")]
    Thread(#[source] io::Error),
    /// The process has a log already.
    #[error("the process has a log already")]
    Started,
}

/// The log of this process. Dropping it writes what is queued, within a second.
#[derive(Debug)]
pub struct Log {
    lines: Arc<Lines>,
    file: Option<LogFile>,
}

/// Where each line goes.
#[derive(Debug)]
struct Lines {
    ring: Ring,
    console: Drain,
    file: Option<Drain>,
}

impl Log {
    /// Starts the log of this process: everything of the host at this level, warnings of everything else
    /// (of the ZooKeeper client errors). A file that was
    /// not asked for but cannot be written costs a warning.
    ///
    /// # Errors
    /// When the file that was asked for cannot be written, or the process has a log already.
    pub fn start(level: LevelFilter, format: Format, file: Option<&LogFile>) -> Result<Self, LogError> {
        let (log, subscriber, missed) = Self::build(level, format, file)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
        if let Some(reason) = missed {
            tracing::warn!("no log file: {reason}");
        }
        Ok(log)
    }

    /// What answers `/log`.
    #[must_use]
    pub fn tail(&self) -> LogTail {
        LogTail::new(self.lines.clone(), self.file.as_ref().map(|file| file.path.clone()))
    }

    /// Waits until everything so far is written, at most this long.
    pub fn flush(&self, limit: Duration) {
        self.lines.flush(limit);
    }

    /// A log, what feeds it, and why there is no file where one is missed.
    #[allow(clippy::type_complexity, reason = "three things that start takes apart at once")]
    pub(crate) fn build(
        level: LevelFilter,
        format: Format,
        file: Option<&LogFile>,
    ) -> Result<(Self, impl Subscriber + Send + Sync + 'static, Option<String>), LogError> {
        let console = Drain::start("log-console", |lines| {
            // Nobody is left to tell when standard error is gone.
            _ = io::stderr().write_all(lines.as_bytes());
        });
        let console = console.map_err(LogError::Thread)?;
        let opened = file.map(|file| (file, RotatingFile::open(&file.path)));
        let (file, rotating, missed) = match opened {
            None => (None, None, None),
            Some((file, Ok(rotating))) => (Some(file.clone()), Some(rotating), None),
            Some((file, Err(source))) if file.asked => {
                return Err(LogError::File { path: file.path.display().to_string(), source });
            }
            Some((file, Err(source))) => (None, None, Some(format!("{}: {source}", file.path.display()))),
        };
        let drain =
            rotating.map(|rotating| file_drain(rotating, console.clone())).transpose().map_err(LogError::Thread)?;
        let lines = Arc::new(Lines { ring: Ring::new(KEPT), console, file: drain });
        let subscriber = Registry::default().with(layer(format, Writer(lines.clone())).with_filter(targets(level)));
        Ok((Self { lines, file }, subscriber, missed))
    }
}

/// Everything of the host at this level, warnings of everything else, and last words always.
fn targets(level: LevelFilter) -> Targets {
    let own = [env!("CARGO_PKG_NAME"), PLUGIN, SUB_PROCESS].map(|target| (target, level));
    // It warns at each attempt while the store is away, which the membership tells once.
    let store = ("zookeeper_client", level.min(LevelFilter::ERROR));
    Targets::new()
        .with_targets(own.into_iter().chain([store, (LAST_WORD, LevelFilter::ERROR)]))
        .with_default(level.min(LevelFilter::WARN))
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush(LAST_WORDS);
    }
}

impl Lines {
    fn push(&self, line: &str) {
        self.ring.push(line);
        let shared: Arc<str> = Arc::from(line);
        if let Some(file) = &self.file {
            file.push(shared.clone());
        }
        self.console.push(shared);
    }

    fn flush(&self, limit: Duration) {
        if let Some(file) = &self.file {
            file.flush(limit);
        }
        self.console.flush(limit);
    }
}

/// Writes to the file; the first of several failures in a row is told on the console.
fn file_drain(mut file: RotatingFile, console: Drain) -> io::Result<Drain> {
    let mut failing = false;
    Drain::start("log-file", move |lines| {
        let written = file.write(lines);
        if let Err(error) = &written
            && !failing
        {
            console.push(Arc::from(format!("cannot write the log file {}: {error}\n", file.path().display())));
        }
        failing = written.is_err();
    })
}

fn layer(format: Format, writer: Writer) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        Format::Text => Box::new(fmt::layer().with_ansi(false).event_format(TextFormat).with_writer(writer)),
        Format::Json => {
            let json = fmt::format().json().flatten_event(true).with_current_span(true).with_span_list(false);
            Box::new(fmt::layer().event_format(json).fmt_fields(JsonFields::new()).with_writer(writer))
        }
    }
}

/// Hands whole lines over: the layer writes each event at once.
struct Writer(Arc<Lines>);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Writer;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
