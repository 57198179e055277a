//! Schedule of faults: pure, and the same for the same seed.

use std::time::Duration;

use super::{
    action::{Action, ActionKind, Link, Target},
    rng::SeededRng,
};

/// Mix of the faults of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultMix {
    /// Faults of ZooKeeper's servers and of the network that are much shorter than a session.
    Blinks,
    /// Faults of ZooKeeper's servers.
    Servers,
    /// Faults of the links between pods and ZooKeeper, and between leaders and pods.
    Network,
    /// Faults of the current leader, repeatedly.
    Leaders,
    /// Faults of pods, servers and links.
    Everything,
}

/// One action and its time, counted from the start of its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScheduledAction {
    pub(super) at: Duration,
    pub(super) act: Action,
}

/// Pauses between faults.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1800));
/// Duration of faults that pods with a session of seconds hardly notice.
const SHORT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1200));
/// Minimum size of a cluster.
const MIN_CLUSTER_SIZE: usize = 4;
const SERVERS: usize = 3;

/// Nothing that fails a `configure` or `initialize`: such a pod is dead by contract, and stays dead.
const MISBEHAVIOURS: [(&str, &str); 9] = [
    ("ready", "reject:joining"),
    ("configure", "not-yet:no disk"),
    ("can-configure", "reject:not now"),
    ("can-configure", "trap"),
    ("configure", "sleep:2"),
    ("configured", "trap"),
    ("sanity-check", "reject:unwell"),
    ("sanity-check", "spin"),
    ("tear-down", "trap"),
];

