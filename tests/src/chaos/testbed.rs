//! Real servers, pods and proxies, and the execution of actions on them.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    ClusterShape,
    action::{Action, ActionKind, Link, Target},
    log_checker::LogChecker,
    log_parser::LogParser,
};
use crate::{Client, DEFAULT_TIMEOUT, Ensemble, Pod, Proxy, Result, TestEnv, alive, artifacts};

/// The session timeout of the pods.
pub(super) const SESSION: Duration = Duration::from_secs(4);
/// Time for a pod to shut down: two waits for ZooKeeper, and its sub-process.
const SHUTDOWN_TIMEOUT: Duration = DEFAULT_TIMEOUT.saturating_mul(3);

/// A slot for pods, one after the other, at one address.
#[derive(Debug)]
pub(super) struct PodSlot {
    pub(super) cluster: &'static str,
    pub(super) pod: Option<Pod>,
    /// Name of its current pod, or of its last one if it is empty.
    pub(super) name: String,
    /// Whether the sub-process was turned off, or the plugin was set to misbehave: to be undone at the end.
    pub(super) tampered: bool,
    address: String,
    /// The proxies that its pods use as ZooKeeper's servers, and that leaders use as its pods.
    to_store: Vec<Proxy>,
    from_leader: Proxy,
    /// A pod that shuts down.
    shutting_down: Option<Pod>,
    lives: u32,
}

/// Targets of all faults.
#[derive(Debug)]
pub(super) struct Testbed {
    pub(super) slots: Vec<PodSlot>,
    pub(super) log_checker: LogChecker,
    pub(super) env: TestEnv,
    shape: ClusterShape,
    /// The slot of the leader that had the last fault.
    leader: usize,
    /// Killed hosts, of which no process may be left.
    killed: Vec<Pod>,
    /// Operator requests in flight.
    requests: JoinSet<()>,
    ensemble: Ensemble,
}

impl Testbed {
    /// Starts an ensemble and the initial pods.
    pub(super) async fn new(shape: ClusterShape) -> Result<Self> {
        let ensemble = Ensemble::start().await?;
        let env = TestEnv::with_ensemble(&ensemble).await?;
        let mut slots = Vec::new();
        for (cluster, _) in shape.slots() {
            let address = env.address();
            let mut to_store = Vec::new();
            for server in ensemble.members() {
                to_store.push(Proxy::zookeeper(server.address()).await?);
            }
            let from_leader = Proxy::http(format!("{address}:{}", env.port()).parse()?).await?;
            slots.push(PodSlot {
                cluster,
                pod: None,
                name: String::new(),
                tampered: false,
                address,
                to_store,
                from_leader,
                shutting_down: None,
                lives: 0,
            });
        }
        let (log_checker, requests) = (LogChecker::default(), JoinSet::new());
        let mut testbed = Self { slots, log_checker, env, shape, leader: 0, killed: Vec::new(), requests, ensemble };
        for (slot, _) in shape.slots().into_iter().enumerate().filter(|(_, (_, there))| *there) {
            testbed.start(slot).await?;
        }
        Ok(testbed)
    }

    /// Returns whether only a changed view of the pod's own cluster configures it, without stopping a sub-process.
    pub(super) fn is_plain(&self) -> bool {
        self.shape == ClusterShape::Plain
    }

