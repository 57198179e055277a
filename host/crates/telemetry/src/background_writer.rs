//! A bounded queue of lines and a thread that writes them, so that logging never waits for a full pipe or a slow disk.

use std::{
    fmt::{self, Write as _},
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Maximum size of the queue, in bytes.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// Handle of a writer thread. Clones share the queue; the thread exits after the last of them is dropped.
#[derive(Clone)]
pub struct BackgroundWriter(Arc<WriterGuard>);

struct WriterGuard(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: Vec<Arc<str>>,
    bytes: usize,
    dropped: u64,
    writing: bool,
    /// Whether the writer waits for lines.
    idle: bool,
    /// Number of threads that wait until all lines are written.
    flushing: usize,
    closed: bool,
}

impl BackgroundWriter {
    /// Starts the thread. `write` receives whole lines, one or more per call, in order.
    ///
    /// # Errors
    /// The system cannot start the thread.
    pub fn start(name: &str, mut write: impl FnMut(&str) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = shared.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(lines) = queue.take() {
                write(&lines);
            }
        })?;
        Ok(Self(Arc::new(WriterGuard(shared))))
    }

    /// Queues a line (with its end), or counts it as dropped if the queue is full.
    pub fn push(&self, line: Arc<str>) {
        let mut queue = self.0.0.lock();
        if queue.bytes + line.len() > MAX_QUEUED_BYTES {
            queue.dropped += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push(line);
        let was_idle = mem::take(&mut queue.idle);
        drop(queue);
        if was_idle {
            self.0.0.filled.notify_one();
        }
    }

    /// Waits until the queue is written, at most this long. Returns whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let mut queue = self.0.0.lock();
        queue.flushing += 1;
        let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        let waited = self.0.0.emptied.wait_timeout_while(queue, limit, busy);
        let (mut queue, result) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.flushing -= 1;
        !result.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and removes all of them; `None` after the last handle was dropped and the queue is empty.
    fn take(&self) -> Option<String> {
        let mut queue = self.lock();
        queue.writing = false;
        if queue.lines.is_empty() && queue.flushing > 0 {
            self.emptied.notify_all();
        }
        let wait = |queue: &mut Queue| {
            queue.idle = queue.lines.is_empty() && !queue.closed;
            queue.idle
        };
        let mut queue = self.filled.wait_while(queue, wait).unwrap_or_else(PoisonError::into_inner);
        if queue.lines.is_empty() {
            return None;
        }
        let mut text = String::with_capacity(queue.bytes + 64);
        queue.lines.drain(..).for_each(|line| text.push_str(&line));
        if queue.dropped > 0 {
            _ = writeln!(text, "{} log lines dropped: output too slow", queue.dropped);
        }
        (queue.bytes, queue.dropped, queue.writing) = (0, 0, true);
        Some(text)
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl fmt::Debug for BackgroundWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundWriter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn lines_are_written_whole_and_in_order_and_flush_waits_for_them() {
        let written = Arc::new(Mutex::new(String::new()));
        let output = written.clone();
        let writer = BackgroundWriter::start("test", move |lines| output.lock().unwrap().push_str(lines)).unwrap();
        let expected: String = (0..1000).fold(String::new(), |text, n| text + &format!("line {n}\n"));
        expected.split_inclusive('\n').for_each(|line| writer.push(Arc::from(line)));
        assert!(writer.flush(Duration::from_secs(10)));
        assert_eq!(*written.lock().unwrap(), expected);
    }

    #[test]
    fn blocked_output_delays_no_caller_and_dropped_lines_are_counted() {
        let (enter, entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(String::new()));
        let output = written.clone();
        let writer = BackgroundWriter::start("test", move |lines| {
            enter.send(()).unwrap();
            released.recv().unwrap();
            output.lock().unwrap().push_str(lines);
        });
        let writer = writer.unwrap();
        writer.push(Arc::from("first\n"));
        entered.recv().unwrap();
        let big: Arc<str> = format!("{}\n", "x".repeat(MAX_QUEUED_BYTES / 4)).into();
        (0..10).for_each(|_| writer.push(big.clone()));
        assert!(!writer.flush(Duration::from_millis(1)));
        (0..2).for_each(|_| release.send(()).unwrap());
        writer.flush(Duration::from_secs(10));
        let written = written.lock().unwrap();
        assert_eq!(written.lines().filter(|line| line.starts_with('x')).count(), 3);
        assert!(written.ends_with("7 log lines dropped: output too slow\n"));
    }
}
