//! Rates of random faults: chosen by the seed, zero after the faults stop.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::lock;

/// Probabilities of faults, each from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FaultRates {
    /// A message or its reply is lost.
    pub(super) lost: f64,
    /// A message is slow, so that later ones overtake it.
    pub(super) slow: f64,
    /// A request is delivered twice.
    pub(super) twice: f64,
    /// A callback fails.
    pub(super) refused: f64,
    /// A process is not ready when it is checked.
    pub(super) unready: f64,
    /// A callback exceeds its deadline.
    pub(super) stuck: f64,
    /// A program cannot be started, or ignores SIGTERM.
    pub(super) stubborn: f64,
}

/// The current rates, shared by everything that may fail.
///
/// All random numbers come from the thread's generator, which the seed initializes. Production code uses it as well, for the
/// jitter of its retries.
#[derive(Debug, Clone, Default)]
pub(super) struct FaultSwitch(Arc<Mutex<FaultRates>>);

impl FaultSwitch {
    pub(super) fn new(rates: FaultRates) -> Self {
        Self(Arc::new(Mutex::new(rates)))
    }

    /// Disables all random faults.
    pub(super) fn disable(&self) {
        *lock(&self.0) = FaultRates::default();
    }

    /// Returns whether a fault of this rate occurs now.
    pub(super) fn occurs(&self, rate: impl Fn(&FaultRates) -> f64) -> bool {
        let rate = rate(&lock(&self.0));
        rate > 0.0 && fastrand::f64() < rate
    }

    /// Returns the time that a message takes.
    pub(super) fn latency(&self) -> Duration {
        if self.occurs(|rates| rates.slow) { millis(20..1500) } else { millis(1..4) }
    }
}

/// Returns a random time in this range of milliseconds.
pub(super) fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}
