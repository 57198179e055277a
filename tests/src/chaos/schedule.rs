//! What happens when: pure, and the same for the same seed.

use std::time::Duration;

use super::{
    act::{Act, Way},
    dice::Dice,
};

/// Which faults a round has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Those of ZooKeeper's servers.
    Servers,
    /// Those of the ways between pods and ZooKeeper, and between leaders and pods.
    Network,
    /// All.
    Everything,
}

/// One act, and when it is done: from the beginning of its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) act: Act,
}

/// Pauses between faults.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1800));
/// Faults that pods with a session of seconds hardly notice.
const SHORT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1200));
/// Clusters are not made smaller than this.
const SMALLEST: usize = 4;
const SERVERS: usize = 3;

/// Nothing in a `configure` or `initialize`: whoever fails there is dead by contract, and there to stay.
const MISBEHAVIOURS: [(&str, &str); 6] = [
    ("can-configure", "reject:not now"),
    ("can-configure", "trap"),
    ("configured", "trap"),
    ("sanity-check", "reject:unwell"),
    ("sanity-check", "spin"),
    ("tear-down", "trap"),
];

/// Draws one round after the other.
#[derive(Debug)]
pub(super) struct Scheduler {
    dice: Dice,
    /// The cluster of each slot, and whether a pod is in it between rounds.
    slots: Vec<(&'static str, bool)>,
    session: Duration,
}

impl Scheduler {
    pub(super) fn new(seed: u64, slots: Vec<(&'static str, bool)>, session: Duration) -> Self {
        Self { dice: Dice::new(seed), slots, session }
    }

    /// The steps of a round in their order. Whatever they break they also mend; the last of them may come a while after
    /// `length`.
    pub(super) fn round(&mut self, weather: Weather, length: Duration) -> Vec<Step> {
        let mut round =
            Round { busy: vec![Duration::ZERO; self.slots.len()], servers_busy: Duration::ZERO, steps: Vec::new() };
        let mut at = Duration::ZERO;
        while at < length {
            match (weather, self.dice.roll(10)) {
                (Weather::Servers, _) | (Weather::Everything, 0..2) => self.break_servers(at, &mut round),
                (Weather::Network, _) | (Weather::Everything, 2..4) => self.break_a_way(at, &mut round),
                (Weather::Everything, _) => self.break_a_pod(at, &mut round),
            }
            at += self.dice.time(PAUSES.0, PAUSES.1);
        }
        round.steps.sort_by_key(|step| step.at);
        round.steps
    }

    /// Shorter than a session, or longer.
    fn while_(&mut self) -> Duration {
        if self.dice.roll(3) == 0 {
            self.dice.time(self.session * 3 / 2, self.session * 5 / 2)
        } else {
            self.dice.time(SHORT.0, SHORT.1)
        }
    }

    fn break_servers(&mut self, at: Duration, round: &mut Round) {
        if round.servers_busy > at {
            return;
        }
        let until = at + self.while_();
        let (one, fault) = (self.dice.roll(SERVERS), self.dice.roll(5));
        let other = (one + 1 + self.dice.roll(SERVERS - 1)) % SERVERS;
        let acts: &[(Act, Act)] = match fault {
            0 | 1 => &[(Act::StopServer(one), Act::StartServer(one))],
            2 => &[(Act::FreezeServer(one), Act::ThawServer(one))],
            3 => &[(Act::StopServer(one), Act::StartServer(one)), (Act::StopServer(other), Act::StartServer(other))],
            _ => &[(Act::FreezeServer(one), Act::ThawServer(one)), (Act::StopServer(other), Act::StartServer(other))],
        };
        for (breaks, mends) in acts {
            round.does(at, *breaks);
            round.does(until, *mends);
        }
        // A quorum takes a moment to form: the next outage should be one of its own.
        round.servers_busy = until + self.dice.time(Duration::from_millis(500), self.session);
    }

    fn break_a_way(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let way = if self.dice.roll(2) == 0 { Way::ToStore } else { Way::FromLeader };
        match self.dice.roll(3) {
            0 => round.does(at, Act::Cut(way, slot)),
            fault => {
                let until = at + self.while_();
                round.does(at, if fault == 1 { Act::Refuse(way, slot) } else { Act::Swallow(way, slot) });
                round.does(until, Act::Heal(way, slot));
                round.busy[slot] = until;
            }
        }
    }

    fn break_a_pod(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let until = at + self.while_();
        let (breaks, mends) = match self.dice.roll(11) {
            0 | 1 => (Act::Kill(slot), Some(Act::Start(slot))),
            2 => {
                // As a container that is restarted: another pod at the same address, within the session of the first.
                round.does(at, Act::Kill(slot));
                round.does(at, Act::Start(slot));
                return;
            }
            3 => (Act::Leave(slot), Some(Act::Start(slot))),
            4 | 5 => (Act::Freeze(slot), Some(Act::Thaw(slot))),
            6 => (Act::Crash(slot), None),
            7 => (Act::Reset(slot), None),
            8 => (Act::Off(slot), Some(Act::On(slot))),
            9 => self.misbehave(slot),
            _ => return self.come_or_go(slot, at, until, round),
        };
        round.does(at, breaks);
        if let Some(mends) = mends {
            round.does(until, mends);
            round.busy[slot] = until;
        }
    }

    fn misbehave(&mut self, slot: usize) -> (Act, Option<Act>) {
        let (callback, how) = self.dice.pick(&MISBEHAVIOURS).unwrap_or_default();
        (Act::Misbehave(slot, callback, how), Some(Act::Behave(slot)))
    }

    /// A pod comes, or goes for good, or dies and is replaced.
    fn come_or_go(&mut self, slot: usize, at: Duration, until: Duration, round: &mut Round) {
        let cluster = self.slots[slot].0;
        let size = self.slots.iter().filter(|(of, there)| *there && *of == cluster).count();
        let empty = self.free(at, false, round);
        match (self.dice.roll(3), empty) {
            (0, Some(empty)) => {
                round.does(at, Act::Start(empty));
                self.slots[empty].1 = true;
            }
            (1, _) if size > SMALLEST => {
                round.does(at, if self.dice.roll(2) == 0 { Act::Leave(slot) } else { Act::Kill(slot) });
                self.slots[slot].1 = false;
            }
            _ => {
                round.does(at, Act::Retire(slot));
                round.does(until, Act::Leave(slot));
                round.does(until, Act::Start(slot));
                round.busy[slot] = until;
            }
        }
    }

    /// A slot that nothing is done to, with a pod or without.
    fn free(&mut self, at: Duration, there: bool, round: &Round) -> Option<usize> {
        let slots = self.slots.iter().zip(&round.busy).enumerate();
        let free = slots.filter(|(_, ((_, occupied), busy))| *occupied == there && **busy <= at);
        let free: Vec<usize> = free.map(|(slot, _)| slot).collect();
        self.dice.pick(&free)
    }
}

struct Round {
    /// Until when something is done to a slot.
    busy: Vec<Duration>,
    servers_busy: Duration,
    steps: Vec<Step>,
}

impl Round {
    fn does(&mut self, at: Duration, act: Act) {
        self.steps.push(Step { at, act });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(seed: u64) -> Vec<Vec<Step>> {
        let slots = (0..9).map(|slot| (if slot < 7 { "web" } else { "db" }, slot != 6)).collect();
        let mut scheduler = Scheduler::new(seed, slots, Duration::from_secs(4));
        let weathers = [Weather::Servers, Weather::Network, Weather::Everything, Weather::Everything];
        weathers.map(|weather| scheduler.round(weather, Duration::from_secs(60))).into()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn whatever_a_round_breaks_it_mends_and_no_pod_is_used_that_is_not_there() {
        for seed in 0..200 {
            let mut there: BTreeSet<usize> = BTreeSet::from([0, 1, 2, 3, 4, 5, 7, 8]);
            for round in rounds(seed) {
                let mut open: Vec<Act> = Vec::new();
                for Step { act, .. } in round {
                    let mended = |mends: fn(usize) -> Act| matches!(act, _ if open.contains(&mends(slot(act))));
                    match act {
                        Act::Start(slot) => assert!(there.insert(slot), "seed {seed}: {act} is there"),
                        Act::Kill(slot) | Act::Leave(slot) => assert!(there.remove(&slot), "seed {seed}: {act}"),
                        Act::Thaw(_) => assert!(mended(Act::Freeze), "seed {seed}: {act}"),
                        Act::StartServer(_) => assert!(mended(Act::StopServer), "seed {seed}: {act}"),
                        Act::ThawServer(_) => assert!(mended(Act::FreezeServer), "seed {seed}: {act}"),
                        _ => {}
                    }
                    let ends = |open: &Act| match (act, *open) {
                        (Act::Thaw(a), Act::Freeze(b))
                        | (Act::On(a), Act::Off(b))
                        | (Act::Behave(a), Act::Misbehave(b, ..))
                        | (Act::StartServer(a), Act::StopServer(b))
                        | (Act::Start(a), Act::Retire(b))
                        | (Act::ThawServer(a), Act::FreezeServer(b)) => a == b,
                        (Act::Heal(way, a), Act::Refuse(of, b) | Act::Swallow(of, b)) => way == of && a == b,
                        _ => false,
                    };
                    open.retain(|act| !ends(act));
                    if matches!(
                        act,
                        Act::Freeze(_)
                            | Act::Off(_)
                            | Act::Retire(_)
                            | Act::Misbehave(..)
                            | Act::StopServer(_)
                            | Act::FreezeServer(_)
                            | Act::Refuse(..)
                            | Act::Swallow(..)
                    ) {
                        open.push(act);
                    }
                }
                assert!(open.is_empty(), "seed {seed} leaves {open:?}");
                assert!(there.len() >= 6, "seed {seed} leaves the pods {there:?}");
            }
        }
    }

    fn slot(act: Act) -> usize {
        match act {
            Act::Thaw(slot) | Act::StartServer(slot) | Act::ThawServer(slot) => slot,
            _ => usize::MAX,
        }
    }
}
