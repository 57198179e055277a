//! A configuration as the peers see it: requests and their order.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, eventually};
use serde_json::json;

use crate::{
    follower::view_of,
    leader_with_fakes::{configured, header, led, status},
    pod,
};

#[tokio::test]
async fn a_rollout_is_check_then_on_then_ok_with_one_view() -> Result {
    let (env, peers, pod) = led(2, |pod| pod.set("set_grace", "7")).await?;
    configured(&pod).await?;
    eventually("ok arrived", DEFAULT_TIMEOUT, async || peers.iter().try_for_each(|peer| peer.last("ok").map(drop)))
        .await?;
    let key = pod.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    let cluster = env.cluster("default");
    let epoch = {
        let holder = cluster.contenders().await?.first().context("no pod leads")?.clone();
        cluster.store().find(&cluster.path(&format!("coordinator/{holder}"))).await?.context("no lock")?.1.czxid
    };
    let hash = cluster.hash().await?;
    for peer in &peers {
        ensure!(peer.tasks() == ["check", "on", "ok"], "it received {:?}", peer.tasks());
        for request in peer.requests() {
            ensure!(request.limit == "7", "the limit is {:?}, not whole seconds of the grace", request.limit);
            ensure!(request.body["key"] == peer.key(), "the view's key is {}", request.body["key"]);
            ensure!(request.body["dependencies"] == serde_json::json!({}), "{}", request.body);
            let mut keys: Vec<&String> =
                request.body["pods"].as_object().context("pods is not an object")?.keys().collect();
            keys.sort();
            let mut expected = vec![peers[0].key(), peers[1].key(), &key];
            expected.sort_unstable();
            ensure!(keys == expected, "the view has {keys:?} instead of {expected:?}");
            ensure!(header(&request, "x-ochopod-epoch") == epoch.to_string(), "{:?}", request.headers);
            ensure!(header(&request, "x-ochopod-generation") == hash, "{:?} but {hash}", request.headers);
            ensure!(header(&request, "content-type").starts_with("application/json"), "{:?}", request.headers);
        }
    }
    let last_check =
        peers.iter().map(|peer| peer.last("check").map(|request| request.at)).collect::<Result<Vec<_>>>()?;
    let first_on = peers.iter().map(|peer| peer.last("on").map(|request| request.at)).collect::<Result<Vec<_>>>()?;
    ensure!(last_check.iter().max() <= first_on.iter().min(), "an `on` came before the last `check`");
    Ok(())
}

