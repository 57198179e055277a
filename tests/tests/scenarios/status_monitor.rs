//! Continuous requests for the status of a pod, while a test injects faults around the pod.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{Client, ClusterNodes, DEFAULT_TIMEOUT, Pod, Result, eventually};
use tokio::{sync::oneshot, task::JoinHandle};

/// Time limit of `/info` and `/readyz`.
const MAX_LATENCY: Duration = Duration::from_secs(6);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Monitors one pod.
pub(crate) struct StatusMonitor {
    stop: oneshot::Sender<()>,
    listening: JoinHandle<Result<Vec<StatusSample>>>,
}

/// Status of a pod at one time.
#[derive(Debug, Clone)]
pub(crate) struct StatusSample {
    /// Time of the request.
    pub(crate) at: Instant,
    pub(crate) session: String,
    pub(crate) state: String,
    pub(crate) process: String,
    pub(crate) ready: bool,
}

impl StatusMonitor {
    /// Starts to monitor.
    pub(crate) fn of(pod: &Pod) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let client = pod.client().clone();
        let listening = tokio::spawn(async move {
            let mut said = Vec::new();
            while stopped.try_recv().is_err() {
                said.extend(sample(&client).await?);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Ok(said)
        });
        Self { stop, listening }
    }

    /// Returns the samples, after checking that they were consistent: the pod did not lead without a connection, was
    /// ready without one because its sub-process ran, and kept its readiness while suspended.
    pub(crate) async fn verify(self) -> Result<Vec<StatusSample>> {
        _ = self.stop.send(());
        let said = self.listening.await??;
        ensure!(!said.is_empty(), "no samples");
        let mut before: Option<&StatusSample> = None;
        for now in &said {
            ensure!(now.session == "connected" || now.state == "follower", "it led without a connection: {now:?}");
            ensure!(now.session != "lost" || now.ready, "it was not ready for lack of a session: {now:?}");
            ensure!(now.process == "running", "its sub-process did not run: {now:?}");
            if let Some(before) = before.filter(|before| before.session == "suspended" && now.session == "suspended") {
                ensure!(before.ready == now.ready, "suspended, it changed from {before:?} to {now:?}");
            }
            before = Some(now);
        }
        Ok(said)
    }
}

/// Returns a sample of the status; none if it changed during the request.
async fn sample(client: &Client) -> Result<Option<StatusSample>> {
    let at = Instant::now();
    let before = client.info().await?;
    let ready = client.get("/readyz").await?.status == 200;
    let after = client.info().await?;
    ensure!(at.elapsed() < MAX_LATENCY, "it took {:?} to answer", at.elapsed());
    let text = |key: &str| before[key].as_str().unwrap_or_default().to_owned();
    let said = StatusSample { at, session: text("session"), state: text("state"), process: text("process"), ready };
    Ok((before["session"] == after["session"]).then_some(said))
}

/// Returns the last session of a pod.
pub(crate) fn session(pod: &Pod) -> Result<i64> {
    let console = pod.console()?;
    let (_, session) = console.rsplit_once("session established session=").context("it was never connected")?;
    Ok(session.lines().next().unwrap_or_default().trim().parse()?)
}

/// Waits until exactly these pods are formed and consistent: each connected, ready, registered once and contending once
/// under its current session. Then a peer joins and leaves, which they notice. Returns the position of the leader.
pub(crate) async fn wait_recovered(cluster: &ClusterNodes<'_>, pods: &[&Pod]) -> Result<usize> {
    cluster.wait_formed(pods).await?;
    eventually("the pods are whole", DEFAULT_TIMEOUT, async || is_whole(cluster, pods).await).await?;
    let newcomer = cluster.fake_pod().await?;
    eventually("a newcomer is noticed", DEFAULT_TIMEOUT, async || newcomer.last("ok")).await?;
    newcomer.leave().await?;
    cluster.wait_formed(pods).await
}

async fn is_whole(cluster: &ClusterNodes<'_>, pods: &[&Pod]) -> Result {
    let registered = cluster.registered().await?;
    ensure!(registered.len() == pods.len(), "registered are {registered:?}");
    let mut sessions = Vec::new();
    for pod in pods {
        let info = pod.client().info().await?;
        ensure!(info["session"] == "connected", "{} is {}", pod.address(), info["session"]);
        pod.client().get("/readyz").await?.is(200)?;
        let key = info["key"].as_str().unwrap_or_default();
        let own = registered.iter().find(|name| name.starts_with(key)).context("it is not registered")?;
        let owner = cluster.store().owner(&cluster.path(&format!("pods/{own}"))).await?;
        ensure!(owner == session(pod)?, "{own} belongs to session {owner}, not to {}", session(pod)?);
        sessions.push(owner);
    }
    let mut holders = Vec::new();
    for name in cluster.contenders().await? {
        holders.push(cluster.store().owner(&cluster.path(&format!("coordinator/{name}"))).await?);
    }
    sessions.sort_unstable();
    holders.sort_unstable();
    ensure!(holders == sessions, "sessions {holders:?} contend, not {sessions:?}");
    Ok(())
}
