//! Pods that are not ready, and configurations that are not possible yet.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, consistently, eventually};
use serde_json::{Value, json};

use crate::{
    SLEEP, all,
    follower::Follower,
    leader_with_fakes::{configured, status},
    monitoring::{ready, unready},
    pod, started_once,
};

/// A directory that the guest of one pod reads: its callbacks wait for files in it.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(env: &TestEnv, name: &str) -> Result<Self> {
        let directory = env.scratch().join(format!("files-{name}"));
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// Makes a callback impossible until [`Self::create`].
    pub(crate) fn wait(&self, pod: PodBuilder, callback: &str) -> PodBuilder {
        let grant = format!("{}::/files:ro", self.0.display());
        pod.misbehave(callback, &format!("until-file:/files/{callback}")).flags(["--dir", &grant])
    }

    pub(crate) fn create(&self, callback: &str) -> Result {
        Ok(fs::write(self.0.join(callback), "")?)
    }

    pub(crate) fn remove(&self, callback: &str) -> Result {
        Ok(fs::remove_file(self.0.join(callback))?)
    }
}

/// Sorts pods with what belongs to them by the number of their registration.
pub(crate) async fn by_seq<T>(pods: Vec<(Pod, T)>) -> Result<Vec<(Pod, T)>> {
    let mut numbered = Vec::new();
    for (pod, own) in pods {
        let seq = eventually("it is registered", DEFAULT_TIMEOUT, async || {
            pod.client().info().await?["seq"].as_u64().context("no seq")
        });
        numbered.push((seq.await?, pod, own));
    }
    numbered.sort_by_key(|(seq, ..)| *seq);
    Ok(numbered.into_iter().map(|(_, pod, own)| (pod, own)).collect())
}

#[tokio::test]
async fn sequential_goes_on_when_a_pod_is_ready() -> Result {
    let env = TestEnv::new().await?;
    let mut started = Vec::new();
    for number in 0..3 {
        let files = Files::new(&env, &number.to_string())?;
        let pod = files.wait(pod(&env).set("set_sequential", "true").set("set_damper", "1"), "ready");
        started.push((pod.start()?, files));
    }
    let pods = by_seq(started).await?;
    for (number, (pod, files)) in pods.iter().enumerate() {
        pod.started(1).await?;
        unready(pod, "sub-process is not ready: /files/ready does not exist").await?;
        let seq = pod.client().info().await?["seq"].as_u64().context("no seq")?;
        let waiting = format!("waiting until ready: #{seq} ");
        eventually("the leader says why it waits", DEFAULT_TIMEOUT, async || {
            for (pod, _) in &pods {
                let info = pod.client().info().await?;
                let text = info["status"].as_str().unwrap_or_default().to_owned();
                if info["state"] == "leader (configuring)" && text.contains(&waiting) {
                    return Ok(());
                }
            }
            anyhow::bail!("no status has {waiting:?}")
        })
        .await?;
        consistently("the others wait", Duration::from_secs(1), async || {
            let later = pods.iter().skip(number + 1);
            ensure!(later.clone().all(|(pod, _)| pod.lines("starts").is_empty()), "another pod was started");
            Ok(())
        })
        .await?;
        files.create("ready")?;
    }
    let pods: Vec<Pod> = pods.into_iter().map(|(pod, _)| pod).collect();
    env.cluster("default").wait_formed(&all(&pods)).await?;
    for pod in &pods {
        ready(pod).await?;
    }
    started_once(&pods).await
}

/// Posts `on` with this limit in seconds.
async fn on(follower: &Follower, limit: u32) -> Result<ochopod_tests::Reply> {
    let (epoch, generation) = (follower.lead.epoch().to_string(), format!("1:{}", "0".repeat(64)));
    let headers =
        [("content-type", "application/json"), ("x-ochopod-epoch", &*epoch), ("x-ochopod-generation", &*generation)];
    let body = follower.view.to_string().into();
    follower.pod.client().send(hyper::Method::POST, &format!("/control/on/{limit}"), &headers, body).await
}

