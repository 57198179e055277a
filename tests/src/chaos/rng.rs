//! Numbers that are the same in every run of a seed.

use std::time::Duration;

/// A generator of numbers.
#[derive(Debug)]
pub(super) struct SeededRng(u64);

impl SeededRng {
    pub(super) fn new(seed: u64) -> Self {
        // Similar seeds result in different sequences.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Returns a number below `sides`; 0 if `sides` is 0.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides.max(1)
    }

    /// Returns one of these.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.roll(from.len())).copied()
    }

    /// Returns a duration from `least` to `most`, in whole milliseconds.
    pub(super) fn time(&mut self, least: Duration, most: Duration) -> Duration {
        let range = usize::try_from(most.saturating_sub(least).as_millis()).unwrap_or_default();
        least + Duration::from_millis(self.roll(range + 1) as u64)
    }
}
