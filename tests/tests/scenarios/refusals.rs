//! What refusals and silence of peers do to a configuration.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{Result, SOON, Site, StandIn, eventually, steadily};

use crate::{
    led::{configured, led, status},
    pod,
};

#[tokio::test]
async fn a_refused_check_holds_everything_and_the_status_says_why() -> Result {
    let site = Site::new().await?;
    let peer = site.cluster("default").stand_in().await?;
    peer.answer("check", 406);
    let pod = pod(&site).start()?;
    status(&pod, &["* ", peer.key().get(..4).unwrap_or_default(), "406", "the kit answers 406 to check"]).await?;
    steadily("nothing is started", Duration::from_secs(2), async || {
        ensure!(pod.starts()?.is_empty() && peer.last("on").is_err(), "it went on");
        Ok(())
    })
    .await?;
    ensure!(peer.tasks().len() >= 2, "it does not try again");
    let info = pod.client().info().await?;
    ensure!(info["state"] != "leader", "it says that it leads a configured cluster");
    peer.answer("check", 200);
    configured(&pod).await?;
    status(&pod, &[""]).await?;
    ensure!(pod.client().info().await?["status"] == "", "the refusal is still shown");
    Ok(())
}

#[tokio::test]
async fn retries_slow_down() -> Result {
    let (_site, peers, _pod) = led(1, |pod| pod).await?;
    peers[0].answer("check", 406);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let asked = peers[0].tasks().iter().filter(|task| *task == "check").count();
    ensure!((2..=6).contains(&asked), "asked {asked} times in 8 s");
    Ok(())
}

#[tokio::test]
async fn codes_that_hold_are_tried_again() -> Result {
    let site = Site::new().await?;
    let mut peers = Vec::new();
    for code in [401, 403, 400, 408, 500, 503] {
        let peer = site.cluster("default").stand_in().await?;
        peer.answer_next("check", code);
        peer.answer_next("on", code);
        peers.push((code, peer));
    }
    let pod = pod(&site).start()?;
    configured(&pod).await?;
    for (code, peer) in &peers {
        let on = peer.tasks().iter().filter(|task| *task == "on").count();
        // A round may end at its first refusal, before the others have said theirs.
        ensure!((2..=4).contains(&on), "after {code} it was asked for {:?}", peer.tasks());
    }
    ensure!(site.cluster("default").snapshot().await?.len() == 7, "somebody was dropped");
    ensure!(pod.starts()?.len() == 1, "the leader's own process was started {} times", pod.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn a_peer_that_says_410_to_check_is_dropped() -> Result {
    let site = Site::new().await?;
    let (dead, live) = (site.cluster("default").stand_in().await?, site.cluster("default").stand_in().await?);
    dead.answer("check", 410);
    let pod = pod(&site).start()?;
    configured(&pod).await?;
    ensure!(dead.last("on").is_err(), "the dead peer was asked for {:?}", dead.tasks());
    let on = live.last("on")?;
    let pods = on.body["pods"].as_object().context("pods is no object")?;
    ensure!(pods.len() == 2 && !pods.contains_key(dead.key()), "the view has {:?}", pods.keys());
    let check = live.last("check")?;
    ensure!(check.body["pods"].as_object().is_some_and(|pods| pods.len() == 3), "the check saw {}", check.body);
    let snapshot = site.cluster("default").snapshot().await?;
    ensure!(!snapshot.contains_key(dead.key()), "the dead peer is in the snapshot");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_says_406_to_on_is_left_behind_at_once() -> Result {
    let site = Site::new().await?;
    let (bad, good) = (site.cluster("default").stand_in().await?, site.cluster("default").stand_in().await?);
    bad.answer("on", 406);
    bad.answer_next("check", 200);
    bad.answer("check", 410);
    let begin = Instant::now();
    let pod = pod(&site).start()?;
    configured(&pod).await?;
    ensure!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    eventually("the good peer is told so", SOON, async || {
        let ok = good.last("ok")?;
        let pods = ok.body["pods"].as_object().context("pods is no object")?;
        ensure!(!pods.contains_key(bad.key()), "the view has {:?}", pods.keys());
        Ok(())
    })
    .await?;
    ensure!(bad.tasks().iter().filter(|task| *task == "on").count() == 1, "it was asked again: {:?}", bad.tasks());
    Ok(())
}

#[tokio::test]
async fn a_late_410_starts_again_at_check() -> Result {
    let (_site, peers, pod) = led(2, |pod| pod).await?;
    configured(&pod).await?;
    peers[0].answer_next("on", 410);
    peers[0].answer_next("check", 200);
    peers[0].answer_next("check", 410);
    peers[1].register_as(moved(&peers[1])?.as_bytes()).await?;
    eventually("a second round", SOON, async || {
        let tasks = peers[1].tasks();
        ensure!(tasks.iter().filter(|task| *task == "check").count() >= 3, "it was asked for {tasks:?}");
        Ok(())
    })
    .await?;
    configured(&pod).await
}

/// A stand-in's registration with something changed: the cluster is dirty.
fn moved(peer: &StandIn) -> Result<String> {
    let mut registration = peer.last("check")?.body["pods"][peer.key()].clone();
    registration["changed"] = "yes".into();
    Ok(registration.to_string())
}

#[tokio::test]
async fn a_409_makes_the_leader_resign_and_contend_anew() -> Result {
    let (site, peers, pod) = led(1, |pod| pod).await?;
    configured(&pod).await?;
    let cluster = site.cluster("default");
    let before = cluster.contenders().await?;
    peers[0].answer_next("check", 409);
    peers[0].register_as(moved(&peers[0])?.as_bytes()).await?;
    eventually("it contends with another lock node", SOON, async || {
        let now = cluster.contenders().await?;
        ensure!(now.len() == 1 && now != before, "contenders are {now:?}");
        Ok(())
    })
    .await?;
    configured(&pod).await
}

#[tokio::test]
async fn a_failing_ok_fails_nothing() -> Result {
    let (_site, peers, pod) = led(1, |pod| pod).await?;
    peers[0].answer("ok", 500);
    configured(&pod).await?;
    Ok(())
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_holds_and_is_named() -> Result {
    let site = Site::new().await?;
    let mut peer = site.cluster("default").stand_in().await?;
    peer.hang_up();
    let pod = pod(&site).start()?;
    status(&pod, &["* ", peer.key().get(..4).unwrap_or_default()]).await?;
    ensure!(pod.starts()?.is_empty(), "it was started");
    let begin = Instant::now();
    peer.leave().await?;
    configured(&pod).await?;
    ensure!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_silent_peer_is_given_up_after_its_limit_and_its_leaving_ends_the_wait() -> Result {
    let site = Site::new().await?;
    let peer = site.cluster("default").stand_in().await?;
    peer.delay("check", Duration::from_mins(10));
    let pod = pod(&site).set("set_grace", "2").start()?;
    status(&pod, &["* "]).await?;
    eventually("it is asked again", SOON, async || {
        ensure!(peer.tasks().len() >= 2, "it was asked for {:?}", peer.tasks());
        Ok(())
    })
    .await?;
    let waits = peer.asked();
    let between = waits[1].at - waits[0].at;
    ensure!(between >= Duration::from_millis(2400), "given up after {between:?}, not 1.25 times the limit");
    let begin = Instant::now();
    peer.leave().await?;
    configured(&pod).await?;
    ensure!(begin.elapsed() < Duration::from_secs(4), "it took {:?}", begin.elapsed());
    Ok(())
}