#[tokio::test]
async fn on_is_answered_at_its_limit_and_the_process_keeps_running() -> Result {
    let env = TestEnv::new().await?;
    let files = Files::new(&env, "ready")?;
    let follower = Follower::with(|pod| files.wait(pod.set("set_strict", "true"), "ready")).await?;
    for _ in 0..2 {
        let reply = on(&follower, 1).await?;
        let text = reply.error(503)?;
        ensure!(text.contains("/files/ready does not exist"), "the reason is {text:?}");
        ensure!(reply.json(503)?["callback"] == "ready", "the reply is {}", reply.json(503)?);
    }
    let pid = follower.pod.started(1).await?;
    let info = follower.pod.client().info().await?;
    ensure!(info["process"] == "running" && info["ready"] == false, "{info}");
    status(&follower.pod, &["* sub-process not ready: /files/ready does not exist"]).await?;
    files.create("ready")?;
    on(&follower, 30).await?.is(200)?;
    ensure!(follower.pod.starts()? == [pid], "it was started again: {:?}", follower.pod.starts()?);
    ensure!(follower.pod.client().info().await?["ready"] == true, "it is not ready");
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_not_ready_in_time_is_turned_off() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).misbehave("ready", "reject:still loading").set("set_ready_within", "1").set("set_checks", "2");
    let pod = pod.start()?;
    pod.wait_log("too many failed sanity checks").await?;
    pod.wait_info("process", "stopped").await?;
    let reason = pod.client().info().await?["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("turned off after 2 failed sanity checks"), "the reason is {reason:?}");
    ensure!(reason.contains("not ready within 1 s: still loading"), "the reason is {reason:?}");
    unready(&pod, "still loading").await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_is_not_possible_yet_is_retried() -> Result {
    for callback in ["initialize", "configure"] {
        let env = TestEnv::new().await?;
        let files = Files::new(&env, callback)?;
        let pod = files.wait(pod(&env), callback).start()?;
        let reason = format!("/files/{callback} does not exist");
        status(&pod, &["failed on with 503", &reason, "retrying in"]).await?;
        let info = pod.client().info().await?;
        ensure!(info["process"] == "stopped", "it is {}", info["process"]);
        ensure!(
            info["reason"] == format!("not configured yet: {callback}: {reason}"),
            "the reason is {}",
            info["reason"]
        );
        let calls = pod.count_log(&format!("callback {callback}"))?;
        eventually("it is tried again", DEFAULT_TIMEOUT, async || {
            ensure!(pod.count_log(&format!("callback {callback}"))? > calls, "no further call");
            Ok(())
        })
        .await?;
        files.create(callback)?;
        eventually("it runs", DEFAULT_TIMEOUT * 3, async || {
            ensure!(pod.client().info().await?["process"] == "running", "the sub-process does not run");
            Ok(())
        })
        .await?;
        configured(&pod).await?;
        ready(&pod).await?;
        ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
        if callback == "configure" {
            ensure!(pod.count_log("callback initialize")? == 1, "it was initialized again");
        }
    }
    Ok(())
}

/// Starts a pod that depends on `db`, and counts reloads.
async fn comparing(env: &TestEnv) -> Result<Pod> {
    let text = "trap 'echo reloaded >> reloads' HUP; echo $$ >> starts; while :; do sleep 0.1; done";
    let web = pod(env).command(text).set("test_reload", "1").set("set_on_change", "compare");
    let web = web.set("cluster", "web").set("set_depends_on", "db").start()?;
    env.cluster("web").wait_formed(&[&web]).await?;
    web.started(1).await?;
    Ok(web)
}

async fn sees_dependency(env: &TestEnv, pods: usize) -> Result {
    eventually("the dependant is configured", DEFAULT_TIMEOUT, async || {
        let cluster = env.cluster("web");
        let view = cluster.store().json(&cluster.path("view")).await?;
        let seen = view["dependencies"]["db"].as_object().map_or(0, serde_json::Map::len);
        ensure!(seen == pods && !cluster.hash().await?.starts_with("pending:"), "it sees {seen} pods");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_process_with_the_same_command_is_reloaded_and_not_restarted() -> Result {
    let env = TestEnv::new().await?;
    let web = comparing(&env).await?;
    let db = pod(&env).set("cluster", "db").start()?;
    sees_dependency(&env, 1).await?;
    web.wait_lines("reloads", 1).await?;
    ensure!(web.starts()?.len() == 1, "it was restarted");
    ensure!(web.count_log("callback configure")? >= 2, "configure was not called");

    let other = json!({"set": {"command": format!("echo $$ >> starts; {SLEEP}")}});
    web.client().post_json("/control/signal", &other).await?.is(200)?;
    let second = pod(&env).set("cluster", "db").start()?;
    sees_dependency(&env, 2).await?;
    web.started(2).await?;
    ensure!(web.lines("reloads").len() == 1, "it was reloaded, too");
    drop((db, second));
    Ok(())
}

#[tokio::test]
async fn a_comparison_that_is_not_possible_yet_leaves_the_process_running() -> Result {
    let env = TestEnv::new().await?;
    let web = comparing(&env).await?;
    let behaviour = json!({"behave": {"configure": "not-yet:no certificate"}});
    web.client().post_json("/control/signal", &behaviour).await?.is(200)?;
    let _db = pod(&env).set("cluster", "db").start()?;
    status(&web, &["failed on with 503", "no certificate"]).await?;
    ensure!(web.client().info().await?["process"] == "running", "it was stopped");
    ensure!(web.starts()?.len() == 1 && web.lines("reloads").is_empty(), "it was restarted or reloaded");
    web.client().post_json("/control/signal", &json!({"behave": {}})).await?.is(200)?;
    sees_dependency(&env, 1).await?;
    ensure!(web.starts()?.len() == 1, "it was restarted");
    Ok(())
}

#[tokio::test]
async fn a_change_of_role_reconciles_and_restarts_nothing() -> Result {
    let env = TestEnv::new().await?;
    let with_role = |env: &TestEnv| pod(env).set("test_role", "standby").set("set_check_every", "1");
    let pods = env.start_cluster(2, with_role).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let follower = &pods[1 - leader];
    let mut seqs = Vec::new();
    for pod in &pods {
        seqs.push(pod.client().info().await?["seq"].as_u64().context("no seq")?);
    }
    let roles = |of_follower: &str| {
        let mut roles = [(seqs[1 - leader], of_follower), (seqs[leader], "standby")];
        roles.sort_unstable();
        format!("roles=[{}:{},{}:{}]", roles[0].0, roles[0].1, roles[1].0, roles[1].1)
    };
    pods[leader].wait_log(&roles("standby")).await?;
    let set = json!({"set": {"role": "primary"}});
    follower.client().post_json("/control/signal", &set).await?.is(200)?;
    pods[leader].wait_log(&roles("primary")).await?;
    let hash = env.cluster("default").hash_written().await?;
    follower.wait_info("process", "running").await?;
    ensure!(env.cluster("default").hash_written().await? == hash, "the cluster was configured again");
    started_once(&pods).await
}

#[tokio::test]
async fn a_reconciliation_that_fails_is_shown_and_retried() -> Result {
    let env = TestEnv::new().await?;
    let files = Files::new(&env, "reconcile")?;
    let pod = files.wait(pod(&env), "reconcile").start()?;
    status(&pod, &["* reconcile: /files/reconcile does not exist"]).await?;
    let info: Value = pod.client().info().await?;
    ensure!(info["state"] == "leader" && info["process"] == "running", "{info}");
    files.create("reconcile")?;
    eventually("it succeeds", DEFAULT_TIMEOUT * 2, async || {
        let info = pod.client().info().await?;
        ensure!(!info["status"].as_str().unwrap_or_default().contains("reconcile"), "{}", info["status"]);
        Ok(())
    })
    .await?;
    started_once(&[pod]).await
}
