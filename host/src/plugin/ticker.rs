//! The clock that interrupts computing guests. It stands still while no guest runs.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// How often a computing guest yields, and ends when it was given up.
const TICK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Running {
    calls: usize,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    running: Mutex<Running>,
    changed: Condvar,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Running)) {
        change(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A thread that ticks while any [`Call`] lives.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("guest-ticker".to_owned()).spawn(move || run(&its, &tick))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks until the result is dropped.
    pub(super) fn call(&self) -> Call {
        self.shared.update(|running| {
            running.calls += 1;
            if running.calls == 1 {
                self.shared.changed.notify_one();
            }
        });
        Call(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.update(|running| running.stopped = true);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// A guest call in flight.
pub(super) struct Call(Arc<Shared>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.update(|running| running.calls -= 1);
    }
}

fn run(shared: &Shared, tick: &impl Fn()) {
    let mut running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
    while !running.stopped {
        running = if running.calls == 0 {
            shared.changed.wait(running).unwrap_or_else(PoisonError::into_inner)
        } else {
            let waited = shared.changed.wait_timeout(running, TICK).unwrap_or_else(PoisonError::into_inner).0;
            tick();
            waited
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_clock_ticks_only_while_a_call_is_in_flight() {
        let (send, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || _ = send.send(())).unwrap();
        assert!(ticks.recv_timeout(Duration::from_millis(50)).is_err());
        let call = ticker.call();
        for _ in 0..3 {
            ticks.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        drop(call);
        while ticks.recv_timeout(Duration::from_millis(100)).is_ok() {}
        assert!(ticks.recv_timeout(Duration::from_millis(100)).is_err());
        drop(ticker);
        assert_eq!(ticks.recv(), Err(mpsc::RecvError));
    }
}
