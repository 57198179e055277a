//! The lifecycle of one pod: configuration and exit.

use std::fs;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, artifacts, eventually};
use serde_json::{Value, json};

use crate::{SLEEP, pod, running};

#[tokio::test]
async fn one_pod_configures_itself_and_runs_the_command_of_its_plugin() -> Result {
    let env = TestEnv::new().await?;
    let hello = artifacts::plugin("hello")?;
    let pods = env.start_cluster(1, |env| env.pod(&hello)).await?;
    let info = pods[0].wait_info("process", "running").await?;
    ensure!(info["state"] == "leader", "state is {}", info["state"]);
    ensure!(info["status"] == "", "status is {}", info["status"]);
    pods[0].wait_log("hello from pod 1 of 1").await?;
    Ok(())
}

#[tokio::test]
async fn the_sub_process_receives_pod_settings_and_no_secret() -> Result {
    let env = TestEnv::new().await?;
    let pods = env
        .start_cluster(1, |env| {
            let guest = artifacts::misbehaving().unwrap_or_default();
            let builder = env.pod(&guest).set("colour", "blue").set("db_password", "hush").set("set_grace", "2");
            builder
                .env("PLAIN", "kept")
                .command("tr '\\0' '\\n' < /proc/self/environ > new; mv new environment; exec sleep 86400")
        })
        .await?;
    let environment = eventually("the sub-process writes", DEFAULT_TIMEOUT, async || {
        let environment = fs::read_to_string(pods[0].directory().join("environment"))?;
        ensure!(environment.contains("PATH="), "it has {environment:?}");
        Ok(environment)
    })
    .await?;
    ensure!(!environment.contains("hush"), "a secret is in {environment}");
    ensure!(environment.lines().any(|line| line == "PLAIN=kept"), "the environment is not inherited: {environment}");
    let hints = environment.lines().find_map(|line| line.strip_prefix("ochopod=")).context("no variable ochopod")?;
    let hints: Value = serde_json::from_str(hints)?;
    ensure!(hints["colour"] == "blue" && hints["ip"] == pods[0].address(), "it says {hints}");
    ensure!(hints["dependencies"] == json!([]) && hints["metrics"] == json!({}), "it says {hints}");
    ensure!(hints.get("db_password").is_none(), "it says {hints}");
    Ok(())
}

#[tokio::test]
async fn an_end_with_code_0_ends_the_pod() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    let pod = env.pod(&guest).count_starts("sleep 0.5").start()?;
    pod.wait_info("process", "dead").await?;
    pod.wait_log("callback finalize").await?;
    ensure!(pod.starts()?.len() == 1, "it was started again");
    let cluster = env.cluster("default");
    eventually("the registration says so and the lock is free", DEFAULT_TIMEOUT, async || {
        let pods = cluster.registrations().await?;
        let status = pods.values().next().context("no pod is registered")?["status"].clone();
        ensure!(status == "dead", "status is {status}");
        ensure!(cluster.contenders().await?.is_empty(), "it still contends");
        Ok(())
    })
    .await?;
    pod.client().post("/control/on").await?.error(410)?;
    Ok(())
}

#[tokio::test]
async fn a_job_leaves_when_it_is_dead() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    let mut pod = env.pod(&guest).count_starts("sleep 0.2").set("exit_when_dead", "true").start()?;
    let code = pod.exit_code().await?;
    ensure!(code == 0, "it ended with {code}");
    ensure!(env.cluster("default").registered().await?.is_empty(), "its registration is left behind");
    pod.assert_clean().await
}

#[tokio::test]
async fn start_false_waits_for_a_request() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).set("start", "false").start()?;
    eventually("the cluster is configured", DEFAULT_TIMEOUT, async || {
        let hash = env.cluster("default").hash().await?;
        ensure!(!hash.is_empty() && !hash.starts_with("pending"), "the hash is {hash:?}");
        Ok(())
    })
    .await?;
    let info = pod.wait_info("state", "leader").await?;
    ensure!(info["process"] == "stopped", "{info}");
    ensure!(pod.starts()?.is_empty(), "it was started");
    pod.client().post("/control/on").await?.json(200)?;
    pod.started(1).await?;
    Ok(())
}

#[tokio::test]
async fn a_configure_that_fails_ends_that_pod() -> Result {
    let env = TestEnv::new().await?;
    for callback in ["initialize", "configure"] {
        let pod = pod(&env).set("cluster", callback).misbehave(callback, "reject").start()?;
        pod.wait_info("process", "dead").await?;
        ensure!(pod.starts()?.is_empty(), "it was started");
    }
    Ok(())
}

#[tokio::test]
async fn initialize_is_called_once_and_finalize_at_the_end() -> Result {
    let (env, mut first) = running(|pod| pod).await?;
    first.client().post("/control/off").await?.json(200)?;
    first.client().post("/control/on").await?.json(200)?;
    let second = pod(&env).start()?;
    env.cluster("default").wait_formed(&[&first, &second]).await?;
    first.client().post("/control/off").await?.json(200)?;
    let view = json!({ "key": first.client().info().await?["key"],
        "pods": env.cluster("default").registrations().await?, "dependencies": {} });
    first.client().post_json("/control/on", &view).await?.json(200)?;
    first.term()?;
    ensure!(first.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(first.count_log("callback initialize")? == 1, "initialize was not called once");
    ensure!(first.count_log("callback finalize")? == 1, "finalize was not called once");
    Ok(())
}

#[tokio::test]
async fn a_running_sub_process_is_left_alone_unless_its_dependencies_change() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let lead = cluster.lead().await?;
    let pod = pod(&env).start()?;
    let mut view = eventually("it registers", DEFAULT_TIMEOUT, async || {
        let pods = cluster.registrations().await?;
        let key = pods.keys().next().context("no pod is registered")?.clone();
        Ok(json!({ "key": key, "pods": pods, "dependencies": { "db": {} } }))
    })
    .await?;
    lead.post(pod.client(), "on", "1", &view).await?.is(200)?;
    pod.started(1).await?;
    view["pods"]["another"] = json!({ "seq": 7, "ip": "127.0.0.77", "port": "1" });
    lead.post(pod.client(), "on", "2", &view).await?.is(200)?;
    ensure!(pod.starts()?.len() == 1, "another pod of its own cluster restarted it");
    view["dependencies"]["db"]["x"] = json!({ "seq": 0, "ip": "127.0.0.78", "port": "1" });
    lead.post(pod.client(), "on", "3", &view).await?.is(200)?;
    pod.started(2).await?;
    ensure!(pod.starts()?.len() == 2, "started {} times", pod.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn the_working_directory_is_the_plugins_choice() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    let chosen = env.scratch().join("chosen");
    fs::create_dir(&chosen)?;
    let _pod = env.pod(&guest).set("set_cwd", chosen.display()).count_starts(SLEEP).start()?;
    eventually("it runs there", DEFAULT_TIMEOUT, async || {
        ensure!(chosen.join("starts").exists(), "no start in this directory");
        Ok(())
    })
    .await
}
