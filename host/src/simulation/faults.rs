//! What may happen to a world.

use std::time::Duration;

use super::{
    node::cluster,
    plan::{Kind, Side},
    weather::millis,
    world::World,
};
use crate::{
    coord::layout::Layout,
    init::Exit,
    lifecycle::{Command, Request},
};

/// Hosts of one cluster at a time.
const MOST: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Join,
    /// TERM, and perhaps a second one.
    Leave {
        forced: bool,
    },
    /// The machine is gone; perhaps another pod starts at its address.
    Crash {
        replaced: bool,
    },
    /// The host does nothing for a while.
    Freeze,
    /// The store is out of reach; the other hosts too, perhaps.
    Cut {
        isolated: bool,
    },
    /// The store is away.
    Outage,
    Expire,
    /// Somebody deletes the lock.
    Unlock,
    /// The server that the host talks to lags.
    Lag,
    Reset,
    Exit(Exit),
    ByHand,
}

/// Waits between two faults: often short, so that they meet.
pub(super) fn pause() -> Duration {
    match fastrand::u32(..10) {
        0..=2 => millis(0..40),
        3..=5 => millis(0..1500),
        6..=8 => millis(500..8000),
        _ => millis(5000..40_000),
    }
}

/// How long something is away: well within a session, about as long, or much longer.
fn span(session: Duration) -> Duration {
    session.mul_f64([0.3, 1.2, 3.0, 8.0][fastrand::usize(..4)] * fastrand::f64())
}

impl Fault {
    fn draw() -> Self {
        match fastrand::u32(..20) {
            0..=2 => Self::Join,
            3 => Self::Leave { forced: fastrand::u32(..3) == 0 },
            4..=5 => Self::Crash { replaced: fastrand::bool() },
            6..=8 => Self::Freeze,
            9..=10 => Self::Cut { isolated: fastrand::bool() },
            11 => Self::Outage,
            12 => [Self::Expire, Self::Unlock][fastrand::usize(..2)],
            13 => Self::Lag,
            14 => Self::Reset,
            15..=16 => {
                let exits = [Exit::Code(0), Exit::Code(1), Exit::Signal(11), Exit::Code(1)];
                Self::Exit(exits[fastrand::usize(..exits.len())])
            }
            _ => Self::ByHand,
        }
    }
}

impl World {
    /// Something happens to some host.
    pub(super) fn strike(&mut self) {
        let side = if fastrand::u32(..3) == 0 { Side::Db } else { Side::Web };
        let (fault, side) = match self.town.plan.kind {
            Kind::All => (Fault::draw(), side),
            Kind::Outages { .. } => (Fault::Outage, side),
            Kind::Expiries => (Fault::Expire, Side::Db),
        };
        if let Fault::Join = fault {
            if self.nodes.iter().filter(|node| node.side == side).count() < MOST {
                self.join(side);
            }
            return;
        }
        let mut at: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].side == side).collect();
        fastrand::shuffle(&mut at);
        if let Some(at) = at.first() {
            self.inflict(fault, *at);
        }
    }

    fn inflict(&mut self, fault: Fault, at: usize) {
        let town = self.town.clone();
        let (id, host) = (self.nodes[at].id.clone(), self.nodes[at].host);
        town.ledger.note(|| format!("--- {fault:?} {id}"));
        let time = span(town.plan.session);
        match fault {
            Fault::Join => {}
            Fault::Leave { forced } => self.leave(at, forced.then(|| millis(0..3000))),
            Fault::Crash { replaced } => self.crash(at, replaced),
            Fault::Freeze => {
                let freezer = self.nodes[at].freezer.clone();
                freezer.freeze(true);
                town.store.freeze(host, true);
                let store = town.store.clone();
                later(time, move || {
                    store.freeze(host, false);
                    freezer.freeze(false);
                });
            }
            Fault::Cut { isolated } => {
                let (store, network, address) =
                    (town.store.clone(), town.network.clone(), self.nodes[at].address.clone());
                store.cut(host, true);
                network.isolate(&address, isolated);
                later(time, move || {
                    store.cut(host, false);
                    network.isolate(&address, false);
                });
            }
            Fault::Outage => {
                let time = match town.plan.kind {
                    Kind::Outages { short: true } => town.plan.session.mul_f64(0.9 * fastrand::f64()),
                    _ => time,
                };
                let store = town.store.clone();
                store.power(false);
                later(time, move || store.power(true));
            }
            Fault::Expire => town.store.expire(host),
            Fault::Unlock => town.store.unlock(&Layout::new(&cluster(self.nodes[at].side)).coordinator()),
            Fault::Lag => town.store.lag(host, millis(1..4000)),
            Fault::Reset => {
                let member = self.nodes[at].member.clone();
                tokio::spawn(async move { member.reset().await });
            }
            Fault::Exit(exit) => town.processes.strike(&id, exit, false),
            Fault::ByHand => {
                let commands = [Command::On(None), Command::Off, Command::Kill, Command::Signal(None)];
                let command = commands[fastrand::usize(..commands.len())].clone();
                let request =
                    Request { command, epoch: None, number: None, generation: None, limit: millis(10..20_000) };
                // Whoever asked does not wait.
                town.network.deliver(&self.nodes[at].address, None, request);
            }
        }
    }
}

fn later(time: Duration, what: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        what();
    });
}
