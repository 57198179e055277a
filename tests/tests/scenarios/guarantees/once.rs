//! Guarantee 4: a dead pod is in no view past the pre-check. `seq` is unique and never changes, within one life of the
//! store. No pod is started twice for one generation.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{Result, SOON, Site, eventually, proxy::When, steadily};

use crate::{
    all,
    fleet::{Fleet, Step, second_starts, trail},
    pod, started_once,
};

#[tokio::test]
async fn guarantee_4_the_number_of_a_pod_outlives_its_session() -> Result {
    let site = Site::new().await?;
    let pods = site.form(2, |site| pod(site).set("session", "1")).await?;
    let leader = site.cluster("default").formed(&all(&pods)).await?;
    let follower = &pods[1 - leader];
    let before = follower.client().info().await?;
    follower.signal(Signal::SIGSTOP)?;
    let one = [&pods[leader]];
    site.cluster("default").formed(&one).await?;
    follower.signal(Signal::SIGCONT)?;
    site.cluster("default").formed(&all(&pods)).await?;
    let after = follower.client().info().await?;
    ensure!(before["seq"] == after["seq"] && before["key"] == after["key"], "{before} became {after}");
    started_once(&pods)
}

#[tokio::test]
async fn guarantee_4_a_dead_pod_is_dropped_from_the_snapshot_and_nobody_is_configured() -> Result {
    let site = Site::new().await?;
    let pods = site.form(3, pod).await?;
    let cluster = site.cluster("default");
    let leader = cluster.formed(&all(&pods)).await?;
    let dead = &pods[(leader + 1) % 3];
    let hash = cluster.hash().await?;
    let configured: Vec<usize> = pods.iter().map(|pod| pod.logged("callback configured")).collect::<Result<_>>()?;
    dead.client().post("/control/kill").await?.json(200)?;
    let key = dead.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    eventually("the snapshot is without it", SOON, async || {
        let snapshot = cluster.snapshot().await?;
        ensure!(snapshot.len() == 2 && !snapshot.contains_key(&key), "the snapshot has {:?}", snapshot.keys());
        Ok(())
    })
    .await?;
    steadily("nobody is configured", Duration::from_secs(2), async || {
        ensure!(cluster.hash().await? == hash, "the digest changed");
        for (pod, before) in pods.iter().zip(&configured) {
            ensure!(pod.logged("callback configured")? == *before, "{} was configured", pod.address());
        }
        Ok(())
    })
    .await?;
    started_once(&pods)
}

#[tokio::test]
async fn a_new_pod_joins_a_cluster_that_has_a_dead_one() -> Result {
    let site = Site::new().await?;
    let pods = site.form(2, pod).await?;
    let cluster = site.cluster("default");
    let leader = cluster.formed(&all(&pods)).await?;
    pods[1 - leader].client().post("/control/kill").await?.json(200)?;
    let newcomer = pod(&site).start()?;
    cluster.formed(&[&pods[leader], &newcomer]).await?;
    ensure!(cluster.registered().await?.len() == 3, "the dead pod's registration is gone");
    Ok(())
}

#[tokio::test]
async fn a_dead_leader_resigns() -> Result {
    let site = Site::new().await?;
    let pods = site.form(2, pod).await?;
    let cluster = site.cluster("default");
    let leader = cluster.formed(&all(&pods)).await?;
    pods[leader].client().post("/control/kill").await?.json(200)?;
    cluster.formed(&[&pods[1 - leader]]).await?;
    ensure!(pods[leader].client().info().await?["state"] == "follower", "a dead pod leads");
    ensure!(cluster.contenders().await?.len() == 1, "a dead pod contends");
    Ok(())
}

#[tokio::test]
async fn guarantee_4_a_generation_that_the_next_leader_resumes_starts_nobody_twice() -> Result {
    let complete =
        |site: &Site| pod(site).set("set_damper", "1").set("set_full_shutdown", "true").set("set_strict", "true");
    let mut fleet = Fleet::form(2, complete).await?;
    let leader = fleet.formed().await?;
    let (newcomer, ways) = fleet.newcomer().await?;
    let on = ways.catch_post(Step::On, When::Request);
    fleet.add(newcomer.start()?, ways);
    let caught = on.caught().await?;
    for member in &fleet.members[..2] {
        member.pod.started(2).await?;
    }
    // It is back, under its name, before the damper is over: the view is the same.
    fleet.members[leader].pod.client().post("/reset").await?.is(200)?;
    ensure!(fleet.formed().await? != leader, "the leadership did not change");
    caught.pass();
    let hash = fleet.site.cluster("default").hash().await?;
    for (position, member) in fleet.members.iter().enumerate() {
        let turned_on = trail(&member.pod)?.into_iter().filter(|begun| begun.task == "on" && begun.generation == hash);
        let epochs: BTreeSet<i64> = turned_on.map(|begun| begun.epoch).collect();
        let leaderships = if position < 2 { 2 } else { 1 };
        ensure!(epochs.len() == leaderships, "{} was turned on by {epochs:?}", member.pod.address());
        ensure!(second_starts(&member.pod)? == 0, "{} was started twice", member.pod.address());
    }
    Ok(())
}
