//! Guarantee 5: a guest cannot disturb other functions of the host.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{
    Client, DEFAULT_TIMEOUT, Latencies, PodBuilder, Result, TestEnv, artifacts, eventually, free_port,
};
use serde_json::json;

use crate::{pod, running};

/// Requests that are sent while guests misbehave.
const REQUESTS: usize = 150;
/// Much more than a request takes, and much less than waiting for a guest would.
const SLOWER: Duration = Duration::from_millis(250);
/// The same for half of them, which a busy machine affects less: a guest on the host's own thread costs each some 35
/// ms.
const HALF_SLOWER: Duration = Duration::from_millis(15);
/// Measurements of each misbehaviour, if all are slow.
const MEASUREMENTS: usize = 3;

#[tokio::test]
async fn guarantee_5_control_answers_as_quickly_while_a_guest_misbehaves() -> Result {
    let scratch = tempfile::tempdir()?;
    let port = free_port()?;
    let guest = artifacts::misbehaving()?;
    let up = PodBuilder::new(&guest, scratch.path()).up().reached_at("127.0.0.2", port).set("port", port);
    let up = up.set("set_checks", "99").count_starts(crate::SLEEP).flags(["--pods", "2"]).start()?;
    let (own, other) = (up.client(), Client::new(format!("127.0.0.3:{port}")));
    for client in [own, &other] {
        eventually("it runs", DEFAULT_TIMEOUT, async || {
            ensure!(client.info().await?["process"] == "running", "the sub-process does not run");
            Ok(())
        })
        .await?;
    }
    let request = async || {
        own.get("/healthz").await?.is(200)?;
        own.post("/info").await?.is(200)?;
        // Another pod of this process, and its guest: they share the threads.
        other.post("/control/signal").await?.is(200)
    };
    let idle = Latencies::of(REQUESTS, request).await?;
    eprintln!("idle: p50 {:?}, p99 {:?}", idle.percentile(50), idle.percentile(99));
    for how in ["spin", "sleep", "flood-out", "flood-log:1000000000", "flood-line", "allocate", "leak-pollables"] {
        let body = json!({ "try": "act", "with": how });
        let misbehave = async {
            loop {
                own.post_json("/control/signal/1", &body).await?;
            }
        };
        // Other tests slow down one of the measurements, a guest on the host's thread all of them.
        let measure = async {
            for attempt in 1.. {
                let busy = Latencies::of(REQUESTS, request).await?;
                eprintln!("{how}: p50 {:?}, p99 {:?}", busy.percentile(50), busy.percentile(99));
                let is_quick =
                    |percent: usize, slower: Duration| busy.percentile(percent) < idle.percentile(percent) + slower;
                if is_quick(50, HALF_SLOWER) && is_quick(99, SLOWER) {
                    break;
                }
                // A guest that is suspended does not misbehave any longer.
                let status = own.info().await?["status"].to_string();
                let is_last = attempt == MEASUREMENTS || status.contains("suspended");
                ensure!(!is_last, "{how}: {busy:?}, idle {idle:?}, the status is {status}");
            }
            Ok(())
        };
        let measured = tokio::select! {
            ended = misbehave => ended,
            measured = measure => measured,
        };
        measured.context(how)?;
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_5_a_guest_that_hoards_descriptors_leaves_the_host_its_own() -> Result {
    let hoard = "leak-sockets:400";
    let (_env, pod) = running(|pod| {
        pod.within(["prlimit", "--nofile=256:256", "--"]).misbehave("probe", hoard).set("set_probe_every", "1")
    })
    .await?;
    pod.wait_log("callback probe").await?;
    let body = json!({ "try": "act", "with": hoard });
    for _ in 0..5 {
        pod.client().post_json("/control/signal/30", &body).await?.error(500)?;
        // Each has a connection of its own, which it keeps.
        let mut clients = Vec::new();
        for _ in 0..16 {
            let client = Client::new(pod.client().authority());
            tokio::time::timeout(DEFAULT_TIMEOUT, client.info()).await.context("no answer")??;
            clients.push(client);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_failed_too_often_is_reported_by_info_and_metrics() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(1, |env| pod(env).set("set_checks", "99")).await?;
    let client = pods[0].client();
    let body = json!({ "try": "act", "with": "trap" });
    for _ in 0..12 {
        client.post_json("/control/signal", &body).await?.error(500)?;
    }
    let info = client.info().await?;
    let status = info["status"].as_str().unwrap_or_default();
    ensure!(status.contains("plugin lifecycle suspended after repeated failures"), "the status is {status:?}");
    ensure!(info["process"] == "running", "it is {}", info["process"]);
    let page = String::from_utf8_lossy(&client.get("/metrics").await?.body).into_owned();
    for line in [
        r#"ochopod_plugin_traps_total{instance="lifecycle",callback="signaled"} 11"#,
        r#"ochopod_plugin_rebuilds_total{instance="lifecycle"} 10"#,
        r#"ochopod_plugin_suspended{instance="lifecycle"} 1"#,
        r#"ochopod_plugin_suspended{instance="model"} 0"#,
    ] {
        ensure!(page.lines().any(|found| found == line), "{line} is missing in {page}");
    }
    Ok(())
}
