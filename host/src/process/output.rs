//! What a sub-process writes, for the log of the pod.

use tokio::{io::AsyncReadExt, net::unix::pipe, task};

use crate::telemetry;

/// Length at which a line is cut, in bytes; the rest of it goes on as the next line.
const LONGEST_LINE: usize = 8 * 1024;

/// Logs what comes through this pipe, line by line, at level info with target `subprocess` and the field `pid`. Bytes
/// that are not UTF-8 are replaced. Ends when all writers are gone, the last line being logged without its newline too.
///
/// A child that writes faster than lines are read is slowed by the pipe; lines that the log cannot write as fast are
/// dropped there, and counted. The runtime gets its turn after each read.
///
/// # Cancellation safety
/// Dropping the future loses the line that is not complete yet, and closes the pipe: the child's next write fails.
pub async fn log_output(pipe: pipe::Receiver, pid: u32) {
    each_line(pipe, |line| tracing::info!(target: telemetry::SUB_PROCESS, pid, "{line}")).await;
}

/// Calls `line` with what comes through this pipe, line by line, as [`log_output`] logs it.
///
/// # Cancellation safety
/// As [`log_output`].
pub async fn each_line(mut pipe: pipe::Receiver, mut line: impl FnMut(&str)) {
    let mut lines = Lines::default();
    let mut chunk = Vec::with_capacity(LONGEST_LINE);
    while let Ok(1..) = pipe.read_buf(&mut chunk).await {
        lines.take(&chunk, &mut line);
        chunk.clear();
        task::yield_now().await;
    }
    lines.finish(line);
}

/// Makes lines of chunks.
#[derive(Debug, Default)]
struct Lines {
    /// The line that is not complete yet, not above the longest.
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend(piece);
            let complete = self.begun.pop_if(|byte| *byte == b'\n').is_some();
            while self.begun.len() > LONGEST_LINE {
                let rest = self.begun.split_off(cut(&self.begun));
                line(&String::from_utf8_lossy(&self.begun));
                self.begun = rest;
            }
            if complete {
                self.begun.pop_if(|byte| *byte == b'\r');
                line(&String::from_utf8_lossy(&self.begun));
                self.begun.clear();
            }
        }
    }

    fn finish(self, mut line: impl FnMut(&str)) {
        if !self.begun.is_empty() {
            line(&String::from_utf8_lossy(&self.begun));
        }
    }
}

/// Where to cut a line that is too long: not within a character, if it has any.
fn cut(line: &[u8]) -> usize {
    let starts_character = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
    (LONGEST_LINE - 3..=LONGEST_LINE).rev().find(starts_character).unwrap_or(LONGEST_LINE)
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
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.take(chunk, |line| found.push(line.to_owned()));
        }
        lines.finish(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_are_found_however_they_arrive() {
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
    fn a_long_line_is_cut_and_nothing_of_it_is_lost() {
        let long = "x".repeat(2 * LONGEST_LINE + 5);
        for size in [1000, LONGEST_LINE, 3 * LONGEST_LINE] {
            let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let found = lines(&chunks);
            assert_eq!(found.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE, LONGEST_LINE, 5], "{size}");
        }
        let exact = format!("{}\nnext\n", "x".repeat(LONGEST_LINE));
        assert_eq!(lines(&[exact.as_bytes()]).len(), 2);
    }

    #[test]
    fn a_long_line_is_not_cut_within_a_character() {
        let long = format!("x{}", "\u{1f600}".repeat(LONGEST_LINE / 4));
        let found = lines(&[long.as_bytes()]);
        assert_eq!(found.concat(), long);
        assert_eq!(found.len(), 2);
        let stray = vec![0x80; LONGEST_LINE + 1];
        assert_eq!(lines(&[&stray]).concat().chars().count(), stray.len());
    }

    /// Collects what a subscriber writes.
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
    async fn a_flood_leaves_its_turn_to_others() {
        let (mut child, host) = pipe::pipe().unwrap();
        let flood = async move { while child.write_all(&[b'\n'; 8 * 1024]).await.is_ok() {} };
        let others = async {
            for _ in 0..1000 {
                task::yield_now().await;
            }
        };
        tokio::select! {
            () = each_line(host, |_| ()) => panic!("the flood ended"),
            () = flood => panic!("the flood ended"),
            () = others => {}
        }
    }
}
