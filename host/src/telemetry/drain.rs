//! A bounded queue of lines with a thread that writes them, so that nobody else waits for a full pipe or a slow disk.

use std::{
    fmt::{self, Write as _},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Most bytes that wait to be written.
const QUEUED: usize = 1024 * 1024;

/// Where lines are left to be written. Clones share the queue; the thread ends with the last of them.
#[derive(Clone)]
pub struct Drain(Arc<Entrance>);

struct Entrance(Arc<Shared>);

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
    left_out: u64,
    writing: bool,
    closed: bool,
}

impl Drain {
    /// Starts the thread. `write` gets whole lines, one or several at a time, in order.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(name: &str, mut write: impl FnMut(&str) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(lines) = its.take() {
                write(&lines);
            }
        })?;
        Ok(Self(Arc::new(Entrance(shared))))
    }

    /// Leaves a line (with its end) to be written, or counts it as left out when too much waits already.
    pub fn push(&self, line: Arc<str>) {
        let mut queue = self.0.0.lock();
        if queue.bytes + line.len() > QUEUED {
            queue.left_out += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push(line);
        self.0.0.filled.notify_one();
    }

    /// Waits until nothing is left to be written, at most this long.
    pub fn flush(&self, limit: Duration) {
        let queue = self.0.0.lock();
        let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        drop(self.0.0.emptied.wait_timeout_while(queue, limit, busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and takes all of them; none when the entrance is closed and nothing is left.
    fn take(&self) -> Option<String> {
        let mut queue = self.lock();
        queue.writing = false;
        if queue.lines.is_empty() {
            self.emptied.notify_all();
        }
        let idle = |queue: &mut Queue| queue.lines.is_empty() && !queue.closed;
        let mut queue = self.filled.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if queue.lines.is_empty() {
            return None;
        }
        let mut text = String::with_capacity(queue.bytes + 64);
        queue.lines.drain(..).for_each(|line| text.push_str(&line));
        if queue.left_out > 0 {
            _ = writeln!(text, "{} lines were left out here: writing the log was too slow", queue.left_out);
        }
        (queue.bytes, queue.left_out, queue.writing) = (0, 0, true);
        Some(text)
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn lines_come_out_whole_and_in_order_and_flush_waits_for_them() {
        let written = Arc::new(Mutex::new(String::new()));
        let its = written.clone();
        let drain = Drain::start("test", move |lines| its.lock().unwrap().push_str(lines)).unwrap();
        let expected: String = (0..1000).fold(String::new(), |text, n| text + &format!("line {n}\n"));
        expected.split_inclusive('\n').for_each(|line| drain.push(Arc::from(line)));
        drain.flush(Duration::from_secs(10));
        assert_eq!(*written.lock().unwrap(), expected);
    }

    #[test]
    fn a_stuck_destination_holds_nobody_up_and_what_was_left_out_is_told() {
        let (enter, entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let written = Arc::new(Mutex::new(String::new()));
        let its = written.clone();
        let drain = Drain::start("test", move |lines| {
            enter.send(()).unwrap();
            released.recv().unwrap();
            its.lock().unwrap().push_str(lines);
        });
        let drain = drain.unwrap();
        drain.push(Arc::from("first\n"));
        entered.recv().unwrap();
        let big: Arc<str> = format!("{}\n", "x".repeat(QUEUED / 4)).into();
        (0..10).for_each(|_| drain.push(big.clone()));
        drain.flush(Duration::from_millis(1));
        (0..2).for_each(|_| release.send(()).unwrap());
        drain.flush(Duration::from_secs(10));
        let written = written.lock().unwrap();
        assert_eq!(written.lines().filter(|line| line.starts_with('x')).count(), 3);
        assert!(written.ends_with("7 lines were left out here: writing the log was too slow\n"));
    }
}