/// Draws one round after the other.
#[derive(Debug)]
pub(super) struct Scheduler {
    dice: SeededRng,
    /// The cluster of each slot, and whether a pod is in it between rounds.
    slots: Vec<(&'static str, bool)>,
    session: Duration,
    /// Whether faults last much shorter than a session, all of them.
    short: bool,
}

impl Scheduler {
    pub(super) fn new(seed: u64, slots: Vec<(&'static str, bool)>, session: Duration) -> Self {
        Self { dice: SeededRng::new(seed), slots, session, short: false }
    }

    /// Returns the actions of a round in order. Every fault is repaired; the last repair may follow some time after
    /// `length`.
    pub(super) fn round(&mut self, mix: FaultMix, length: Duration) -> Vec<ScheduledAction> {
        let mut round = Round::new(self.slots.len());
        let mut at = Duration::ZERO;
        while at < length {
            self.short = mix == FaultMix::Blinks;
            match (mix, self.dice.roll(10)) {
                (FaultMix::Servers, _) | (FaultMix::Everything, 0..2) | (FaultMix::Blinks, 0..5) => {
                    self.break_servers(at, &mut round);
                }
                (FaultMix::Network | FaultMix::Blinks, _) | (FaultMix::Everything, 2..4) => {
                    self.break_a_way(at, &mut round);
                }
                (FaultMix::Everything, _) => self.break_a_pod(at, &mut round),
                (FaultMix::Leaders, _) => self.break_the_leader(at, &mut round),
            }
            at += self.dice.time(PAUSES.0, PAUSES.1);
        }
        round.steps.sort_by_key(|step| step.at);
        round.steps
    }

    /// Returns a duration that is shorter or longer than a session.
    fn while_(&mut self) -> Duration {
        if !self.short && self.dice.roll(3) == 0 {
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
        let one = self.dice.roll(SERVERS);
        let other = (one + 1 + self.dice.roll(SERVERS - 1)) % SERVERS;
        let faults: &[(usize, ActionKind)] = match self.dice.roll(5) {
            0 | 1 => &[(one, ActionKind::Kill)],
            2 => &[(one, ActionKind::Freeze)],
            3 => &[(one, ActionKind::Kill), (other, ActionKind::Kill)],
            _ => &[(one, ActionKind::Freeze), (other, ActionKind::Kill)],
        };
        for (server, deed) in faults {
            round.breaks(at, until, *deed, Target::Server(*server));
        }
        // A quorum takes a moment to form: the next outage should be one of its own.
        round.servers_busy = until + self.dice.time(Duration::from_millis(500), self.session);
    }

    fn break_a_way(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let (deed, until) = (self.way(), at + self.while_());
        round.breaks(at, until, deed, Target::Pod(slot));
    }

    fn way(&mut self) -> ActionKind {
        let way = if self.dice.roll(2) == 0 { Link::ToStore } else { Link::FromLeader };
        match self.dice.roll(3) {
            0 => ActionKind::Cut(way),
            1 => ActionKind::Refuse(way),
            _ => ActionKind::Swallow(way),
        }
    }

    fn break_the_leader(&mut self, at: Duration, round: &mut Round) {
        if round.leader_busy > at {
            return;
        }
        let deed = match self.dice.roll(9) {
            8 => ActionKind::StepDown,
            0 => ActionKind::Kill,
            1 => ActionKind::Leave,
            2..5 => ActionKind::Freeze,
            5 => ActionKind::Reset,
            _ => self.way(),
        };
        round.leader_busy = at + self.while_();
        round.breaks(at, round.leader_busy, deed, Target::Leader);
    }

    fn break_a_pod(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let until = at + self.while_();
        let deed = match self.dice.roll(14) {
            11 => ActionKind::Restart,
            12 => ActionKind::Cordon,
            13 => ActionKind::Pause,
            0 | 1 => ActionKind::Kill,
            // As a container that is restarted: another pod at the same address, within the session of the first.
            2 => return round.breaks(at, at, ActionKind::Kill, Target::Pod(slot)),
            3 => ActionKind::Leave,
            4 | 5 => ActionKind::Freeze,
            6 => ActionKind::Crash,
            7 => ActionKind::Reset,
            8 => ActionKind::Off,
            9 => {
                let (callback, how) = self.dice.pick(&MISBEHAVIOURS).unwrap_or_default();
                ActionKind::Misbehave(callback, how)
            }
            _ => return self.come_or_go(slot, at, until, round),
        };
        round.breaks(at, until, deed, Target::Pod(slot));
    }

    /// A pod joins, leaves for good, or dies and is replaced.
    fn come_or_go(&mut self, slot: usize, at: Duration, until: Duration, round: &mut Round) {
        let cluster = self.slots[slot].0;
        let size = self.slots.iter().filter(|(of, there)| *there && *of == cluster).count();
        let empty = self.free(at, false, round);
        match (self.dice.roll(3), empty) {
            (0, Some(empty)) => {
                round.does(at, ActionKind::Start, Target::Pod(empty));
                self.slots[empty].1 = true;
            }
            (1, _) if size > MIN_CLUSTER_SIZE => {
                let deed = if self.dice.roll(2) == 0 { ActionKind::Leave } else { ActionKind::Kill };
                round.does(at, deed, Target::Pod(slot));
                self.slots[slot].1 = false;
            }
            _ => {
                round.does(at, ActionKind::Retire, Target::Pod(slot));
                round.breaks(until, until, ActionKind::Leave, Target::Pod(slot));
            }
        }
    }

    /// Returns a slot without a fault, with a pod or without.
    fn free(&mut self, at: Duration, there: bool, round: &Round) -> Option<usize> {
        let slots = self.slots.iter().zip(&round.busy).enumerate();
        let free = slots.filter(|(_, ((_, occupied), busy))| *occupied == there && **busy <= at);
        let free: Vec<usize> = free.map(|(slot, _)| slot).collect();
        self.dice.pick(&free)
    }
}

/// A round, as far as it is drawn.
struct Round {
    /// Time until which each slot has a fault.
    busy: Vec<Duration>,
    servers_busy: Duration,
    leader_busy: Duration,
    steps: Vec<ScheduledAction>,
}

impl Round {
    fn new(slots: usize) -> Self {
        let never = Duration::ZERO;
        Self { busy: vec![never; slots], servers_busy: never, leader_busy: never, steps: Vec::new() }
    }

    fn does(&mut self, at: Duration, deed: ActionKind, target: Target) {
        self.steps.push(ScheduledAction { at, act: Action { deed, target } });
    }

    /// Adds a fault, and its repair if it needs one.
    fn breaks(&mut self, at: Duration, until: Duration, deed: ActionKind, target: Target) {
        self.does(at, deed, target);
        let Some(mends) = deed.mended_by() else { return };
        self.does(until, mends, target);
        if let Target::Pod(slot) = target {
            self.busy[slot] = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FAULT_MIXES: [FaultMix; 5] =
        [FaultMix::Blinks, FaultMix::Servers, FaultMix::Network, FaultMix::Leaders, FaultMix::Everything];

    fn rounds(seed: u64) -> Vec<Vec<ScheduledAction>> {
        let slots = (0..9).map(|slot| (if slot < 7 { "web" } else { "db" }, slot != 6)).collect();
        let mut scheduler = Scheduler::new(seed, slots, Duration::from_secs(4));
        FAULT_MIXES.repeat(2).into_iter().map(|mix| scheduler.round(mix, Duration::from_mins(1))).collect()
    }

    #[test]
    fn the_same_seed_returns_the_same_schedule_and_another_seed_another() {
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn round_mends_every_fault_and_injects_none_into_an_empty_slot() {
        for seed in 0..200 {
            let mut there: BTreeSet<usize> = BTreeSet::from([0, 1, 2, 3, 4, 5, 7, 8]);
            for round in rounds(seed) {
                let mut open: Vec<Action> = Vec::new();
                for ScheduledAction { act, .. } in round {
                    let known = open.iter().position(|open| open.target == act.target);
                    match (act.target, act.deed) {
                        (Target::Pod(slot), ActionKind::Start) => assert!(there.insert(slot), "seed {seed}: {act}"),
                        (Target::Pod(slot), ActionKind::Kill | ActionKind::Leave) => {
                            assert!(there.remove(&slot), "seed {seed}: {act}");
                        }
                        (_, deed) if deed.mends() => {
                            let fault =
                                open.remove(known.unwrap_or_else(|| panic!("seed {seed}: {act} mends nothing")));
                            assert_eq!(fault.deed.mended_by(), Some(deed), "seed {seed}");
                        }
                        (_, deed) if deed.mended_by().is_some() => {
                            assert_eq!(known, None, "seed {seed}: {act} while another fault lasts");
                            open.push(act);
                        }
                        _ => {}
                    }
                }
                assert!(open.is_empty(), "seed {seed} leaves {open:?}");
                assert!(there.len() >= MIN_CLUSTER_SIZE + 2, "seed {seed} leaves the pods {there:?}");
            }
        }
    }
}
