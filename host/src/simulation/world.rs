//! One world: two clusters, one store, one network, and a seed that decides what happens to them.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    faults,
    ledger::Ledger,
    network::Network,
    node::Node,
    plan::{Kind, Plan, Side},
    pod::Processes,
    store::Store,
    weather::{Chances, Weather},
};
use crate::{cluster::PodId, init::Exit};

/// Within this time everything is well again once the faults stop: the longest back-offs (30 s of a leader, a minute of a
/// process), what was begun before, and some rollouts.
const BOUND: Duration = Duration::from_secs(90);
/// Two looks at a world that settles.
const LOOK: Duration = Duration::from_secs(2);
/// How long everything may take to leave.
const LEAVING: Duration = Duration::from_mins(2);

/// What all hosts share.
#[derive(Clone)]
pub(super) struct Town {
    pub(super) plan: Arc<Plan>,
    pub(super) store: Store,
    pub(super) network: Network,
    pub(super) weather: Weather,
    pub(super) processes: Processes,
    pub(super) ledger: Ledger,
}

pub(super) struct World {
    pub(super) town: Town,
    pub(super) nodes: Vec<Node>,
    /// Hosts so far, for names and addresses.
    born: usize,
}

/// What came of a seed.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What did not hold.
    pub(super) broken: Option<String>,
    /// Simulated time.
    pub(super) time: Duration,
    /// How long it took until everything was well after the faults.
    pub(super) settling: Duration,
    /// What happened, when asked for.
    pub(super) trace: Vec<String>,
}

/// Runs the world of a seed to its end.
pub(super) fn run(seed: u64, traced: bool) -> Outcome {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let plan = Plan::draw();
        let ledger = Ledger::new(traced, plan.full_shutdown);
        ledger.note(|| format!("{plan:?}"));
        let lived = World::new(plan, ledger.clone()).live().await;
        let (broken, settling) = lived.map_or_else(|reason| (Some(reason), BOUND), |settling| (None, settling));
        Outcome { broken, time: began.elapsed(), settling, trace: ledger.trace() }
    })
}

impl World {
    fn new(plan: Plan, ledger: Ledger) -> Self {
        let weather = Weather::new(if plan.kind == Kind::All { plan.chances } else { Chances::default() });
        let town = Town {
            store: Store::new(weather.clone(), plan.session),
            network: Network::new(weather.clone()),
            weather,
            processes: Processes::default(),
            ledger,
            plan: Arc::new(plan),
        };
        Self { town, nodes: Vec::new(), born: 0 }
    }

    /// Lives through everything; how long it took to settle, or what did not hold.
    async fn live(mut self) -> Result<Duration, String> {
        for (side, pods) in [(Side::Web, self.town.plan.web), (Side::Db, self.town.plan.db)] {
            (0..pods).for_each(|_| self.join(side));
        }
        let quiet = self.town.plan.kind != Kind::All;
        let before = if quiet {
            self.settle().await?;
            Some((self.pids(), self.town.ledger.rollouts()))
        } else {
            None
        };
        for _ in 0..self.town.plan.faults {
            self.pass(faults::pause()).await?;
            self.strike();
        }
        self.pass(faults::pause()).await?;
        self.heal();
        let settling = self.settle().await?;
        if let Some((pids, rollouts)) = before {
            self.outages_change_nothing(&pids, rollouts)?;
        }
        self.everybody_leaves().await?;
        Ok(settling)
    }

    /// Time passes; fails as soon as something did not hold.
    async fn pass(&self, time: Duration) -> Result<(), String> {
        sleep(time).await;
        let broken = self.town.ledger.violation().or_else(|| self.town.store.violation());
        broken.map_or(Ok(()), Err)
    }

    /// No fault lasts.
    fn heal(&mut self) {
        self.town.ledger.note(|| "--- the faults stop".to_owned());
        self.town.weather.clear();
        self.town.store.heal();
        self.town.network.heal();
        self.nodes.iter().for_each(|node| node.freezer.freeze(false));
    }

    /// Waits until everything is well, within a bounded time.
    async fn settle(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            self.pass(LOOK).await?;
            self.nodes.retain(|node| !node.task.is_finished());
            match self.settled() {
                Ok(()) => return Ok(began.elapsed()),
                Err(reason) if began.elapsed() >= BOUND => return Err(format!("not well after {BOUND:?}: {reason}")),
                Err(_) => {}
            }
        }
    }

    fn pids(&self) -> Vec<(PodId, Option<u32>)> {
        self.nodes.iter().map(|node| (node.id.clone(), self.town.processes.of(&node.id))).collect()
    }

    /// An outage, and one of a dependency, stops and restarts nothing; one shorter than the session configures nobody.
    fn outages_change_nothing(&self, pids: &[(PodId, Option<u32>)], rollouts: usize) -> Result<(), String> {
        if self.pids() != pids {
            return Err(format!("an outage changed the processes: {pids:?} are now {:?}", self.pids()));
        }
        let rollouts = self.town.ledger.rollouts() - rollouts;
        if self.town.plan.kind == (Kind::Outages { short: true }) && rollouts > 0 {
            return Err(format!("{rollouts} configurations for outages shorter than the session"));
        }
        Ok(())
    }

    /// Every pod can leave, whatever it has been through, and leaves no request unanswered.
    async fn everybody_leaves(mut self) -> Result<(), String> {
        self.town.ledger.note(|| "--- everybody leaves".to_owned());
        (0..self.nodes.len()).for_each(|at| self.leave(at, None));
        let end = Instant::now() + LEAVING;
        while self.nodes.iter().any(|node| !node.task.is_finished()) {
            if Instant::now() >= end {
                let stuck = self.nodes.iter().find(|node| !node.task.is_finished()).map(|node| node.id.clone());
                return Err(format!("{stuck:?} does not leave"));
            }
            self.pass(LOOK).await?;
        }
        for node in &mut self.nodes {
            if (&mut node.task).await.is_err() {
                return Err(format!("{} panicked", node.id));
            }
            if !self.town.ledger.of(&node.id, super::ledger::Known::is_quiet) {
                return Err(format!("{} never answered a request", node.id));
            }
        }
        Ok(())
    }

    /// One more pod, on a host of its own.
    pub(super) fn join(&mut self, side: Side) {
        let address = format!("10.0.0.{}:8080", self.born + 1);
        self.start(side, address);
    }

    fn start(&mut self, side: Side, address: String) {
        self.born += 1;
        let id = PodId::from(format!("{}-{:02}", side.name(), self.born).as_str());
        self.town.ledger.note(|| format!("--- {id} starts at {address}"));
        self.nodes.push(Node::start(&self.town, side, id, address));
    }

    /// A pod is told to leave, and a second time after a while.
    pub(super) fn leave(&mut self, at: usize, again: Option<Duration>) {
        let node = &self.nodes[at];
        node.stop.cancel();
        let force = node.force.clone();
        if let Some(time) = again {
            tokio::spawn(async move {
                sleep(time).await;
                force.cancel();
            });
        }
    }

    /// A host is gone, and its processes with it; another one may take its address.
    pub(super) fn crash(&mut self, at: usize, replaced: bool) {
        let node = self.nodes.remove(at);
        node.task.abort();
        self.town.processes.strike(&node.id, Exit::Signal(9), true);
        if replaced {
            self.start(node.side, node.address);
        }
    }
}
