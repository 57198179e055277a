//! Output of a sub-process, for the log of the pod.

use ochopod_telemetry as telemetry;
use tokio::{io::AsyncReadExt, net::unix::pipe, task};

/// Maximum length of a line; the rest becomes the next line.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Logs the data of a pipe line by line, at level info with target `subprocess` and the field `pid`. Bytes that are not
/// UTF-8 are replaced. Returns when all writers have closed the pipe; a last line without a newline is logged too.
///
/// The pipe slows down a child that writes faster than lines are read. The log drops and counts lines that it cannot
/// write. Yields to the runtime after each read.
///
/// # Cancellation safety
/// Dropping the future loses the incomplete line and closes the pipe, so the child's next write fails.
pub async fn log_output(pipe: pipe::Receiver, pid: u32) {
    for_each_line(pipe, |line| tracing::info!(target: telemetry::SUB_PROCESS, pid, "{line}")).await;
}

/// Calls `line` for each line of a pipe, split as by [`log_output`].
///
/// # Cancellation safety
/// As [`log_output`].
pub async fn for_each_line(mut pipe: pipe::Receiver, mut line: impl FnMut(&str)) {
    let mut lines = LineSplitter::default();
    let mut chunk = Vec::with_capacity(MAX_LINE_BYTES);
    while let Ok(1..) = pipe.read_buf(&mut chunk).await {
        lines.push(&chunk, &mut line);
        chunk.clear();
        task::yield_now().await;
    }
    lines.finish(line);
}

/// Splits chunks into lines.
#[derive(Debug, Default)]
struct LineSplitter {
    /// Incomplete line, at most of the maximum length.
    partial: Vec<u8>,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend(piece);
            let complete = self.partial.pop_if(|byte| *byte == b'\n').is_some();
            while self.partial.len() > MAX_LINE_BYTES {
                let rest = self.partial.split_off(split_position(&self.partial));
                line(&String::from_utf8_lossy(&self.partial));
                self.partial = rest;
            }
            if complete {
                self.partial.pop_if(|byte| *byte == b'\r');
                line(&String::from_utf8_lossy(&self.partial));
                self.partial.clear();
            }
        }
    }

    fn finish(self, mut line: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            line(&String::from_utf8_lossy(&self.partial));
        }
    }
}

/// Returns the position at which to split a long line: not within a character, if possible.
fn split_position(line: &[u8]) -> usize {
    let starts_character = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
    (MAX_LINE_BYTES - 3..=MAX_LINE_BYTES).rev().find(starts_character).unwrap_or(MAX_LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = LineSplitter::default();
        for chunk in chunks {
            lines.push(chunk, |line| found.push(line.to_owned()));
        }
        lines.finish(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_are_split_independently_of_chunks() {
        for (chunks, expected) in [
            (&[&b"one\ntwo\n"[..]][..], &["one", "two"][..]),
            (&[b"on", b"e\nt", b"wo"], &["one", "two"]),
            (&[b"one\r\n\r\n", b"two\r", b"\n"], &["one", "", "two"]),
            (&[b"\n\n"], &["", ""]),
            (&[b"caf\xc3", b"\xa9\n"], &["caf\u{e9}"]),
            (&[b"\xff\xfe ok\n"], &["\u{fffd}\u{fffd} ok"]),
            (&[b""], &[]),
        ] {
            assert_eq!(lines(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn long_line_is_split_without_loss() {
        let long = "x".repeat(2 * MAX_LINE_BYTES + 5);
        for size in [1000, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES] {
            let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let found = lines(&chunks);
            assert_eq!(
                found.iter().map(String::len).collect::<Vec<_>>(),
                [MAX_LINE_BYTES, MAX_LINE_BYTES, 5],
                "{size}"
            );
        }
        let exact = format!("{}\nnext\n", "x".repeat(MAX_LINE_BYTES));
        assert_eq!(lines(&[exact.as_bytes()]).len(), 2);
    }

    #[test]
    fn long_line_is_not_split_within_a_character() {
        let long = format!("x{}", "\u{1f600}".repeat(MAX_LINE_BYTES / 4));
        let found = lines(&[long.as_bytes()]);
        assert_eq!(found.concat(), long);
        assert_eq!(found.len(), 2);
        let stray = vec![0x80; MAX_LINE_BYTES + 1];
        assert_eq!(lines(&[&stray]).concat().chars().count(), stray.len());
    }

    /// Collects the output of a subscriber.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn each_line_is_logged_with_the_pid_until_the_child_closes_its_output() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _default = tracing::subscriber::set_default(subscriber);
        let (mut child, host) = pipe::pipe().unwrap();
        let says = async move {
            child.write_all(b"ready\nwith").await.unwrap();
            task::yield_now().await;
            child.write_all(b" no end").await.unwrap();
        };
        tokio::join!(log_output(host, 42), says);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, " INFO subprocess: ready pid=42\n INFO subprocess: with no end pid=42\n");
    }

    #[tokio::test]
    async fn continuous_output_yields_to_other_tasks() {
        let (mut child, host) = pipe::pipe().unwrap();
        let flood = async move { while child.write_all(&[b'\n'; 8 * 1024]).await.is_ok() {} };
        let others = async {
            for _ in 0..1000 {
                task::yield_now().await;
            }
        };
        tokio::select! {
            () = for_each_line(host, |_| ()) => panic!("the flood ended"),
            () = flood => panic!("the flood ended"),
            () = others => {}
        }
    }
}
