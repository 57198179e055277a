//! One run: two clusters, one store, one network, and a seed that decides what happens to them.

use std::{sync::Arc, time::Duration};

use ochopod_init::Exit;
use ochopod_model::PodId;
use tokio::time::{Instant, sleep};

use super::{
    fault_rates::{FaultRates, FaultSwitch},
    faults,
    host::SimHost,
    invariants::InvariantChecker,
    lifecycle::SimProcesses,
    network::SimNetwork,
    plan::{ClusterSide, FaultKind, Plan},
    store::SimStore,
};

/// Longest time until convergence after the faults stop: the longest retry delays (30 s of a leader, a minute of a
/// process), work in flight, and some rollouts.
const CONVERGENCE_LIMIT: Duration = Duration::from_mins(4);
/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest time until all pods have shut down.
const SHUTDOWN_LIMIT: Duration = Duration::from_mins(2);

/// State shared by all hosts.
#[derive(Clone)]
pub(super) struct SimEnvironment {
    pub(super) plan: Arc<Plan>,
    pub(super) store: SimStore,
    pub(super) network: SimNetwork,
    pub(super) faults: FaultSwitch,
    pub(super) processes: SimProcesses,
    pub(super) checker: InvariantChecker,
}

pub(super) struct Simulation {
    pub(super) env: SimEnvironment,
    pub(super) hosts: Vec<SimHost>,
    /// Number of hosts so far, for names and addresses.
    host_count: usize,
}

/// Result of a run.
#[derive(Debug)]
pub(super) struct SimOutcome {
    /// The invariant that did not hold.
    pub(super) violation: Option<String>,
    /// Simulated time.
    pub(super) time: Duration,
    /// Time until convergence after the faults.
    pub(super) convergence: Duration,
    /// The trace, if requested.
    pub(super) trace: Vec<String>,
}

/// Runs a seed. With `pods`, the main cluster starts with so many.
pub(super) fn run(seed: u64, traced: bool, pods: Option<usize>) -> SimOutcome {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let started = Instant::now();
        let plan = Plan::random();
        let plan = pods.map_or(plan.clone(), |pods| plan.with_pods(pods));
        let checker = InvariantChecker::new(traced, plan.full_shutdown);
        checker.note(|| format!("{plan:?}"));
        let result = Simulation::new(plan, checker.clone()).run().await;
        let (violation, convergence) =
            result.map_or_else(|reason| (Some(reason), CONVERGENCE_LIMIT), |convergence| (None, convergence));
        SimOutcome { violation, time: started.elapsed(), convergence, trace: checker.trace() }
    })
}

impl Simulation {
    fn new(plan: Plan, checker: InvariantChecker) -> Self {
        let faults = FaultSwitch::new(if plan.kind == FaultKind::All { plan.rates } else { FaultRates::default() });
        let env = SimEnvironment {
            store: SimStore::new(faults.clone(), plan.session),
            network: SimNetwork::new(faults.clone()),
            faults,
            processes: SimProcesses::default(),
            checker,
            plan: Arc::new(plan),
        };
        Self { env, hosts: Vec::new(), host_count: 0 }
    }

    /// Runs to the end. Returns the time until convergence, or what did not hold.
    async fn run(mut self) -> Result<Duration, String> {
        for (side, pods) in [(ClusterSide::Web, self.env.plan.web), (ClusterSide::Db, self.env.plan.db)] {
            (0..pods).for_each(|_| self.join(side));
        }
        let is_quiet = self.env.plan.kind != FaultKind::All;
        let before = if is_quiet {
            self.converge().await?;
            Some((self.pids(), self.env.checker.rollouts()))
        } else {
            None
        };
        for _ in 0..self.env.plan.faults {
            self.advance_checked(faults::pause()).await?;
            self.inject();
        }
        self.advance_checked(faults::pause()).await?;
        self.heal();
        let convergence = self.converge().await?;
        if let Some((pids, rollouts)) = before {
            self.check_outages(&pids, rollouts)?;
        }
        self.shut_down_all().await?;
        Ok(convergence)
    }

