//! A storm of faults over a real ensemble and its pods, drawn from a seed, and what has to hold during and after it.
//!
//! | | |
//! |---|---|
//! | `schedule` | what happens when: pure, one round after the other |
//! | `act` | the things that happen, and how they are called |
//! | `field` | servers, pods and proxies, and how they happen to them |
//! | `chronicle`, `diary` | the pods' logs: fencing, starts, panics and errors, while they are written |
//! | `register` | ZooKeeper's nodes, looked at all the time: `seq` |
//! | `whole` | what must hold some time after the last fault of a round |
//! | `ledger` | what was checked, and what did not hold |
//!
//! A round has some weather, then calm: until everything is whole, and quiet where nothing but ZooKeeper or the network
//! was broken.

#![allow(clippy::print_stdout, reason = "what happens is told while it happens")]

mod act;
mod chronicle;
mod diary;
mod dice;
mod field;
mod ledger;
mod register;
mod schedule;
mod whole;

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::time::{self, MissedTickBehavior};

use crate::{PodBuilder, Result, eventually};
use field::{Field, SESSION};
pub use ledger::Ledger;
use register::Register;
use schedule::{Scheduler, Step, Weather};

/// Within this time after the last fault everything is whole again. Leaders wait up to half a minute between tries.
const RECOVERY: Duration = Duration::from_secs(90);
/// How often logs are read.
const LOOK: Duration = Duration::from_millis(100);

/// How the clusters of a storm are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Seven pods of one cluster with all defaults.
    Plain,
    /// Five pods that are all turned off for each configuration, and depend on a cluster of two.
    FullShutdown,
    /// Five pods that are configured one after the other, and depend on a cluster of two.
    Sequential,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::FullShutdown, Self::Sequential];

    /// Where pods may live: the cluster, and whether there is one from the beginning.
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

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::FullShutdown => "full-shutdown",
            Self::Sequential => "sequential",
        })
    }
}

/// How long a storm is.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// So many rounds.
    Rounds(u32),
    /// Rounds are begun for this long.
    Time(Duration),
}

/// A storm under way.
struct Storm {
    field: Field,
    register: Register,
    ledger: Ledger,
    begin: Instant,
}

/// Makes a storm: rounds of faults that last `round` each, drawn from `seed`. Says what it does, and gives what was checked.
/// The first thing that does not hold ends it.
///
/// # Errors
/// With what did not hold, and where the logs of it are.
pub async fn storm(seed: u64, shape: Shape, length: Length, round: Duration) -> Result<Ledger> {
    println!("seed {seed}, {shape}");
    let field = Field::new(shape).await?;
    let clusters = ["web", "db"].map(|name| (name, field.site.cluster(name).path("pods")));
    let register = Register::new(field.site.store().clone(), clusters.into());
    let mut storm = Storm { field, register, ledger: Ledger::default(), begin: Instant::now() };
    // Shapes differ in what happens to them, too.
    let scheduler = Scheduler::new(seed ^ (shape as u64) << 32, shape.slots(), SESSION);
    let outcome = storm.rage(scheduler, length, round).await;
    if let Err(error) = outcome {
        let logs = storm.field.keep_logs(&format!("{seed}-{shape}"))?;
        return Err(error).with_context(|| format!("seed {seed}, {shape}: logs are in {}", logs.display()));
    }
    Ok(storm.ledger)
}

impl Storm {
    async fn rage(&mut self, mut scheduler: Scheduler, length: Length, round: Duration) -> Result {
        self.calm().await?;
        let weathers = [Weather::Everything, Weather::Servers, Weather::Leaders, Weather::Network, Weather::Blinks];
        for (number, weather) in (0..).zip(weathers.into_iter().cycle()) {
            let goes_on = match length {
                Length::Rounds(rounds) => number < rounds,
                Length::Time(time) => self.begin.elapsed() < time,
            };
            if !goes_on {
                break;
            }
            self.round(scheduler.round(weather, round), weather).await?;
        }
        self.field.end().await?;
        self.look()?;
        for cluster in ["web", "db"] {
            let left = self.field.site.cluster(cluster).registered().await?;
            self.ledger.holds("whoever leaves is gone", left.is_empty(), || format!("left in {cluster} are {left:?}"));
        }
        self.judge()
    }

    async fn round(&mut self, steps: Vec<Step>, weather: Weather) -> Result {
        self.say(format_args!("{weather:?}"));
        let (unrest, starts) = (self.field.chronicle.unrest(), self.starts());
        let begin = time::Instant::now();
        let mut steps = VecDeque::from(steps);
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(Step { at, act }) = steps.front().copied() {
            tokio::select! {
                () = time::sleep_until(begin + at) => {
                    steps.pop_front();
                    self.say(format_args!("{act}"));
                    if !act.deed.mends() {
                        *self.ledger.faults.entry(act.kind()).or_default() += 1;
                    }
                    self.field.act(act).await.with_context(|| act.to_string())?;
                }
                _ = looks.tick() => {
                    self.look()?;
                    self.judge()?;
                }
            }
        }
        self.calm().await?;
        if !matches!(weather, Weather::Everything | Weather::Leaders) {
            self.was_quiet(unrest, &starts);
        }
        self.judge()
    }

    /// Waits until everything is whole.
    async fn calm(&mut self) -> Result {
        let begin = Instant::now();
        self.field.tidy().await?;
        let Self { field, register, ledger, .. } = self;
        let whole = eventually("everything is whole again", RECOVERY, async || {
            field.chronicle.read(ledger)?;
            register.read(ledger);
            field.is_whole().await
        });
        whole.await?;
        self.ledger.holds("everything is whole in the end", true, String::new);
        self.say(format_args!("whole after {:.1} s", begin.elapsed().as_secs_f64()));
        self.look()?;
        self.judge()
    }

    /// Faults of ZooKeeper and of the network alone, as they were, start nothing; where no session was lost they configure
    /// nothing either. A pod that lost its session while others kept theirs has left, and come back: where that stops pods by
    /// the model, they are stopped.
    fn was_quiet(&mut self, before: (u64, u64), starts: &[u64]) {
        let ((lost, begun), now) = (self.field.chronicle.unrest(), self.starts());
        let same_session = lost == before.0;
        if same_session {
            self.ledger.holds("within the session nothing is configured", begun == before.1, || {
                format!("{} configurations were begun", begun - before.1)
            });
        }
        if same_session || self.field.is_plain() {
            self.ledger.holds("faults of ZooKeeper start no sub-process", now == starts, || {
                format!("there were {starts:?} starts, and are {now:?}")
            });
        }
    }

    /// Starts of the sub-process of each pod that is there.
    fn starts(&self) -> Vec<u64> {
        let names = self.field.slots.iter().map(|slot| &slot.name);
        names.map(|name| self.field.chronicle.diary(name).map_or(0, |diary| diary.starts)).collect()
    }

    fn look(&mut self) -> Result {
        self.field.chronicle.read(&mut self.ledger)?;
        self.register.read(&mut self.ledger);
        Ok(())
    }

    fn judge(&self) -> Result {
        ensure!(self.ledger.broken.is_empty(), "{}", self.ledger.broken.join("\n"));
        Ok(())
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        println!("{:8.2} s  {what}", self.begin.elapsed().as_secs_f64());
    }
}
