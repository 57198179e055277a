//! `make bench-scale`: what large clusters of the release binary cost, on a real ZooKeeper, each pod a process.
//!
//! For each size: time until pods that start together are configured, one more joins, one leaves, the leader is killed, and
//! the store is down for 20 s; processor time of leader and followers for a join and for each of its phases, bytes that one
//! follower is sent in each, and memory. A sub-process that is started twice is an error.
//!
//! `SIZES=100,400,1000 JOINS=5 PLUGIN=hello` are the defaults.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![allow(clippy::indexing_slicing, reason = "indexing is how JSON is looked into")]

mod cluster;
mod phases;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use cluster::LargeCluster;
use ochopod_tests::{Result, TestEnv, ZooKeeper, artifacts};
use phases::{CpuUse, PHASES, PhaseMarks};

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
    let leader = cluster.leader().await?;
    let mut marks = Vec::new();
    for _ in 0..joins {
        marks.push(cluster.join(leader, SETTLE_TIME).await?);
    }
    // Last: the leader of a cluster that has just formed still reads what its pods publish.
    let begin = cluster.cpu(leader)?;
    tokio::time::sleep(IDLE_TIME).await;
    let idle = cluster.cpu(leader)?.since(&begin).per_second();
    println!("  CPU when idle: leader {:.1?} per second, follower {:.0?}", idle.leader, idle.follower);
    let join = print_joins(&marks, size, &idle);
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

/// Prints what joins used, in total and by phase. Returns the median time until a pod is configured.
fn print_joins(marks: &[PhaseMarks], size: usize, idle: &CpuUse) -> Duration {
    let times: Vec<Duration> = marks.iter().map(PhaseMarks::took).collect();
    println!("  one more {:.2?} (median of {times:.2?})", median(times.clone()));
    let whole: Vec<CpuUse> = marks.iter().map(|marks| marks.whole().above(idle)).collect();
    print_cpu("a join", &whole, size);
    for (phase, (name, task)) in PHASES.into_iter().enumerate() {
        let used: Vec<CpuUse> = marks.iter().map(|marks| marks.phase(phase).above(idle)).collect();
        print_cpu(name, &used, size);
        let mut bytes: Vec<usize> = marks.iter().map(|marks| marks.bytes(task)).collect();
        bytes.sort_unstable();
        println!("    sent to one follower as {task}: {} bytes", bytes[bytes.len() / 2]);
    }
    median(times)
}

/// Prints the medians of what was used.
fn print_cpu(what: &str, used: &[CpuUse], size: usize) {
    let of = |time: fn(&CpuUse) -> Duration| median(used.iter().map(time).collect());
    let (span, leader, follower) = (of(|used| used.span), of(|used| used.leader), of(|used| used.follower));
    let per_pod = leader.div_f64(ratio(size, 1));
    println!(
        "  {what}: {span:.2?}; CPU above idle: leader {leader:.1?}, {per_pod:.0?} per pod; follower {follower:.2?}"
    );
}