    /// Lets time pass. Fails if an invariant was violated.
    async fn advance_checked(&self, time: Duration) -> Result<(), String> {
        sleep(time).await;
        let violation = self.env.checker.violation().or_else(|| self.env.store.violation());
        violation.map_or(Ok(()), Err)
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.env.checker.note(|| "--- faults stop".to_owned());
        self.env.faults.disable();
        self.env.store.heal();
        self.env.network.heal();
        self.hosts.iter().for_each(|host| host.pause_switch.set(false));
        self.undo_operations();
    }

    /// Waits for convergence, for a bounded time.
    async fn converge(&mut self) -> Result<Duration, String> {
        let started = Instant::now();
        loop {
            self.advance_checked(CHECK_INTERVAL).await?;
            self.hosts.retain(|host| !host.task.is_finished());
            match self.converged() {
                Ok(()) => return Ok(started.elapsed()),
                Err(reason) if started.elapsed() >= CONVERGENCE_LIMIT => {
                    return Err(format!("not converged after {CONVERGENCE_LIMIT:?}: {reason}"));
                }
                Err(_) => {}
            }
        }
    }

    fn pids(&self) -> Vec<(PodId, Option<u32>)> {
        self.hosts.iter().map(|host| (host.id.clone(), self.env.processes.of(&host.id))).collect()
    }

    /// Checks that outages, also of a dependency, restarted nothing, and that those shorter than the session timeout configured
    /// nothing.
    fn check_outages(&self, pids: &[(PodId, Option<u32>)], rollouts: usize) -> Result<(), String> {
        if self.pids() != pids {
            return Err(format!("an outage changed the processes from {pids:?} to {:?}", self.pids()));
        }
        let rollouts = self.env.checker.rollouts() - rollouts;
        if self.env.plan.kind == (FaultKind::Outages { short: true }) && rollouts > 0 {
            return Err(format!("{rollouts} configurations for outages shorter than the session"));
        }
        Ok(())
    }

    /// Shuts down all pods. Fails if one does not, or has not answered a request.
    async fn shut_down_all(mut self) -> Result<(), String> {
        self.env.checker.note(|| "--- shutdown".to_owned());
        (0..self.hosts.len()).for_each(|at| self.shut_down(at, None));
        let end = Instant::now() + SHUTDOWN_LIMIT;
        while self.hosts.iter().any(|host| !host.task.is_finished()) {
            if Instant::now() >= end {
                let stuck = self.hosts.iter().find(|host| !host.task.is_finished()).map(|host| host.id.clone());
                return Err(format!("{stuck:?} does not shut down"));
            }
            self.advance_checked(CHECK_INTERVAL).await?;
        }
        for host in &mut self.hosts {
            if (&mut host.task).await.is_err() {
                return Err(format!("{} panicked", host.id));
            }
            if !self.env.checker.of(&host.id, super::invariants::PodRecord::is_quiet) {
                return Err(format!("{} left a request unanswered", host.id));
            }
        }
        Ok(())
    }

    /// Starts one more host.
    pub(super) fn join(&mut self, side: ClusterSide) {
        let number = self.host_count + 1;
        let address = format!("10.0.{}.{}:8080", number / 250, number % 250);
        self.start(side, address);
    }

    fn start(&mut self, side: ClusterSide, address: String) {
        self.host_count += 1;
        let id = PodId::from(format!("{}-{:02}", side.name(), self.host_count).as_str());
        self.env.checker.note(|| format!("--- {id} starts at {address}"));
        self.hosts.push(SimHost::start(&self.env, side, id, address));
    }

    /// Terminates a pod; by force after `again`, if given.
    pub(super) fn shut_down(&mut self, at: usize, again: Option<Duration>) {
        let host = &self.hosts[at];
        host.stop.cancel();
        let force = host.force.clone();
        if let Some(time) = again {
            tokio::spawn(async move {
                sleep(time).await;
                force.cancel();
            });
        }
    }

    /// Crashes a host and its processes. Another one may start at its address.
    pub(super) fn crash(&mut self, at: usize, replaced: bool) {
        let host = self.hosts.remove(at);
        host.task.abort();
        self.env.processes.inject(&host.id, Exit::Signal(9), true);
        if replaced {
            self.start(host.side, host.address);
        }
    }
}
