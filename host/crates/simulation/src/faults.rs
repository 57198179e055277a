//! Single faults of hosts and of the store.

use std::time::Duration;

use ochopod_init::Exit;
use ochopod_lifecycle::{ControlTask, Cordon, Request};
use ochopod_model::wire;
use ochopod_store::{MembershipHandle, Pause, znodes::layout::Layout};

use super::{
    fault_rates::millis,
    host::cluster,
    network::Message,
    plan::{ClusterSide, FaultKind},
    run::Simulation,
};

/// Highest number of hosts of one cluster.
const MAX_HOSTS_PER_CLUSTER: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Join,
    /// The pod is terminated, possibly by force.
    ShutDown {
        forced: bool,
    },
    /// The host is gone; possibly another pod starts at its address.
    Crash {
        replaced: bool,
    },
    /// The host is paused for a while.
    Pause,
    /// The store is unreachable, and possibly the other hosts too.
    Cut {
        isolated: bool,
    },
    /// The store is down.
    Outage,
    Expire,
    /// Another client deletes the lock node.
    Unlock,
    /// The host's server of the store lags.
    Lag,
    Reset,
    Exit(Exit),
    Operator,
    /// An operator makes the leader step down.
    StepDown,
    /// An operator pauses configurations, and resumes them after a while.
    PauseCluster,
    /// Another client posts with the leader's epoch and a far higher number.
    HighNumber,
}

/// Returns the time until the next fault: often short, so that faults overlap.
pub(super) fn pause() -> Duration {
    match fastrand::u32(..10) {
        0..=2 => millis(0..40),
        3..=5 => millis(0..1500),
        6..=8 => millis(500..8000),
        _ => millis(5000..40_000),
    }
}

/// Returns the duration of a fault: well within a session timeout, about as long, or much longer.
fn span(session: Duration) -> Duration {
    session.mul_f64([0.3, 1.2, 3.0, 8.0][fastrand::usize(..4)] * fastrand::f64())
}

impl Fault {
    fn random() -> Self {
        match fastrand::u32(..20) {
            0..=2 => Self::Join,
            3 => Self::ShutDown { forced: fastrand::u32(..3) == 0 },
            4..=5 => Self::Crash { replaced: fastrand::bool() },
            6..=8 => Self::Pause,
            9..=10 => Self::Cut { isolated: fastrand::bool() },
            11 => Self::Outage,
            12 => [Self::Expire, Self::Unlock][fastrand::usize(..2)],
            13 => Self::Lag,
            14 => Self::Reset,
            15..=16 => {
                let exits = [Exit::Code(0), Exit::Code(1), Exit::Signal(11), Exit::Code(1)];
                Self::Exit(exits[fastrand::usize(..exits.len())])
            }
            17 => [Self::HighNumber, Self::PauseCluster, Self::StepDown][fastrand::usize(..3)],
            _ => Self::Operator,
        }
    }
}

