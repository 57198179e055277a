//! Telemetry: the page, and values of sensors, valid and invalid.

#![expect(clippy::float_cmp, reason = "the output of a sensor is reported unchanged")]

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use ochopod_tests::{Client, DEFAULT_TIMEOUT, Pilot, Prometheus, Result, consistently, eventually, free_port};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, service, sh, with},
};

fn sensor(name: &str, kind: &str, check: &str) -> Value {
    json!({ "name": name, "help": format!("help of {name}"), "type": kind, "poll": 1, "check": sh(check) })
}

/// A pilot with these sensors, and its page.
struct Measured {
    pilot: Pilot,
    page: Client,
}

impl Measured {
    async fn start(pilot_env: &PilotEnv, sensors: Value, more: Value) -> Result<Self> {
        let page = Client::new(format!("127.0.0.1:{}", free_port()?));
        let telemetry = json!({ "port": port(&page), "interfaces": "lo", "sensors": sensors });
        let pilot = pilot_env.pilot(with(json!({ "telemetry": telemetry }), more)).count_starts(SLEEP).start()?;
        pilot.started(1).await?;
        eventually("the page is there", DEFAULT_TIMEOUT, async || page.get("/metrics").await?.is(200)).await?;
        Ok(Self { pilot, page })
    }

    /// Returns the samples on the page, by name and labels.
    async fn samples(&self) -> Result<BTreeMap<String, f64>> {
        let reply = self.page.get("/metrics").await?;
        reply.is(200)?;
        let text = String::from_utf8(reply.body.to_vec())?;
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line:?}"))?;
                Ok((name.to_owned(), value.parse().with_context(|| format!("no value: {line:?}"))?))
            })
            .collect()
    }

    /// Waits until a sample has at least this value, and returns all.
    async fn reaches(&self, name: &str, value: f64) -> Result<BTreeMap<String, f64>> {
        eventually(&format!("{name} reaches {value}"), DEFAULT_TIMEOUT * 2, async || {
            let samples = self.samples().await?;
            let now = samples.get(name).copied().unwrap_or(f64::NEG_INFINITY);
            ensure!(now >= value, "it is {now}");
            Ok(samples)
        })
        .await
    }
}

fn port(page: &Client) -> u16 {
    page.authority().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn sensors_of_all_four_kinds_are_read_by_prometheus() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let sensors = json!([
        with(sensor("count", "counter", "echo 2"), json!({ "namespace": "kit", "subsystem": "sensors" })),
        sensor("kit_gauge", "gauge", "echo ' 1e3 '"),
        sensor("kit_infinite", "gauge", "echo +Inf"),
        sensor("kit_sizes", "histogram", "echo 1.2"),
        sensor("kit_times", "summary", "echo 4"),
    ]);
    let measured = Measured::start(&pilot_env, sensors, json!({})).await?;
    for (name, value) in
        [("kit_gauge", 1000.0), ("kit_infinite", f64::INFINITY), ("kit_sizes_count", 1.0), ("kit_times_count", 1.0)]
    {
        measured.reaches(name, value).await?;
    }
    let samples = measured.reaches("kit_sensors_count", 6.0).await?;
    ensure!(samples["kit_gauge"] == 1000.0 && samples["kit_infinite"].is_infinite(), "there are {samples:?}");

    let prometheus = Prometheus::reading(measured.page.authority(), &pilot_env.scratch().join("prometheus")).await?;
    eventually("prometheus has read it twice", DEFAULT_TIMEOUT, async || {
        let health = prometheus.health().await?;
        ensure!(health == "up", "it says {health}");
        let count = prometheus.values("kit_sensors_count").await?;
        ensure!(count.get("").is_some_and(|count| *count >= 8.0 && count % 2.0 == 0.0), "the counter is {count:?}");
        Ok(())
    })
    .await?;
    ensure!(prometheus.values("kit_gauge").await?[""] == 1000.0, "the gauge is not read");
    let buckets = prometheus.values("kit_sizes_bucket").await?;
    let (less, all) = (buckets["le=1"], buckets["le=2.5"]);
    ensure!(less == 0.0 && all > 0.0 && all == buckets["le=+Inf"] && buckets.len() == 12, "buckets are {buckets:?}");
    // It may read the page between the two questions.
    eventually("the values and their sum match", DEFAULT_TIMEOUT, async || {
        let count = prometheus.values("kit_sizes_count").await?[""];
        let sum = prometheus.values("kit_sizes_sum").await?[""];
        ensure!((sum - count * 1.2).abs() < 0.1, "{count} values of 1.2 are {sum}");
        Ok(())
    })
    .await?;
    let quantiles = prometheus.values("kit_times").await?;
    let expected = ["quantile=0.5", "quantile=0.9", "quantile=0.99"].map(|label| (label.to_owned(), 4.0));
    ensure!(quantiles == BTreeMap::from(expected), "quantiles are {quantiles:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_that_a_sensor_does_can_stop_the_pilot() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let sensors = json!([
        sensor("kit_good", "counter", "echo 1"),
        sensor("kit_negative", "counter", "echo -1"),
        sensor("kit_endless_counter", "counter", "echo Inf"),
        sensor("kit_nan", "histogram", "echo NaN"),
        sensor("kit_words", "gauge", "echo Running doStuff with args: --debug"),
        sensor("kit_silent", "gauge", "true"),
        sensor("kit_failing", "gauge", "echo 5; exit 3"),
        sensor("kit_binary", "gauge", "head -c 5000 /dev/urandom"),
        sensor("kit_huge", "gauge", "head -c 50000000 /dev/zero | tr '\\0' 1"),
        sensor("kit_flood", "gauge", "exec yes"),
        sensor("kit_hanging", "gauge", "sleep 86400 & echo 1; exec sleep 86400"),
        sensor("kit_complaining", "gauge", "echo 7; exec yes complaint | head -n 100000 >&2"),
        with(sensor("kit_missing", "gauge", ""), json!({ "check": "/no/such/file" })),
    ]);
    let mut measured = Measured::start(&pilot_env, sensors, json!({ "logging": { "output": "stderr" } })).await?;
    let samples = measured.reaches("kit_good", 5.0).await?;
    for dropped in ["words", "silent", "failing", "binary", "flood", "hanging", "missing"] {
        let value = samples.get(&format!("kit_{dropped}")).copied().unwrap_or_default();
        ensure!(value == 0.0, "kit_{dropped} is {value}");
    }
    ensure!(samples.get("kit_negative").copied().unwrap_or_default() >= 0.0, "a counter went back");
    for reported in ["kit_words", "kit_failing", "kit_negative", "kit_missing"] {
        measured.pilot.wait_log(reported).await?;
    }
    let resident = measured.pilot.resident()?;
    ensure!(resident < 100.0, "the pilot has {resident} MiB");
    ensure!(measured.pilot.is_up()?, "the pilot ended");
    measured.pilot.term()?;
    measured.pilot.wait(Duration::from_secs(20)).await?;
    measured.pilot.assert_clean().await
}

