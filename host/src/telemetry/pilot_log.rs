//! The log of a host that pilots a plain command: ContainerPilot's formats, on one of its outputs, all of which may change
//! while it runs.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{Timestamp, ZonedDateTime};
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

use super::{
    Drain, LAST_WORD, LAST_WORDS, LogError, LogFormat, LogLevel, LogOutput, Logging,
    entry::{Entry, Told},
    targets,
};

/// The log of this process. Dropping it writes what is queued, within a second.
pub struct PilotLog {
    shared: Arc<Shared>,
    filter: reload::Handle<Targets, Registry>,
}

struct Shared {
    now: fn() -> ZonedDateTime,
    open: Box<dyn Fn(LogOutput) -> io::Result<Console> + Send + Sync>,
    began: Timestamp,
    present: Mutex<Present>,
}

struct Present {
    logging: Logging,
    console: Console,
}

/// An output.
struct Console {
    drain: Drain,
    is_terminal: bool,
}

impl PilotLog {
    /// Starts the log of this process: everything of the host from this level on, of everything else as much as
    /// [`super::Log`] has.
    ///
    /// # Errors
    /// When the process has a log already, or no thread can be started.
    pub fn start(logging: Logging) -> Result<Self, LogError> {
        let (log, subscriber) = Self::build(logging, ZonedDateTime::now, Console::open)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
        Ok(log)
    }

    /// Logs in another way from now on. What waits for the output before is still written there.
    ///
    /// # Errors
    /// When no thread can be started for the other output; nothing changes then.
    pub fn change(&self, logging: Logging) -> Result<(), LogError> {
        let mut present = self.shared.present();
        if present.logging.output != logging.output {
            present.console = (self.shared.open)(logging.output).map_err(LogError::Thread)?;
        }
        present.logging = logging;
        drop(present);
        // It fails when nothing logs any more.
        _ = self.filter.reload(filter(logging.level));
        Ok(())
    }

    /// Waits until everything so far is written, at most this long.
    pub fn flush(&self, limit: Duration) {
        let drain = self.shared.present().console.drain.clone();
        drain.flush(limit);
    }

    /// A log and what feeds it.
    fn build(
        logging: Logging,
        now: fn() -> ZonedDateTime,
        open: impl Fn(LogOutput) -> io::Result<Console> + Send + Sync + 'static,
    ) -> Result<(Self, impl Subscriber + Send + Sync + 'static), LogError> {
        let console = open(logging.output).map_err(LogError::Thread)?;
        let present = Mutex::new(Present { logging, console });
        let shared = Arc::new(Shared { now, open: Box::new(open), began: now().timestamp(), present });
        let (changeable, handle) = reload::Layer::new(filter(logging.level));
        let subscriber = Registry::default().with(Lines(Arc::clone(&shared)).with_filter(changeable));
        Ok((Self { shared, filter: handle }, subscriber))
    }
}

impl Drop for PilotLog {
    fn drop(&mut self) {
        self.flush(LAST_WORDS);
    }
}

impl fmt::Debug for PilotLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PilotLog").finish_non_exhaustive()
    }
}

/// The levels of what ends the host leave nothing else; [`LAST_WORD`] is shown at each level.
fn filter(level: LogLevel) -> Targets {
    targets(match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Fatal | LogLevel::Panic => LevelFilter::OFF,
    })
}

impl Console {
    fn open(output: LogOutput) -> io::Result<Self> {
        // Nobody is left to tell when the output is gone.
        let (drain, is_terminal) = match output {
            LogOutput::Stdout => {
                let write = |lines: &str| {
                    let mut stdout = io::stdout().lock();
                    _ = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
                };
                (Drain::start("log-stdout", write)?, io::stdout().is_terminal())
            }
            LogOutput::Stderr => {
                let write = |lines: &str| _ = io::stderr().write_all(lines.as_bytes());
                (Drain::start("log-stderr", write)?, io::stderr().is_terminal())
            }
        };
        Ok(Self { drain, is_terminal })
    }
}

