//! Decides whether a response of Consul can be trusted once its index went back: pure.

use std::time::{Duration, Instant};

/// Time for which a service may seem to have no instances after the index went back: agents report theirs to the
/// servers again within a minute.
const SETTLING_TIMEOUT: Duration = Duration::from_mins(1);

/// Responses for one service so far.
#[derive(Debug, Default)]
pub(super) struct History {
    index: u64,
    /// Whether the last trusted response had instances.
    has_instances: bool,
    /// Time at which the index went back, until there were instances again.
    went_back: Option<Instant>,
}

impl History {
    /// Records a response. Returns whether it can be trusted: with instances it always can, and without them unless
    /// they vanished together with the index, as they do when servers lose or restore their state.
    pub(super) fn accept(&mut self, index: u64, is_empty: bool, now: Instant) -> bool {
        if index < self.index {
            self.went_back = Some(now);
        }
        self.index = index;
        let is_settling = self.went_back.is_some_and(|since| now < since + SETTLING_TIMEOUT);
        if is_empty && self.has_instances && is_settling {
            return false;
        }
        self.has_instances = !is_empty;
        self.went_back = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_vanish_with_the_index_are_missed_for_one_minute_only() {
        // Index, whether the answer is empty, seconds since the beginning; whether it is believed.
        for (answers, what) in [
            (&[(1, true, 0, true), (1, true, 1, true)][..], "never any"),
            (&[(9, false, 0, true), (10, true, 1, true)], "the index increased"),
            (&[(9, false, 0, true), (3, true, 1, false), (3, true, 60, false), (3, true, 61, true)], "lost"),
            (&[(9, false, 0, true), (3, true, 1, false), (4, true, 2, false), (5, false, 3, true)], "came back"),
            (&[(9, false, 0, true), (3, true, 1, false), (5, false, 3, true), (6, true, 4, true)], "and went"),
            (&[(9, false, 0, true), (3, false, 1, true), (4, true, 2, true)], "still there"),
            (&[(9, false, 0, true), (5, true, 1, false), (3, true, 59, false), (3, true, 100, false)], "lost twice"),
            (&[(9, true, 0, true), (3, true, 1, true)], "lost while there were none"),
        ] {
            let (begin, mut history) = (Instant::now(), History::default());
            for &(index, is_empty, after, believed) in answers {
                let now = begin + Duration::from_secs(after);
                assert_eq!(history.accept(index, is_empty, now), believed, "{what}: {index} {is_empty} {after}");
            }
        }
    }
}
