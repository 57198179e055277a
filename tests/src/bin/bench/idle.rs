//! Resources of idle pods.

use std::time::Duration;

use anyhow::Context;
use ochopod_tests::{PodBuilder, Result, ZooKeeper, artifacts, eventually, free_port};

use crate::{
    Bench,
    figures::{Table, Unit},
    watch,
};

const PODS: usize = 10;
const MEASURED: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result {
    let env = bench.env().await?;
    let pods = (0..PODS).map(|_| bench.pod(&env)?.start()).collect::<Result<Vec<_>>>()?;
    watch::configured(&env.cluster("default"), PODS, 0).await?;
    tokio::time::sleep(SETTLE).await;

    let packets = packets(&bench.zookeeper).await?;
    let busy = pods.iter().map(|pod| pod.cpu_time()).collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(MEASURED).await;
    let spent = pods.iter().zip(&busy).map(|(pod, before)| Ok(pod.cpu_time()?.saturating_sub(*before)));
    let spent = spent.collect::<Result<Vec<Duration>>>()?;
    // The question itself is a packet.
    let packets = self::packets(&bench.zookeeper).await? - packets - 1;

    let seconds = MEASURED.as_secs_f64();
    let percent = spent.iter().map(|spent| spent.as_secs_f64() / seconds * 100.0).collect();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = packets as f64 / seconds;
    let memory = pods.iter().map(|pod| pod.resident()).collect::<Result<Vec<f64>>>()?;
    table.add("memory of a pod (RSS)", Unit::Mebibytes, memory, "≤ 16 MiB", "26 MiB, leader 28 MiB");
    table.add("CPU of an idle pod", Unit::Percent, percent, "≤ 0.1 %", "0.4 %, leader 0.8 %");
    table.add("ZooKeeper's packets, 10 idle pods, session 5 s", Unit::PerSecond, vec![rate], "pings only", "26.4 /s");
    drop(pods);

    let (few, many) = (2, 42);
    let each = (embedded(bench, many).await? - embedded(bench, few).await?) / f64::from(many - few);
    table.add("memory of each further pod of `up`", Unit::Mebibytes, vec![each], "≤ 1 MiB", "");
    Ok(())
}

/// Returns the resident memory of `up` with this number of pods.
async fn embedded(bench: &Bench, pods: u8) -> Result<f64> {
    let scratch = tempfile::tempdir()?;
    let port = free_port()?;
    let hello = artifacts::plugin("hello")?;
    let up = bench.of_release(PodBuilder::new(&hello, scratch.path()).up())?.set("port", port);
    let up = up.flags(["--pods", &pods.to_string()]).start()?;
    for host in 2..2 + pods {
        let client = ochopod_tests::Client::new(format!("127.0.0.{host}:{port}"));
        eventually("all run", Duration::from_secs(20), async || {
            anyhow::ensure!(client.info().await?["process"] == "running", "not yet");
            Ok(())
        })
        .await?;
    }
    tokio::time::sleep(SETTLE).await;
    up.resident()
}

async fn packets(zookeeper: &ZooKeeper) -> Result<i64> {
    let report = zookeeper.four_letter("mntr").await?;
    let line = report.lines().find_map(|line| line.strip_prefix("zk_packets_received\t"));
    Ok(line.context("mntr has no zk_packets_received")?.trim().parse()?)
}
