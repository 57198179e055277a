//! What a pod says about itself, all along: a witness asks without a pause while a test faults what is around the pod.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{Client, Cluster, Pod, Result, SOON, eventually};
use tokio::{sync::oneshot, task::JoinHandle};

/// `/info` and `/readyz` answer at once, whatever goes on.
const AT_ONCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Listens to one pod.
pub(crate) struct Witness {
    stop: oneshot::Sender<()>,
    listening: JoinHandle<Result<Vec<Said>>>,
}

/// What a pod said at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// When it was asked.
    pub(crate) at: Instant,
    pub(crate) session: String,
    pub(crate) state: String,
    pub(crate) process: String,
    pub(crate) ready: bool,
}

impl Witness {
    /// Listens from now on.
    pub(crate) fn of(pod: &Pod) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let client = pod.client().clone();
        let listening = tokio::spawn(async move {
            let mut said = Vec::new();
            while stopped.try_recv().is_err() {
                said.extend(ask(&client).await?);
                tokio::time::sleep(PAUSE).await;
            }
            Ok(said)
        });
        Self { stop, listening }
    }

    /// What was said. It was the truth as far as one pod can know it: it did not lead without a connection, was not ready
    /// without a session, ready or not as before while suspended, and its sub-process ran.
    pub(crate) async fn testifies(self) -> Result<Vec<Said>> {
        _ = self.stop.send(());
        let said = self.listening.await??;
        ensure!(!said.is_empty(), "it said nothing");
        let mut before: Option<&Said> = None;
        for now in &said {
            ensure!(now.session == "connected" || now.state == "follower", "it led without a connection: {now:?}");
            ensure!(now.session != "lost" || !now.ready, "it was ready without a session: {now:?}");
            ensure!(now.process == "running", "its sub-process did not run: {now:?}");
            if let Some(before) = before.filter(|before| before.session == "suspended" && now.session == "suspended") {
                ensure!(before.ready == now.ready, "suspended, it changed from {before:?} to {now:?}");
            }
            before = Some(now);
        }
        Ok(said)
    }
}

/// None when it changed while it was asked.
async fn ask(client: &Client) -> Result<Option<Said>> {
    let at = Instant::now();
    let before = client.info().await?;
    let ready = client.get("/readyz").await?.status == 200;
    let after = client.info().await?;
    ensure!(at.elapsed() < AT_ONCE, "it took {:?} to answer", at.elapsed());
    let text = |key: &str| before[key].as_str().unwrap_or_default().to_owned();
    let said = Said { at, session: text("session"), state: text("state"), process: text("process"), ready };
    Ok((before["session"] == after["session"]).then_some(said))
}

/// The session that a pod was given last.
pub(crate) fn session(pod: &Pod) -> Result<i64> {
    let console = pod.console()?;
    let (_, session) = console.rsplit_once("connected to the store session=").context("it was never connected")?;
    Ok(session.lines().next().unwrap_or_default().trim().parse()?)
}

/// Waits until these pods are all that there is, formed and none half alive: each connected, ready, registered once and
/// contending once under its present session. Then lets a peer join and leave, which they notice. Gives the position of
/// the leader.
pub(crate) async fn whole(cluster: &Cluster<'_>, pods: &[&Pod]) -> Result<usize> {
    cluster.formed(pods).await?;
    eventually("the pods are whole", SOON, async || is_whole(cluster, pods).await).await?;
    let newcomer = cluster.stand_in().await?;
    eventually("a newcomer is noticed", SOON, async || newcomer.last("ok")).await?;
    newcomer.leave().await?;
    cluster.formed(pods).await
}

async fn is_whole(cluster: &Cluster<'_>, pods: &[&Pod]) -> Result {
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
