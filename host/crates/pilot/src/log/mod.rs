//! Log of a host that runs a plain command, in ContainerPilot's formats. Level, format and output may change at any time.

mod config;
mod record;

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{Timestamp, ZonedDateTime};
use ochopod_telemetry::{BackgroundWriter, FATAL, FLUSH_TIMEOUT, LogError, log_targets};
use tracing::{
    Event, Level, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
    registry::{LookupSpan, Scope},
    reload,
};

pub use self::config::{LogFormat, LogLevel, LogOutput, LoggingConfig};
use self::record::{EventFields, LogRecord};

/// The log of this process. Clones share it; dropping one of them writes what is queued, within a second.
#[derive(Clone)]
pub struct PilotLog {
    shared: Arc<Shared>,
    filter: reload::Handle<Targets, Registry>,
}

struct Shared {
    now: fn() -> ZonedDateTime,
    open: Box<dyn Fn(LogOutput) -> io::Result<OutputStream> + Send + Sync>,
    started_at: Timestamp,
    active: Mutex<ActiveOutput>,
}

struct ActiveOutput {
    logging: LoggingConfig,
    stream: OutputStream,
}

/// New logging settings with their opened output, for [`PilotLog::reconfigure`].
pub struct PreparedLogging {
    logging: LoggingConfig,
    /// `None` if the output does not change.
    stream: Option<OutputStream>,
}

/// A writer of an output.
struct OutputStream {
    writer: BackgroundWriter,
    is_terminal: bool,
}

impl PilotLog {
    /// Starts the log of this process: events of the host at or above this level, and those of other crates as in
    /// [`ochopod_telemetry::PodLog`].
    ///
    /// # Errors
    /// Logging is already initialized, or no thread can be started.
    pub fn start(logging: LoggingConfig) -> Result<Self, LogError> {
        let (log, subscriber) = Self::build(logging, ZonedDateTime::now, OutputStream::open)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
        Ok(log)
    }

    /// Opens the output of new settings. Nothing changes before [`PilotLog::reconfigure`].
    ///
    /// # Errors
    /// No thread can be started for the new output.
    pub fn prepare(&self, logging: LoggingConfig) -> Result<PreparedLogging, LogError> {
        let is_same = self.shared.active().logging.output == logging.output;
        let stream = if is_same { None } else { Some((self.shared.open)(logging.output).map_err(LogError::Thread)?) };
        Ok(PreparedLogging { logging, stream })
    }

    /// Applies new settings. Queued lines are still written to the previous output.
    pub fn reconfigure(&self, prepared: PreparedLogging) {
        let PreparedLogging { logging, stream } = prepared;
        let mut active = self.shared.active();
        if let Some(stream) = stream {
            active.stream = stream;
        }
        active.logging = logging;
        drop(active);
        // Fails only after the subscriber was dropped.
        _ = self.filter.reload(filter(logging.level));
    }

    /// Waits until all queued lines are written, at most this long.
    pub fn flush(&self, limit: Duration) {
        let writer = self.shared.active().stream.writer.clone();
        writer.flush(limit);
    }

    /// Returns a log and the subscriber that feeds it.
    fn build(
        logging: LoggingConfig,
        now: fn() -> ZonedDateTime,
        open: impl Fn(LogOutput) -> io::Result<OutputStream> + Send + Sync + 'static,
    ) -> Result<(Self, impl Subscriber + Send + Sync + 'static), LogError> {
        let stream = open(logging.output).map_err(LogError::Thread)?;
        let active = Mutex::new(ActiveOutput { logging, stream });
        let shared = Arc::new(Shared { now, open: Box::new(open), started_at: now().timestamp(), active });
        let (changeable, handle) = reload::Layer::new(filter(logging.level));
        let subscriber = Registry::default().with(PilotLogLayer(Arc::clone(&shared)).with_filter(changeable));
        Ok((Self { shared, filter: handle }, subscriber))
    }
}

impl Drop for PilotLog {
    fn drop(&mut self) {
        self.flush(FLUSH_TIMEOUT);
    }
}

