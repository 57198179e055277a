//! A cluster of many processes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ochopod_tests::{Pod, PodBuilder, Proxy, Result, TestEnv, eventually, proxy::Message};

use crate::phases::{CpuTimes, PhaseMarks};

/// Time for anything to happen.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Followers whose processor time is measured.
const MEASURED_FOLLOWERS: usize = 20;

pub(crate) struct LargeCluster<'a> {
    env: &'a TestEnv,
    binary: PathBuf,
    plugin: PathBuf,
    cache: &'a Path,
    pods: Vec<Pod>,
    /// In front of the last pod of those that started together.
    proxy: Option<Proxy>,
    started: usize,
}

impl<'a> LargeCluster<'a> {
    pub(crate) fn new(env: &'a TestEnv, binary: PathBuf, plugin: PathBuf, cache: &'a Path) -> Self {
        Self { env, binary, plugin, cache, pods: Vec::new(), proxy: None, started: 0 }
    }

    /// Returns the next pod.
    fn pod(&mut self) -> PodBuilder {
        let number = self.started;
        self.started += 1;
        let address = format!("127.1.{}.{}", number / 250, number % 250 + 1);
        let directory = self.env.scratch().join(&address);
        let pod = self.env.pod_at(&self.plugin, &address, &directory);
        pod.binary(&self.binary).set("cache", self.cache.display()).set("session", 5).quiet()
    }

    fn start(&mut self) -> Result {
        let pod = self.pod().start()?;
        self.pods.push(pod);
        Ok(())
    }

    /// Runs a pod of another cluster, which compiles the plugin into the cache.
    pub(crate) async fn compile(&mut self) -> Result {
        let mut pod = self.pod().set("cluster", "compile").start()?;
        pod.wait_info("process", "running").await?;
        pod.term()?;
        pod.wait(Duration::from_secs(20)).await?;
        Ok(())
    }

    /// Starts pods together. Returns the time until all are configured.
    pub(crate) async fn form(&mut self, size: usize) -> Result<Duration> {
        let begin = Instant::now();
        for _ in 1..size {
            self.start()?;
        }
        let (last, proxy) = self.pod().proxied().await?;
        self.pods.push(last.start()?);
        self.proxy = Some(proxy);
        Ok(self.configured().await? - begin)
    }

    /// Starts one more pod. Returns what was used until the check passed, until the new configuration was written, and until
    /// its pods have settled. `leader` is the position of the leader.
    pub(crate) async fn join(&mut self, leader: usize, settle: Duration) -> Result<PhaseMarks> {
        let requests = self.requests().len();
        let hash = self.env.cluster("default").hash().await?;
        let begin = self.cpu(leader)?;
        self.start()?;
        self.changed(&hash).await?;
        let checked = self.cpu(leader)?;
        let committed = CpuTimes { at: self.configured().await?, ..self.cpu(leader)? };
        tokio::time::sleep(settle).await;
        let settled = self.cpu(leader)?;
        let requests = self.requests().split_off(requests);
        Ok(PhaseMarks { cpu: [begin, checked, committed, settled], requests })
    }

    /// Returns the requests to one pod so far.
    fn requests(&self) -> Vec<Message> {
        self.proxy.as_ref().map(Proxy::seen).unwrap_or_default()
    }

    /// Waits until the hash differs from this one: a configuration has passed its check.
    async fn changed(&self, hash: &str) -> Result {
        let cluster = self.env.cluster("default");
        eventually("the check passes", TIMEOUT, async || {
            ensure!(cluster.hash().await? != hash, "it has not passed");
            Ok(())
        })
        .await
    }

    pub(crate) async fn leave(&mut self) -> Result<Duration> {
        let leader = self.leader().await?;
        let position = self.pods.len() - 1 - usize::from(leader == self.pods.len() - 1);
        let mut pod = self.pods.remove(position);
        let begin = Instant::now();
        pod.term()?;
        let took = self.configured().await? - begin;
        pod.wait(Duration::from_secs(20)).await?;
        Ok(took)
    }

