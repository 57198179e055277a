//! A real Prometheus.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Client, DEFAULT_TIMEOUT, Process, Result, eventually, port::free_port};

/// A server that scrapes a page every second, and answers queries.
#[derive(Debug)]
pub struct Prometheus {
    client: Client,
    _process: Process,
}

impl Prometheus {
    /// Starts it with all of its data in a directory; it scrapes `/metrics` of this `address:port`.
    ///
    /// # Errors
    /// If it is not installed, or does not answer.
    pub async fn reading(target: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let configuration = directory.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: kit, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(&configuration, text)?;
        let authority = format!("127.0.0.1:{}", free_port()?);
        let mut command = Process::command("prometheus");
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={authority}"));
        let log = fs::File::create(directory.join("prometheus.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn("prometheus", command)?;
        let client = Client::new(authority);
        eventually("prometheus answers: or run `make setup`", DEFAULT_TIMEOUT * 2, async || {
            client.get("/-/ready").await?.is(200)
        })
        .await?;
        Ok(Self { client, _process: process })
    }

    /// Returns the current value of each series of a metric, by its labels except those that Prometheus adds. The
    /// expression is a metric's name, or a name with labels.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn values(&self, metric: &str) -> Result<BTreeMap<String, f64>> {
        let found = self.query(&format!("/api/v1/query?query={metric}")).await?;
        let series = found["result"].as_array().context("no result")?;
        series.iter().map(|series| Ok((labels(&series["metric"]), value(series)?))).collect()
    }

    /// Returns its state of the page: `up`, or the cause of the failure.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn health(&self) -> Result<String> {
        let targets = self.query("/api/v1/targets").await?;
        let target = &targets["activeTargets"][0];
        let health = target["health"].as_str().unwrap_or_default();
        Ok(if health == "up" { health.to_owned() } else { format!("{health}: {}", target["lastError"]) })
    }

    async fn query(&self, path: &str) -> Result<Value> {
        let reply = self.client.get(path).await?;
        reply.is(200)?;
        let answer: Value = serde_json::from_slice(&reply.body)?;
        ensure!(answer["status"] == "success", "it answered {answer}");
        Ok(answer["data"].clone())
    }
}

fn labels(metric: &Value) -> String {
    let own = |name: &str| !matches!(name, "__name__" | "instance" | "job");
    let labels = metric.as_object().into_iter().flatten().filter(|(name, _)| own(name));
    labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}

fn value(series: &Value) -> Result<f64> {
    Ok(series["value"][1].as_str().context("a series without a value")?.parse()?)
}
