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
    ShortFaults,
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
    rng: SeededRng,
    /// The cluster of each slot, and whether a pod is in it between rounds.
    slots: Vec<(&'static str, bool)>,
    session: Duration,
    /// Whether faults last much shorter than a session, all of them.
    short: bool,
}

impl Scheduler {
    pub(super) fn new(seed: u64, slots: Vec<(&'static str, bool)>, session: Duration) -> Self {
        Self { rng: SeededRng::new(seed), slots, session, short: false }
    }

    /// Returns the actions of a round in order. Every fault is repaired; the last repair may follow some time after
    /// `length`.
    pub(super) fn round(&mut self, mix: FaultMix, length: Duration) -> Vec<ScheduledAction> {
        let mut round = Round::new(self.slots.len());
        let mut at = Duration::ZERO;
        while at < length {
            self.short = mix == FaultMix::ShortFaults;
            match (mix, self.rng.roll(10)) {
                (FaultMix::Servers, _) | (FaultMix::Everything, 0..2) | (FaultMix::ShortFaults, 0..5) => {
                    self.break_servers(at, &mut round);
                }
                (FaultMix::Network | FaultMix::ShortFaults, _) | (FaultMix::Everything, 2..4) => {
                    self.break_link(at, &mut round);
                }
                (FaultMix::Everything, _) => self.break_pod(at, &mut round),
                (FaultMix::Leaders, _) => self.break_leader(at, &mut round),
            }
            at += self.rng.time(PAUSES.0, PAUSES.1);
        }
        round.steps.sort_by_key(|step| step.at);
        round.steps
    }

    /// Returns a duration that is shorter or longer than a session.
    fn fault_duration(&mut self) -> Duration {
        if !self.short && self.rng.roll(3) == 0 {
            self.rng.time(self.session * 3 / 2, self.session * 5 / 2)
        } else {
            self.rng.time(SHORT.0, SHORT.1)
        }
    }

    fn break_servers(&mut self, at: Duration, round: &mut Round) {
        if round.servers_busy > at {
            return;
        }
        let until = at + self.fault_duration();
        let one = self.rng.roll(SERVERS);
        let other = (one + 1 + self.rng.roll(SERVERS - 1)) % SERVERS;
        let faults: &[(usize, ActionKind)] = match self.rng.roll(5) {
            0 | 1 => &[(one, ActionKind::Kill)],
            2 => &[(one, ActionKind::Freeze)],
            3 => &[(one, ActionKind::Kill), (other, ActionKind::Kill)],
            _ => &[(one, ActionKind::Freeze), (other, ActionKind::Kill)],
        };
        for (server, kind) in faults {
            round.add_fault(at, until, *kind, Target::Server(*server));
        }
        // A quorum takes a moment to form: the next outage should be one of its own.
        round.servers_busy = until + self.rng.time(Duration::from_millis(500), self.session);
    }

    fn break_link(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let (kind, until) = (self.link_fault(), at + self.fault_duration());
        round.add_fault(at, until, kind, Target::Pod(slot));
    }

    fn link_fault(&mut self) -> ActionKind {
        let link = if self.rng.roll(2) == 0 { Link::ToStore } else { Link::FromLeader };
        match self.rng.roll(3) {
            0 => ActionKind::Cut(link),
            1 => ActionKind::Refuse(link),
            _ => ActionKind::Swallow(link),
        }
    }

    fn break_leader(&mut self, at: Duration, round: &mut Round) {
        if round.leader_busy > at {
            return;
        }
        let kind = match self.rng.roll(9) {
            8 => ActionKind::StepDown,
            0 => ActionKind::Kill,
            1 => ActionKind::Leave,
            2..5 => ActionKind::Freeze,
            5 => ActionKind::Reset,
            _ => self.link_fault(),
        };
        round.leader_busy = at + self.fault_duration();
        round.add_fault(at, round.leader_busy, kind, Target::Leader);
    }

    fn break_pod(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let until = at + self.fault_duration();
        let kind = match self.rng.roll(14) {
            11 => ActionKind::Restart,
            12 => ActionKind::Cordon,
            13 => ActionKind::Pause,
            0 | 1 => ActionKind::Kill,
            // As a container that is restarted: another pod at the same address, within the session of the first.
            2 => return round.add_fault(at, at, ActionKind::Kill, Target::Pod(slot)),
            3 => ActionKind::Leave,
            4 | 5 => ActionKind::Freeze,
            6 => ActionKind::Crash,
            7 => ActionKind::Reset,
            8 => ActionKind::Off,
            9 => {
                let (callback, how) = self.rng.pick(&MISBEHAVIOURS).unwrap_or_default();
                ActionKind::Misbehave(callback, how)
            }
            _ => return self.change_membership(slot, at, until, round),
        };
        round.add_fault(at, until, kind, Target::Pod(slot));
    }

    /// Makes a pod join, leave for good, or die and be replaced.
    fn change_membership(&mut self, slot: usize, at: Duration, until: Duration, round: &mut Round) {
        let cluster = self.slots[slot].0;
        let size = self.slots.iter().filter(|(of, there)| *there && *of == cluster).count();
        let empty = self.free(at, false, round);
        match (self.rng.roll(3), empty) {
            (0, Some(empty)) => {
                round.add(at, ActionKind::Start, Target::Pod(empty));
                self.slots[empty].1 = true;
            }
            (1, _) if size > MIN_CLUSTER_SIZE => {
                let kind = if self.rng.roll(2) == 0 { ActionKind::Leave } else { ActionKind::Kill };
                round.add(at, kind, Target::Pod(slot));
                self.slots[slot].1 = false;
            }
            _ => {
                round.add(at, ActionKind::Retire, Target::Pod(slot));
                round.add_fault(until, until, ActionKind::Leave, Target::Pod(slot));
            }
        }
    }

    /// Returns a slot without a fault, with a pod or without.
    fn free(&mut self, at: Duration, there: bool, round: &Round) -> Option<usize> {
        let slots = self.slots.iter().zip(&round.busy).enumerate();
        let free = slots.filter(|(_, ((_, occupied), busy))| *occupied == there && **busy <= at);
        let free: Vec<usize> = free.map(|(slot, _)| slot).collect();
        self.rng.pick(&free)
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

    fn add(&mut self, at: Duration, kind: ActionKind, target: Target) {
        self.steps.push(ScheduledAction { at, act: Action { kind, target } });
    }

    /// Adds a fault, and its repair if it needs one.
    fn add_fault(&mut self, at: Duration, until: Duration, kind: ActionKind, target: Target) {
        self.add(at, kind, target);
        let Some(repair) = kind.repair() else { return };
        self.add(until, repair, target);
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
        [FaultMix::ShortFaults, FaultMix::Servers, FaultMix::Network, FaultMix::Leaders, FaultMix::Everything];

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
    fn round_repairs_every_fault_and_injects_none_into_an_empty_slot() {
        for seed in 0..200 {
            let mut there: BTreeSet<usize> = BTreeSet::from([0, 1, 2, 3, 4, 5, 7, 8]);
            for round in rounds(seed) {
                let mut open: Vec<Action> = Vec::new();
                for ScheduledAction { act, .. } in round {
                    let known = open.iter().position(|open| open.target == act.target);
                    match (act.target, act.kind) {
                        (Target::Pod(slot), ActionKind::Start) => assert!(there.insert(slot), "seed {seed}: {act}"),
                        (Target::Pod(slot), ActionKind::Kill | ActionKind::Leave) => {
                            assert!(there.remove(&slot), "seed {seed}: {act}");
                        }
                        (_, kind) if kind.is_repair() => {
                            let fault =
                                open.remove(known.unwrap_or_else(|| panic!("seed {seed}: {act} repairs nothing")));
                            assert_eq!(fault.kind.repair(), Some(kind), "seed {seed}");
                        }
                        (_, kind) if kind.repair().is_some() => {
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
