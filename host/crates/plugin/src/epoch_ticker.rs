//! Clock that interrupts computing guests. It pauses while no call takes long.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Interval at which a computing guest yields, and ends if its call was cancelled.
pub(super) const TICK_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Default)]
struct TickerState {
    calls: usize,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    running: Mutex<TickerState>,
    changed: Condvar,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut TickerState)) {
        change(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Thread that ticks while any call has started its clock.
pub(super) struct EpochTicker {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl EpochTicker {
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("guest-ticker".to_owned()).spawn(move || run(&its, &tick))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Returns the clock of one call. It does not tick yet.
    pub(super) fn call(&self) -> CallClock {
        CallClock { shared: Arc::clone(&self.shared), ticks: AtomicBool::new(false) }
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.shared.update(|running| running.stopped = true);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Clock of one guest call. Most calls end before it has to tick, so they wake no thread for it.
pub(super) struct CallClock {
    shared: Arc<Shared>,
    ticks: AtomicBool,
}

impl CallClock {
    /// Ticks from now on, until the clock is dropped.
    pub(super) fn start(&self) {
        if self.ticks.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.update(|running| {
            running.calls += 1;
            if running.calls == 1 {
                self.shared.changed.notify_one();
            }
        });
    }
}

impl Drop for CallClock {
    fn drop(&mut self) {
        if *self.ticks.get_mut() {
            self.shared.update(|running| running.calls -= 1);
        }
    }
}

fn run(shared: &Shared, tick: &impl Fn()) {
    let mut running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
    while !running.stopped {
        running = if running.calls == 0 {
            shared.changed.wait(running).unwrap_or_else(PoisonError::into_inner)
        } else {
            let waited = shared.changed.wait_timeout(running, TICK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
            tick();
            waited
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, sync::mpsc};

    use super::*;

    #[test]
    fn clock_ticks_only_while_a_started_call_is_in_flight() {
        let (send, ticks) = mpsc::channel();
        let ticker = EpochTicker::start(move || _ = send.send(())).unwrap();
        assert!(ticks.recv_timeout(Duration::from_millis(50)).is_err());
        let call = ticker.call();
        assert!(ticks.recv_timeout(Duration::from_millis(50)).is_err());
        call.start();
        call.start();
        for _ in 0..3 {
            ticks.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        drop(call);
        _ = ticks.try_iter().count();
        // The tick that was due next may still arrive.
        let late = iter::from_fn(|| ticks.recv_timeout(Duration::from_millis(200)).ok()).take(10).count();
        assert!(late <= 1, "{late} ticks without a call");
        drop(ticker);
        assert_eq!(ticks.recv(), Err(mpsc::RecvError));
    }
}
