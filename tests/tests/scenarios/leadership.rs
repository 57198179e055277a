//! Leadership, and the state of the cluster when leaders change.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Result, TestEnv, consistently, eventually, proxy::MessageKind};
use serde_json::Value;

use crate::{all, pod, started_once};

#[tokio::test]
async fn three_pods_that_start_concurrently_form_one_cluster() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(3, pod).await?;
    for pod in &pods {
        pod.started(1).await?;
    }
    started_once(&pods).await?;
    let mut seqs = Vec::new();
    for pod in &pods {
        seqs.push(pod.client().info().await?["seq"].as_u64().context("seq is not a number")?);
    }
    seqs.sort_unstable();
    seqs.dedup();
    ensure!(seqs.len() == 3, "two pods have one number: {seqs:?}");
    Ok(())
}

#[tokio::test]
async fn the_nodes_are_those_of_the_contract() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, pod).await?;
    let cluster = env.cluster("default");
    let store = cluster.store();
    eventually("all nodes are there", DEFAULT_TIMEOUT, async || {
        let nodes = store.children("/ochopod/clusters/marathon.default").await?;
        ensure!(nodes == ["coordinator", "hash", "pods", "snapshot", "states", "view"], "nodes are {nodes:?}");
        Ok(())
    })
    .await?;
    for name in cluster.registered().await? {
        let (key, number) = name.rsplit_once('.').context("a registration without a number")?;
        ensure!(uuid::Uuid::parse_str(key).is_ok() && number.len() == 10, "a registration is named {name}");
        let owner = store.owner(&cluster.path(&format!("pods/{name}"))).await?;
        let state = eventually("its state is published", DEFAULT_TIMEOUT, async || {
            store.owner(&cluster.path(&format!("states/{key}"))).await
        })
        .await?;
        ensure!(state == owner, "the state of {key} belongs to another session");
    }
    let contenders = cluster.contenders().await?;
    ensure!(contenders.len() == 2, "contenders are {contenders:?}");
    for name in &contenders {
        let (prefix, number) = name.split_once("__lock__").with_context(|| format!("a lock node is named {name}"))?;
        let hex = prefix.len() == 32 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(hex && number.len() == 10, "a lock node is named {name}");
    }
    let holder = store.owner(&cluster.path(&format!("coordinator/{}", contenders[0]))).await?;
    ensure!(store.owner(&cluster.path("snapshot")).await? == holder, "the snapshot is not the leader's");
    let view = store.json(&cluster.path("view")).await?;
    let registered = Value::Object(cluster.registrations().await?);
    ensure!(view["pods"] == registered, "the view has {view}, registered is {registered}");
    ensure!(view["dependencies"] == serde_json::json!({}), "the view has {view}");
    ensure!(Value::Object(cluster.snapshot().await?) == registered, "the snapshot is not what is registered");
    let (_, stat) = store.find(&cluster.path("view")).await?.context("no view")?;
    ensure!(stat.ephemeral_owner == 0, "the view is ephemeral");
    drop(pods);
    Ok(())
}

#[tokio::test]
async fn a_follower_verifies_a_known_leader_without_listing_contenders() -> Result {
    let env = TestEnv::new().await?;
    let (store, through) = env.proxy().await?;
    let cluster = env.cluster("default");
    let leader = pod(&env).start()?;
    cluster.wait_formed(&[&leader]).await?;
    let follower = pod(&env).set("zk", through).set("session", "2").start()?;
    cluster.wait_formed(&[&leader, &follower]).await?;
    // A reading of the lock is valid for a session timeout.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = store.seen().len();
    let third = pod(&env).start()?;
    cluster.wait_formed(&[&leader, &follower, &third]).await?;
    let seen = store.seen().split_off(before);
    let count = |kind| seen.iter().filter(|message| message.is(&kind, "/coordinator")).count();
    let [synced, read, listed] = [MessageKind::Sync, MessageKind::Get, MessageKind::Children].map(count);
    // More than once only if the configuration takes longer than a session timeout.
    ensure!(read >= 1 && (synced, listed) == (read, 0), "it synced, read and listed {synced}, {read}, {listed} times");
    Ok(())
}