#[tokio::test]
async fn telemetry_is_advertised_as_a_service() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let port = free_port()?;
    let telemetry = json!({ "port": port, "interfaces": ["static:127.0.0.5"], "tags": ["metrics"] });
    let mut pilot = pilot_env.pilot(json!({ "telemetry": telemetry })).shell(SLEEP).start()?;
    pilot_env.wait_status("containerpilot", "passing").await?;
    let registered = pilot_env.registered("containerpilot")?;
    ensure!(registered["Port"] == port && registered["Address"] == "127.0.0.5", "registered is {registered}");
    ensure!(registered["Tags"] == json!(["metrics"]), "registered is {registered}");
    // On that address only.
    Client::new(format!("127.0.0.5:{port}")).get("/metrics").await?.is(200)?;
    ensure!(Client::new(format!("127.0.0.1:{port}")).get("/metrics").await.is_err(), "it listens elsewhere, too");
    pilot.term()?;
    pilot.exit_code().await?;
    pilot_env.is("containerpilot", "absent")
}

#[tokio::test]
async fn the_page_carries_what_the_host_knows_of_itself_and_other_paths_do_not_exist() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let measured = Measured::start(&pilot_env, json!([]), json!({})).await?;
    let samples = measured.samples().await?;
    for own in ["process_resident_memory_bytes", "process_open_fds"] {
        ensure!(samples.keys().any(|name| name.starts_with(own)), "missing {own} in {:?}", samples.keys());
    }
    let reply = measured.page.get("/metrics").await?;
    let kind = reply.headers["content-type"].to_str()?;
    ensure!(kind.starts_with("text/plain; version=0.0.4"), "it is {kind}");
    for path in ["/", "/metrics/", "/v3/metric", "/statuses"] {
        measured.page.get(path).await?.is(404)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_status_lists_services_and_backends() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("a", "db", json!({})).await?;
    let more = json!({
        "services": [service("app", json!({ "health": "true" })), service("sick", json!({ "health": "false" }))],
        "backends": [crate::pilot_env::backend("db", "true")],
    });
    let measured = Measured::start(&pilot_env, json!([]), more).await?;
    pilot_env.wait_status("app", "passing").await?;
    eventually("the status reports it", DEFAULT_TIMEOUT, async || {
        let reply = measured.page.get("/status").await?;
        reply.is(200)?;
        let status: Value = serde_json::from_slice(&reply.body)?;
        let text = status.to_string();
        for part in ["\"app\"", "\"sick\"", "\"db\"", "8080", "127.0.0.1", env!("CARGO_PKG_VERSION")] {
            ensure!(text.contains(part), "{part} is not in {status}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_pilot_before_anything_is_started() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let telemetry = json!({ "port": taken.local_addr()?.port(), "interfaces": "lo" });
    let mut pilot = pilot_env.pilot(json!({ "telemetry": telemetry })).count_starts(SLEEP).start()?;
    let code = pilot.exit_code().await?;
    ensure!(code != 0, "the code is 0");
    ensure!(pilot.starts()?.is_empty(), "the application was started");
    Ok(())
}

#[tokio::test]
async fn slow_readers_of_the_page_delay_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let measured = Measured::start(&pilot_env, json!([sensor("kit_good", "counter", "echo 1")]), json!({})).await?;
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(tokio::net::TcpStream::connect(measured.page.authority()).await?);
    }
    consistently("the page is there", Duration::from_secs(1), async || measured.page.get("/metrics").await?.is(200))
        .await
}