    /// Executes one action. Operator requests are not awaited.
    pub(super) async fn act(&mut self, act: Action) -> Result {
        while self.requests.try_join_next().is_some() {}
        let slot = match act.target {
            Target::Server(server) => return self.act_on_server(server, act.kind),
            Target::Pod(slot) => slot,
            Target::Leader => {
                if !act.kind.is_repair() {
                    self.leader = self.leader_slot().context("no pod leads")?;
                }
                self.leader
            }
        };
        match act.kind {
            ActionKind::Start => self.start(slot).await,
            ActionKind::Kill => {
                let mut pod = self.slots[slot].pod.take().context("the slot is empty")?;
                pod.kill9().await?;
                self.killed.push(pod);
                Ok(())
            }
            ActionKind::Leave => {
                let pod = self.slots[slot].pod.take().context("the slot is empty")?;
                pod.term()?;
                self.slots[slot].shutting_down = Some(pod);
                Ok(())
            }
            ActionKind::Freeze => self.pod(slot)?.signal(Signal::SIGSTOP),
            ActionKind::Thaw => self.pod(slot)?.signal(Signal::SIGCONT),
            ActionKind::Crash => {
                if let Some(pid) = self.pod(slot)?.starts()?.last().filter(|pid| alive(**pid)) {
                    signal::kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
                }
                Ok(())
            }
            ActionKind::Reset => self.request(slot, "/reset", None),
            ActionKind::Off => self.request(slot, "/control/off/5", None),
            ActionKind::On => self.request(slot, "/control/on/5", None),
            ActionKind::Retire => self.request(slot, "/control/kill/5", None),
            ActionKind::Restart => self.request(slot, "/control/restart/5", None),
            ActionKind::Cordon => self.request(slot, "/control/cordon", Some(json!({ "reason": "chaos" }))),
            ActionKind::Uncordon => self.request(slot, "/control/uncordon", None),
            ActionKind::StepDown => self.request(slot, "/control/step-down", None),
            ActionKind::Pause => self.request(slot, "/control/pause", Some(json!({ "reason": "chaos" }))),
            ActionKind::Resume => self.request(slot, "/control/resume", None),
            ActionKind::Misbehave(callback, how) => self.set_behaviour(slot, &json!({ callback: how })),
            ActionKind::Behave => self.set_behaviour(slot, &json!({})),
            ActionKind::Cut(link) => self.act_on_link(link, slot, Proxy::cut),
            ActionKind::Refuse(link) => self.act_on_link(link, slot, Proxy::refuse),
            ActionKind::Swallow(link) => self.act_on_link(link, slot, Proxy::black_hole),
            ActionKind::Heal(link) => self.act_on_link(link, slot, Proxy::heal),
        }
    }

    fn act_on_server(&self, server: usize, kind: ActionKind) -> Result {
        let server = &self.ensemble.members()[server];
        match kind {
            ActionKind::Kill => server.stop(),
            ActionKind::Start => server.launch(),
            ActionKind::Freeze => server.freeze(),
            ActionKind::Thaw => server.thaw(),
            _ => bail!("{kind} cannot be done to a server"),
        }
    }

    /// Returns the slot of the pod that leads the first cluster, according to the logs.
    fn leader_slot(&self) -> Option<usize> {
        let first = self.slots.first()?.cluster;
        let there = self.slots.iter().enumerate().filter(|(_, slot)| slot.cluster == first && slot.pod.is_some());
        let (_, slot) = there
            .map(|(number, slot)| (self.log_checker.parser(&slot.name).and_then(LogParser::leadership), number))
            .max()?;
        Some(slot)
    }

