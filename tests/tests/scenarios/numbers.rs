//! Numbers used up by other clients: a leader continues, and none resigns because of a reply of another client.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{ClusterNodes, DEFAULT_TIMEOUT, Pod, Reply, Result, TestEnv, consistently, eventually};
use serde_json::Value;

use crate::{
    all,
    leader_with_fakes::{configured, led, status},
    pod,
};

/// The highest number.
const MAX_NUMBER: u64 = 1 << 53;

/// Posts as the current leader would, under this number.
async fn poison(pod: &Pod, epoch: i64, number: &str) -> Result<Reply> {
    let epoch = epoch.to_string();
    let headers = [("x-ochopod-epoch", epoch.as_str()), ("x-ochopod-number", number)];
    pod.client().send(Method::POST, "/control/signal/5", &headers, Bytes::new()).await
}

async fn epoch(pod: &Pod) -> Result<i64> {
    pod.client().info().await?["epoch"].as_i64().context("no epoch")
}

/// Changes the cluster, and waits until it is configured.
async fn grows(env: &TestEnv, pods: &mut Vec<Pod>) -> Result {
    pods.push(pod(env).start()?);
    env.cluster("default").wait_formed(&all(pods)).await?;
    Ok(())
}

async fn leader_of(cluster: &ClusterNodes<'_>) -> Result<String> {
    let mut contenders = cluster.contenders().await?;
    contenders.sort_by_key(|name| name.rsplit_once("__lock__").map(|(_, number)| number.to_owned()));
    contenders.into_iter().next().context("no pod leads")
}

#[tokio::test]
async fn a_leader_continues_above_a_number_that_another_client_posted() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let mut pods = env.start_cluster(2, pod).await?;
    let (before, epoch) = (leader_of(&cluster).await?, epoch(&pods[0]).await?);
    for pod in &pods {
        poison(pod, epoch, "1000000000000").await?.is(200)?;
        let late = poison(pod, epoch, "999").await?;
        late.error(409)?;
        ensure!(late.headers["x-ochopod-number"] == "1000000000000", "the reply has {:?}", late.headers);
        let body: Value = serde_json::from_slice(&late.body)?;
        ensure!(body["number"] == 1_000_000_000_000_u64, "the reply has {body}");
    }
    grows(&env, &mut pods).await?;
    ensure!(leader_of(&cluster).await? == before, "the leader resigned");
    Ok(())
}

#[tokio::test]
async fn numbers_above_the_highest_are_malformed_and_the_highest_costs_one_leadership() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let mut pods = env.start_cluster(2, pod).await?;
    let (before, epoch) = (leader_of(&cluster).await?, epoch(&pods[0]).await?);
    for malformed in [(MAX_NUMBER + 1).to_string(), u64::MAX.to_string(), "-1".to_owned(), "1e3".to_owned()] {
        let error = poison(&pods[1], epoch, &malformed).await?.error(400)?;
        ensure!(error.contains("expected a number from 0 to 9007199254740992"), "it says {error}");
    }
    poison(&pods[1], epoch, &MAX_NUMBER.to_string()).await?.is(200)?;
    grows(&env, &mut pods).await?;
    let after = leader_of(&cluster).await?;
    ensure!(after != before, "it leads by {before} still");
    grows(&env, &mut pods).await?;
    ensure!(leader_of(&cluster).await? == after, "the leader resigned again");
    Ok(())
}

#[tokio::test]
async fn a_409_of_another_pod_makes_no_leader_resign() -> Result {
    let (env, peers, pod) = led(1, |pod| pod).await?;
    configured(&pod).await?;
    let cluster = env.cluster("default");
    let before = cluster.contenders().await?;
    peers[0].answer("check", 409);
    let mut registration = peers[0].last("check")?.body["pods"][peers[0].key()].clone();
    registration["changed"] = "yes".into();
    let requests = peers[0].tasks().len();
    peers[0].register_as(registration.to_string().as_bytes()).await?;
    let short = peers[0].key().get(..4).unwrap_or_default();
    status(&pod, &["* pod ", short, "unreachable for check: answered 409", "retrying in"]).await?;
    consistently("it stays the leader", Duration::from_secs(4), async || {
        ensure!(cluster.contenders().await? == before, "it resigned");
        Ok(())
    })
    .await?;
    eventually("another request arrives", DEFAULT_TIMEOUT, async || {
        ensure!(peers[0].tasks().len() >= requests + 2, "it received {:?}", peers[0].tasks());
        Ok(())
    })
    .await?;
    let requests = peers[0].tasks().len() - requests;
    ensure!((2..=5).contains(&requests), "{requests} requests in 4 s");
    peers[0].answer("check", 200);
    configured(&pod).await
}

#[tokio::test]
async fn a_leader_whose_lock_is_gone_contends_again() -> Result {
    let (env, peers, pod) = led(1, |pod| pod).await?;
    configured(&pod).await?;
    let cluster = env.cluster("default");
    let before = cluster.contenders().await?;
    peers[0].answer_next("check", 409);
    let lock = before.first().context("no pod leads")?;
    cluster.store().delete(&cluster.path(&format!("coordinator/{lock}"))).await?;
    eventually("it contends with another lock node", DEFAULT_TIMEOUT, async || {
        let now = cluster.contenders().await?;
        ensure!(now.len() == 1 && now != before, "contenders are {now:?}");
        Ok(())
    })
    .await?;
    configured(&pod).await
}
