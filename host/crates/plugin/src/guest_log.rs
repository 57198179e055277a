//! Log output of a guest: its log import, standard output and standard error, as lines of the host's log.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use ochopod_telemetry as telemetry;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::truncate;

/// Maximum length of a line; the rest is dropped.
const MAX_LINE_BYTES: usize = 8 << 10;
/// Number of lines that pass in a burst.
const BURST: f64 = 200.0;
/// Number of lines per second that pass indefinitely.
const LINES_PER_SECOND: f64 = 50.0;
/// Maximum length of the recent errors that explain a trap.
const RECENT_ERROR_BYTES: usize = 1 << 10;
/// Maximum length of one write; the rest of a longer message is dropped.
const MAX_WRITE_BYTES: usize = 64 << 10;

/// Limits the rate of log lines, and counts the dropped ones.
#[derive(Debug)]
pub(super) struct LogRateLimiter {
    allowance: f64,
    updated_at: Instant,
    dropped: u64,
}

impl LogRateLimiter {
    pub(super) fn new(now: Instant) -> Self {
        Self { allowance: BURST, updated_at: now, dropped: 0 }
    }

    /// Admits a line, and returns how many were dropped before it; none if the line is dropped too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.updated_at).as_secs_f64();
        self.allowance = (self.allowance + passed * LINES_PER_SECOND).min(BURST);
        self.updated_at = now;
        if self.allowance < 1.0 {
            self.dropped += 1;
            return None;
        }
        self.allowance -= 1.0;
        Some(mem::take(&mut self.dropped))
    }
}

/// Output stream of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Error,
}

#[derive(Debug)]
struct GuestLogState {
    rate_limit: Arc<Mutex<LogRateLimiter>>,
    out: Vec<u8>,
    error: Vec<u8>,
    recent_errors: String,
}

/// Log output of one instance.
#[derive(Debug, Clone)]
pub(super) struct GuestLog(Arc<Mutex<GuestLogState>>);

impl GuestLog {
    /// Creates a log that shares its rate limit with all instances that have the same one.
    pub(super) fn new(rate_limit: Arc<Mutex<LogRateLimiter>>) -> Self {
        let state = GuestLogState { rate_limit, out: Vec::new(), error: Vec::new(), recent_errors: String::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Logs a message line by line. Takes a bounded time for any message, because no guest runs meanwhile.
    pub(super) fn log(&self, level: Level, message: &str) {
        let shown = truncate(message, MAX_WRITE_BYTES);
        self.with(|state| {
            if level == Level::ERROR {
                state.record_error(shown);
            }
            shown.lines().for_each(|line| state.log_line(level, line));
            if shown.len() < message.len() {
                state.rate_limit(|rate_limit| rate_limit.dropped += 1);
            }
        });
    }

    /// Ends the lines that a call left open, and logs how many lines were dropped. Returns the recent errors of the
    /// call: its standard error and the errors it logged.
    pub(super) fn end_of_call(&self) -> String {
        self.with(|state| {
            for stream in [Stream::Out, Stream::Error] {
                state.end_line(stream);
            }
            let dropped = state.rate_limit(|rate_limit| mem::take(&mut rate_limit.dropped));
            if dropped > 0 {
                tracing::warn!(target: telemetry::PLUGIN, dropped_lines = dropped, "plugin log rate limit exceeded");
            }
            mem::take(&mut state.recent_errors)
        })
    }

    fn with<R>(&self, act: impl FnOnce(&mut GuestLogState) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl GuestLogState {
    fn log_line(&mut self, level: Level, line: &str) {
        let Some(dropped) = self.rate_limit(|rate_limit| rate_limit.admit(Instant::now())) else { return };
        if dropped > 0 {
            tracing::warn!(target: telemetry::PLUGIN, dropped_lines = dropped, "plugin log rate limit exceeded");
        }
        let line: String =
            truncate(line.trim_end(), MAX_LINE_BYTES).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match level {
            Level::ERROR => tracing::error!(target: telemetry::PLUGIN, "{line}"),
            Level::WARN => tracing::warn!(target: telemetry::PLUGIN, "{line}"),
            Level::INFO => tracing::info!(target: telemetry::PLUGIN, "{line}"),
            _ => tracing::debug!(target: telemetry::PLUGIN, "{line}"),
        }
    }

    fn rate_limit<R>(&self, act: impl FnOnce(&mut LogRateLimiter) -> R) -> R {
        act(&mut self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for chunk in bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = self.open(stream);
            let room = MAX_LINE_BYTES.saturating_sub(open.len());
            open.extend(chunk.iter().take(room));
            if chunk.ends_with(b"\n") {
                self.end_line(stream);
            }
        }
    }

    fn end_line(&mut self, stream: Stream) {
        let line = mem::take(self.open(stream));
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        match stream {
            Stream::Out => self.log_line(Level::INFO, line),
            Stream::Error => {
                self.record_error(line);
                self.log_line(Level::WARN, line);
            }
        }
    }

    fn record_error(&mut self, text: &str) {
        if !self.recent_errors.is_empty() {
            self.recent_errors.push(' ');
        }
        self.recent_errors.push_str(truncate(text, RECENT_ERROR_BYTES));
        let excess = self.recent_errors.len().saturating_sub(RECENT_ERROR_BYTES);
        self.recent_errors.drain(..self.recent_errors.ceil_char_boundary(excess));
    }

    fn open(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Error => &mut self.error,
        }
    }
}

/// Output stream of a guest, to which it writes without waiting.
pub(super) struct GuestStdio {
    pub(super) log: GuestLog,
    pub(super) stream: Stream,
}

impl IsTerminal for GuestStdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStdio {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self { log: self.log.clone(), stream: self.stream })
    }
}

#[async_trait]
impl Pollable for GuestStdio {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestStdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.with(|state| state.write(self.stream, &bytes));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn log() -> GuestLog {
        GuestLog::new(Arc::new(Mutex::new(LogRateLimiter::new(Instant::now()))))
    }

