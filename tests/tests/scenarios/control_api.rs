//! Every route of the control port.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, consistently, eventually};
use serde_json::json;

use crate::{
    follower::{Follower, view_of},
    pod,
};

#[tokio::test]
async fn info_returns_everything_that_is_documented() -> Result {
    let follower = Follower::with(|pod| pod.set("colour", "blue").env("PORT_6379", "31000")).await?;
    let client = follower.pod.client();
    let port = follower.env.port().to_string();
    for reply in [client.post("/info").await?, client.get("/info").await?] {
        let info = reply.json(200)?;
        for key in ["application", "ip", "node", "port", "process", "public", "state", "status", "task"] {
            ensure!(info[key].is_string(), "{key} is {}", info[key]);
        }
        for key in ["cluster", "namespace", "key", "session"] {
            ensure!(info[key].is_string(), "{key} is {}", info[key]);
        }
        ensure!(info["dependencies"] == json!([]), "dependencies are {}", info["dependencies"]);
        ensure!(info["metrics"] == json!({}), "metrics are {}", info["metrics"]);
        ensure!(info["ports"] == json!({ "6379": 31000 }), "ports are {}", info["ports"]);
        ensure!(info["ip"] == follower.pod.address(), "ip is {}", info["ip"]);
        ensure!(info["port"] == *port, "port is {}", info["port"]);
        ensure!(info["node"] == "local", "node is {}", info["node"]);
        ensure!(info["state"] == "follower", "state is {}", info["state"]);
        ensure!(info["process"] == "stopped", "process is {}", info["process"]);
        ensure!(info["session"] == "connected", "session is {}", info["session"]);
        ensure!(info["cluster"] == "default" && info["namespace"] == "marathon", "{info}");
        ensure!(info["key"] == follower.view["key"], "key is {}", info["key"]);
        let registered = &follower.view["pods"][follower.view["key"].as_str().unwrap_or_default()];
        ensure!(info["seq"] == registered["seq"] && info["seq"].is_u64(), "seq is {}", info["seq"]);
    }
    Ok(())
}

#[tokio::test]
async fn the_registration_is_what_the_python_sdk_would_read() -> Result {
    let follower = Follower::with(|pod| pod.set("colour", "blue").set("api_token", "hidden")).await?;
    let own = follower.view["pods"][follower.view["key"].as_str().unwrap_or_default()].clone();
    let texts = [
        ("cluster", "default"),
        ("namespace", "marathon"),
        ("port", &follower.env.port().to_string()),
        ("ip", follower.pod.address()),
        ("node", "local"),
        ("local", "true"),
        ("debug", "false"),
        ("start", "true"),
        ("status", ""),
        ("colour", "blue"),
        ("zk", follower.env.store().connect_string()),
    ];
    for (key, text) in texts {
        ensure!(own[key] == text, "{key} is {} instead of {text:?}", own[key]);
    }
    for key in ["binding", "application", "task", "public"] {
        ensure!(own[key].is_string(), "{key} is {}", own[key]);
    }
    ensure!(own["seq"].is_u64() && own["ports"].is_object(), "{own}");
    ensure!(own.get("api_token").is_none(), "a secret is registered: {own}");
    Ok(())
}

