//! Operations on pods: cordon, restart, revive, step-down, pause, and `leave_delay`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Result, TestEnv, consistently, eventually};
use serde_json::{Value, json};

use crate::{all, pod, running, started_once};

async fn key(pod: &Pod) -> Result<String> {
    Ok(pod.client().info().await?["key"].as_str().context("no key")?.to_owned())
}

async fn control(pod: &Pod, task: &str, body: Value) -> Result<Value> {
    pod.client().post_json(&format!("/control/{task}"), &body).await?.json(200)
}

#[tokio::test]
async fn leader_steps_down_to_any_pod_and_no_sub_process_is_restarted() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(3, |env| pod(env).set("token", "correct-horse-battery")).await?;
    let mut leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let named = pods[leader].client().info().await?["leader"].clone();
    for pod in &pods {
        pod.wait_info("leader", named.clone()).await?;
    }
    let bearer = [("authorization", "Bearer correct-horse-battery")];
    for step in [2, 2, 1] {
        let next = (leader + step) % pods.len();
        let body = json!({"to": key(&pods[next]).await?}).to_string();
        let post = hyper::Method::POST;
        let reply = pods[leader].client().send(post, "/control/step-down", &bearer, body.into()).await?;
        ensure!(reply.json(200)? == json!({}), "{reply:?}");
        pods[next].wait_info("state", "leader").await?;
        let info = pods[next].client().info().await?;
        ensure!(info["leader"] == json!({"address": pods[next].client().authority(), "seq": info["seq"]}), "{info}");
        let third = &pods[3 - leader - next];
        eventually("no pod names the former leader", DEFAULT_TIMEOUT, async || {
            let named = third.client().info().await?["leader"]["address"].clone();
            ensure!(named != pods[leader].client().authority(), "it names {named}");
            Ok(())
        })
        .await?;
        leader = next;
    }
    started_once(&pods).await
}

#[tokio::test]
async fn cordoned_pod_leaves_the_view_and_does_not_lead_until_it_is_uncordoned() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(2, |env| pod(env).set("session", "2")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let cordoned = pods.remove(leader);
    ensure!(control(&cordoned, "cordon", json!({"reason": "disk is full"})).await? == json!({}));
    env.cluster("default").wait_formed(&all(&pods)).await?;
    let info = cordoned.client().info().await?;
    ensure!((&info["cordon"], &info["process"]) == (&json!("disk is full"), &json!("running")), "{info}");
    let before = env.cluster("default").sessions().await?;
    cordoned.client().post("/reset").await?.json(200)?;
    eventually("it is registered under another session", DEFAULT_TIMEOUT, async || {
        let now = env.cluster("default").sessions().await?;
        ensure!(now.len() == 2 && now != before, "registered are {now:?}, before {before:?}");
        Ok(())
    })
    .await?;
    ensure!(env.cluster("default").contenders().await?.len() == 1, "it contends");
    cordoned.client().post("/control/uncordon").await?.json(200)?;
    pods.push(cordoned);
    env.cluster("default").wait_formed(&all(&pods)).await?;
    started_once(&pods).await
}

#[tokio::test]
async fn restart_starts_one_sub_process_again_and_configures_no_other() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, pod).await?;
    env.cluster("default").wait_formed(&all(&pods)).await?;
    let hash = env.cluster("default").hash().await?;
    control(&pods[0], "restart", json!({})).await?;
    pods[0].started(2).await?;
    ensure!(env.cluster("default").hash().await? == hash, "the cluster was configured again");
    started_once(&pods[1..]).await
}

#[tokio::test]
async fn paused_cluster_configures_no_pod_until_it_is_resumed() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(2, pod).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let (one, other) = (&pods[leader], &pods[1 - leader]);
    control(other, "pause", json!({"reason": "moving"})).await?;
    one.wait_info("status", "* configurations paused: moving").await?;
    let node = env.store().json(&env.cluster("default").path("paused")).await?;
    ensure!(node["reason"] == "moving" && node["since"].is_u64(), "{node}");
    pods.push(pod(&env).start()?);
    let snapshot = env.cluster("default").snapshot().await?;
    consistently("the new pod is not configured", Duration::from_secs(3), async || {
        ensure!(env.cluster("default").snapshot().await? == snapshot, "snapshot changed");
        Ok(())
    })
    .await?;
    control(&pods[2], "resume", json!({})).await?;
    env.cluster("default").wait_formed(&all(&pods)).await?;
    Ok(())
}

#[tokio::test]
async fn pod_that_stops_with_a_leave_delay_leaves_the_view_first() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(3, |env| pod(env).set("session", "30").set("leave_delay", "20")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    // The leader first: another one has to take over meanwhile.
    for index in [leader, 0] {
        let mut leaving = pods.remove(index);
        let begin = Instant::now();
        leaving.term()?;
        ensure!(leaving.exit_code().await? == 0, "it exits with 0");
        ensure!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
        ensure!(leaving.count_log("excluded from view, stopping")? == 1, "it stopped without leaving the view");
        env.cluster("default").wait_formed(&all(&pods)).await?;
    }
    started_once(&pods).await
}

#[tokio::test]
async fn leave_delay_ends_without_another_leader_and_with_a_second_signal() -> Result {
    let (_env, mut alone) = running(|pod| pod.set("leave_delay", "3")).await?;
    let begin = Instant::now();
    alone.term()?;
    eventually("it is not ready", DEFAULT_TIMEOUT, async || {
        let error = alone.client().get("/readyz").await?.error(503)?;
        ensure!(error == "pod is shutting down", "{error}");
        Ok(())
    })
    .await?;
    ensure!(alone.client().info().await?["process"] == "running", "its sub-process was stopped immediately");
    ensure!(alone.exit_code().await? == 0 && begin.elapsed() >= Duration::from_secs(3), "it did not wait");

    let (_env, mut forced) = running(|pod| pod.set("leave_delay", "300")).await?;
    let begin = Instant::now();
    forced.term()?;
    forced.wait_log("waiting for exclusion from view before shutdown").await?;
    forced.term()?;
    ensure!(forced.exit_code().await? == 0 && begin.elapsed() < Duration::from_secs(20), "it waited");
    Ok(())
}
