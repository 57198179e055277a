//! The real thing: servers, pods, proxies, and how an act is done to them.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Shape,
    act::{Act, Deed, Way, Whom},
    chronicle::Chronicle,
    diary::Diary,
};
use crate::{Client, Ensemble, Pod, Proxy, Result, SOON, Site, alive, artifacts};

/// The session timeout of the pods.
pub(super) const SESSION: Duration = Duration::from_secs(4);
/// How long a pod may take to leave: two waits for ZooKeeper, and its sub-process.
const LEAVE: Duration = SOON.saturating_mul(3);

/// A place for pods, one after the other, at one address.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) cluster: &'static str,
    pub(super) pod: Option<Pod>,
    /// The name of its present pod, of its last one when it is empty.
    pub(super) name: String,
    /// Somebody turned the sub-process off, or told the plugin to misbehave: to be undone in the end.
    pub(super) tampered: bool,
    address: String,
    /// What its pods take for ZooKeeper's servers, and what leaders take for its pods.
    to_store: Vec<Proxy>,
    from_leader: Proxy,
    /// One that leaves.
    leaving: Option<Pod>,
    lives: u32,
}

/// Everything that faults are done to.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) slots: Vec<Slot>,
    pub(super) chronicle: Chronicle,
    pub(super) site: Site,
    shape: Shape,
    /// The slot of the leader that was struck last.
    leader: usize,
    /// Hosts that were killed: nothing of theirs may be left.
    killed: Vec<Pod>,
    /// Requests by hand that are under way.
    hands: JoinSet<()>,
    ensemble: Ensemble,
}

impl Field {
    /// An ensemble, and the pods that are there from the beginning.
    pub(super) async fn new(shape: Shape) -> Result<Self> {
        let ensemble = Ensemble::start().await?;
        let site = Site::of(&ensemble).await?;
        let mut slots = Vec::new();
        for (cluster, _) in shape.slots() {
            let address = site.address();
            let mut to_store = Vec::new();
            for server in ensemble.members() {
                to_store.push(Proxy::zookeeper(server.address()).await?);
            }
            let from_leader = Proxy::http(format!("{address}:{}", site.port()).parse()?).await?;
            slots.push(Slot {
                cluster,
                pod: None,
                name: String::new(),
                tampered: false,
                address,
                to_store,
                from_leader,
                leaving: None,
                lives: 0,
            });
        }
        let (chronicle, hands) = (Chronicle::default(), JoinSet::new());
        let mut field = Self { slots, chronicle, site, shape, leader: 0, killed: Vec::new(), hands, ensemble };
        for (slot, _) in shape.slots().into_iter().enumerate().filter(|(_, (_, there))| *there) {
            field.start(slot).await?;
        }
        Ok(field)
    }

    /// Whether nothing but a changed view of the own cluster configures, and that stops nobody.
    pub(super) fn is_plain(&self) -> bool {
        self.shape == Shape::Plain
    }

    /// Does one thing. Requests by hand are not waited for.
    pub(super) async fn act(&mut self, act: Act) -> Result {
        while self.hands.try_join_next().is_some() {}
        let slot = match act.whom {
            Whom::Server(server) => return self.do_to_server(server, act.deed),
            Whom::Pod(slot) => slot,
            Whom::Leader => {
                if !act.deed.mends() {
                    self.leader = self.leads().context("nobody leads")?;
                }
                self.leader
            }
        };
        match act.deed {
            Deed::Start => self.start(slot).await,
            Deed::Kill => {
                let mut pod = self.slots[slot].pod.take().context("nobody is there")?;
                pod.kill9().await?;
                self.killed.push(pod);
                Ok(())
            }
            Deed::Leave => {
                let pod = self.slots[slot].pod.take().context("nobody is there")?;
                pod.term()?;
                self.slots[slot].leaving = Some(pod);
                Ok(())
            }
            Deed::Freeze => self.pod(slot)?.signal(Signal::SIGSTOP),
            Deed::Thaw => self.pod(slot)?.signal(Signal::SIGCONT),
            Deed::Crash => {
                if let Some(pid) = self.pod(slot)?.starts()?.last().filter(|pid| alive(**pid)) {
                    signal::kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
                }
                Ok(())
            }
            Deed::Reset => self.ask(slot, "/reset", None),
            Deed::Off => self.ask(slot, "/control/off/5", None),
            Deed::On => self.ask(slot, "/control/on/5", None),
            Deed::Retire => self.ask(slot, "/control/kill/5", None),
            Deed::Misbehave(callback, how) => self.tell(slot, &json!({ callback: how })),
            Deed::Behave => self.tell(slot, &json!({})),
            Deed::Cut(way) => self.ways(way, slot, Proxy::cut),
            Deed::Refuse(way) => self.ways(way, slot, Proxy::refuse),
            Deed::Swallow(way) => self.ways(way, slot, Proxy::black_hole),
            Deed::Heal(way) => self.ways(way, slot, Proxy::heal),
        }
    }

    fn do_to_server(&self, server: usize, deed: Deed) -> Result {
        let server = &self.ensemble.members()[server];
        match deed {
            Deed::Kill => server.stop(),
            Deed::Start => server.launch(),
            Deed::Freeze => server.freeze(),
            Deed::Thaw => server.thaw(),
            _ => bail!("{deed} cannot be done to a server"),
        }
    }

