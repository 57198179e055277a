//! Guarantee 3: a ZooKeeper outage, however long, never stops or restarts a sub-process; one shorter than the
//! session causes no reconfiguration.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Result, TestEnv, ZooKeeper, consistently, eventually};

use crate::{
    pod, started_once,
    status_monitor::{StatusMonitor, wait_recovered},
};

async fn wait_formed(session: u32) -> Result<(TestEnv, Vec<Pod>)> {
    let env = TestEnv::with_zookeeper(Arc::new(ZooKeeper::own().await?)).await?;
    let pods = env.start_cluster(3, |env| pod(env).set("session", session)).await?;
    Ok((env, pods))
}

async fn whole_again(env: &TestEnv, pods: &[Pod]) -> Result<usize> {
    wait_recovered(&env.cluster("default"), &pods.iter().collect::<Vec<_>>()).await
}

#[tokio::test]
async fn guarantee_3_a_short_outage_costs_nothing() -> Result {
    let (env, pods) = wait_formed(20).await?;
    let written = env.cluster("default").hash_written().await?;
    let numbers = numbers(&pods).await?;
    env.zookeeper().stop()?;
    for pod in &pods {
        eventually("it notices", DEFAULT_TIMEOUT, async || {
            let info = pod.client().info().await?;
            ensure!(info["session"] == "suspended", "session is {}", info["session"]);
            ensure!(info["state"] == "follower", "state is {} without a store", info["state"]);
            Ok(())
        })
        .await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    env.zookeeper().start().await?;
    for pod in &pods {
        pod.wait_info("session", "connected").await?;
    }
    consistently("nothing is configured", Duration::from_secs(2), async || {
        ensure!(env.cluster("default").hash_written().await? == written, "it was configured");
        Ok(())
    })
    .await?;
    ensure!(numbers == self::numbers(&pods).await?, "the numbers changed");
    whole_again(&env, &pods).await?;
    started_once(&pods).await
}

#[tokio::test]
async fn guarantee_3_a_long_outage_restarts_no_sub_process() -> Result {
    let (env, pods) = wait_formed(2).await?;
    let numbers = numbers(&pods).await?;
    let monitors: Vec<StatusMonitor> = pods.iter().map(StatusMonitor::of).collect();
    env.zookeeper().stop()?;
    for pod in &pods {
        pod.wait_info("session", "lost").await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    started_once(&pods).await?;
    // The store still has the lost sessions after its return: their nodes are left.
    env.zookeeper().start().await?;
    whole_again(&env, &pods).await?;
    for monitor in monitors {
        monitor.verify().await?;
    }
    ensure!(numbers == self::numbers(&pods).await?, "the numbers changed");
    started_once(&pods).await
}

async fn numbers(pods: &[Pod]) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for pod in pods {
        numbers.push(pod.client().info().await?["seq"].as_u64().context("seq is not a number")?);
    }
    Ok(numbers)
}

#[tokio::test]
async fn a_store_that_is_frozen_past_the_session_is_survived() -> Result {
    let (env, pods) = wait_formed(2).await?;
    let monitor = StatusMonitor::of(&pods[0]);
    env.zookeeper().freeze()?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    started_once(&pods).await?;
    env.zookeeper().thaw()?;
    whole_again(&env, &pods).await?;
    monitor.verify().await?;
    started_once(&pods).await
}

#[tokio::test]
async fn a_store_that_was_emptied_is_populated_again() -> Result {
    let (mut env, pods) = wait_formed(2).await?;
    let before = numbers(&pods).await?;
    let monitor = StatusMonitor::of(&pods[0]);
    env.zookeeper().stop()?;
    env.zookeeper().wipe()?;
    for pod in &pods {
        pod.wait_info("session", "lost").await?;
    }
    env.zookeeper().start().await?;
    env.reconnect().await?;
    whole_again(&env, &pods).await?;
    monitor.verify().await?;
    ensure!(before == numbers(&pods).await?, "the numbers changed");
    let newcomer = pod(&env).set("session", "2").start()?;
    newcomer.wait_info("process", "running").await?;
    let seq = newcomer.client().info().await?["seq"].as_u64().context("seq is not a number")?;
    ensure!(before.iter().all(|number| *number < seq), "the newcomer got {seq}, others have {before:?}");
    started_once(&pods).await
}

#[tokio::test]
async fn no_pod_is_configured_without_the_others_after_the_store_was_emptied() -> Result {
    let mut env = TestEnv::with_zookeeper(Arc::new(ZooKeeper::own().await?)).await?;
    // Each is started again for any view but that of its last start.
    let restless = |env: &TestEnv| pod(env).set("set_strict", "true").set("set_full_shutdown", "true");
    let pods = env.start_cluster(3, |env| restless(env).set("session", 4)).await?;
    env.zookeeper().stop()?;
    env.zookeeper().wipe()?;
    for pod in &pods {
        pod.wait_info("session", "lost").await?;
    }
    let before = starts(&pods)?;
    // One returns later than the others.
    pods[0].signal(Signal::SIGSTOP)?;
    env.zookeeper().start().await?;
    env.reconnect().await?;
    pods[1].wait_info("session", "connected").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    pods[0].signal(Signal::SIGCONT)?;
    env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    let after = starts(&pods)?;
    ensure!(before == after, "they were started again: {before:?}, then {after:?}");
    Ok(())
}

fn starts(pods: &[Pod]) -> Result<Vec<usize>> {
    pods.iter().map(|pod| Ok(pod.starts()?.len())).collect()
}

#[tokio::test]
async fn a_store_that_returns_with_old_data_is_updated() -> Result {
    let (mut env, mut pods) = wait_formed(5).await?;
    env.zookeeper().stop()?;
    env.zookeeper().keep()?;
    env.zookeeper().start().await?;
    pods.push(pod(&env).set("session", 5).start()?);
    whole_again(&env, &pods).await?;
    let before = numbers(&pods).await?;
    let monitor = StatusMonitor::of(&pods[0]);
    env.zookeeper().stop()?;
    env.zookeeper().restore()?;
    env.zookeeper().start().await?;
    env.reconnect().await?;
    whole_again(&env, &pods).await?;
    monitor.verify().await?;
    ensure!(before == numbers(&pods).await?, "the numbers changed");
    started_once(&pods).await
}

#[tokio::test]
async fn without_a_store_a_pod_waits_for_it() -> Result {
    let zookeeper = ZooKeeper::own().await?;
    let env = TestEnv::with_zookeeper(Arc::new(zookeeper)).await?;
    env.zookeeper().stop()?;
    let pod = pod(&env).set("session", "2").start()?;
    let info = eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await).await?;
    ensure!(info["session"] == "lost" && info["process"] == "stopped", "{info}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    pod.client().info().await?;
    env.zookeeper().start().await?;
    pod.wait_info("process", "running").await?;
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_be_resolved_is_waited_for() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod(&env).set("zk", "zookeeper.invalid:2181").start()?;
    eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await).await?;
    pod.wait_log("zookeeper.invalid").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(pod.is_up()?, "it exited");
    Ok(())
}

#[tokio::test]
async fn a_crash_during_an_outage_is_repaired() -> Result {
    let (env, pods) = wait_formed(2).await?;
    env.zookeeper().stop()?;
    pods[0].wait_info("session", "lost").await?;
    let pid = pods[0].started(1).await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    let begin = Instant::now();
    pods[0].started(2).await?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    env.zookeeper().start().await?;
    whole_again(&env, &pods).await?;
    ensure!(pods[0].starts()?.len() == 2, "it was restarted again");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_dies_while_the_store_is_away_is_missed_afterwards() -> Result {
    let (env, mut pods) = wait_formed(2).await?;
    let leader = whole_again(&env, &pods).await?;
    env.zookeeper().stop()?;
    let mut gone = pods.remove(leader);
    gone.kill9().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    env.zookeeper().start().await?;
    whole_again(&env, &pods).await?;
    started_once(&pods).await
}

#[tokio::test]
async fn repeated_blinks_are_survived() -> Result {
    let (env, pods) = wait_formed(10).await?;
    for _ in 0..4 {
        env.zookeeper().stop()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        env.zookeeper().start().await?;
    }
    whole_again(&env, &pods).await?;
    started_once(&pods).await
}
