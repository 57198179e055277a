//! Logs and metrics of the host.
//!
//! Logging never blocks: each output has a bounded queue and its own thread, and lines are dropped and counted if an output
//! is too slow. Each event is one line, with hidden characters escaped. Metrics pages are valid in Prometheus' text format,
//! whatever labels contain.
//!
//! [`PodLog`] owns the outputs of a pod's log and their queues, [`Metrics`] the counters of a pod. This crate knows neither
//! pods nor programs: callers count events and pass values that are only valid at the time of reading ([`Gauges`],
//! [`HostUsage`]).
//!
//! A pod logs to standard error, to a rotating file if one is set, and to a ring in memory. `/log` returns the ring without a
//! file, or if the file lacks the newest lines. The log of a plain command is in `ochopod-pilot`, on a [`BackgroundWriter`].
//!
//! | module | content |
//! |---|---|
//! | `background_writer` | queue and thread of an output |
//! | `text_format`, `rotate`, `ring`, `tail` | a pod's log: its text format, the file, the newest lines in memory, access to both |
//! | [`escape`] | escaping of untrusted text |
//! | `metrics`, `host_usage` | counters and values of a pod and of the process, and the page of `/metrics` |
//! | `prometheus_text`, `page_reader` | Prometheus' text format; its reader for tests |

mod background_writer;
pub mod escape;
mod host_usage;
mod metrics;
#[cfg(any(test, feature = "page-reader"))]
mod page_reader;
mod prometheus_text;
mod ring;
mod rotate;
mod tail;
mod text_format;

use std::{
    io,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use background_writer::BackgroundWriter;
pub use host_usage::{HostUsage, is_process_metric};
pub use metrics::{CounterVec, Gauges, Metrics, RolloutResult};
#[cfg(any(test, feature = "page-reader"))]
pub use page_reader::read_metrics_page;
pub use prometheus_text::{GoFloat, PrometheusText};
pub use tail::LogTail;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt as _,
};

use self::{ring::Ring, rotate::RotatingFile, text_format::TextFormat};
use crate::escape::Escaped;

/// Size of the ring and of the lines that `/log` returns, in bytes.
const RING_BYTES: usize = 32 * 1024;
/// Timeout of writing queued lines when the host exits.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Prefix of the targets of the host's crates.
const HOST: &str = "ochopod";
/// Target of log lines of plugins.
pub const PLUGIN: &str = "plugin";
/// Target of piped output of sub-processes.
pub const SUB_PROCESS: &str = "subprocess";
/// Target of errors that end the host: logged at each level, by the log of a plain command as fatal.
pub const FATAL: &str = "last-word";

/// Log file in addition to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// Whether the operator set it. If so, it must be writable; otherwise a failure costs a warning.
    pub explicit: bool,
}