impl fmt::Debug for PilotLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PilotLog").finish_non_exhaustive()
    }
}

/// Returns the filter of a level. Levels above error log only [`FATAL`] events, which are logged at each level.
fn filter(level: LogLevel) -> Targets {
    log_targets(match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Fatal | LogLevel::Panic => LevelFilter::OFF,
    })
}

impl OutputStream {
    fn open(output: LogOutput) -> io::Result<Self> {
        // Errors are ignored: with a closed output they cannot be reported.
        let (writer, is_terminal) = match output {
            LogOutput::Stdout => {
                let write = |lines: &str| {
                    let mut stdout = io::stdout().lock();
                    _ = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
                };
                (BackgroundWriter::start("log-stdout", write)?, io::stdout().is_terminal())
            }
            LogOutput::Stderr => {
                let write = |lines: &str| _ = io::stderr().write_all(lines.as_bytes());
                (BackgroundWriter::start("log-stderr", write)?, io::stderr().is_terminal())
            }
        };
        Ok(Self { writer, is_terminal })
    }
}

impl Shared {
    fn write(&self, record: &LogRecord) {
        let moment = (self.now)();
        let active = self.active();
        let line = match active.logging.format {
            LogFormat::Text if active.stream.is_terminal => {
                record.colored(moment.timestamp().duration_since(self.started_at).as_secs().max(0))
            }
            format => record.line(format, &moment),
        };
        active.stream.writer.push(line.into());
    }