impl Simulation {
    /// Injects a random fault at a random host.
    pub(super) fn inject(&mut self) {
        let side = if fastrand::u32(..3) == 0 { ClusterSide::Db } else { ClusterSide::Web };
        let (fault, side) = match self.env.plan.kind {
            FaultKind::All => (Fault::random(), side),
            FaultKind::Outages { .. } => (Fault::Outage, side),
            FaultKind::Expiries => (Fault::Expire, ClusterSide::Db),
        };
        if let Fault::Join = fault {
            if self.hosts.iter().filter(|host| host.side == side).count() < MAX_HOSTS_PER_CLUSTER {
                self.join(side);
            }
            return;
        }
        let mut at: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].side == side).collect();
        fastrand::shuffle(&mut at);
        if let Some(at) = at.first() {
            self.inject_at(fault, *at);
        }
    }

    fn inject_at(&mut self, fault: Fault, at: usize) {
        let env = self.env.clone();
        let (id, host) = (self.hosts[at].id.clone(), self.hosts[at].host);
        env.checker.note(|| format!("--- {fault:?} {id}"));
        let time = span(env.plan.session);
        match fault {
            Fault::Join => {}
            Fault::ShutDown { forced } => self.shut_down(at, forced.then(|| millis(0..3000))),
            Fault::Crash { replaced } => self.crash(at, replaced),
            Fault::Pause => {
                let pause_switch = self.hosts[at].pause_switch.clone();
                pause_switch.set(true);
                env.store.pause(host, true);
                let store = env.store.clone();
                later(time, move || {
                    store.pause(host, false);
                    pause_switch.set(false);
                });
            }
            Fault::Cut { isolated } => {
                let (store, network, address) =
                    (env.store.clone(), env.network.clone(), self.hosts[at].address.clone());
                store.cut(host, true);
                network.isolate(&address, isolated);
                later(time, move || {
                    store.cut(host, false);
                    network.isolate(&address, false);
                });
            }
            Fault::Outage => {
                let time = match env.plan.kind {
                    FaultKind::Outages { short: true } => env.plan.session.mul_f64(0.9 * fastrand::f64()),
                    _ => time,
                };
                let store = env.store.clone();
                store.power(false);
                later(time, move || store.power(true));
            }
            Fault::Expire => env.store.expire(host),
            Fault::Unlock => env.store.unlock(&Layout::new(&cluster(self.hosts[at].side)).coordinator()),
            Fault::Lag => env.store.lag(host, millis(1..4000)),
            Fault::Reset => {
                let member = self.hosts[at].member.clone();
                tokio::spawn(async move { member.reset().await });
            }
            Fault::StepDown | Fault::PauseCluster => {
                operate_cluster(fault, self.hosts[at].member.clone(), time, env.plan.session);
            }
            Fault::Exit(exit) => env.processes.inject(&id, exit, false),
            Fault::HighNumber => {
                let here = self.hosts.iter().filter(|host| host.side == self.hosts[at].side);
                let mut memberships = here.map(|host| host.member.watch().borrow().leadership.clone());
                let epoch = memberships.find_map(|leadership| Some(leadership?.epoch));
                let number = [1000, 1 << 40, wire::MAX_NUMBER][fastrand::usize(..3)];
                let (command, limit) = (ControlTask::Signal(None), millis(10..20_000));
                let request = Request { task: command, epoch, number: Some(number), generation: None, limit };
                env.network.deliver(&self.hosts[at].address, Message::Operator(request));
            }
            Fault::Operator => {
                let cordon = Cordon { reason: "maintenance".to_owned(), stop: fastrand::bool() };
                let commands = [
                    ControlTask::On(None),
                    ControlTask::Off,
                    ControlTask::Kill,
                    ControlTask::Signal(None),
                    ControlTask::Restart,
                    ControlTask::Cordon(cordon),
                    ControlTask::Uncordon,
                    ControlTask::Revive,
                ];
                let command = commands[fastrand::usize(..commands.len())].clone();
                let request =
                    Request { task: command, epoch: None, number: None, generation: None, limit: millis(10..20_000) };
                // Nothing waits for the reply.
                env.network.deliver(&self.hosts[at].address, Message::Operator(request));
            }
        }
    }
}

/// Lets an operator change what the pods of a cluster may do.
fn operate_cluster(fault: Fault, member: MembershipHandle, time: Duration, session: Duration) {
    tokio::spawn(async move {
        if let Fault::StepDown = fault {
            return member.yield_lock(2 * session).await;
        }
        let pause = Pause { by: "operator".to_owned(), since: 0, reason: "maintenance".to_owned() };
        _ = member.pause(&pause).await;
        tokio::time::sleep(time).await;
        _ = member.resume().await;
    });
}

fn later(time: Duration, action: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        action();
    });
}

impl Simulation {
    /// Ends what operators have done to hosts and clusters.
    pub(super) fn undo_operations(&self) {
        for host in &self.hosts {
            let (task, limit) = (ControlTask::Uncordon, Duration::from_mins(1));
            let request = Request { task, epoch: None, number: None, generation: None, limit };
            self.env.network.deliver(&host.address, Message::Operator(request));
            let member = host.member.clone();
            tokio::spawn(async move {
                // The store may have to be reached again first.
                while member.resume().await.is_err() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
}
