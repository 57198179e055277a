//! A configuration as the peers see it: who is asked for what, in which order, and what their refusals do.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{Asked, Pod, PodBuilder, Result, SOON, Site, StandIn, eventually, steadily};

use crate::pod;

/// Stand-ins that joined first, and a real pod that leads them: it is the only one that contends.
async fn led(count: usize, complete: impl FnOnce(PodBuilder) -> PodBuilder) -> Result<(Site, Vec<StandIn>, Pod)> {
    let site = Site::new().await?;
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(site.cluster("default").stand_in().await?);
    }
    let pod = complete(pod(&site)).start()?;
    Ok((site, peers, pod))
}

async fn configured(pod: &Pod) -> Result {
    pod.shows("process", "running").await?;
    pod.shows("state", "leader").await?;
    Ok(())
}

async fn status(pod: &Pod, parts: &[&str]) -> Result {
    eventually("the status tells", SOON, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        for part in parts {
            ensure!(status.contains(part), "the status is {status:?}, without {part:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rollout_is_check_then_on_then_ok_with_one_view() -> Result {
    let (site, peers, pod) = led(2, |pod| pod.set("set_grace", "7")).await?;
    configured(&pod).await?;
    eventually("ok arrived", SOON, async || peers.iter().try_for_each(|peer| peer.last("ok").map(drop))).await?;
    let key = pod.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    let cluster = site.cluster("default");
    let epoch = {
        let holder = cluster.contenders().await?.first().context("nobody leads")?.clone();
        cluster.store().find(&cluster.path(&format!("coordinator/{holder}"))).await?.context("no lock")?.1.czxid
    };
    let hash = cluster.hash().await?;
    for peer in &peers {
        ensure!(peer.tasks() == ["check", "on", "ok"], "it was asked for {:?}", peer.tasks());
        for asked in peer.asked() {
            ensure!(asked.limit == "7", "the limit is {:?}, not whole seconds of the grace", asked.limit);
            ensure!(asked.body["key"] == peer.key(), "the view's key is {}", asked.body["key"]);
            ensure!(asked.body["dependencies"] == serde_json::json!({}), "{}", asked.body);
            let mut keys: Vec<&String> = asked.body["pods"].as_object().context("pods is no object")?.keys().collect();
            keys.sort();
            let mut expected = vec![peers[0].key(), peers[1].key(), &key];
            expected.sort_unstable();
            ensure!(keys == expected, "the view has {keys:?} instead of {expected:?}");
            ensure!(header(&asked, "x-ochopod-epoch") == epoch.to_string(), "{:?}", asked.headers);
            ensure!(header(&asked, "x-ochopod-generation") == hash, "{:?} but {hash}", asked.headers);
            ensure!(header(&asked, "content-type").starts_with("application/json"), "{:?}", asked.headers);
        }
    }
    let last_check = peers.iter().map(|peer| peer.last("check").map(|asked| asked.at)).collect::<Result<Vec<_>>>()?;
    let first_on = peers.iter().map(|peer| peer.last("on").map(|asked| asked.at)).collect::<Result<Vec<_>>>()?;
    ensure!(last_check.iter().max() <= first_on.iter().min(), "an `on` came before the last `check`");
    Ok(())
}

fn header<'a>(asked: &'a Asked, name: &str) -> &'a str {
    asked.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

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

#[tokio::test]
async fn a_rollout_in_progress_is_pending_in_the_store() -> Result {
    let (site, peers, pod) = led(1, |pod| pod).await?;
    peers[0].delay("on", Duration::from_secs(2));
    let cluster = site.cluster("default");
    let pending = eventually("the hash is pending", SOON, async || {
        let hash = cluster.hash().await?;
        hash.strip_prefix("pending:").map(str::to_owned).with_context(|| format!("it is {hash:?}"))
    })
    .await?;
    let asked = eventually("on is asked", SOON, async || peers[0].last("on")).await?;
    ensure!(header(&asked, "x-ochopod-generation") == pending, "{:?}", asked.headers);
    ensure!(pod.client().info().await?["state"] == "leader (configuring)", "{}", pod.client().info().await?);
    configured(&pod).await?;
    ensure!(cluster.hash().await? == pending, "the hash is {}", cluster.hash().await?);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_rollout_is_resumed_by_the_next_leader() -> Result {
    let (site, peers, mut first) = led(1, |pod| pod.set("session", "1")).await?;
    peers[0].delay("on", Duration::from_mins(10));
    let cluster = site.cluster("default");
    eventually("the hash is pending", SOON, async || {
        ensure!(cluster.hash().await?.starts_with("pending:"), "it is not");
        Ok(())
    })
    .await?;
    first.kill9().await?;
    peers[0].delay("on", Duration::ZERO);
    let second = pod(&site).start()?;
    configured(&second).await?;
    ensure!(!cluster.hash().await?.starts_with("pending:"), "it is still pending");
    ensure!(cluster.snapshot().await?.len() == 2, "the snapshot is {:?}", cluster.snapshot().await?);
    Ok(())
}

#[tokio::test]
async fn changes_during_a_rollout_cost_one_more() -> Result {
    let (site, peers, pod) = led(1, |pod| pod).await?;
    peers[0].delay("on", Duration::from_secs(1));
    eventually("on is asked", SOON, async || peers[0].last("on")).await?;
    let (second, third) = (site.cluster("default").stand_in().await?, site.cluster("default").stand_in().await?);
    eventually("all are configured", SOON, async || {
        ensure!(site.cluster("default").snapshot().await?.len() == 4, "not all");
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
async fn sequential_asks_one_after_the_other_in_the_order_of_seq() -> Result {
    let (_site, peers, pod) = led(3, |pod| pod.set("set_sequential", "true")).await?;
    for peer in &peers {
        peer.delay("on", Duration::from_millis(300));
    }
    configured(&pod).await?;
    let asked = peers.iter().map(|peer| Ok((peer.seq(), peer.last("on")?.at))).collect::<Result<Vec<_>>>()?;
    for pair in asked.windows(2) {
        let between = pair[1].1.duration_since(pair[0].1);
        ensure!(pair[0].0 < pair[1].0, "the peers are not in order of seq");
        ensure!(between >= Duration::from_millis(290), "seq {} was asked {between:?} after the one before", pair[1].0);
    }
    Ok(())
}

#[tokio::test]
async fn sequential_stops_at_the_first_that_fails() -> Result {
    let site = Site::new().await?;
    let (first, second) = (site.cluster("default").stand_in().await?, site.cluster("default").stand_in().await?);
    first.answer("on", 500);
    let pod = pod(&site).set("set_sequential", "true").start()?;
    status(&pod, &["500"]).await?;
    ensure!(second.last("on").is_err(), "the second was asked for {:?}", second.tasks());
    first.answer("on", 200);
    configured(&pod).await
}

#[tokio::test]
async fn a_full_shutdown_turns_all_off_before_any_is_turned_on() -> Result {
    let (site, peers, pod) = led(2, |pod| pod.set("set_full_shutdown", "true")).await?;
    configured(&pod).await?;
    let newcomer = site.cluster("default").stand_in().await?;
    eventually("the newcomer is configured", SOON, async || newcomer.last("ok")).await?;
    for peer in &peers {
        let tasks = peer.tasks();
        let round: Vec<&str> = tasks.iter().rev().take(4).rev().map(String::as_str).collect();
        ensure!(round == ["check", "off", "on", "ok"], "it was asked for {tasks:?}");
    }
    let offs = peers.iter().map(|peer| peer.last("off").map(|asked| asked.at)).collect::<Result<Vec<_>>>()?;
    let ons = peers.iter().map(|peer| peer.last("on").map(|asked| asked.at)).collect::<Result<Vec<_>>>()?;
    ensure!(offs.iter().max() < ons.iter().min(), "an `on` came before the last `off`");
    pod.started(2).await?;
    Ok(())
}

#[tokio::test]
async fn a_full_shutdown_goes_on_only_when_all_are_off() -> Result {
    let site = Site::new().await?;
    let peer = site.cluster("default").stand_in().await?;
    peer.answer("off", 500);
    let pod = pod(&site).set("set_full_shutdown", "true").start()?;
    status(&pod, &["* ", "500"]).await?;
    ensure!(peer.last("on").is_err() && pod.starts()?.is_empty(), "it went on: {:?}", peer.tasks());
    Ok(())
}