impl Shared {
    fn write(&self, entry: &Entry) {
        let moment = (self.now)();
        let present = self.present();
        let line = match present.logging.format {
            LogFormat::Text if present.console.is_terminal => {
                entry.coloured(moment.timestamp().duration_since(self.began).as_secs().max(0))
            }
            format => entry.line(format, &moment),
        };
        present.console.drain.push(line.into());
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a line of each event, with the fields of its spans.
struct Lines(Arc<Shared>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut told = Told::default();
            attributes.record(&mut told);
            span.extensions_mut().replace(told);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(told) = span.extensions_mut().get_mut::<Told>()
        {
            values.record(told);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(of_span) = span.extensions().get::<Told>() {
                told.fields.extend(of_span.fields.clone());
            }
        }
        event.record(&mut told);
        let level = match *event.metadata().level() {
            _ if event.metadata().target() == LAST_WORD => LogLevel::Fatal,
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG | Level::TRACE => LogLevel::Debug,
        };
        self.0.write(&Entry { level, told });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evening() -> ZonedDateTime {
        "2026-11-21T20:51:12+01:00[+01:00]".parse().unwrap()
    }

    /// What was written to both outputs.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<[String; 2]>>);

    impl Heard {
        fn console(&self, output: LogOutput, is_terminal: bool) -> io::Result<Console> {
            let heard = self.clone();
            let drain = Drain::start("test", move |lines| heard.0.lock().unwrap()[output as usize].push_str(lines))?;
            Ok(Console { drain, is_terminal })
        }

        fn lines(&self, log: &PilotLog, output: LogOutput) -> Vec<String> {
            log.flush(Duration::from_secs(10));
            self.0.lock().unwrap()[output as usize].lines().map(str::to_owned).collect()
        }
    }

    fn built(logging: Logging, is_terminal: bool) -> (PilotLog, impl Subscriber + Send + Sync + 'static, Heard) {
        let heard = Heard::default();
        let its = heard.clone();
        let (log, subscriber) =
            PilotLog::build(logging, evening, move |output| its.console(output, is_terminal)).unwrap();
        (log, subscriber, heard)
    }

    fn logging(level: LogLevel, format: LogFormat) -> Logging {
        Logging { level, format, output: LogOutput::Stdout }
    }

    fn one_of_each() {
        tracing::debug!("d");
        tracing::info!("i");
        tracing::warn!("w");
        tracing::error!("e");
        tracing::error!(target: LAST_WORD, "l");
        tracing::info!(target: "hyper", "not ours");
        tracing::warn!(target: "hyper", "odd");
    }

    #[test]
    fn each_level_shows_what_is_as_severe_and_the_last_word() {
        for (level, shown) in [
            (LogLevel::Debug, &["d", "i", "w", "e", "l", "odd"][..]),
            (LogLevel::Info, &["i", "w", "e", "l", "odd"]),
            (LogLevel::Warn, &["w", "e", "l", "odd"]),
            (LogLevel::Error, &["e", "l"]),
            (LogLevel::Fatal, &["l"]),
            (LogLevel::Panic, &["l"]),
        ] {
            let (log, subscriber, heard) = built(logging(level, LogFormat::Default), false);
            tracing::subscriber::with_default(subscriber, one_of_each);
            let expected: Vec<String> = shown.iter().map(|message| format!("2026/11/21 20:51:12 {message}")).collect();
            assert_eq!(heard.lines(&log, LogOutput::Stdout), expected, "{level:?}");
        }
    }

    #[test]
    fn fields_of_events_and_their_spans_are_printed_in_order() {
        let (log, subscriber, heard) = built(logging(LogLevel::Info, LogFormat::Text), false);
        tracing::subscriber::with_default(subscriber, || {
            let span =
                tracing::info_span!("health", process = "health", serviceName = "app-x", pid = tracing::field::Empty);
            span.record("pid", 7);
            let _entered = span.enter();
            let error = io::Error::other("no such file");
            tracing::error!(error = &error as &dyn std::error::Error, level = 3, serviceName = %"app-y", "it {}", "failed");
            tracing::error!(target: LAST_WORD, done = true, "over");
        });
        assert_eq!(
            heard.lines(&log, LogOutput::Stdout),
            [
                "time=\"2026-11-21T20:51:12+01:00\" level=error msg=\"it failed\" error=\"no such file\" fields.level=3 \
                 pid=7 process=health serviceName=app-y ",
                "time=\"2026-11-21T20:51:12+01:00\" level=fatal msg=over done=true pid=7 process=health serviceName=app-x ",
            ]
        );
    }

    #[test]
    fn everything_changes_while_it_runs() {
        let (log, subscriber, heard) = built(logging(LogLevel::Error, LogFormat::Default), false);
        let told = || tracing::info!(task = "sweep", "swept");
        tracing::subscriber::with_default(subscriber, || {
            told();
            log.change(logging(LogLevel::Info, LogFormat::Default)).unwrap();
            told();
            log.change(logging(LogLevel::Info, LogFormat::Json)).unwrap();
            told();
            assert_eq!(
                heard.lines(&log, LogOutput::Stdout),
                [
                    "2026/11/21 20:51:12 swept",
                    r#"{"level":"info","msg":"swept","task":"sweep","time":"2026-11-21T20:51:12+01:00"}"#,
                ]
            );
            log.change(Logging { output: LogOutput::Stderr, ..logging(LogLevel::Info, LogFormat::Text) }).unwrap();
            told();
            log.change(Logging { output: LogOutput::Stderr, ..logging(LogLevel::Warn, LogFormat::Text) }).unwrap();
            told();
        });
        assert_eq!(
            heard.lines(&log, LogOutput::Stderr),
            ["time=\"2026-11-21T20:51:12+01:00\" level=info msg=swept task=sweep "]
        );
        assert_eq!(heard.lines(&log, LogOutput::Stdout).len(), 2);
    }

    #[test]
    fn a_terminal_gets_colours_in_the_text_format_only() {
        let (log, subscriber, heard) = built(logging(LogLevel::Info, LogFormat::Text), true);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("up");
            log.change(logging(LogLevel::Info, LogFormat::Default)).unwrap();
            tracing::info!("up");
        });
        let lines = heard.lines(&log, LogOutput::Stdout);
        assert_eq!(lines, [format!("\x1b[34mINFO\x1b[0m[0000] {:<44} ", "up"), "2026/11/21 20:51:12 up".to_owned()]);
    }
}