    pub(crate) async fn lose_leader(&mut self) -> Result<Duration> {
        let mut leader = self.pods.remove(self.leader().await?);
        let begin = Instant::now();
        leader.kill9().await?;
        Ok(self.configured().await? - begin)
    }

    /// Waits until exactly these pods are configured. Returns when that was seen.
    async fn configured(&self) -> Result<Instant> {
        let cluster = self.env.cluster("default");
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        let wait = async {
            // The snapshot is large, and changes with the hash only.
            let mut read = String::new();
            loop {
                interval.tick().await;
                let Ok(hash) = cluster.hash().await else { continue };
                let seen = Instant::now();
                if hash.is_empty() || hash.starts_with("pending:") || hash == read {
                    continue;
                }
                // A leader that lost its session takes the snapshot along.
                let Ok(snapshot) = cluster.snapshot().await else { continue };
                if snapshot.len() == self.pods.len() {
                    return seen;
                }
                read = hash;
            }
        };
        tokio::time::timeout(TIMEOUT, wait).await.with_context(|| format!("{} pods not configured", self.pods.len()))
    }

    /// Waits until all pods are registered and configured again, after an outage. Returns the time.
    pub(crate) async fn recovered(&self) -> Result<Duration> {
        let begin = Instant::now();
        let cluster = self.env.cluster("default");
        eventually("all are registered again", TIMEOUT, async || {
            let registered = cluster.registered().await?.len();
            ensure!(registered == self.pods.len(), "{registered} of {}", self.pods.len());
            Ok(())
        })
        .await?;
        Ok(self.configured().await? - begin)
    }

    /// Returns the position of the leader. Requests `/info` of pods until one leads.
    pub(crate) async fn leader(&self) -> Result<usize> {
        eventually("a pod leads", TIMEOUT, async || {
            for (position, pod) in self.pods.iter().enumerate() {
                if pod.client().info().await?["state"] == "leader" {
                    return Ok(position);
                }
            }
            anyhow::bail!("none does")
        })
        .await
    }

    /// Returns the number of configurations that started.
    pub(crate) fn rollouts(&self) -> Result<usize> {
        let mut rollouts = 0;
        for pod in &self.pods {
            rollouts += pod.log()?.lines().filter(|line| line.contains("configuration started")).count();
        }
        Ok(rollouts)
    }

    /// Returns the processor time of the leader, which is at this position, and the mean of some followers. Requests nothing of
    /// them.
    pub(crate) fn cpu(&self, leader: usize) -> Result<CpuTimes> {
        let followers = self.pods.iter().enumerate().filter(|(position, _)| *position != leader).map(|(_, pod)| pod);
        let times = followers.take(MEASURED_FOLLOWERS).map(|pod| pod.cpu_time()).collect::<Result<Vec<_>>>()?;
        let count = u32::try_from(times.len().max(1))?;
        let follower = times.iter().sum::<Duration>() / count;
        Ok(CpuTimes { at: Instant::now(), leader: self.pods[leader].cpu_time()?, follower })
    }

    /// Returns the resident memory of the leader and of a follower, in MiB.
    pub(crate) async fn memory(&self) -> Result<(f64, f64)> {
        let leader = self.leader().await?;
        Ok((self.pods[leader].resident()?, self.pods[(leader + 1) % self.pods.len()].resident()?))
    }

    /// Fails unless all pods run and name the same leader, or none if they were not configured since it leads.
    pub(crate) async fn check_agreement(&self) -> Result {
        let mut leaders = BTreeSet::new();
        for pod in &self.pods {
            let info = pod.client().info().await?;
            ensure!(info["process"] == "running", "{}: {}", pod.address(), info["process"]);
            if !info["leader"].is_null() {
                leaders.insert(info["leader"].to_string());
            }
        }
        ensure!(leaders.len() == 1, "pods name several leaders: {leaders:?}");
        Ok(())
    }

    /// Fails if the sub-process of a pod was started more than once.
    pub(crate) fn check_started_once(&self) -> Result {
        for pod in &self.pods {
            let starts = pod.log()?.lines().filter(|line| line.contains("sub-process started")).count();
            ensure!(starts == 1, "{} was started {starts} times", pod.address());
        }
        Ok(())
    }
}
