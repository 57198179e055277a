//! What a guest says: its log import, standard output and standard error, as lines of the host's log.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::cut;
use crate::telemetry;

/// A line is cut here.
const LINE: usize = 8 << 10;
/// Lines at once before a flood is thinned.
const BURST: f64 = 200.0;
/// Lines per second that pass for ever.
const RATE: f64 = 50.0;
/// How much of what a call complained of last explains its trap.
const LAST_WORDS: usize = 1 << 10;
/// Bytes that a guest may write in one go; what is beyond in a message is left out.
const PERMIT: usize = 64 << 10;

/// Lets some lines pass and counts the others.
#[derive(Debug)]
pub(super) struct Flood {
    allowance: f64,
    counted: Instant,
    left_out: u64,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        Self { allowance: BURST, counted: now, left_out: 0 }
    }

    /// Whether a line passes and, if so, how many before it did not.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.allowance = (self.allowance + passed * RATE).min(BURST);
        self.counted = now;
        if self.allowance < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.allowance -= 1.0;
        Some(mem::take(&mut self.left_out))
    }
}

/// Which of a guest's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Error,
}

#[derive(Debug)]
struct State {
    flood: Arc<Mutex<Flood>>,
    out: Vec<u8>,
    error: Vec<u8>,
    last_words: String,
}

/// The voice of one instance.
#[derive(Debug, Clone)]
pub(super) struct Voice(Arc<Mutex<State>>);

impl Voice {
    /// A voice that shares its allowance with all who have the same one.
    pub(super) fn new(flood: Arc<Mutex<Flood>>) -> Self {
        let state = State { flood, out: Vec::new(), error: Vec::new(), last_words: String::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Logs a message, line by line. Takes a bounded time, however long the message is: no guest runs meanwhile.
    pub(super) fn say(&self, level: Level, message: &str) {
        let told = cut(message, PERMIT);
        self.with(|state| {
            if level == Level::ERROR {
                state.complain(told);
            }
            told.lines().for_each(|line| state.line(level, line));
            if told.len() < message.len() {
                state.flood(|flood| flood.left_out += 1);
            }
        });
    }

    /// Ends the lines that a call left open, tells how many were left out, and returns what it complained of last: its
    /// standard error and its errors in the log.
    pub(super) fn end_of_call(&self) -> String {
        self.with(|state| {
            for stream in [Stream::Out, Stream::Error] {
                state.end_line(stream);
            }
            let left_out = state.flood(|flood| mem::take(&mut flood.left_out));
            if left_out > 0 {
                tracing::warn!(target: telemetry::PLUGIN, "{left_out} lines of the plugin's were left out");
            }
            mem::take(&mut state.last_words)
        })
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn line(&mut self, level: Level, line: &str) {
        let Some(left_out) = self.flood(|flood| flood.admit(Instant::now())) else { return };
        if left_out > 0 {
            tracing::warn!(target: telemetry::PLUGIN, "{left_out} lines of the plugin's were left out");
        }
        let line: String = cut(line.trim_end(), LINE).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match level {
            Level::ERROR => tracing::error!(target: telemetry::PLUGIN, "{line}"),
            Level::WARN => tracing::warn!(target: telemetry::PLUGIN, "{line}"),
            Level::INFO => tracing::info!(target: telemetry::PLUGIN, "{line}"),
            _ => tracing::debug!(target: telemetry::PLUGIN, "{line}"),
        }
    }

    fn flood<R>(&self, act: impl FnOnce(&mut Flood) -> R) -> R {
        act(&mut self.flood.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for chunk in bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = self.open(stream);
            let room = LINE.saturating_sub(open.len());
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
            Stream::Out => self.line(Level::INFO, line),
            Stream::Error => {
                self.complain(line);
                self.line(Level::WARN, line);
            }
        }
    }

    fn complain(&mut self, text: &str) {
        if !self.last_words.is_empty() {
            self.last_words.push(' ');
        }
        self.last_words.push_str(cut(text, LAST_WORDS));
        let excess = self.last_words.len().saturating_sub(LAST_WORDS);
        self.last_words.drain(..self.last_words.ceil_char_boundary(excess));
    }

    fn open(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Error => &mut self.error,
        }
    }
}

/// One stream of a guest's. Writing to it never waits.
pub(super) struct Console {
    pub(super) voice: Voice,
    pub(super) stream: Stream,
}

impl IsTerminal for Console {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Console {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self { voice: self.voice.clone(), stream: self.stream })
    }
}

#[async_trait]
impl Pollable for Console {
    async fn ready(&mut self) {}
}

impl OutputStream for Console {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.voice.with(|state| state.write(self.stream, &bytes));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn voice() -> Voice {
        Voice::new(Arc::new(Mutex::new(Flood::new(Instant::now()))))
    }

    #[test]
    fn a_flood_of_lines_is_thinned_and_counted() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        let passed = (0..1000).filter(|_| flood.admit(start).is_some()).count();
        assert_eq!(passed, 200);
        assert_eq!(flood.admit(start + Duration::from_secs(1)), Some(800));
        assert_eq!(flood.admit(start + Duration::from_secs(1)), Some(0));
        let sustained = (0..1000).filter(|_| flood.admit(start + Duration::from_secs(2)).is_some()).count();
        assert_eq!(sustained, 98);
    }

    #[test]
    fn the_last_words_of_a_call_are_its_latest_complaints_and_are_forgotten_after() {
        let voice = voice();
        voice.with(|state| {
            state.write(Stream::Out, b"hello\n");
            state.write(Stream::Error, b"panicked at src/lib.rs:7:\nbo");
            state.write(Stream::Error, b"om");
        });
        assert_eq!(voice.end_of_call(), "panicked at src/lib.rs:7: boom");
        assert_eq!(voice.end_of_call(), "");
        voice.with(|state| {
            for _ in 0..1000 {
                state.write(Stream::Error, &[b'x'; 700]);
                state.write(Stream::Error, b"\n");
            }
        });
        voice.say(Level::ERROR, "it was the é");
        let words = voice.end_of_call();
        assert!(words.len() <= LAST_WORDS && words.ends_with("x it was the é"), "{words}");
    }

    #[test]
    fn a_message_without_measure_is_cut_and_that_is_told() {
        let voice = voice();
        voice.say(Level::INFO, &"x\n".repeat(8 << 20));
        let left_out = voice.with(|state| state.flood(|flood| flood.left_out));
        assert!((1..=u64::try_from(PERMIT).unwrap()).contains(&left_out), "{left_out} lines were left out");
    }

    #[test]
    fn a_line_without_end_takes_a_bounded_place() {
        let voice = voice();
        voice.with(|state| {
            for _ in 0..1000 {
                state.write(Stream::Out, &[b'x'; 6000]);
            }
            assert_eq!(state.out.len(), LINE);
        });
    }

    #[test]
    fn the_voices_of_one_pod_share_what_they_may_say() {
        let flood = Arc::new(Mutex::new(Flood::new(Instant::now())));
        for _ in 0..10 {
            let voice = Voice::new(Arc::clone(&flood));
            (0..100).for_each(|_| voice.say(Level::INFO, "once more"));
        }
        let left_out = flood.lock().unwrap().left_out;
        assert!((600..=800).contains(&left_out), "{left_out} of 1000 lines were left out");
    }
}
