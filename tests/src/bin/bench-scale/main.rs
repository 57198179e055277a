//! `make bench-scale`: what large clusters of the release binary cost, on a real ZooKeeper, each pod a process.
//!
//! For each size: time until pods that start together are configured, one more joins, one leaves, the leader is killed, and
//! the store is down for 20 s; processor time of leader and followers for a join, and their memory. A sub-process that is
//! started twice is an error.
//!
//! `SIZES=100,400,1000 JOINS=5 PLUGIN=hello` are the defaults.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![allow(clippy::indexing_slicing, reason = "indexing is how JSON is looked into")]

mod cluster;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use cluster::LargeCluster;
use ochopod_tests::{Result, TestEnv, ZooKeeper, artifacts};

/// Time after a change until the processor time is read: pods publish their states meanwhile.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Time for which idle pods are measured.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// Time for which the store is down: longer than a session.
const OUTAGE: Duration = Duration::from_secs(20);

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let sizes = env::var("SIZES").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "100,400,1000".to_owned());
    let sizes = sizes
        .split(',')
        .map(str::parse::<usize>)
        .collect::<std::result::Result<Vec<usize>, _>>()
        .context("SIZES, such as 100,400")?;
    let joins = env::var("JOINS").ok().filter(|text| !text.is_empty()).map_or(Ok(5), |text| text.parse())?;
    let plugin = env::var("PLUGIN").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "hello".to_owned());
    let plugin = artifacts::plugin(&plugin)?;
    let mut medians = Vec::new();
    for size in sizes {
        medians.push((size, measure(&plugin, size, joins).await.with_context(|| format!("with {size} pods"))?));
    }
    if let [(small, first), .., (large, last)] = medians.as_slice() {
        let growth = (last.as_secs_f64() / first.as_secs_f64()).ln() / (ratio(*large, *small)).ln();
        println!("growth exponent of a join, {small} to {large} pods: {growth:.2}");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "numbers of pods")]
fn ratio(large: usize, small: usize) -> f64 {
    large as f64 / small as f64
}

/// Measures a cluster of this size, and prints each figure once it is known. Returns the median time of a join.
async fn measure(plugin: &Path, size: usize, joins: usize) -> Result<Duration> {
    let zookeeper = Arc::new(ZooKeeper::own().await?);
    let environment = TestEnv::with_zookeeper(zookeeper.clone()).await?;
    let cache = tempfile::Builder::new().prefix("ochopod-bench-").tempdir()?;
    fs::set_permissions(cache.path(), Permissions::from_mode(0o700))?;
    let mut cluster = LargeCluster::new(&environment, artifacts::released()?, plugin.to_owned(), cache.path());

    println!("{size} pods");
    cluster.compile().await?;
    let form = cluster.form(size).await?;
    println!("  form {:.1} s, {} rollouts", form.as_secs_f64(), cluster.rollouts()?);
    tokio::time::sleep(SETTLE_TIME).await;
    let begin = (Instant::now(), cluster.cpu().await?);
    tokio::time::sleep(IDLE_TIME).await;
    let idle = CpuTimes::since(begin, &cluster).await?.per_second();
    println!("  CPU of an idle follower: {:.0?} per second", idle.follower);
    let join = measure_joins(&mut cluster, (size, joins), &idle).await?;
    let (leader, follower) = cluster.memory().await?;
    println!("  memory: leader {leader:.1} MiB, follower {follower:.1} MiB");
    println!("  one less {:.2?}", cluster.leave().await?);
    println!("  leader killed, session 5 s: {:.1} s", cluster.lose_leader().await?.as_secs_f64());
    zookeeper.stop()?;
    tokio::time::sleep(OUTAGE).await;
    zookeeper.start().await?;
    let recovered = cluster.recovered().await?.as_secs_f64();
    println!("  store down for {} s: all registered again after {recovered:.1} s", OUTAGE.as_secs());
    cluster.check_agreement().await?;
    cluster.check_started_once()?;
    println!("  each sub-process was started once, all pods name the same leader");
    Ok(join)
}

/// Starts one more pod several times. Returns the median time until each is configured.
async fn measure_joins(
    cluster: &mut LargeCluster<'_>,
    (size, joins): (usize, usize),
    idle: &CpuTimes,
) -> Result<Duration> {
    let (mut times, mut leader, mut follower) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..joins {
        let begin = (Instant::now(), cluster.cpu().await?);
        times.push(cluster.join().await?);
        tokio::time::sleep(SETTLE_TIME).await;
        let used = CpuTimes::since(begin, cluster).await?;
        leader.push(used.above(idle).leader);
        follower.push(used.above(idle).follower);
    }
    println!("  one more {:.2?} (median of {times:.2?})", median(times.clone()));
    let (leader, follower) = (median(leader), median(follower));
    let per_pod = leader.div_f64(ratio(size, 1));
    println!("  CPU of a join above idle: leader {leader:.1?}, {per_pod:.0?} per pod; follower {follower:.2?}");
    Ok(median(times))
}

/// Processor time of the leader, and of a follower on average, in a span of time.
struct CpuTimes {
    span: Duration,
    leader: Duration,
    follower: Duration,
}

impl CpuTimes {
    async fn since(
        (begin, (leader, follower)): (Instant, (Duration, Duration)),
        cluster: &LargeCluster<'_>,
    ) -> Result<Self> {
        let (leader_now, follower_now) = cluster.cpu().await?;
        let (leader, follower) = (leader_now.saturating_sub(leader), follower_now.saturating_sub(follower));
        Ok(Self { span: begin.elapsed(), leader, follower })
    }

    fn per_second(&self) -> Self {
        let seconds = self.span.as_secs_f64();
        let [leader, follower] = [self.leader, self.follower].map(|time| time.div_f64(seconds));
        Self { span: Duration::from_secs(1), leader, follower }
    }

    /// Returns the times without those of idle pods, which are given per second.
    fn above(&self, idle: &Self) -> Self {
        let seconds = self.span.as_secs_f64();
        let leader = self.leader.saturating_sub(idle.leader.mul_f64(seconds));
        Self { span: self.span, leader, follower: self.follower.saturating_sub(idle.follower.mul_f64(seconds)) }
    }
}
