//! Pods that join, leave and die.

use std::time::{Duration, Instant};

use anyhow::Context;
use ochopod_tests::{Pod, Result, TestEnv};

use crate::{
    Bench,
    figures::{Table, Unit},
    watch,
};

const JOINS: usize = 10;
const KILLS: usize = 3;

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result {
    let mut cluster = GrowingCluster::new(bench, 3).await?;
    let (mut joins, mut handovers, mut kills) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..JOINS {
        joins.push(cluster.join().await?);
        handovers.push(cluster.leader_leaves().await?);
    }
    table.times("4th pod registered → all configured", &joins, "≤ 25 ms", "4.33 s, from its start");
    table.times("leader terminated → next configuration written", &handovers, "≤ 50 ms", "6.5 s");
    for _ in 0..KILLS {
        cluster.join().await?;
        kills.push(cluster.leader_is_killed().await?.as_secs_f64());
    }
    table.add("leader killed → reconfigured, session 5 s", Unit::Seconds, kills, "≤ 5.5 s + a tick", "9.5 s");
    drop(cluster);

    let mut cluster = GrowingCluster::new(bench, 10).await?;
    let mut joins = Vec::new();
    for _ in 0..JOINS {
        joins.push(cluster.join().await?);
        cluster.newest_leaves().await?;
    }
    table.times("11th pod registered → all configured", &joins, "≤ 35 ms", "3.90 s, from its start");
    Ok(())
}

/// A cluster of changing size.
struct GrowingCluster<'a> {
    bench: &'a Bench,
    env: TestEnv,
    pods: Vec<Pod>,
    /// The transaction of the last `hash` that counts.
    written: i64,
}

impl<'a> GrowingCluster<'a> {
    async fn new(bench: &'a Bench, count: usize) -> Result<Self> {
        let env = bench.env().await?;
        let pods = (0..count).map(|_| bench.pod(&env)?.start()).collect::<Result<Vec<_>>>()?;
        let mut cluster = Self { bench, env, pods, written: 0 };
        cluster.configured().await?;
        Ok(cluster)
    }

    async fn configured(&mut self) -> Result<Instant> {
        let cluster = self.env.cluster("default");
        let at = watch::configured(&cluster, self.pods.len(), self.written).await?;
        self.written = cluster.hash_written().await?;
        Ok(at)
    }

    async fn join(&mut self) -> Result<Duration> {
        self.pods.push(self.bench.pod(&self.env)?.start()?);
        let registered = watch::registered(&self.env.cluster("default"), self.pods.len()).await?;
        Ok(self.configured().await?.saturating_duration_since(registered))
    }

    async fn leader(&self) -> Result<usize> {
        for (position, pod) in self.pods.iter().enumerate() {
            if pod.client().info().await?["state"] == "leader" {
                return Ok(position);
            }
        }
        Err(anyhow::anyhow!("no pod leads"))
    }

    async fn leader_leaves(&mut self) -> Result<Duration> {
        let mut leaving = self.pods.remove(self.leader().await?);
        let begin = Instant::now();
        leaving.term()?;
        let took = self.configured().await? - begin;
        leaving.wait(Duration::from_secs(10)).await.context("the leader that leaves")?;
        Ok(took)
    }

    async fn leader_is_killed(&mut self) -> Result<Duration> {
        let mut killed = self.pods.remove(self.leader().await?);
        let begin = Instant::now();
        killed.kill9().await?;
        Ok(self.configured().await? - begin)
    }

    async fn newest_leaves(&mut self) -> Result {
        if let Some(mut newest) = self.pods.pop() {
            newest.term()?;
            self.configured().await?;
            newest.wait(Duration::from_secs(10)).await?;
        }
        Ok(())
    }
}