/// Format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodLogFormat {
    /// `time - LEVEL - message`, one line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Cause of a log that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file that was set explicitly cannot be written.
    #[error("cannot write log file {path}")]
    File {
        /// Path as set.
        path: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The system cannot start a thread.
    #[error("cannot start the log thread")]
    Thread(#[source] io::Error),
    /// The process already has a log.
    #[error("logging already initialized")]
    Started,
}

/// The log of this process. Dropping it writes what is queued, within a second.
#[derive(Debug)]
pub struct PodLog {
    sinks: Arc<LogSinks>,
    file: Option<LogFile>,
}

/// Destinations of each line.
#[derive(Debug)]
struct LogSinks {
    ring: Ring,
    console: BackgroundWriter,
    file: Option<BackgroundWriter>,
    /// Whether the last write to the file failed.
    file_failing: Arc<AtomicBool>,
}

impl PodLog {
    /// Starts the log of this process: events of the host at or above this level, warnings of other crates, and errors of the
    /// ZooKeeper client. A file that was not set explicitly and cannot be written costs a warning.
    ///
    /// # Errors
    /// The file that was set explicitly cannot be written, no thread can be started, or logging is already initialized.
    pub fn start(level: LevelFilter, format: PodLogFormat, file: Option<&LogFile>) -> Result<Self, LogError> {
        let (log, subscriber, file_error) = Self::build(level, format, file)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
        if let Some(reason) = file_error {
            tracing::warn!(%reason, "log file disabled");
        }
        Ok(log)
    }

    /// Returns a reader of the newest lines, for `/log`.
    #[must_use]
    pub fn tail(&self) -> LogTail {
        LogTail::new(self.sinks.clone(), self.file.as_ref().map(|file| file.path.clone()))
    }

    /// Waits until all queued lines are written, at most this long.
    pub fn flush(&self, limit: Duration) {
        self.sinks.flush(limit);
    }

    /// Returns a log, the subscriber that feeds it, and the cause of a disabled log file.
    ///
    /// # Errors
    /// The file that was set explicitly cannot be written, or no thread can be started.
    #[allow(clippy::type_complexity, reason = "start destructures it immediately")]
    pub fn build(
        level: LevelFilter,
        format: PodLogFormat,
        file: Option<&LogFile>,
    ) -> Result<(Self, impl Subscriber + Send + Sync + 'static, Option<String>), LogError> {
        let console = BackgroundWriter::start("log-console", |lines| {
            // Errors are ignored: with a closed standard error they cannot be reported.
            _ = io::stderr().write_all(lines.as_bytes());
        });
        let console = console.map_err(LogError::Thread)?;
        let opened = file.map(|file| (file, RotatingFile::open(&file.path)));
        let (file, rotating, file_error) = match opened {
            None => (None, None, None),
            Some((file, Ok(rotating))) => (Some(file.clone()), Some(rotating), None),
            Some((file, Err(source))) if file.explicit => {
                return Err(LogError::File { path: file.path.display().to_string(), source });
            }
            Some((file, Err(source))) => (None, None, Some(format!("{}: {source}", file.path.display()))),
        };
        let (ring, file_failing) = (Ring::new(RING_BYTES), Arc::new(AtomicBool::new(false)));
        let start = |rotating| start_file_writer(rotating, console.clone(), ring.clone(), Arc::clone(&file_failing));
        let file_writer = rotating.map(start).transpose().map_err(LogError::Thread)?;
        let sinks = Arc::new(LogSinks { ring, console, file: file_writer, file_failing });
        let subscriber = Registry::default()
            .with(layer(format, Writer { sinks: sinks.clone(), format }).with_filter(log_targets(level)));
        Ok((Self { sinks, file }, subscriber, file_error))
    }
}

/// Returns the filter of a level: events of the host at this level, warnings of other crates, and [`FATAL`] events always.
#[must_use]
pub fn log_targets(level: LevelFilter) -> Targets {
    let host = [HOST, PLUGIN, SUB_PROCESS].map(|target| (target, level));
    // It warns at each attempt during an outage, which the membership logs once.
    let store = ("zookeeper_client", level.min(LevelFilter::ERROR));
    // Guests cause its warnings, without a limit, and receive the errors.
    let guests = ("wasmtime_wasi_http", LevelFilter::OFF);
    Targets::new()
        .with_targets(host.into_iter().chain([store, guests, (FATAL, LevelFilter::ERROR)]))
        .with_default(level.min(LevelFilter::WARN))
}

impl Drop for PodLog {
    fn drop(&mut self) {
        self.sinks.flush(FLUSH_TIMEOUT);
    }
}

impl LogSinks {
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

    /// Returns whether the file has all lines. Waits for queued lines, at most this long.
    fn file_is_complete(&self, limit: Duration) -> bool {
        self.file.as_ref().is_some_and(|file| file.flush(limit)) && !self.file_failing.load(Ordering::Acquire)
    }
}

/// Starts the writer of the file. It logs the first of several failures in a row to console and ring; `/log` returns the ring
/// until the file is writable again, and the newest lines that the file lacks are written then.
fn start_file_writer(
    mut file: RotatingFile,
    console: BackgroundWriter,
    ring: Ring,
    failing: Arc<AtomicBool>,
) -> io::Result<BackgroundWriter> {
    let mut unwritten = String::new();
    BackgroundWriter::start("log-file", move |lines| {
        unwritten.push_str(lines);
        let written = file.write(&unwritten).map_err(|(rest, error)| (newest(rest, RING_BYTES).to_owned(), error));
        let failed_before = failing.swap(written.is_err(), Ordering::AcqRel);
        let Err((rest, error)) = written else {
            unwritten.clear();
            return;
        };
        unwritten = rest;
        if !failed_before {
            let line = format!("cannot write log file {}: {error}", file.path().display());
            let line = format!("{}\n", Escaped(&line));
            ring.push(&line);
            console.push(Arc::from(line));
        }
    })
}

/// Returns the newest whole lines up to a size in bytes.
fn newest(lines: &str, max_bytes: usize) -> &str {
    let Some(cut) = lines.len().checked_sub(max_bytes).filter(|cut| *cut > 0) else { return lines };
    let cut = lines.ceil_char_boundary(cut);
    let (_, tail) = lines.split_at(cut);
    tail.split_once('\n').map_or("", |(_, whole)| whole)
}

fn layer(format: PodLogFormat, writer: Writer) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        PodLogFormat::Text => Box::new(fmt::layer().with_ansi(false).event_format(TextFormat).with_writer(writer)),
        PodLogFormat::Json => {
            let json = fmt::format().json().flatten_event(true).with_current_span(true).with_span_list(false);
            Box::new(fmt::layer().event_format(json).fmt_fields(JsonFields::new()).with_writer(writer))
        }
    }
}

/// Adapter that receives whole lines, because the layer writes each event with one call.
struct Writer {
    sinks: Arc<LogSinks>,
    format: PodLogFormat,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Writer;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        match self.format {
            PodLogFormat::Text => self.sinks.push(&text),
            PodLogFormat::Json => self.sinks.push(&escape::json(&text)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
