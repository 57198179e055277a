//! A chaos run on a real ensemble and its pods, drawn from a seed, and the conditions that must hold during and after
//! it.
//!
//! | | |
//! |---|---|
//! | `schedule` | times and kinds of faults: pure, one round after the other |
//! | `action` | the actions and their names |
//! | `testbed` | servers, pods and proxies, and the execution of actions |
//! | `log_checker`, `log_parser` | the pods' logs: fencing, starts, panics and errors, while they are written |
//! | `registration_observer` | ZooKeeper's nodes, observed continuously: `seq` |
//! | `convergence` | conditions that must hold some time after the last fault of a round |
//! | `report` | checks, and violations |
//!
//! A round has a mix of faults, then a quiet period until everything has converged. If only ZooKeeper or the network
//! was faulty, nothing may start.

#![allow(clippy::print_stdout, reason = "events are printed as they happen")]

mod action;
mod convergence;
mod log_checker;
mod log_parser;
mod registration_observer;
mod report;
mod rng;
mod schedule;
mod testbed;

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use registration_observer::RegistrationObserver;
pub use report::ChaosReport;
use schedule::{FaultMix, ScheduledAction, Scheduler};
use testbed::{SESSION, Testbed};
use tokio::time::{self, MissedTickBehavior};

use crate::{PodBuilder, Result, eventually};

/// Time after the last fault within which everything converges. Leaders wait up to half a minute between retries.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(90);
/// Interval at which logs are read.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shape of the clusters of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterShape {
    /// Seven pods of one cluster with all defaults.
    Plain,
    /// Five pods that are all turned off for each configuration, and depend on a cluster of two.
    FullShutdown,
    /// Five pods that are configured one after the other, and depend on a cluster of two.
    Sequential,
}

impl ClusterShape {
    /// All shapes.
    pub const ALL: [Self; 3] = [Self::Plain, Self::FullShutdown, Self::Sequential];

    /// Slots of pods: the cluster, and whether a pod runs from the start.
    fn slots(self) -> Vec<(&'static str, bool)> {
        let (web, db) = if self == Self::Plain { (7, 0) } else { (5, 2) };
        let web = (0..web + 2).map(|slot| ("web", slot < web));
        web.chain((0..db).map(|_| ("db", true))).collect()
    }

    fn complete(self, pod: PodBuilder, cluster: &str) -> PodBuilder {
        match (self, cluster) {
            (Self::FullShutdown, "web") => pod.set("set_full_shutdown", "true").set("set_depends_on", "db"),
            (Self::Sequential, "web") => pod.set("set_sequential", "true").set("set_depends_on", "db"),
            _ => pod,
        }
    }
}

impl fmt::Display for ClusterShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::FullShutdown => "full-shutdown",
            Self::Sequential => "sequential",
        })
    }
}

/// Length of a run.
#[derive(Debug, Clone, Copy)]
pub enum RunLength {
    /// Number of rounds.
    Rounds(u32),
    /// Time during which rounds are started.
    Time(Duration),
}

/// A chaos run in progress.
struct ChaosRun {
    testbed: Testbed,
    observer: RegistrationObserver,
    report: ChaosReport,
    begin: Instant,
}

/// Runs rounds of faults that last `round` each, drawn from `seed`. Prints its actions and returns the checks. The
/// first violation ends it.
///
/// # Errors
/// The violation, and the directory of its logs.
pub async fn run(seed: u64, shape: ClusterShape, length: RunLength, round: Duration) -> Result<ChaosReport> {
    println!("seed {seed}, {shape}");
    let testbed = Testbed::new(shape).await?;
    let clusters = ["web", "db"].map(|name| (name, testbed.env.cluster(name).path("pods")));
    let observer = RegistrationObserver::new(testbed.env.store().clone(), clusters.into());
    let mut run = ChaosRun { testbed, observer, report: ChaosReport::default(), begin: Instant::now() };
    // Shapes differ in what happens to them, too.
    let scheduler = Scheduler::new(seed ^ (shape as u64) << 32, shape.slots(), SESSION);
    let outcome = run.execute(scheduler, length, round).await;
    if let Err(error) = outcome {
        let logs = run.testbed.keep_logs(&format!("{seed}-{shape}"))?;
        return Err(error).with_context(|| format!("seed {seed}, {shape}: logs are in {}", logs.display()));
    }
    Ok(run.report)
}