    #[test]
    fn a_flood_of_lines_is_thinned_and_counted() {
        let start = Instant::now();
        let mut rate_limit = LogRateLimiter::new(start);
        let passed = (0..1000).filter(|_| rate_limit.admit(start).is_some()).count();
        assert_eq!(passed, 200);
        assert_eq!(rate_limit.admit(start + Duration::from_secs(1)), Some(800));
        assert_eq!(rate_limit.admit(start + Duration::from_secs(1)), Some(0));
        let sustained = (0..1000).filter(|_| rate_limit.admit(start + Duration::from_secs(2)).is_some()).count();
        assert_eq!(sustained, 98);
    }

    #[test]
    fn the_last_words_of_a_call_are_its_latest_complaints_and_are_forgotten_after() {
        let log = log();
        log.with(|state| {
            state.write(Stream::Out, b"hello\n");
            state.write(Stream::Error, b"panicked at src/lib.rs:7:\nbo");
            state.write(Stream::Error, b"om");
        });
        assert_eq!(log.end_of_call(), "panicked at src/lib.rs:7: boom");
        assert_eq!(log.end_of_call(), "");
        log.with(|state| {
            for _ in 0..1000 {
                state.write(Stream::Error, &[b'x'; 700]);
                state.write(Stream::Error, b"\n");
            }
        });
        log.log(Level::ERROR, "it was the é");
        let words = log.end_of_call();
        assert!(words.len() <= RECENT_ERROR_BYTES && words.ends_with("x it was the é"), "{words}");
    }

    #[test]
    fn an_oversized_message_is_cut_and_the_cut_is_reported() {
        let log = log();
        log.log(Level::INFO, &"x\n".repeat(8 << 20));
        let dropped = log.with(|state| state.rate_limit(|rate_limit| rate_limit.dropped));
        assert!((1..=u64::try_from(MAX_WRITE_BYTES).unwrap()).contains(&dropped), "{dropped} lines were left out");
    }

    #[test]
    fn a_line_without_end_uses_bounded_memory() {
        let log = log();
        log.with(|state| {
            for _ in 0..1000 {
                state.write(Stream::Out, &[b'x'; 6000]);
            }
            assert_eq!(state.out.len(), MAX_LINE_BYTES);
        });
    }

    #[test]
    fn log_sources_of_one_pod_share_one_rate_limit() {
        let rate_limit = Arc::new(Mutex::new(LogRateLimiter::new(Instant::now())));
        for _ in 0..10 {
            let log = GuestLog::new(Arc::clone(&rate_limit));
            (0..100).for_each(|_| log.log(Level::INFO, "once more"));
        }
        let dropped = rate_limit.lock().unwrap().dropped;
        assert!((600..=800).contains(&dropped), "{dropped} of 1000 lines were left out");
    }
}