#[tokio::test]
async fn log_returns_the_newest_lines_and_stays_bounded() -> Result {
    let follower = Follower::with(|pod| pod.set("debug", "true")).await?;
    let client = follower.pod.client();
    for _ in 0..600 {
        client.post_json("/control/signal", &json!("x".repeat(100))).await?.is(200)?;
    }
    for reply in [client.post("/log").await?, client.get("/log").await?] {
        let lines = reply.json(200)?;
        let lines = lines.as_array().context("the log is not an array")?;
        let size: usize = lines.iter().map(|line| line.as_str().unwrap_or_default().len()).sum();
        ensure!((1..=32 * 1024).contains(&size), "the log has {size} bytes");
    }
    let before = client.log().await?;
    eventually("the newest lines are returned", DEFAULT_TIMEOUT, async || {
        client.post("/control/signal").await?.is(200)?;
        let now = client.log().await?;
        let last = now.lines().last().context("the log is empty")?;
        ensure!(!before.contains(last), "the last line is an old one: {last}");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn every_task_is_answered_and_may_carry_a_limit() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    let view = &follower.view;
    client.post_json("/control/check/86400", view).await?.json(200)?;
    client.post_json("/control/on/20.5", view).await?.json(200)?;
    follower.pod.wait_info("process", "running").await?;
    client.post_json("/control/ok/60", view).await?.json(200)?;
    client.post("/control/signal/20.25").await?.json(200)?;
    client.post_json("/control/signal", &json!([1, "two", null, { "three": 3 }])).await?.json(200)?;
    client.post("/control/off").await?.json(200)?;
    ensure!(client.info().await?["process"] == "stopped", "it is not stopped");
    client.post("/control/on").await?.json(200)?;
    ensure!(client.info().await?["process"] == "running", "it was not started again");
    client.post_json("/control/off", &json!({})).await?.json(200)?;
    client.post_json("/control/kill", &json!({})).await?.json(200)?;
    ensure!(client.info().await?["process"] == "dead", "it is not dead");
    Ok(())
}

#[tokio::test]
async fn on_without_a_view_needs_an_earlier_configuration() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    client.post("/control/on").await?.error(406)?;
    let info = client.info().await?;
    ensure!(info["process"] == "stopped", "a refusal without a fault changed it to {}", info["process"]);
    follower.on().await?;
    Ok(())
}

#[tokio::test]
async fn a_request_past_its_limit_is_408_and_reports_whether_it_is_running() -> Result {
    let follower = Follower::with(|pod| pod.misbehave("signaled", "sleep")).await?;
    let client = follower.pod.client();
    let running = async { client.post("/control/signal/8").await?.error(408) };
    let waiting = async {
        follower.pod.wait_log("callback signaled").await?;
        client.post_json("/control/on/0.3", &follower.view).await?.error(408)
    };
    let (running, waiting) = tokio::try_join!(running, waiting)?;
    ensure!(running != waiting, "both replies are {running:?}");
    follower.pod.wait_info("process", "stopped").await?;
    consistently("what was dropped does not happen", Duration::from_secs(2), async || {
        ensure!(follower.pod.starts()?.is_empty(), "it was started");
        Ok(())
    })
    .await?;
    follower.on().await?;
    Ok(())
}

#[tokio::test]
async fn reset_registers_again_and_leaves_the_sub_process_alone() -> Result {
    let follower = Follower::new().await?;
    let pid = follower.on().await?;
    let client = follower.pod.client();
    let cluster = follower.env.cluster("default");
    let before = cluster.sessions().await?;
    client.post("/reset").await?.json(200)?;
    eventually("it is registered under another session", DEFAULT_TIMEOUT, async || {
        let now = cluster.sessions().await?;
        ensure!(now.len() == 1 && now != before, "registered are {now:?}, before {before:?}");
        Ok(())
    })
    .await?;
    let after = view_of(&follower.env).await?;
    ensure!(after == follower.view, "the registration changed: {after} was {}", follower.view);
    ensure!(follower.pod.starts()? == [pid] && ochopod_tests::alive(pid), "the sub-process did not stay");
    follower.pod.wait_info("session", "connected").await?;
    Ok(())
}

#[tokio::test]
async fn health_and_readiness_differ() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    client.get("/healthz").await?.is(200)?;
    let reason = client.get("/readyz").await?.error(503)?;
    ensure!(reason == "pod is not configured yet", "the reason is {reason:?}");
    follower.on().await?;
    eventually("it is ready", DEFAULT_TIMEOUT, async || client.get("/readyz").await?.is(200)).await?;
    let metrics = client.get("/metrics").await?;
    metrics.is(200)?;
    let kind = metrics.headers.get("content-type").context("no content type")?.to_str()?;
    ensure!(kind.starts_with("text/plain"), "metrics are announced as {kind}");
    let text = String::from_utf8(metrics.body.to_vec())?;
    ensure!(text.lines().any(|line| line.starts_with("ochopod_")), "no metric of ours in {text}");
    Ok(())
}

#[tokio::test]
async fn the_same_generation_is_started_once() -> Result {
    let follower = Follower::with(|pod| pod.set("set_strict", "true")).await?;
    let client = follower.pod.client();
    let post = |generation: &'static str| follower.lead.post(client, "on", generation, &follower.view);
    for _ in 0..3 {
        post("one").await?.is(200)?;
    }
    follower.pod.started(1).await?;
    ensure!(follower.pod.starts()?.len() == 1, "started {} times", follower.pod.starts()?.len());
    post("two").await?.is(200)?;
    follower.pod.started(2).await?;
    ensure!(follower.pod.starts()?.len() == 2, "started {} times", follower.pod.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn with_a_log_file_the_log_is_what_the_file_has() -> Result {
    let env = TestEnv::new().await?;
    let file = env.scratch().join("pod.log");
    let said = format!("echo said by the sub-process >> {}; exec sleep 86400", file.display());
    let pods = env.start_cluster(1, |env| pod(env).set("log", file.display()).count_starts(&said)).await?;
    eventually("both are reported", DEFAULT_TIMEOUT, async || {
        let log = pods[0].client().log().await?;
        ensure!(log.contains("said by the sub-process") && log.contains("callback configure"), "the log has {log}");
        Ok(())
    })
    .await?;
    pods[0].wait_log("callback configure").await.context("the console is silent")?;
    Ok(())
}

#[tokio::test]
async fn a_log_file_is_rotated_before_it_grows() -> Result {
    let env = TestEnv::new().await?;
    let directory = env.scratch().join("logs");
    std::fs::create_dir(&directory)?;
    let file = directory.join("pod.log");
    let talkative = "i=0; while [ $i -lt 5000 ]; do echo line $i of many that fill the file; i=$((i+1)); done; \
                     echo line $i; sleep 1000";
    let builder = |env: &TestEnv| pod(env).set("log", file.display()).count_starts(talkative);
    let pods = env.start_cluster(1, |env| builder(env).set("set_pipe_subprocess", "true")).await?;
    eventually("there are old files", DEFAULT_TIMEOUT, async || {
        let count = std::fs::read_dir(&directory)?.count();
        ensure!(count > 1, "there is one file");
        Ok(())
    })
    .await?;
    // Nothing is renamed once everything is written.
    pods[0].wait_log("line 5000").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for entry in std::fs::read_dir(&directory)? {
        let length = entry?.metadata()?.len();
        ensure!(length <= 40 * 1024, "a file has {length} bytes");
    }
    let count = std::fs::read_dir(&directory)?.count();
    ensure!(count <= 4, "there are {count} files");
    Ok(())
}