impl ChaosRun {
    async fn execute(&mut self, mut scheduler: Scheduler, length: RunLength, round: Duration) -> Result {
        self.wait_converged().await?;
        let mixes =
            [FaultMix::Everything, FaultMix::Servers, FaultMix::Leaders, FaultMix::Network, FaultMix::ShortFaults];
        for (number, mix) in (0..).zip(mixes.into_iter().cycle()) {
            let continues = match length {
                RunLength::Rounds(rounds) => number < rounds,
                RunLength::Time(time) => self.begin.elapsed() < time,
            };
            if !continues {
                break;
            }
            self.round(scheduler.round(mix, round), mix).await?;
        }
        self.testbed.end().await?;
        self.read_logs()?;
        for cluster in ["web", "db"] {
            let left = self.testbed.env.cluster(cluster).registered().await?;
            self.report.check("a stopped pod deregisters", left.is_empty(), || {
                format!("pods still registered in {cluster}: {left:?}")
            });
        }
        self.fail_if_broken()
    }

    async fn round(&mut self, steps: Vec<ScheduledAction>, mix: FaultMix) -> Result {
        self.print_event(format_args!("{mix:?}"));
        let (losses_and_starts, starts) = (self.testbed.log_checker.losses_and_starts(), self.starts());
        let begin = time::Instant::now();
        let mut steps = VecDeque::from(steps);
        let mut polls = time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(ScheduledAction { at, act }) = steps.front().copied() {
            tokio::select! {
                () = time::sleep_until(begin + at) => {
                    steps.pop_front();
                    self.print_event(format_args!("{act}"));
                    if !act.kind.is_repair() {
                        *self.report.faults.entry(act.label()).or_default() += 1;
                    }
                    self.testbed.act(act).await.with_context(|| act.to_string())?;
                }
                _ = polls.tick() => {
                    self.read_logs()?;
                    self.fail_if_broken()?;
                }
            }
        }
        self.wait_converged().await?;
        if !matches!(mix, FaultMix::Everything | FaultMix::Leaders) {
            self.was_quiet(losses_and_starts, &starts);
        }
        self.fail_if_broken()
    }

    /// Waits until everything has converged.
    async fn wait_converged(&mut self) -> Result {
        let begin = Instant::now();
        self.testbed.repair_all().await?;
        let Self { testbed, observer, report, .. } = self;
        let converged = eventually("everything has converged", RECOVERY_TIMEOUT, async || {
            testbed.log_checker.read(report)?;
            observer.read(report);
            testbed.check_converged().await
        });
        converged.await?;
        self.report.check("everything converges", true, String::new);
        self.print_event(format_args!("converged after {:.1} s", begin.elapsed().as_secs_f64()));
        self.read_logs()?;
        self.fail_if_broken()
    }

    /// Checks that faults of ZooKeeper and the network alone started nothing, and configured nothing if no session was
    /// lost. A pod that lost its session while others kept theirs has left and joined again: if the model stops pods
    /// for that, they are stopped.
    fn was_quiet(&mut self, before: (u64, u64), starts: &[u64]) {
        let ((lost, started), now) = (self.testbed.log_checker.losses_and_starts(), self.starts());
        let same_session = lost == before.0;
        if same_session {
            self.report.check("no configuration within the session", started == before.1, || {
                format!("{} configurations started", started - before.1)
            });
        }
        if same_session || self.testbed.is_plain() {
            self.report.check("faults of ZooKeeper start no sub-process", now == starts, || {
                format!("starts before {starts:?}, after {now:?}")
            });
        }
    }

    /// Returns the number of starts of the sub-process of each running pod.
    fn starts(&self) -> Vec<u64> {
        let names = self.testbed.slots.iter().map(|slot| &slot.name);
        names.map(|name| self.testbed.log_checker.parser(name).map_or(0, |parser| parser.starts)).collect()
    }

    fn read_logs(&mut self) -> Result {
        self.testbed.log_checker.read(&mut self.report)?;
        self.observer.read(&mut self.report);
        Ok(())
    }

    fn fail_if_broken(&self) -> Result {
        ensure!(self.report.broken.is_empty(), "{}", self.report.broken.join("\n"));
        Ok(())
    }

    fn print_event(&self, what: fmt::Arguments<'_>) {
        println!("{:8.2} s  {what}", self.begin.elapsed().as_secs_f64());
    }
}
