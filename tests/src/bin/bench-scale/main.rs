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
    time::Duration,
};

use anyhow::Context;
use cluster::LargeCluster;
use ochopod_tests::{Result, TestEnv, ZooKeeper, artifacts};

/// Time for which the store is down: longer than a session.
const OUTAGE: Duration = Duration::from_secs(20);

/// Figures of one size.
#[derive(Debug, Default)]
struct Figures {
    size: usize,
    form: Duration,
    rollouts: usize,
    joins: Vec<Duration>,
    leader_cpu: Vec<Duration>,
    follower_cpu: Vec<Duration>,
    leave: Duration,
    leader_lost: Duration,
    leader_memory: f64,
    follower_memory: f64,
    idle_cpu: Duration,
    recovered: Duration,
}

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
    let (mut all, mut medians) = (Vec::new(), Vec::new());
    for size in sizes {
        let figures = measure(&plugin, size, joins).await.with_context(|| format!("with {size} pods"))?;
        print(&figures);
        medians.push((size, median(figures.joins.clone())));
        all.push(figures);
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

async fn measure(plugin: &Path, size: usize, joins: usize) -> Result<Figures> {
    let zookeeper = Arc::new(ZooKeeper::own().await?);
    let environment = TestEnv::with_zookeeper(zookeeper.clone()).await?;
    let cache = tempfile::Builder::new().prefix("ochopod-bench-").tempdir()?;
    fs::set_permissions(cache.path(), Permissions::from_mode(0o700))?;
    let mut cluster = LargeCluster::new(&environment, artifacts::released()?, plugin.to_owned(), cache.path());
    let mut figures = Figures { size, ..Figures::default() };

    cluster.compile().await?;
    figures.form = cluster.form(size).await?;
    figures.rollouts = cluster.rollouts()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..joins {
        let (leader, follower) = cluster.cpu().await?;
        figures.joins.push(cluster.join().await?);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (leader_now, follower_now) = cluster.cpu().await?;
        figures.leader_cpu.push(leader_now.saturating_sub(leader));
        figures.follower_cpu.push(follower_now.saturating_sub(follower));
    }
    let (_, busy) = cluster.cpu().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    figures.idle_cpu = (cluster.cpu().await?.1.saturating_sub(busy)) / 10;
    figures.leave = cluster.leave().await?;
    (figures.leader_memory, figures.follower_memory) = cluster.memory().await?;

    figures.leader_lost = cluster.lose_leader().await?;
    zookeeper.stop()?;
    tokio::time::sleep(OUTAGE).await;
    zookeeper.start().await?;
    figures.recovered = cluster.recovered().await?;
    cluster.check_agreement().await?;
    cluster.check_started_once()?;
    Ok(figures)
}

fn print(figures: &Figures) {
    let Figures { size, form, rollouts, joins, leave, leader_lost, recovered, .. } = figures;
    println!("{size} pods");
    println!("  form {:.1} s, {rollouts} rollouts", form.as_secs_f64());
    println!("  one more {:.0?} (median of {:.0?})", median(joins.clone()), joins);
    println!("  one less {leave:.0?}");
    println!("  leader killed, session 5 s: {:.1} s", leader_lost.as_secs_f64());
    println!("  store down for {} s: all registered again after {:.1} s", OUTAGE.as_secs(), recovered.as_secs_f64());
    let (leader, follower) = (median(figures.leader_cpu.clone()), median(figures.follower_cpu.clone()));
    println!(
        "  CPU of a join: leader {leader:.1?}, {:.0?} per pod; follower {follower:.2?}",
        leader.div_f64(ratio(*size, 1))
    );
    println!("  CPU of an idle follower: {:.0?} per second", figures.idle_cpu);
    println!("  memory: leader {:.1} MB, follower {:.1} MB", figures.leader_memory, figures.follower_memory);
}
