//! Latency of the control API with and without misbehaving guests.

use std::time::Duration;

use anyhow::ensure;
use ochopod_tests::{Client, Latencies, PodBuilder, Result, artifacts, eventually, free_port};
use serde_json::json;

use crate::{Bench, figures::Table};

const RUNS: usize = 5;
const REQUESTS: usize = 500;
const BEHAVIOURS: [(&str, &str); 5] = [
    ("", "control p99, idle"),
    ("spin", "control p99 while a guest spins"),
    ("sleep", "control p99 while a guest sleeps"),
    ("flood-log:1000000000", "control p99 while a guest floods the log"),
    ("allocate", "control p99 while a guest allocates"),
];

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result {
    let scratch = tempfile::tempdir()?;
    let port = free_port()?;
    let guest = artifacts::misbehaving()?;
    let up = bench.of_release(PodBuilder::new(&guest, scratch.path()).up())?.set("port", port);
    let _up = up.set("set_checks", "1000").flags(["--pods", "2"]).start()?;
    let [own, other] = [2_u8, 3].map(|host| Client::new(format!("127.0.0.{host}:{port}")));
    for client in [&own, &other] {
        eventually("all run", Duration::from_secs(20), async || {
            ensure!(client.info().await?["process"] == "running", "not yet");
            Ok(())
        })
        .await?;
    }
    let request = async || own.post("/info").await?.is(200);
    for (how, what) in BEHAVIOURS {
        let body = json!({ "try": "act", "with": how });
        let misbehave = async {
            loop {
                own.post_json("/control/signal/60", &body).await?;
                if how.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let measure = async {
            let mut samples = Vec::new();
            for _ in 0..RUNS {
                samples.push(Latencies::of(REQUESTS, request).await?.percentile(99));
            }
            anyhow::Ok(samples)
        };
        let samples: Result<Vec<Duration>> = tokio::select! {
            ended = misbehave => ended,
            samples = measure => samples,
        };
        let target = if how.is_empty() { "" } else { "≤ idle + 5 ms" };
        table.times(what, &samples?, target, "");
    }
    Ok(())
}