#[tokio::test]
async fn a_rollout_in_progress_is_pending_in_the_store() -> Result {
    let (env, peers, pod) = led(1, |pod| pod.set("set_grace", "30")).await?;
    peers[0].delay("on", Duration::from_secs(8));
    let cluster = env.cluster("default");
    let pending = eventually("the hash is pending", DEFAULT_TIMEOUT, async || {
        let hash = cluster.hash().await?;
        hash.strip_prefix("pending:").map(str::to_owned).with_context(|| format!("it is {hash:?}"))
    })
    .await?;
    let request = eventually("on is requested", DEFAULT_TIMEOUT, async || peers[0].last("on")).await?;
    ensure!(header(&request, "x-ochopod-generation") == pending, "{:?}", request.headers);
    ensure!(pod.client().info().await?["state"] == "leader (configuring)", "{}", pod.client().info().await?);
    configured(&pod).await?;
    ensure!(cluster.hash().await? == pending, "the hash is {}", cluster.hash().await?);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_rollout_is_resumed_by_the_next_leader() -> Result {
    let (env, peers, mut first) = led(1, |pod| pod.set("session", "1")).await?;
    peers[0].delay("on", Duration::from_mins(10));
    let cluster = env.cluster("default");
    eventually("the hash is pending", DEFAULT_TIMEOUT, async || {
        ensure!(cluster.hash().await?.starts_with("pending:"), "the hash is not pending");
        Ok(())
    })
    .await?;
    first.kill9().await?;
    peers[0].delay("on", Duration::ZERO);
    let second = pod(&env).start()?;
    configured(&second).await?;
    ensure!(!cluster.hash().await?.starts_with("pending:"), "it is still pending");
    ensure!(cluster.snapshot().await?.len() == 2, "the snapshot is {:?}", cluster.snapshot().await?);
    Ok(())
}

#[tokio::test]
async fn changes_during_a_rollout_cost_one_more() -> Result {
    let (env, peers, pod) = led(1, |pod| pod).await?;
    peers[0].delay("on", Duration::from_secs(1));
    eventually("on is requested", DEFAULT_TIMEOUT, async || peers[0].last("on")).await?;
    let (second, third) = (env.cluster("default").fake_pod().await?, env.cluster("default").fake_pod().await?);
    eventually("all are configured", DEFAULT_TIMEOUT, async || {
        ensure!(env.cluster("default").snapshot().await?.len() == 4, "not all");
        Ok(())
    })
    .await?;
    configured(&pod).await?;
    let rounds = peers[0].tasks().iter().filter(|task| *task == "on").count();
    ensure!(rounds <= 3, "it took {rounds} rounds");
    drop((second, third));
    Ok(())
}

#[tokio::test]
async fn sequential_configures_one_pod_after_the_other_in_the_order_of_seq() -> Result {
    let (_env, peers, pod) = led(3, |pod| pod.set("set_sequential", "true")).await?;
    for peer in &peers {
        peer.delay("on", Duration::from_millis(300));
    }
    configured(&pod).await?;
    let times = peers.iter().map(|peer| Ok((peer.seq(), peer.last("on")?.at))).collect::<Result<Vec<_>>>()?;
    for pair in times.windows(2) {
        let between = pair[1].1.duration_since(pair[0].1);
        ensure!(pair[0].0 < pair[1].0, "the peers are not in order of seq");
        ensure!(
            between >= Duration::from_millis(290),
            "seq {} received it {between:?} after the one before",
            pair[1].0
        );
    }
    Ok(())
}

#[tokio::test]
async fn sequential_stops_at_the_first_that_fails() -> Result {
    let env = TestEnv::new().await?;
    let (first, second) = (env.cluster("default").fake_pod().await?, env.cluster("default").fake_pod().await?);
    first.answer("on", 500);
    let pod = pod(&env).set("set_sequential", "true").start()?;
    status(&pod, &["500"]).await?;
    ensure!(second.last("on").is_err(), "the second received {:?}", second.tasks());
    first.answer("on", 200);
    configured(&pod).await
}

#[tokio::test]
async fn a_full_shutdown_turns_all_off_before_any_is_turned_on() -> Result {
    let (env, peers, pod) = led(2, |pod| pod.set("set_full_shutdown", "true")).await?;
    configured(&pod).await?;
    let newcomer = env.cluster("default").fake_pod().await?;
    eventually("the newcomer is configured", DEFAULT_TIMEOUT, async || newcomer.last("ok")).await?;
    eventually("all received the same", DEFAULT_TIMEOUT, async || {
        for peer in &peers {
            let tasks = peer.tasks();
            let round: Vec<&str> = tasks.iter().rev().take(4).rev().map(String::as_str).collect();
            ensure!(round == ["check", "off", "on", "ok"], "it received {tasks:?}");
        }
        Ok(())
    })
    .await?;
    let offs = peers.iter().map(|peer| peer.last("off").map(|request| request.at)).collect::<Result<Vec<_>>>()?;
    let ons = peers.iter().map(|peer| peer.last("on").map(|request| request.at)).collect::<Result<Vec<_>>>()?;
    ensure!(offs.iter().max() < ons.iter().min(), "an `on` came before the last `off`");
    pod.started(2).await?;
    Ok(())
}

#[tokio::test]
async fn a_full_shutdown_continues_only_when_all_are_off() -> Result {
    let env = TestEnv::new().await?;
    let peer = env.cluster("default").fake_pod().await?;
    peer.answer("off", 500);
    let pod = pod(&env).set("set_full_shutdown", "true").start()?;
    status(&pod, &["* ", "500"]).await?;
    ensure!(peer.last("on").is_err() && pod.starts()?.is_empty(), "it continued: {:?}", peer.tasks());
    ensure!(pod.client().info().await?["process"] == "stopped", "it was started");
    Ok(())
}

#[tokio::test]
async fn sequential_stops_and_starts_in_the_order_of_seq() -> Result {
    let (env, peers, pod) = led(2, |pod| pod.set("set_sequential", "true").set("set_full_shutdown", "true")).await?;
    configured(&pod).await?;
    let newcomer = env.cluster("default").fake_pod().await?;
    eventually("the newcomer is configured", DEFAULT_TIMEOUT, async || newcomer.last("ok")).await?;
    for task in ["off", "on"] {
        let (first, second) = (peers[0].last(task)?.at, peers[1].last(task)?.at);
        ensure!(first < second && second < newcomer.last(task)?.at, "`{task}` is not in the order of seq");
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_is_reached_where_its_port_is_mapped_to() -> Result {
    let env = TestEnv::new().await?;
    let peer = env.cluster("default").fake_pod().await?;
    let mapped = json!({ "seq": peer.seq(), "ip": "127.0.0.2", "port": "8080", "ports": { "8080": env.port() } });
    peer.register_as(mapped.to_string().as_bytes()).await?;
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    peer.last("on")?;
    Ok(())
}

#[tokio::test]
async fn leaders_send_whole_seconds_rounded_up() -> Result {
    let (_env, peers, pod) = led(1, |pod| pod.set("set_grace", "1.2")).await?;
    configured(&pod).await?;
    ensure!(peers[0].last("on")?.limit == "2", "the limit is {}", peers[0].last("on")?.limit);
    Ok(())
}

#[tokio::test]
async fn requests_of_a_python_sdk_leader_are_accepted() -> Result {
    let env = TestEnv::new().await?;
    let _lock = env.cluster("default").lead().await?;
    let pod = pod(&env).start()?;
    let view = eventually("the pod registers", DEFAULT_TIMEOUT, async || view_of(&env).await).await?;
    let headers = [("user-agent", "python-requests/2.10.0"), ("accept", "*/*")];
    for task in ["check", "on", "ok"] {
        let body = bytes::Bytes::from(view.to_string());
        let reply = pod.client().send(hyper::Method::POST, &format!("/control/{task}/60"), &headers, body).await?;
        reply.json(200)?;
    }
    pod.started(1).await?;
    Ok(())
}
