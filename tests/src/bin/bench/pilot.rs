//! Costs and latencies of a pilot, next to ContainerPilot's figures.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use nix::{sys::stat::Mode, unistd};
use ochopod_tests::{Client, Pilot, PilotBuilder, Result, artifacts, consul::FakeConsul, free_port};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
};

use crate::figures::{Table, Unit};

const RUNS: usize = 15;
const SETTLE: Duration = Duration::from_secs(8);
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pipe to which the application and onChange write a line when they start.
const EVENT_PIPE: &str = "moments";

pub(crate) async fn measure(table: &mut Table) -> Result {
    let mut starts = Vec::new();
    for _ in 0..RUNS {
        let (_, _, took) = PilotRun::start(json!({})).await?;
        starts.push(took);
    }
    table.times("pilot: exec → application started", &starts, "≤ 15 ms", "");

    let on_change = json!([{ "name": "db", "poll": 1, "onChange": ["sh", "-c", format!("echo > {EVENT_PIPE}")] }]);
    let (mut run, _pilot, _) = PilotRun::start(json!({ "backends": on_change })).await?;
    // The first query is one poll after the start.
    run.change(0).await?;
    let mut changes = Vec::new();
    for port in 1..=RUNS {
        changes.push(run.change(port).await?);
    }
    table.times("pilot: change at Consul → onChange started", &changes, "≤ 50 ms", "next poll");

    let (_run, pilot, _) = PilotRun::start(json!({})).await?;
    tokio::time::sleep(SETTLE).await;
    table.add("pilot: memory (RSS)", Unit::Mebibytes, vec![pilot.resident()?], "≤ 10 MiB", "ContainerPilot: 9.7 MiB");
    let small = artifacts::released_pilot()?;
    let (_small_run, small, _) = PilotRun::start_with(PilotBuilder::standalone, small, json!({})).await?;
    tokio::time::sleep(SETTLE).await;
    table.add("ochopod-pilot: memory (RSS)", Unit::Mebibytes, vec![small.resident()?], "≤ 7 MiB", "without the engine");
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    let threads = pilot.holdings()?.threads as f64;
    table.add("pilot: threads", Unit::Count, vec![threads], "≤ 4", "ContainerPilot: 7");
    Ok(())
}

/// An agent, and the events of the pipe.
struct PilotRun {
    consul: FakeConsul,
    moments: Lines<BufReader<pipe::Receiver>>,
    scratch: tempfile::TempDir,
}

impl PilotRun {
    /// Starts a pilot with one service, telemetry, and `more`, and returns the elapsed time.
    async fn start(more: Value) -> Result<(Self, Pilot, Duration)> {
        Self::start_with(PilotBuilder::binary, artifacts::released()?, more).await
    }

    /// Starts the same with a certain binary.
    async fn start_with(
        choose: fn(PilotBuilder, &Path) -> PilotBuilder,
        binary: PathBuf,
        more: Value,
    ) -> Result<(Self, Pilot, Duration)> {
        let scratch = tempfile::tempdir()?;
        let consul = FakeConsul::start().await?;
        let mut configuration = json!({
            "consul": consul.address(),
            "services": [{ "name": "app", "port": 80, "poll": 1, "ttl": 10, "interfaces": "lo", "health": "true" }],
            "telemetry": { "port": free_port()?, "interfaces": "lo" },
        });
        if let (Some(configuration), Value::Object(more)) = (configuration.as_object_mut(), more) {
            configuration.extend(more);
        }
        let mut run = Self { consul, moments: moments(scratch.path())?, scratch };
        let pilot = choose(PilotBuilder::new(run.scratch.path()), &binary).quiet();
        let pilot = pilot.configured(&configuration).shell(&format!("echo > {EVENT_PIPE}; exec sleep 86400"));
        let begin = Instant::now();
        let pilot = pilot.start()?;
        run.next().await?;
        Ok((run, pilot, begin.elapsed()))
    }

    async fn next(&mut self) -> Result {
        let line = tokio::time::timeout(TIMEOUT, self.moments.next_line()).await.context("no line arrived")??;
        line.map(drop).context("the pipe is closed")
    }

    /// Adds an instance, and returns the time until onChange ran.
    async fn change(&mut self, port: usize) -> Result<Duration> {
        let id = format!("db-{port}");
        let check = json!({ "CheckID": id, "TTL": "1h", "Status": "passing" });
        let instance = json!({ "ID": id, "Name": "db", "Address": "127.0.0.1", "Port": 1000 + port, "Check": check });
        let client = Client::new(self.consul.address());
        let begin = Instant::now();
        let body = Bytes::from(instance.to_string());
        client.send(Method::PUT, "/v1/agent/service/register", &[], body).await?.is(200)?;
        self.next().await?;
        Ok(begin.elapsed())
    }
}

fn moments(directory: &Path) -> Result<Lines<BufReader<pipe::Receiver>>> {
    let path = directory.join(EVENT_PIPE);
    unistd::mkfifo(&path, Mode::S_IRWXU)?;
    Ok(BufReader::new(pipe::OpenOptions::new().read_write(true).open_receiver(&path)?).lines())
}
