//! Monitoring: readiness, published states, the pods that a leader lists, metrics.

use std::time::Instant;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, NodeLifetime, Pod, Result, TestEnv, consistently, eventually, free_port};
use serde_json::{Value, json};
use zookeeper_client::{Acl, AuthId, Permission};

use crate::{leader_with_fakes::status, pod, running};

/// Waits until `/readyz` answers 503 with a reason that contains this text.
pub(crate) async fn unready(pod: &Pod, part: &str) -> Result {
    eventually("it is not ready", DEFAULT_TIMEOUT, async || {
        let reason = pod.client().get("/readyz").await?.error(503)?;
        ensure!(reason.contains(part), "the reason is {reason:?}, without {part:?}");
        Ok(())
    })
    .await
}

pub(crate) async fn ready(pod: &Pod) -> Result {
    eventually("it is ready", DEFAULT_TIMEOUT, async || pod.client().get("/readyz").await?.is(200)).await
}

/// Waits until the metrics have this line.
pub(crate) async fn metric(pod: &Pod, line: &str) -> Result {
    eventually(line, DEFAULT_TIMEOUT, async || {
        let page = String::from_utf8(pod.client().get("/metrics").await?.body.to_vec())?;
        ensure!(page.lines().any(|found| found == line), "{line} is not in {page}");
        Ok(())
    })
    .await
}

/// Waits until the state that a pod publishes is this one.
async fn publishes(env: &TestEnv, key: &str, state: Value) -> Result {
    eventually("the state is published", DEFAULT_TIMEOUT, async || {
        let cluster = env.cluster("default");
        let found = cluster.store().json(&cluster.path(&format!("states/{key}"))).await?;
        let expected = state.as_object().context("an object")?;
        ensure!(expected.iter().all(|(key, value)| found.get(key) == Some(value)), "it is {found}");
        Ok(())
    })
    .await
}

/// Waits until the status reports no problem.
async fn is_well(pod: &Pod) -> Result {
    eventually("the status is well", DEFAULT_TIMEOUT, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(!status.contains('*'), "the status is {status:?}");
        Ok(())
    })
    .await
}

async fn key(pod: &Pod) -> Result<String> {
    Ok(pod.client().info().await?["key"].as_str().context("no key")?.to_owned())
}

#[tokio::test]
async fn readyz_is_503_whatever_turned_the_sub_process_off() -> Result {
    let (_env, off) = running(|pod| pod).await?;
    ready(&off).await?;
    off.client().post("/control/off").await?.json(200)?;
    unready(&off, "sub-process is not running: turned off by /control/off").await?;
    off.client().get("/healthz").await?.is(200)?;
    off.client().post("/control/on").await?.json(200)?;
    ready(&off).await?;
    off.client().post("/control/kill").await?.json(200)?;
    unready(&off, "pod is dead: killed by /control/kill").await?;

    // They do not run for long: they may be off before that is seen.
    let env = TestEnv::new().await?;
    let sick = pod(&env).misbehave("sanity_check", "reject").set("set_check_every", "1").start()?;
    unready(&sick, "sub-process is not running: turned off after a failed sanity check: ").await?;
    metric(&sick, "ochopod_checks_failed_total 1").await?;
    metric(&sick, "ochopod_off 1").await?;

    // The second and later starts fail.
    let text = "[ $(wc -l < starts) -gt 1 ] && exit 3; sleep 2; exit 3";
    let crashing = pod(&env).set("cluster", "crashing").count_starts(text).set("set_check_every", "2").start()?;
    unready(&crashing, "turned off after a failed sanity check: sub-process ended").await
}

#[tokio::test]
async fn readyz_ignores_an_outage_of_the_store_however_long_but_not_a_lost_registration() -> Result {
    let env = TestEnv::new().await?;
    let (proxy, through) = env.proxy().await?;
    let pod = pod(&env).set("zk", through).set("session", 2).start()?;
    env.cluster("default").wait_formed(&[&pod]).await?;
    ready(&pod).await?;
    proxy.refuse();
    pod.wait_info("session", "lost").await?;
    consistently("it stays ready", std::time::Duration::from_secs(2), async || {
        pod.client().get("/readyz").await?.is(200)
    })
    .await?;
    eventually("it says why it is not registered", DEFAULT_TIMEOUT, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.starts_with("* not registered: "), "the status is {status:?}");
        Ok(())
    })
    .await?;
    proxy.heal();
    let (end, mut back) = (Instant::now() + DEFAULT_TIMEOUT, false);
    while !back {
        pod.client().get("/readyz").await?.is(200).context("not ready while it registers again")?;
        let metrics = pod.client().get("/metrics").await?.body;
        back = String::from_utf8_lossy(&metrics).contains("ochopod_registered 1");
        ensure!(Instant::now() < end, "not registered again");
    }
    pod.wait_info("session", "connected").await?;
    ready(&pod).await?;
    is_well(&pod).await?;
    ensure!(pod.starts()?.len() == 1, "its sub-process was started again");
    Ok(())
}