    /// The slot of the pod that leads the first cluster, as far as the logs tell.
    fn leads(&self) -> Option<usize> {
        let first = self.slots.first()?.cluster;
        let there = self.slots.iter().enumerate().filter(|(_, slot)| slot.cluster == first && slot.pod.is_some());
        let (_, slot) =
            there.map(|(number, slot)| (self.chronicle.diary(&slot.name).and_then(Diary::leads), number)).max()?;
        Some(slot)
    }

    /// Waits for what was begun by hand and for those who leave, and undoes what people did. Nothing of hosts that are gone
    /// is left then.
    pub(super) async fn tidy(&mut self) -> Result {
        while self.hands.join_next().await.is_some() {}
        self.ensemble.serves().await?;
        for slot in 0..self.slots.len() {
            self.left(slot).await?;
        }
        for pod in self.killed.drain(..) {
            pod.leaves_nothing().await?;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.tampered) {
            slot.tampered = false;
            let Some(pod) = &slot.pod else { continue };
            crate::eventually("what was done by hand is undone", SOON * 2, async || {
                pod.client().post_json("/control/signal/10", &json!({ "behave": {} })).await?.is(200)?;
                // A pod that was never configured cannot be turned on by hand, and was not turned off.
                let on = pod.client().post("/control/on/10").await?;
                ensure!(on.status == 200 || on.status == 406, "on was answered {}", on.status);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Asks everybody to leave, and waits until nothing is left of them.
    pub(super) async fn end(&mut self) -> Result {
        for slot in 0..self.slots.len() {
            if self.slots[slot].pod.is_some() {
                self.act(Act { deed: Deed::Leave, whom: Whom::Pod(slot) }).await?;
            }
        }
        for slot in 0..self.slots.len() {
            self.left(slot).await?;
        }
        Ok(())
    }

    /// Keeps the logs, for whoever looks into what went wrong. Gives where they are.
    pub(super) fn keep_logs(&self, name: &str) -> Result<PathBuf> {
        let kept = artifacts::chaos(name);
        std::fs::create_dir_all(&kept)?;
        self.chronicle.copy_logs(&kept)?;
        for (number, server) in self.ensemble.members().iter().enumerate() {
            std::fs::copy(server.directory().join("log"), kept.join(format!("server-{number}.log")))?;
        }
        Ok(kept)
    }

    async fn start(&mut self, number: usize) -> Result {
        self.left(number).await?;
        let slot = &mut self.slots[number];
        slot.lives += 1;
        slot.name = format!("pod-{number}.{}", slot.lives);
        slot.tampered = false;
        let (port, directory) = (self.site.port(), self.site.scratch().join(&slot.name));
        let servers: Vec<String> = slot.to_store.iter().map(|proxy| proxy.address().to_string()).collect();
        let zk = format!("{}{}", servers.join(","), self.site.store().chroot());
        let pod = self
            .site
            .pod_at(&artifacts::misbehaving()?, &slot.address, &directory)
            .counted("exec sleep 86400")
            // Configurations take long enough to be struck while they are under way.
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
        self.chronicle.follow(&slot.name, slot.cluster, directory.join("stderr"));
        slot.pod = Some(pod);
        Ok(())
    }

    /// Waits until the one that leaves the slot has left.
    async fn left(&mut self, slot: usize) -> Result {
        if let Some(mut pod) = self.slots[slot].leaving.take() {
            let status = pod.wait(LEAVE).await?;
            // A signal that comes before the first line of the host's own code is the system's to answer.
            let unborn = status.signal() == Some(Signal::SIGTERM as i32) && pod.console()?.is_empty();
            ensure!(status.success() || unborn, "pod {slot} left with {status}");
            pod.leaves_nothing().await?;
        }
        Ok(())
    }

    fn pod(&self, slot: usize) -> Result<&Pod> {
        self.slots[slot].pod.as_ref().context("nobody is there")
    }

    #[expect(clippy::unnecessary_wraps, reason = "as all that is done to pods")]
    fn ways(&self, way: Way, slot: usize, what: fn(&Proxy)) -> Result {
        let slot = &self.slots[slot];
        match way {
            Way::ToStore => slot.to_store.iter().for_each(what),
            Way::FromLeader => what(&slot.from_leader),
        }
        Ok(())
    }

    /// Tells the plugin how to behave.
    fn tell(&mut self, slot: usize, behaviour: &Value) -> Result {
        self.ask(slot, "/control/signal/5", Some(json!({ "behave": behaviour })))
    }

    /// Posts by hand. What comes of it is not looked at: the pod may be frozen, or new.
    fn ask(&mut self, slot: usize, path: &'static str, body: Option<Value>) -> Result {
        self.slots[slot].tampered = true;
        let client: Client = self.pod(slot)?.client().clone();
        self.hands.spawn(async move {
            let asked = async {
                match body {
                    Some(body) => client.post_json(path, &body).await,
                    None => client.post(path).await,
                }
            };
            _ = tokio::time::timeout(SOON, asked).await;
        });
        Ok(())
    }
}