#[tokio::test]
async fn a_fourth_pod_joins_and_no_sub_process_is_restarted() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(3, pod).await?;
    let hash = env.cluster("default").hash().await?;
    pods.push(pod(&env).start()?);
    env.cluster("default").wait_formed(&all(&pods)).await?;
    started_once(&pods).await?;
    ensure!(env.cluster("default").hash().await? != hash, "the digest did not change");
    for pod in &pods {
        pod.wait_log("callback configured").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_followed_by_another_and_the_rest_is_left_alone() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(3, |env| pod(env).set("session", "2")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    pods[leader].kill9().await?;
    let begin = Instant::now();
    let dead = pods.remove(leader);
    env.cluster("default").wait_formed(&all(&pods)).await?;
    ensure!(begin.elapsed() < Duration::from_secs(12), "it took {:?}", begin.elapsed());
    started_once(&pods).await?;
    drop(dead);
    Ok(())
}

#[tokio::test]
async fn a_leader_that_leaves_hands_over_immediately() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(3, |env| pod(env).set("session", "30")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let mut leaving = pods.remove(leader);
    leaving.term()?;
    let begin = Instant::now();
    env.cluster("default").wait_formed(&all(&pods)).await?;
    ensure!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
    started_once(&pods).await?;
    ensure!(leaving.exit_code().await? == 0, "it did not exit with code 0");
    Ok(())
}

#[tokio::test]
async fn a_leader_hands_over_before_it_stops_its_slow_sub_process() -> Result {
    let env = TestEnv::new().await?;
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let mut pods = env.start_cluster(2, |env| pod(env).count_trapped_starts(stubborn).set("set_grace", "40")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let leaving = pods.remove(leader);
    leaving.started(1).await?;
    leaving.term()?;
    let begin = Instant::now();
    pods[0].wait_log("callback configure").await?;
    eventually("another leads", DEFAULT_TIMEOUT, async || {
        let state = pods[0].client().info().await?["state"].clone();
        ensure!(state.as_str().is_some_and(|state| state.starts_with("leader")), "state is {state}");
        Ok(())
    })
    .await?;
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_follower_that_leaves_costs_one_configuration() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(3, pod).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let mut leaving = pods.remove((leader + 1) % 3);
    leaving.term()?;
    ensure!(leaving.exit_code().await? == 0, "it did not exit with code 0");
    env.cluster("default").wait_formed(&all(&pods)).await?;
    started_once(&pods).await
}

#[tokio::test]
async fn requests_of_a_frozen_leader_that_wakes_up_are_rejected() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(3, |env| pod(env).set("session", "2")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    pods[leader].signal(Signal::SIGSTOP)?;
    let rest: Vec<&Pod> = pods.iter().enumerate().filter(|(n, _)| *n != leader).map(|(_, pod)| pod).collect();
    env.cluster("default").wait_formed(&rest).await?;
    let written = env.cluster("default").hash_written().await?;
    pods[leader].signal(Signal::SIGCONT)?;
    env.cluster("default").wait_formed(&all(&pods)).await?;
    ensure!(env.cluster("default").hash_written().await? > written, "it did not come back");
    ensure!(pods[leader].client().info().await?["state"] == "follower", "two pods lead");
    started_once(&pods).await
}

#[tokio::test]
async fn a_damper_gathers_changes_and_a_blip_costs_nothing() -> Result {
    let env = TestEnv::new().await?;
    let dampered = |env: &TestEnv| pod(env).set("set_damper", "6").set("session", "10");
    let pods = env.start_cluster(2, dampered).await?;
    let cluster = env.cluster("default");
    let leader = cluster.wait_formed(&all(&pods)).await?;
    let written = cluster.hash_written().await?;
    let passing = cluster.fake_pod().await?;
    eventually("the leader has noticed", DEFAULT_TIMEOUT, async || {
        let state = pods[leader].client().info().await?["state"].clone();
        ensure!(state == "leader (configuration pending)", "state is {state}");
        Ok(())
    })
    .await?;
    passing.leave().await?;
    pods[leader].wait_info("state", "leader").await?;
    consistently("nothing is configured", Duration::from_secs(7), async || {
        ensure!(cluster.hash_written().await? == written, "it was configured");
        Ok(())
    })
    .await?;
    let begin = Instant::now();
    let newcomer = dampered(&env).start()?;
    cluster.wait_formed(&[&pods[0], &pods[1], &newcomer]).await?;
    ensure!(begin.elapsed() >= Duration::from_secs(6), "the damper was cut to {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn the_state_reports_a_pending_configuration_before_anything_is_configured() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).set("set_damper", "8").start()?;
    let first = eventually("it leads", DEFAULT_TIMEOUT, async || {
        let info = pod.client().info().await?;
        let state = info["state"].as_str().unwrap_or_default().to_owned();
        ensure!(state.starts_with("leader"), "state is {state}");
        Ok(state)
    })
    .await?;
    ensure!(first == "leader (configuration pending)", "state was {first:?}");
    pod.wait_info("process", "running").await?;
    pod.wait_info("state", "leader").await?;
    Ok(())
}

#[tokio::test]
async fn the_result_of_the_probe_is_the_status() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, |env| pod(env).misbehave("probe", "reject").set("set_probe_every", "1")).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    eventually("the status is the probe's error", DEFAULT_TIMEOUT, async || {
        let status = pods[leader].client().info().await?["status"].clone();
        ensure!(status.as_str().is_some_and(|status| status.starts_with("* ")), "status is {status}");
        Ok(())
    })
    .await?;
    ensure!(pods[1 - leader].count_log("callback probe")? == 0, "a follower probes");
    Ok(())
}

#[tokio::test]
async fn an_idle_cluster_leaves_zookeeper_alone() -> Result {
    let zookeeper = ochopod_tests::ZooKeeper::own().await?;
    let env = TestEnv::with_zookeeper(zookeeper.into()).await?;
    let _pods = env.start_cluster(3, |env| pod(env).set("session", "10")).await?;
    let transactions = async || {
        let report = env.zookeeper().four_letter("srvr").await?;
        let zxid = report.lines().find_map(|line| line.strip_prefix("Zxid: ")).context("no Zxid")?.to_owned();
        anyhow::Ok(zxid)
    };
    let before = eventually("the pods become idle", DEFAULT_TIMEOUT, async || {
        let before = transactions().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(transactions().await? == before, "they write");
        Ok(before)
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(transactions().await? == before, "idle pods write");
    Ok(())
}
