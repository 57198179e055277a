//! How bad things are: chances that the seed has chosen, none once the faults stop.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::lock;

/// Chances of what may go wrong, each from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chances {
    /// A message, or the answer to it, is lost.
    pub(super) lost: f64,
    /// A message takes long, so that later ones overtake it.
    pub(super) slow: f64,
    /// A request comes a second time.
    pub(super) twice: f64,
    /// A callback refuses.
    pub(super) refused: f64,
    /// A callback does not return in time.
    pub(super) stuck: f64,
    /// A program cannot be started, or does not end when it is asked to.
    pub(super) stubborn: f64,
}

/// The chances of now, shared by everything that may go wrong. All chance is the thread's own generator, which the seed
/// determines: what production code draws from it (the jitter of back-offs) belongs to the seed as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Weather(Arc<Mutex<Chances>>);

impl Weather {
    pub(super) fn new(chances: Chances) -> Self {
        Self(Arc::new(Mutex::new(chances)))
    }

    /// Nothing goes wrong any more.
    pub(super) fn clear(&self) {
        *lock(&self.0) = Chances::default();
    }

    /// Whether it happens this time.
    pub(super) fn strikes(&self, what: impl Fn(&Chances) -> f64) -> bool {
        let chance = what(&lock(&self.0));
        chance > 0.0 && fastrand::f64() < chance
    }

    /// How long a message is on its way.
    pub(super) fn latency(&self) -> Duration {
        if self.strikes(|chances| chances.slow) { millis(20..1500) } else { millis(1..4) }
    }
}

/// Some time in this range of milliseconds.
pub(super) fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}