    /// Waits for operator requests and for pods that shut down, and undoes operator actions. Then no process of a host
    /// that is gone is left.
    pub(super) async fn repair_all(&mut self) -> Result {
        while self.requests.join_next().await.is_some() {}
        self.ensemble.serves().await?;
        for slot in 0..self.slots.len() {
            self.wait_exited(slot).await?;
        }
        for pod in self.killed.drain(..) {
            pod.assert_clean().await?;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.tampered) {
            slot.tampered = false;
            let Some(pod) = &slot.pod else { continue };
            crate::eventually("operator actions are undone", DEFAULT_TIMEOUT * 2, async || {
                pod.client().post_json("/control/signal/10", &json!({ "behave": {} })).await?.is(200)?;
                for undo in ["/control/uncordon", "/control/resume"] {
                    pod.client().post(undo).await?.is(200)?;
                }
                // A pod that was never configured cannot be turned on by an operator, and was not turned off.
                let on = pod.client().post("/control/on/10").await?;
                ensure!(on.status == 200 || on.status == 406, "on was answered {}", on.status);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Terminates all pods, and waits until no process of them is left.
    pub(super) async fn end(&mut self) -> Result {
        for slot in 0..self.slots.len() {
            if self.slots[slot].pod.is_some() {
                self.act(Action { kind: ActionKind::Leave, target: Target::Pod(slot) }).await?;
            }
        }
        for slot in 0..self.slots.len() {
            self.wait_exited(slot).await?;
        }
        Ok(())
    }

    /// Keeps the logs for the analysis of a failure. Returns their directory.
    pub(super) fn keep_logs(&self, name: &str) -> Result<PathBuf> {
        let kept = artifacts::chaos(name);
        std::fs::create_dir_all(&kept)?;
        self.log_checker.copy_logs(&kept)?;
        for (number, server) in self.ensemble.members().iter().enumerate() {
            std::fs::copy(server.directory().join("log"), kept.join(format!("server-{number}.log")))?;
        }
        Ok(kept)
    }

    async fn start(&mut self, number: usize) -> Result {
        self.wait_exited(number).await?;
        let slot = &mut self.slots[number];
        slot.lives += 1;
        slot.name = format!("pod-{number}.{}", slot.lives);
        slot.tampered = false;
        let (port, directory) = (self.env.port(), self.env.scratch().join(&slot.name));
        let servers: Vec<String> = slot.to_store.iter().map(|proxy| proxy.address().to_string()).collect();
        let zk = format!("{}{}", servers.join(","), self.env.store().chroot());
        let pod = self
            .env
            .pod_at(&artifacts::misbehaving()?, &slot.address, &directory)
            .count_starts("exec sleep 86400")
            // Configurations take long enough for faults during them.
            .misbehave("can-configure", "sleep:0.1")
            .misbehave("configure", "sleep:0.3")
            .misbehave("tear-down", "sleep:0.1")
            .quiet()
            .set("zk", zk)
            .set("listen", format!("{}:{port}", slot.address))
            .env(&format!("PORT_{port}"), slot.from_leader.address().port())
            .set("cluster", slot.cluster)
            .set("session", SESSION.as_secs())
            .set("debug", "true")
            .set("set_grace", 5)
            .set("set_check_every", 5)
            // Crashes are faults here: they are not to turn a pod off.
            .set("set_checks", 1000);
        let pod = self.shape.complete(pod, slot.cluster).start()?;
        self.log_checker.follow(&slot.name, slot.cluster, directory.join("stderr"));
        slot.pod = Some(pod);
        Ok(())
    }

    /// Waits until the pod of the slot that shuts down has exited.
    async fn wait_exited(&mut self, slot: usize) -> Result {
        if let Some(mut pod) = self.slots[slot].shutting_down.take() {
            let status = pod.wait(SHUTDOWN_TIMEOUT).await?;
            // Before the first line of the host's own code, the system handles a signal.
            let killed_before_main = status.signal() == Some(Signal::SIGTERM as i32) && pod.console()?.is_empty();
            ensure!(status.success() || killed_before_main, "pod {slot} exited with {status}");
            pod.assert_clean().await?;
        }
        Ok(())
    }

    fn pod(&self, slot: usize) -> Result<&Pod> {
        self.slots[slot].pod.as_ref().context("the slot is empty")
    }

    #[expect(clippy::unnecessary_wraps, reason = "as all that is done to pods")]
    fn act_on_link(&self, link: Link, slot: usize, what: fn(&Proxy)) -> Result {
        let slot = &self.slots[slot];
        match link {
            Link::ToStore => slot.to_store.iter().for_each(what),
            Link::FromLeader => what(&slot.from_leader),
        }
        Ok(())
    }

    /// Sets the behaviour of the plugin.
    fn set_behaviour(&mut self, slot: usize, behaviour: &Value) -> Result {
        self.request(slot, "/control/signal/5", Some(json!({ "behave": behaviour })))
    }

    /// Posts as an operator. The result is ignored: the pod may be frozen, or new.
    fn request(&mut self, slot: usize, path: &'static str, body: Option<Value>) -> Result {
        self.slots[slot].tampered = true;
        let client: Client = self.pod(slot)?.client().clone();
        self.requests.spawn(async move {
            let request = async {
                match body {
                    Some(body) => client.post_json(path, &body).await,
                    None => client.post(path).await,
                }
            };
            _ = tokio::time::timeout(DEFAULT_TIMEOUT, request).await;
        });
        Ok(())
    }
}
