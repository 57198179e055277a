//! Guarantee 5: what a guest does disturbs none of the host's other duties.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{Client, Latencies, PodBuilder, Result, SOON, Site, artifacts, eventually, free_port};
use serde_json::json;

use crate::{pod, running};

/// What is asked while guests misbehave.
const QUESTIONS: usize = 150;
/// Much more than it takes, and much less than waiting for a guest would.
const SLOWER: Duration = Duration::from_millis(250);
/// The same for half of them, on which a busy machine tells less: a guest on the host's own thread costs each some 35 ms.
const HALF_SLOWER: Duration = Duration::from_millis(15);

#[tokio::test]
async fn guarantee_5_control_answers_as_quickly_while_a_guest_misbehaves() -> Result {
    let scratch = tempfile::tempdir()?;
    let port = free_port()?;
    let guest = artifacts::misbehaving()?;
    let up = PodBuilder::new(&guest, scratch.path()).up().reached_at("127.0.0.2", port).set("port", port);
    let up = up.set("set_checks", "99").counted(crate::SLEEP).flags(["--pods", "2"]).start()?;
    let (own, other) = (up.client(), Client::new(format!("127.0.0.3:{port}")));
    for client in [own, &other] {
        eventually("it runs", SOON, async || {
            ensure!(client.info().await?["process"] == "running", "it does not");
            Ok(())
        })
        .await?;
    }
    let ask = async || {
        own.get("/healthz").await?.is(200)?;
        own.post("/info").await?.is(200)?;
        // Another pod of this process, and its guest: they share the threads.
        other.post("/control/signal").await?.is(200)
    };
    let idle = Latencies::of(QUESTIONS, ask).await?;
    eprintln!("idle: p50 {:?}, p99 {:?}", idle.percentile(50), idle.percentile(99));
    for how in ["spin", "sleep", "flood-out", "flood-log:1000000000", "flood-line", "allocate", "leak-pollables"] {
        let body = json!({ "try": "act", "with": how });
        let misbehave = async {
            loop {
                own.post_json("/control/signal/1", &body).await?;
            }
        };
        let busy = tokio::select! {
            ended = misbehave => ended,
            measured = Latencies::of(QUESTIONS, ask) => measured,
        };
        let busy = busy.context(how)?;
        eprintln!("{how}: p50 {:?}, p99 {:?}", busy.percentile(50), busy.percentile(99));
        for (percent, slower) in [(50, HALF_SLOWER), (99, SLOWER)] {
            let (busy_at, idle_at) = (busy.percentile(percent), idle.percentile(percent));
            ensure!(busy_at < idle_at + slower, "{how}, p{percent}: {busy:?}, idle {idle:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_5_a_guest_that_hoards_descriptors_leaves_the_host_its_own() -> Result {
    let hoard = "leak-sockets:400";
    let (_site, pod) = running(|pod| {
        pod.within(["prlimit", "--nofile=256:256", "--"]).misbehave("probe", hoard).set("set_probe_every", "1")
    })
    .await?;
    pod.logs("callback probe").await?;
    let body = json!({ "try": "act", "with": hoard });
    for _ in 0..5 {
        pod.client().post_json("/control/signal/5", &body).await?.error(500)?;
        // Each has a connection of its own, which it keeps.
        let mut clients = Vec::new();
        for _ in 0..16 {
            let client = Client::new(pod.client().authority());
            tokio::time::timeout(Duration::from_secs(2), client.info()).await.context("no answer")??;
            clients.push(client);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_failed_too_often_is_told_by_info_and_metrics() -> Result {
    let site = Site::new().await?;
    let pods = site.form(1, |site| pod(site).set("set_checks", "99")).await?;
    let client = pods[0].client();
    let body = json!({ "try": "act", "with": "trap" });
    for _ in 0..12 {
        client.post_json("/control/signal", &body).await?.error(500)?;
    }
    let info = client.info().await?;
    let status = info["status"].as_str().unwrap_or_default();
    ensure!(status.contains("the plugin's lifecycle failed too often"), "the status is {status:?}");
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
