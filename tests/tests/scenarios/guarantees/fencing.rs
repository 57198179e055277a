//! Guarantee 1: after a pod has accepted a command of one leadership, it starts none of an earlier one; after a
//! leader's check phase, no `off` or `on` of an earlier leader starts on any pod.

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Result, TestEnv, ZooKeeper, eventually};
use serde_json::Value;

use crate::{follower::view_of, pod};

async fn registered(env: &TestEnv) -> Result<Value> {
    eventually("the pod registers", DEFAULT_TIMEOUT, async || view_of(env).await).await
}

async fn untouched(pod: &Pod) -> Result {
    ensure!(pod.client().info().await?["process"] == "stopped", "it was started");
    ensure!(pod.starts()?.is_empty(), "it was started");
    Ok(())
}

#[tokio::test]
async fn guarantee_1_a_pod_accepts_requests_of_the_lock_holder_only() -> Result {
    let env = TestEnv::new().await?;
    let first = env.cluster("default").lead().await?;
    let second = env.cluster("default").lead().await?;
    let pod = pod(&env).start()?;
    let view = registered(&env).await?;
    second.post(pod.client(), "on", "g", &view).await?.error(409)?;
    first.post_as(first.epoch() - 1, pod.client(), "on", "g", &view).await?.error(409)?;
    first.post_as(0, pod.client(), "on", "g", &view).await?.error(409)?;
    first.post_as(i64::MAX, pod.client(), "on", "g", &view).await?.error(409)?;
    untouched(&pod).await?;
    first.post(pod.client(), "check", "g", &view).await?.is(200)?;
    let info = pod.client().info().await?;
    ensure!(info["epoch"] == first.epoch(), "the epoch is {}", info["epoch"]);
    first.post(pod.client(), "on", "g", &view).await?.is(200)?;
    pod.started(1).await?;

    let stale = first.epoch();
    first.resign().await?;
    second.post(pod.client(), "check", "g2", &view).await?.is(200)?;
    for task in ["check", "on", "off", "ok"] {
        second.post_as(stale, pod.client(), task, "g", &view).await?.error(409)?;
    }
    ensure!(pod.client().info().await?["process"] == "running", "an earlier leader's off was accepted");
    Ok(())
}

#[tokio::test]
async fn a_waiting_command_of_a_replaced_leader_does_not_start() -> Result {
    let env = TestEnv::new().await?;
    let first = env.cluster("default").lead().await?;
    let second = env.cluster("default").lead().await?;
    let pod = pod(&env).misbehave("signaled", "sleep").start()?;
    let view = registered(&env).await?;
    first.post(pod.client(), "check", "g", &view).await?.is(200)?;
    let busy = async { pod.client().post("/control/signal/8").await };
    let stale = async {
        pod.wait_log("callback signaled").await?;
        first.post(pod.client(), "on", "g", &view).await
    };
    let replaced = async {
        pod.wait_log("callback signaled").await?;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        first.resign().await?;
        second.post(pod.client(), "check", "h", &view).await
    };
    let (_, stale, replaced) = tokio::try_join!(busy, stale, replaced)?;
    stale.error(409)?;
    replaced.is(200)?;
    untouched(&pod).await
}

#[tokio::test]
async fn without_an_epoch_a_request_is_taken_as_it_is() -> Result {
    let env = TestEnv::new().await?;
    let _lead = env.cluster("default").lead().await?;
    let pod = pod(&env).start()?;
    let view = registered(&env).await?;
    pod.client().post_json("/control/on/60", &view).await?.is(200)?;
    pod.started(1).await?;
    Ok(())
}

#[tokio::test]
async fn an_epoch_that_cannot_be_verified_is_503() -> Result {
    let env = TestEnv::with_zookeeper(ZooKeeper::own().await?.into()).await?;
    let lead = env.cluster("default").lead().await?;
    let pod = pod(&env).set("session", "4").start()?;
    let view = registered(&env).await?;
    env.zookeeper().freeze()?;
    lead.post(pod.client(), "on", "g", &view).await?.error(503)?;
    untouched(&pod).await?;
    env.zookeeper().thaw()?;
    eventually("it is accepted again", DEFAULT_TIMEOUT, async || {
        lead.post(pod.client(), "on", "g", &view).await?.is(200)
    })
    .await
}