    fn active(&self) -> MutexGuard<'_, ActiveOutput> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Layer that writes a line for each event, with the fields of its spans.
struct PilotLogLayer(Arc<Shared>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PilotLogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = EventFields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<EventFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = EventFields::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(of_span) = span.extensions().get::<EventFields>() {
                fields.fields.extend(of_span.fields.clone());
            }
        }
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            _ if event.metadata().target() == FATAL => LogLevel::Fatal,
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG | Level::TRACE => LogLevel::Debug,
        };
        self.0.write(&LogRecord { level, event: fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evening() -> ZonedDateTime {
        "2026-11-21T20:51:12+01:00[+01:00]".parse().unwrap()
    }

    /// Text written to both outputs.
    #[derive(Clone, Default)]
    struct CapturedLog(Arc<Mutex<[String; 2]>>);

    impl CapturedLog {
        fn stream(&self, output: LogOutput, is_terminal: bool) -> io::Result<OutputStream> {
            let captured = self.clone();
            let writer = BackgroundWriter::start("test", move |lines| {
                captured.0.lock().unwrap()[output as usize].push_str(lines);
            })?;
            Ok(OutputStream { writer, is_terminal })
        }

        fn lines(&self, log: &PilotLog, output: LogOutput) -> Vec<String> {
            log.flush(Duration::from_secs(10));
            self.0.lock().unwrap()[output as usize].lines().map(str::to_owned).collect()
        }
    }

    fn built(
        logging: LoggingConfig,
        is_terminal: bool,
    ) -> (PilotLog, impl Subscriber + Send + Sync + 'static, CapturedLog) {
        let captured = CapturedLog::default();
        let outputs = captured.clone();
        let (log, subscriber) =
            PilotLog::build(logging, evening, move |output| outputs.stream(output, is_terminal)).unwrap();
        (log, subscriber, captured)
    }

    fn logging(level: LogLevel, format: LogFormat) -> LoggingConfig {
        LoggingConfig { level, format, output: LogOutput::Stdout }
    }

    fn log_one_of_each() {
        tracing::debug!("d");
        tracing::info!("i");
        tracing::warn!("w");
        tracing::error!("e");
        tracing::error!(target: FATAL, "l");
        tracing::info!(target: "hyper", "not ours");
        tracing::warn!(target: "hyper", "odd");
    }

    #[test]
    fn each_level_logs_events_as_severe_and_fatal_ones() {
        for (level, logged) in [
            (LogLevel::Debug, &["d", "i", "w", "e", "l", "odd"][..]),
            (LogLevel::Info, &["i", "w", "e", "l", "odd"]),
            (LogLevel::Warn, &["w", "e", "l", "odd"]),
            (LogLevel::Error, &["e", "l"]),
            (LogLevel::Fatal, &["l"]),
            (LogLevel::Panic, &["l"]),
        ] {
            let (log, subscriber, captured) = built(logging(level, LogFormat::Default), false);
            tracing::subscriber::with_default(subscriber, log_one_of_each);
            let expected: Vec<String> = logged.iter().map(|message| format!("2026/11/21 20:51:12 {message}")).collect();
            assert_eq!(captured.lines(&log, LogOutput::Stdout), expected, "{level:?}");
        }
    }

    #[test]
    fn fields_of_events_and_their_spans_are_printed_in_order() {
        let (log, subscriber, captured) = built(logging(LogLevel::Info, LogFormat::Text), false);
        tracing::subscriber::with_default(subscriber, || {
            let span =
                tracing::info_span!("health", process = "health", serviceName = "app-x", pid = tracing::field::Empty);
            span.record("pid", 7);
            let _entered = span.enter();
            let error = io::Error::other("no such file");
            tracing::error!(error = &error as &dyn std::error::Error, level = 3, serviceName = %"app-y", "it {}", "failed");
            tracing::error!(target: FATAL, done = true, "over");
        });
        assert_eq!(
            captured.lines(&log, LogOutput::Stdout),
            [
                "time=\"2026-11-21T20:51:12+01:00\" level=error msg=\"it failed\" error=\"no such file\" fields.level=3 \
                 pid=7 process=health serviceName=app-y ",
                "time=\"2026-11-21T20:51:12+01:00\" level=fatal msg=over done=true pid=7 process=health serviceName=app-x ",
            ]
        );
    }

    #[test]
    fn level_format_and_output_can_be_reconfigured() {
        let (log, subscriber, captured) = built(logging(LogLevel::Error, LogFormat::Default), false);
        let log_event = || tracing::info!(task = "sweep", "swept");
        tracing::subscriber::with_default(subscriber, || {
            log_event();
            log.reconfigure(log.prepare(logging(LogLevel::Info, LogFormat::Default)).unwrap());
            log_event();
            log.reconfigure(log.prepare(logging(LogLevel::Info, LogFormat::Json)).unwrap());
            log_event();
            assert_eq!(
                captured.lines(&log, LogOutput::Stdout),
                [
                    "2026/11/21 20:51:12 swept",
                    r#"{"level":"info","msg":"swept","task":"sweep","time":"2026-11-21T20:51:12+01:00"}"#,
                ]
            );
            log.reconfigure(
                log.prepare(LoggingConfig { output: LogOutput::Stderr, ..logging(LogLevel::Info, LogFormat::Text) })
                    .unwrap(),
            );
            log_event();
            log.reconfigure(
                log.prepare(LoggingConfig { output: LogOutput::Stderr, ..logging(LogLevel::Warn, LogFormat::Text) })
                    .unwrap(),
            );
            log_event();
        });
        assert_eq!(
            captured.lines(&log, LogOutput::Stderr),
            ["time=\"2026-11-21T20:51:12+01:00\" level=info msg=swept task=sweep "]
        );
        assert_eq!(captured.lines(&log, LogOutput::Stdout).len(), 2);
    }

    #[test]
    fn terminal_lines_are_colored_in_the_text_format_only() {
        let (log, subscriber, captured) = built(logging(LogLevel::Info, LogFormat::Text), true);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("up");
            log.reconfigure(log.prepare(logging(LogLevel::Info, LogFormat::Default)).unwrap());
            tracing::info!("up");
        });
        let lines = captured.lines(&log, LogOutput::Stdout);
        assert_eq!(lines, [format!("\x1b[34mINFO\x1b[0m[0000] {:<44} ", "up"), "2026/11/21 20:51:12 up".to_owned()]);
    }
}
