//! Effects of rejections and missing replies of peers on a configuration.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, FakePod, Result, TestEnv, consistently, eventually};

use crate::{
    leader_with_fakes::{configured, led, status},
    pod,
};

#[tokio::test]
async fn a_rejected_check_blocks_the_configuration_and_the_status_reports_the_cause() -> Result {
    let env = TestEnv::new().await?;
    let peer = env.cluster("default").fake_pod().await?;
    peer.answer("check", 406);
    let pod = pod(&env).start()?;
    status(&pod, &["* ", peer.key().get(..4).unwrap_or_default(), "406", "the kit answers 406 to check"]).await?;
    consistently("nothing is started", Duration::from_secs(2), async || {
        ensure!(pod.starts()?.is_empty() && peer.last("on").is_err(), "it continued");
        Ok(())
    })
    .await?;
    eventually("it tries again", DEFAULT_TIMEOUT, async || {
        ensure!(peer.tasks().len() >= 2, "it received {:?}", peer.tasks());
        Ok(())
    })
    .await?;
    let info = pod.client().info().await?;
    ensure!(info["state"] != "leader", "it says that it leads a configured cluster");
    peer.answer("check", 200);
    configured(&pod).await?;
    pod.wait_info("status", "").await.context("the refusal is still shown")?;
    Ok(())
}

#[tokio::test]
async fn retries_slow_down() -> Result {
    let (_env, peers, _pod) = led(1, |pod| pod).await?;
    peers[0].answer("check", 406);
    eventually("a request arrives", DEFAULT_TIMEOUT, async || peers[0].last("check")).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let requests = peers[0].tasks().iter().filter(|task| *task == "check").count();
    ensure!((2..=6).contains(&requests), "{requests} requests in 8 s");
    Ok(())
}

#[tokio::test]
async fn codes_that_hold_are_tried_again() -> Result {
    let env = TestEnv::new().await?;
    let mut peers = Vec::new();
    for code in [401, 403, 400, 408, 500, 503] {
        let peer = env.cluster("default").fake_pod().await?;
        peer.answer_next("check", code);
        peer.answer_next("on", code);
        peers.push((code, peer));
    }
    let pod = pod(&env).start()?;
    // Each round costs another retry.
    eventually("it is configured", DEFAULT_TIMEOUT * 4, async || configured(&pod).await).await?;
    for (code, peer) in &peers {
        let on = peer.tasks().iter().filter(|task| *task == "on").count();
        // A round may end at its first rejection, before the others have replied.
        ensure!((2..=7).contains(&on), "after {code} it received {:?}", peer.tasks());
    }
    ensure!(env.cluster("default").snapshot().await?.len() == 7, "a pod was dropped");
    pod.started(1).await?;
    ensure!(pod.starts()?.len() == 1, "the leader's own process was started {} times", pod.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn a_peer_that_answers_410_to_check_is_dropped() -> Result {
    let env = TestEnv::new().await?;
    let (dead, live) = (env.cluster("default").fake_pod().await?, env.cluster("default").fake_pod().await?);
    dead.answer("check", 410);
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    ensure!(dead.last("on").is_err(), "the dead peer received {:?}", dead.tasks());
    let on = live.last("on")?;
    let pods = on.body["pods"].as_object().context("pods is not an object")?;
    ensure!(pods.len() == 2 && !pods.contains_key(dead.key()), "the view has {:?}", pods.keys());
    let check = live.last("check")?;
    ensure!(check.body["pods"].as_object().is_some_and(|pods| pods.len() == 3), "the check saw {}", check.body);
    let snapshot = env.cluster("default").snapshot().await?;
    ensure!(!snapshot.contains_key(dead.key()), "the dead peer is in the snapshot");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_answers_406_to_on_is_dropped_immediately() -> Result {
    let env = TestEnv::new().await?;
    let (bad, good) = (env.cluster("default").fake_pod().await?, env.cluster("default").fake_pod().await?);
    bad.answer("on", 406);
    bad.answer_next("check", 200);
    bad.answer("check", 410);
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    let took = bad.last("on")?.at.elapsed();
    ensure!(took < Duration::from_secs(10), "it took {took:?}");
    eventually("the good peer receives ok", DEFAULT_TIMEOUT, async || {
        let ok = good.last("ok")?;
        let pods = ok.body["pods"].as_object().context("pods is not an object")?;
        ensure!(!pods.contains_key(bad.key()), "the view has {:?}", pods.keys());
        Ok(())
    })
    .await?;
    ensure!(bad.tasks().iter().filter(|task| *task == "on").count() == 1, "it received another on: {:?}", bad.tasks());
    Ok(())
}

#[tokio::test]
async fn a_late_410_starts_again_at_check() -> Result {
    let (_env, peers, pod) = led(2, |pod| pod).await?;
    configured(&pod).await?;
    peers[0].answer_next("on", 410);
    peers[0].answer_next("check", 200);
    peers[0].answer_next("check", 410);
    peers[1].register_as(moved(&peers[1])?.as_bytes()).await?;
    eventually("a second round", DEFAULT_TIMEOUT, async || {
        let tasks = peers[1].tasks();
        ensure!(tasks.iter().filter(|task| *task == "check").count() >= 3, "it received {tasks:?}");
        Ok(())
    })
    .await?;
    configured(&pod).await
}

/// Changes the registration of a fake peer: the cluster is dirty.
fn moved(peer: &FakePod) -> Result<String> {
    let mut registration = peer.last("check")?.body["pods"][peer.key()].clone();
    registration["changed"] = "yes".into();
    Ok(registration.to_string())
}

#[tokio::test]
async fn a_failing_ok_fails_nothing() -> Result {
    let (_env, peers, pod) = led(1, |pod| pod).await?;
    peers[0].answer("ok", 500);
    configured(&pod).await?;
    Ok(())
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_holds_and_is_named() -> Result {
    let env = TestEnv::new().await?;
    let mut peer = env.cluster("default").fake_pod().await?;
    peer.close_port();
    let pod = pod(&env).start()?;
    status(&pod, &["* ", peer.key().get(..4).unwrap_or_default()]).await?;
    ensure!(pod.starts()?.is_empty(), "it was started");
    let begin = Instant::now();
    peer.leave().await?;
    configured(&pod).await?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_silent_peer_is_given_up_after_its_limit_and_its_leaving_ends_the_wait() -> Result {
    let env = TestEnv::new().await?;
    let peer = env.cluster("default").fake_pod().await?;
    peer.delay("check", Duration::from_mins(10));
    let pod = pod(&env).set("set_grace", "6").start()?;
    status(&pod, &["* "]).await?;
    eventually("another request arrives", DEFAULT_TIMEOUT * 2, async || {
        ensure!(peer.tasks().len() >= 2, "it received {:?}", peer.tasks());
        Ok(())
    })
    .await?;
    let waits = peer.requests();
    let between = waits[1].at - waits[0].at;
    ensure!(between >= Duration::from_millis(7200), "abandoned after {between:?}, not 1.25 times the limit");
    let begin = Instant::now();
    peer.leave().await?;
    configured(&pod).await?;
    ensure!(begin.elapsed() < Duration::from_secs(6), "it took {:?}", begin.elapsed());
    Ok(())
}
