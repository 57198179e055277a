//! Guarantee 1: once a pod has accepted a command of one leadership it begins none of an earlier one; once a leader's check
//! phase is done no earlier leader's `off` or `on` begins anywhere.

use anyhow::ensure;
use ochopod_tests::{Pod, Result, SOON, Site, ZooKeeper, eventually};
use serde_json::Value;

use crate::{follower::view_of, pod};

async fn registered(site: &Site) -> Result<Value> {
    eventually("the pod registers", SOON, async || view_of(site).await).await
}

fn untouched(pod: &Pod) -> Result {
    ensure!(pod.starts()?.is_empty(), "it was started");
    Ok(())
}

#[tokio::test]
async fn guarantee_1_a_pod_obeys_the_lock_holder_alone() -> Result {
    let site = Site::new().await?;
    let first = site.cluster("default").lead().await?;
    let second = site.cluster("default").lead().await?;
    let pod = pod(&site).start()?;
    let view = registered(&site).await?;
    second.post(pod.client(), "on", "g", &view).await?.error(409)?;
    first.post_as(first.epoch() - 1, pod.client(), "on", "g", &view).await?.error(409)?;
    first.post_as(0, pod.client(), "on", "g", &view).await?.error(409)?;
    first.post_as(i64::MAX, pod.client(), "on", "g", &view).await?.error(409)?;
    untouched(&pod)?;
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
    ensure!(pod.client().info().await?["process"] == "running", "an earlier leader's off was obeyed");
    Ok(())
}

#[tokio::test]
async fn a_command_of_a_leader_that_is_replaced_while_it_waits_does_not_begin() -> Result {
    let site = Site::new().await?;
    let first = site.cluster("default").lead().await?;
    let second = site.cluster("default").lead().await?;
    let pod = pod(&site).misbehave("signaled", "sleep").start()?;
    let view = registered(&site).await?;
    first.post(pod.client(), "check", "g", &view).await?.is(200)?;
    let busy = async { pod.client().post("/control/signal/3").await };
    let stale = async {
        pod.logs("callback signaled").await?;
        first.post(pod.client(), "on", "g", &view).await
    };
    let replaced = async {
        pod.logs("callback signaled").await?;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        first.resign().await?;
        second.post(pod.client(), "check", "h", &view).await
    };
    let (_, stale, replaced) = tokio::try_join!(busy, stale, replaced)?;
    stale.error(409)?;
    replaced.is(200)?;
    untouched(&pod)
}

#[tokio::test]
async fn without_an_epoch_a_request_is_taken_as_it_is() -> Result {
    let site = Site::new().await?;
    let _lead = site.cluster("default").lead().await?;
    let pod = pod(&site).start()?;
    let view = registered(&site).await?;
    pod.client().post_json("/control/on/60", &view).await?.is(200)?;
    pod.started(1).await?;
    Ok(())
}

#[tokio::test]
async fn an_epoch_that_cannot_be_verified_is_503() -> Result {
    let site = Site::on(ZooKeeper::own().await?.into()).await?;
    let lead = site.cluster("default").lead().await?;
    let pod = pod(&site).set("session", "4").start()?;
    let view = registered(&site).await?;
    site.zookeeper().freeze()?;
    lead.post(pod.client(), "on", "g", &view).await?.error(503)?;
    untouched(&pod)?;
    site.zookeeper().thaw()?;
    eventually("it is obeyed again", SOON, async || lead.post(pod.client(), "on", "g", &view).await?.is(200)).await
}