#[tokio::test]
async fn a_pod_whose_registration_was_taken_away_is_not_ready() -> Result {
    let (env, pod) = running(|pod| pod).await?;
    ready(&pod).await?;
    let cluster = env.cluster("default");
    let name = cluster.registered().await?.pop().context("no pod is registered")?;
    let pods = cluster.path("pods");
    let only_read = [Acl::new(Permission::READ | Permission::DELETE | Permission::ADMIN, AuthId::anyone())];
    cluster.store().set_access(&pods, &only_read).await?;
    cluster.store().delete(&format!("{pods}/{name}")).await?;
    unready(&pod, "pod is not registered: access to ").await?;
    status(&pod, &["* not registered: access to "]).await?;
    metric(&pod, "ochopod_registered 0").await?;
    metric(&pod, "ochopod_ready 0").await?;
    cluster.store().set_access(&pods, &[Acl::new(Permission::ALL, AuthId::anyone())]).await?;
    ready(&pod).await?;
    ensure!(pod.starts()?.len() == 1, "its sub-process was started again");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_never_reached_the_store_reports_the_cause() -> Result {
    let env = TestEnv::new().await?;
    let zk = format!("127.0.0.1:{}", free_port()?);
    let pod = pod(&env).set("zk", zk).start()?;
    status(&pod, &["* not registered: "]).await?;
    unready(&pod, "pod is not configured yet").await
}

#[tokio::test]
async fn states_are_published_and_the_leader_lists_pods_that_are_off_or_dead() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(3, pod).await?;
    let leader = env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    let others: Vec<&Pod> = pods.iter().filter(|pod| pod.address() != pods[leader].address()).collect();
    let (leader, off, dead) = (&pods[leader], others[0], others[1]);
    let running = json!({"process": "running", "ready": true, "reason": null});
    for pod in &pods {
        publishes(&env, &key(pod).await?, running.clone()).await?;
    }
    is_well(leader).await?;

    off.client().post("/control/off").await?.json(200)?;
    let reason = "turned off by /control/off";
    publishes(&env, &key(off).await?, json!({"process": "stopped", "ready": false, "reason": reason})).await?;
    let seq = off.client().info().await?["seq"].clone();
    status(leader, &[&format!("* off: #{seq} {} ({reason})", off.client().authority())]).await?;
    metric(leader, r#"ochopod_cluster_pods{state="off"} 1"#).await?;
    metric(off, "ochopod_off 1").await?;

    dead.client().post("/control/kill").await?.json(200)?;
    let seq = dead.client().info().await?["seq"].clone();
    let listed = format!("dead: #{seq} {} (killed by /control/kill)", dead.client().authority());
    status(leader, &["* off: ", &listed]).await?;
    metric(leader, r#"ochopod_cluster_pods{state="dead"} 1"#).await?;
    metric(dead, "ochopod_dead 1").await?;
    metric(leader, "ochopod_dead 0").await?;

    off.client().post("/control/on").await?.json(200)?;
    publishes(&env, &key(off).await?, running).await?;
    eventually("it is no longer listed", DEFAULT_TIMEOUT, async || {
        let status = leader.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.starts_with(&format!("* {listed}")), "the status is {status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn states_are_not_part_of_the_configuration_and_survive_a_new_session_and_other_clients() -> Result {
    let (env, pod) = running(|pod| pod).await?;
    let (cluster, key) = (env.cluster("default"), key(&pod).await?);
    let running = json!({"process": "running", "ready": true, "reason": null});
    publishes(&env, &key, running.clone()).await?;
    let (path, hash) = (cluster.path(&format!("states/{key}")), cluster.hash_written().await?);
    let owner = cluster.store().owner(&path).await?;
    for (name, junk) in [("junk", "[[[".as_bytes()), ("..junk", b"\xff"), (&*format!("{key}x"), b"{}")] {
        cluster.store().create(&cluster.path(&format!("states/{name}")), junk, NodeLifetime::Always).await?;
    }
    cluster.store().set(&path, b"junk").await?;
    publishes(&env, &key, running.clone()).await?;
    cluster.store().delete(&path).await?;
    publishes(&env, &key, running.clone()).await?;
    pod.client().post("/reset").await?.json(200)?;
    eventually("it is published under another session", DEFAULT_TIMEOUT, async || {
        ensure!(cluster.store().owner(&path).await? != owner, "it still is the old session");
        Ok(())
    })
    .await?;
    publishes(&env, &key, running).await?;
    pod.wait_info("state", "leader").await?;
    is_well(&pod).await?;
    ensure!(cluster.hash_written().await? == hash, "the cluster was configured again");
    Ok(())
}

#[tokio::test]
async fn logs_and_statuses_have_no_debug_dumps_of_values() -> Result {
    let env = TestEnv::new().await?;
    let failing = pod(&env).misbehave("configure", "reject:no disk").set("log_level", "debug").start()?;
    failing.wait_info("process", "dead").await?;
    failing.wait_log("configuration failed, terminating pod").await?;
    unready(&failing, "pod is dead: configuration failed: configure: no disk").await?;
    let (_other, stopped) = running(|pod| pod.set("log_level", "debug")).await?;
    stopped.client().post("/control/off").await?.json(200)?;
    stopped.wait_log("killed by SIGTERM").await?;
    for pod in [&failing, &stopped] {
        let console = pod.console()?;
        for debug in ["Some(", "None", "Rejected(", "Failure {", "Signal(", "Code(", "Settings {"] {
            ensure!(!console.contains(debug), "{debug:?} is in {console}");
        }
    }
    Ok(())
}
