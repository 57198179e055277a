//! What happens when: pure, and the same for the same seed.

use std::time::Duration;

use super::{
    act::{Act, Deed, Way, Whom},
    dice::Dice,
};

/// Which faults a round has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Those of ZooKeeper's servers and of the network that are much shorter than a session.
    Blinks,
    /// Those of ZooKeeper's servers.
    Servers,
    /// Those of the ways between pods and ZooKeeper, and between leaders and pods.
    Network,
    /// Whoever leads is struck, over and over.
    Leaders,
    /// Pods, servers and ways, any of them.
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

/// Nothing that fails a `configure` or `initialize`: whoever does so is dead by contract, and there to stay.
const MISBEHAVIOURS: [(&str, &str); 7] = [
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
    dice: Dice,
    /// The cluster of each slot, and whether a pod is in it between rounds.
    slots: Vec<(&'static str, bool)>,
    session: Duration,
    /// Whether faults last much shorter than a session, all of them.
    short: bool,
}

impl Scheduler {
    pub(super) fn new(seed: u64, slots: Vec<(&'static str, bool)>, session: Duration) -> Self {
        Self { dice: Dice::new(seed), slots, session, short: false }
    }

    /// The steps of a round in their order. Whatever they break they also mend; the last of them may come a while after
    /// `length`.
    pub(super) fn round(&mut self, weather: Weather, length: Duration) -> Vec<Step> {
        let mut round = Round::new(self.slots.len());
        let mut at = Duration::ZERO;
        while at < length {
            self.short = weather == Weather::Blinks;
            match (weather, self.dice.roll(10)) {
                (Weather::Servers, _) | (Weather::Everything, 0..2) | (Weather::Blinks, 0..5) => {
                    self.break_servers(at, &mut round);
                }
                (Weather::Network | Weather::Blinks, _) | (Weather::Everything, 2..4) => {
                    self.break_a_way(at, &mut round);
                }
                (Weather::Everything, _) => self.break_a_pod(at, &mut round),
                (Weather::Leaders, _) => self.break_the_leader(at, &mut round),
            }
            at += self.dice.time(PAUSES.0, PAUSES.1);
        }
        round.steps.sort_by_key(|step| step.at);
        round.steps
    }

    /// Shorter than a session, or longer.
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
        let faults: &[(usize, Deed)] = match self.dice.roll(5) {
            0 | 1 => &[(one, Deed::Kill)],
            2 => &[(one, Deed::Freeze)],
            3 => &[(one, Deed::Kill), (other, Deed::Kill)],
            _ => &[(one, Deed::Freeze), (other, Deed::Kill)],
        };
        for (server, deed) in faults {
            round.breaks(at, until, *deed, Whom::Server(*server));
        }
        // A quorum takes a moment to form: the next outage should be one of its own.
        round.servers_busy = until + self.dice.time(Duration::from_millis(500), self.session);
    }

    fn break_a_way(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let (deed, until) = (self.way(), at + self.while_());
        round.breaks(at, until, deed, Whom::Pod(slot));
    }

    fn way(&mut self) -> Deed {
        let way = if self.dice.roll(2) == 0 { Way::ToStore } else { Way::FromLeader };
        match self.dice.roll(3) {
            0 => Deed::Cut(way),
            1 => Deed::Refuse(way),
            _ => Deed::Swallow(way),
        }
    }

    fn break_the_leader(&mut self, at: Duration, round: &mut Round) {
        if round.leader_busy > at {
            return;
        }
        let deed = match self.dice.roll(8) {
            0 => Deed::Kill,
            1 => Deed::Leave,
            2..5 => Deed::Freeze,
            5 => Deed::Reset,
            _ => self.way(),
        };
        round.leader_busy = at + self.while_();
        round.breaks(at, round.leader_busy, deed, Whom::Leader);
    }

    fn break_a_pod(&mut self, at: Duration, round: &mut Round) {
        let Some(slot) = self.free(at, true, round) else { return };
        let until = at + self.while_();
        let deed = match self.dice.roll(11) {
            0 | 1 => Deed::Kill,
            // As a container that is restarted: another pod at the same address, within the session of the first.
            2 => return round.breaks(at, at, Deed::Kill, Whom::Pod(slot)),
            3 => Deed::Leave,
            4 | 5 => Deed::Freeze,
            6 => Deed::Crash,
            7 => Deed::Reset,
            8 => Deed::Off,
            9 => {
                let (callback, how) = self.dice.pick(&MISBEHAVIOURS).unwrap_or_default();
                Deed::Misbehave(callback, how)
            }
            _ => return self.come_or_go(slot, at, until, round),
        };
        round.breaks(at, until, deed, Whom::Pod(slot));
    }

    /// A pod comes, or goes for good, or dies and is replaced.
    fn come_or_go(&mut self, slot: usize, at: Duration, until: Duration, round: &mut Round) {
        let cluster = self.slots[slot].0;
        let size = self.slots.iter().filter(|(of, there)| *there && *of == cluster).count();
        let empty = self.free(at, false, round);
        match (self.dice.roll(3), empty) {
            (0, Some(empty)) => {
                round.does(at, Deed::Start, Whom::Pod(empty));
                self.slots[empty].1 = true;
            }
            (1, _) if size > SMALLEST => {
                let deed = if self.dice.roll(2) == 0 { Deed::Leave } else { Deed::Kill };
                round.does(at, deed, Whom::Pod(slot));
                self.slots[slot].1 = false;
            }
            _ => {
                round.does(at, Deed::Retire, Whom::Pod(slot));
                round.breaks(until, until, Deed::Leave, Whom::Pod(slot));
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

/// A round as far as it is drawn.
struct Round {
    /// Until when something is done to whom.
    busy: Vec<Duration>,
    servers_busy: Duration,
    leader_busy: Duration,
    steps: Vec<Step>,
}

impl Round {
    fn new(slots: usize) -> Self {
        let never = Duration::ZERO;
        Self { busy: vec![never; slots], servers_busy: never, leader_busy: never, steps: Vec::new() }
    }

    fn does(&mut self, at: Duration, deed: Deed, whom: Whom) {
        self.steps.push(Step { at, act: Act { deed, whom } });
    }

    /// A fault, and what mends it if that is needed.
    fn breaks(&mut self, at: Duration, until: Duration, deed: Deed, whom: Whom) {
        self.does(at, deed, whom);
        let Some(mends) = deed.mended_by() else { return };
        self.does(until, mends, whom);
        if let Whom::Pod(slot) = whom {
            self.busy[slot] = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WEATHERS: [Weather; 5] =
        [Weather::Blinks, Weather::Servers, Weather::Network, Weather::Leaders, Weather::Everything];

    fn rounds(seed: u64) -> Vec<Vec<Step>> {
        let slots = (0..9).map(|slot| (if slot < 7 { "web" } else { "db" }, slot != 6)).collect();
        let mut scheduler = Scheduler::new(seed, slots, Duration::from_secs(4));
        WEATHERS.repeat(2).into_iter().map(|weather| scheduler.round(weather, Duration::from_mins(1))).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn whatever_a_round_breaks_it_mends_and_nobody_is_struck_who_is_not_there() {
        for seed in 0..200 {
            let mut there: BTreeSet<usize> = BTreeSet::from([0, 1, 2, 3, 4, 5, 7, 8]);
            for round in rounds(seed) {
                let mut open: Vec<Act> = Vec::new();
                for Step { act, .. } in round {
                    let known = open.iter().position(|open| open.whom == act.whom);
                    match (act.whom, act.deed) {
                        (Whom::Pod(slot), Deed::Start) => assert!(there.insert(slot), "seed {seed}: {act}"),
                        (Whom::Pod(slot), Deed::Kill | Deed::Leave) => {
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
                assert!(there.len() >= SMALLEST + 2, "seed {seed} leaves the pods {there:?}");
            }
        }
    }
}
