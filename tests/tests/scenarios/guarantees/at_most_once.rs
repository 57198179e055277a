//! Guarantee 4: a dead pod is in no view past the pre-check. `seq` is unique and never changes, within one life of the
//! store. No pod is started twice for one generation.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, consistently, eventually, proxy::CatchPoint};

use crate::{
    all,
    interceptable_cluster::{InterceptableCluster, Step, second_starts, started_tasks},
    pod, started_once,
};

#[tokio::test]
async fn guarantee_4_the_number_of_a_pod_outlives_its_session() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, |env| pod(env).set("session", "1")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let follower = &pods[1 - leader];
    let before = follower.client().info().await?;
    follower.signal(Signal::SIGSTOP)?;
    let one = [&pods[leader]];
    env.cluster("default").wait_formed(&one).await?;
    follower.signal(Signal::SIGCONT)?;
    env.cluster("default").wait_formed(&all(&pods)).await?;
    let after = follower.client().info().await?;
    ensure!(before["seq"] == after["seq"] && before["key"] == after["key"], "{before} became {after}");
    started_once(&pods).await
}

#[tokio::test]
async fn guarantee_4_a_dead_pod_is_dropped_from_the_snapshot_and_no_pod_is_configured() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(3, pod).await?;
    let cluster = env.cluster("default");
    let leader = cluster.wait_formed(&all(&pods)).await?;
    let dead = &pods[(leader + 1) % 3];
    let hash = cluster.hash().await?;
    for pod in &pods {
        eventually("it receives ok for all three", DEFAULT_TIMEOUT, async || {
            let log = pod.log()?;
            let applied = log.lines().any(|line| line.contains("callback configured") && line.contains(" size=3 "));
            ensure!(applied, "{} is not", pod.address());
            Ok(())
        })
        .await?;
    }
    let configured: Vec<usize> = pods.iter().map(|pod| pod.count_log("callback configured")).collect::<Result<_>>()?;
    dead.client().post("/control/kill").await?.json(200)?;
    let key = dead.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    eventually("the snapshot is without it", DEFAULT_TIMEOUT, async || {
        let snapshot = cluster.snapshot().await?;
        ensure!(snapshot.len() == 2 && !snapshot.contains_key(&key), "the snapshot has {:?}", snapshot.keys());
        Ok(())
    })
    .await?;
    consistently("no pod is configured", Duration::from_secs(2), async || {
        ensure!(cluster.hash().await? == hash, "the digest changed");
        for (pod, before) in pods.iter().zip(&configured) {
            ensure!(pod.count_log("callback configured")? == *before, "{} was configured", pod.address());
        }
        Ok(())
    })
    .await?;
    started_once(&pods).await
}

#[tokio::test]
async fn a_new_pod_joins_a_cluster_that_has_a_dead_one() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, pod).await?;
    let cluster = env.cluster("default");
    let leader = cluster.wait_formed(&all(&pods)).await?;
    pods[1 - leader].client().post("/control/kill").await?.json(200)?;
    let newcomer = pod(&env).start()?;
    cluster.wait_formed(&[&pods[leader], &newcomer]).await?;
    ensure!(cluster.registered().await?.len() == 3, "the dead pod's registration is gone");
    Ok(())
}

#[tokio::test]
async fn a_dead_leader_resigns() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, pod).await?;
    let cluster = env.cluster("default");
    let leader = cluster.wait_formed(&all(&pods)).await?;
    pods[leader].client().post("/control/kill").await?.json(200)?;
    cluster.wait_formed(&[&pods[1 - leader]]).await?;
    pods[leader].wait_info("state", "follower").await.context("a dead pod leads")?;
    ensure!(cluster.contenders().await?.len() == 1, "a dead pod contends");
    Ok(())
}

#[tokio::test]
async fn guarantee_4_a_generation_that_the_next_leader_resumes_starts_no_pod_twice() -> Result {
    let complete =
        |env: &TestEnv| pod(env).set("set_damper", "4").set("set_full_shutdown", "true").set("set_strict", "true");
    let mut cluster = InterceptableCluster::form(2, complete).await?;
    let leader = cluster.wait_formed().await?;
    let (newcomer, proxies) = cluster.newcomer().await?;
    let on = proxies.catch_post(Step::On, CatchPoint::Request);
    cluster.add(newcomer.start()?, proxies);
    let caught = on.caught().await?;
    for member in &cluster.members[..2] {
        member.pod.started(2).await?;
    }
    // It returns under its name before the damper has expired: the view is the same.
    cluster.members[leader].pod.client().post("/reset").await?.is(200)?;
    ensure!(cluster.wait_formed().await? != leader, "the leadership did not change");
    caught.pass();
    let hash = cluster.env.cluster("default").hash().await?;
    for (position, member) in cluster.members.iter().enumerate() {
        let leaderships = if position < 2 { 2 } else { 1 };
        let turned_on = async || {
            let turned_on =
                started_tasks(&member.pod)?.into_iter().filter(|task| task.task == "on" && task.generation == hash);
            let epochs: BTreeSet<i64> = turned_on.map(|task| task.epoch).collect();
            ensure!(epochs.len() == leaderships, "{} was turned on by {epochs:?}", member.pod.address());
            Ok(())
        };
        eventually("each leadership turned it on", DEFAULT_TIMEOUT, turned_on).await?;
        consistently("the late post turns nothing on", Duration::from_secs(1), turned_on).await?;
        ensure!(second_starts(&member.pod)? == 0, "{} was started twice", member.pod.address());
    }
    Ok(())
}
