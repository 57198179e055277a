//! Bursts: many pods that join or leave together are gathered into one configuration.

use std::time::{Duration, Instant};

use ochopod_store::Observation;

/// Maximum number of changes, each within [`QUIET_INTERVAL`] of the one before, that do not extend the damper.
const MAX_SINGLE_CHANGES: usize = 2;
/// Time without a change that ends a burst.
const QUIET_INTERVAL: Duration = Duration::from_millis(250);
/// Longest time for which a burst delays a configuration, unless the damper is longer.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Recent changes of the cluster.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// Pods that joined or left, each within [`QUIET_INTERVAL`] after the one before.
    changes: usize,
    last: Option<Instant>,
    /// Whether more has changed, which is being read.
    is_reading: bool,
}

impl Burst {
    /// Records what changed between two observations.
    pub(super) fn record(&mut self, before: &Observation, after: &Observation, now: Instant) {
        let joined = after.pods.keys().filter(|id| !before.pods.contains_key(*id)).count();
        let left = before.pods.keys().filter(|id| !after.pods.contains_key(*id)).count();
        // The pods of a dependency arrive with one configuration of their cluster.
        let dependencies =
            after.dependencies.iter().filter(|(name, pods)| before.dependencies.get(*name) != Some(pods));
        let changes = joined + left + dependencies.count();
        if changes == 0 {
            return;
        }
        if self.last.is_none_or(|last| last + QUIET_INTERVAL <= now) {
            self.changes = 0;
        }
        self.changes += changes;
        self.last = Some(now);
    }

    /// Records whether the cluster may have changed since it was observed last.
    pub(super) fn set_reading(&mut self, is_reading: bool) {
        self.is_reading = is_reading;
    }

    /// Returns when a configuration starts that is due after `delay`, counted from the first change it gathers. If many pods
    /// start on a busy machine, reading takes longer than the time that ends a burst: what is being read belongs to it.
    pub(super) fn due(&self, since: Instant, delay: Duration) -> Instant {
        match self.last {
            Some(_) if self.changes > MAX_SINGLE_CHANGES && self.is_reading => since + delay.max(MAX_DELAY),
            Some(last) if self.changes > MAX_SINGLE_CHANGES => {
                (last + QUIET_INTERVAL).clamp(since + delay, since + delay.max(MAX_DELAY))
            }
            _ => since + delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use ochopod_model::{PodId, Registration};

    use super::*;

    fn pods(count: usize) -> Observation {
        let registration = Arc::new(Registration::parse(br#"{"seq": 0}"#).unwrap());
        let pods = (0..count).map(|id| (PodId::from(&*id.to_string()), registration.clone())).collect();
        Observation { pods, ..Observation::default() }
    }

    /// Returns the delay after changes to these numbers of pods at these times, in milliseconds.
    fn delay(changes: &[(u64, usize)], damper: Duration) -> Duration {
        let (mut burst, mut before, start) = (Burst::default(), pods(1), Instant::now());
        for (time, count) in changes {
            let after = pods(*count);
            burst.record(&before, &after, start + Duration::from_millis(*time));
            before = after;
        }
        burst.due(start, damper) - start
    }

    #[test]
    fn only_more_than_two_changes_close_to_each_other_extend_the_damper() {
        let damper = Duration::from_millis(10);
        let extended = |changes: &[(u64, usize)]| delay(changes, damper).checked_sub(damper).unwrap();
        assert_eq!(extended(&[(0, 2)]), Duration::ZERO);
        assert_eq!(extended(&[(0, 2), (9, 3)]), Duration::ZERO);
        assert_eq!(extended(&[(0, 2), (9, 2)]), Duration::ZERO, "nothing changed");
        assert_eq!(extended(&[(0, 2), (5, 3), (9, 4)]), Duration::from_millis(249));
        assert_eq!(extended(&[(0, 4), (5, 1)]), Duration::from_millis(245), "pods that leave count too");
        assert_eq!(
            extended(&[(0, 3), (250, 4), (500, 5)]),
            Duration::ZERO,
            "each burst is over before the next change"
        );
        assert_eq!(delay(&[(0, 9)], Duration::from_secs(5)), Duration::from_secs(5), "the damper is longer");
    }

    #[test]
    fn burst_lasts_while_changes_are_read_but_not_longer_than_any_burst() {
        let (mut burst, start) = (Burst::default(), Instant::now());
        burst.set_reading(true);
        burst.record(&pods(1), &pods(3), start);
        assert_eq!(burst.due(start, Duration::ZERO), start, "two changes are not a burst");
        burst.record(&pods(3), &pods(4), start);
        assert_eq!(burst.due(start, Duration::ZERO), start + MAX_DELAY);
        burst.set_reading(false);
        assert_eq!(burst.due(start, Duration::ZERO), start + QUIET_INTERVAL);
    }

    #[test]
    fn configuration_of_a_dependency_is_one_change() {
        let of = |count: usize| {
            let snapshot = pods(count).pods;
            let observed = ochopod_store::ObservedDependency { snapshot, ..Default::default() };
            Observation { dependencies: BTreeMap::from([("db".to_owned(), observed)]), ..pods(1) }
        };
        let (mut burst, now) = (Burst::default(), Instant::now());
        burst.record(&of(0), &of(100), now);
        burst.record(&of(100), &of(101), now);
        assert_eq!(burst.due(now, Duration::ZERO), now);
        burst.record(&of(101), &of(102), now);
        assert_eq!(burst.due(now, Duration::ZERO), now + QUIET_INTERVAL);
    }
}
