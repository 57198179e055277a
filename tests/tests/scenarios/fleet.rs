//! A cluster whose leader can be caught at every step of a configuration, and what its pods' logs tell of it.

use anyhow::{Context, ensure};
use ochopod_tests::{
    Pod, PodBuilder, Proxy, Result, SOON, Site, eventually,
    proxy::{Catch, When},
};
use serde_json::Value;

/// A step of a configuration; those that are posted are posted to one pod of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Check,
    Pending,
    Off,
    On,
    Ok,
    Commit,
}

impl Step {
    fn task(self) -> Option<&'static str> {
        match self {
            Self::Check => Some("check"),
            Self::Off => Some("off"),
            Self::On => Some("on"),
            Self::Ok => Some("ok"),
            Self::Pending | Self::Commit => None,
        }
    }

    pub(crate) fn is_posted(self) -> bool {
        self.task().is_some()
    }
}

/// A pod, reached by its peers and reaching the store through proxies.
pub(crate) struct Member {
    pub(crate) pod: Pod,
    pub(crate) ways: Ways,
}

/// The proxies around a pod.
pub(crate) struct Ways {
    control: Proxy,
    store: Proxy,
}

impl Ways {
    async fn around(site: &Site, pod: PodBuilder) -> Result<(PodBuilder, Self)> {
        let (pod, control) = pod.proxied().await?;
        let (store, through) = site.proxy().await?;
        Ok((pod.set("zk", through), Self { control, store }))
    }

    /// Catches a post to this pod.
    pub(crate) fn catch_post(&self, step: Step, when: When) -> Catch {
        self.control.catch(when, move |message| step.task().is_some_and(|task| message.posts(task)))
    }

    /// Catches what this pod writes as a leader.
    pub(crate) fn catch_write(&self, step: Step, when: When) -> Catch {
        let beginning = if step == Step::Pending { "pending:" } else { "1:" };
        self.store.catch(when, move |message| message.writes("hash", beginning))
    }
}

/// Members of the cluster `default`, each as `complete` says.
pub(crate) struct Fleet {
    pub(crate) site: Site,
    pub(crate) members: Vec<Member>,
    complete: Box<dyn Fn(&Site) -> PodBuilder>,
}

impl Fleet {
    pub(crate) async fn form(count: usize, complete: impl Fn(&Site) -> PodBuilder + 'static) -> Result<Self> {
        let site = Site::new().await?;
        let mut fleet = Self { site, members: Vec::new(), complete: Box::new(complete) };
        for _ in 0..count {
            let (pod, ways) = fleet.newcomer().await?;
            fleet.members.push(Member { pod: pod.start()?, ways });
        }
        fleet.formed().await?;
        Ok(fleet)
    }

    /// A pod that is to be started yet, so that what is posted to it can be caught from the beginning.
    pub(crate) async fn newcomer(&self) -> Result<(PodBuilder, Ways)> {
        Ways::around(&self.site, (self.complete)(&self.site)).await
    }

    pub(crate) fn add(&mut self, pod: Pod, ways: Ways) {
        self.members.push(Member { pod, ways });
    }

    /// Waits until all members are configured together; the position of the leader. The store has one complete
    /// configuration then, and every pod was turned on with it.
    pub(crate) async fn formed(&self) -> Result<usize> {
        let pods: Vec<&Pod> = self.members.iter().map(|member| &member.pod).collect();
        let cluster = self.site.cluster("default");
        let leader = cluster.formed(&pods).await?;
        let view = cluster.store().json(&cluster.path("view")).await?;
        ensure!(view["pods"] == Value::Object(cluster.snapshot().await?), "the view is {view}");
        eventually("all were turned on with the same view last", SOON, async || {
            let mut last = Vec::new();
            for pod in &pods {
                let on = trail(pod)?.into_iter().rfind(|begun| begun.task == "on");
                last.push(on.context("it was never turned on")?.generation);
            }
            ensure!(last.iter().all(|generation| *generation == last[0]), "they were with {last:?}");
            Ok(())
        })
        .await?;
        Ok(leader)
    }
}

/// A command of a leadership that a pod began.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) task: String,
    pub(crate) epoch: i64,
    pub(crate) generation: String,
    /// How often the sub-process was started from then until the next command.
    pub(crate) starts: usize,
}

/// What a pod began at a leadership's command, in order, as its log tells.
pub(crate) fn trail(pod: &Pod) -> Result<Vec<Begun>> {
    let mut trail: Vec<Begun> = Vec::new();
    for line in pod.console()?.lines() {
        if let Some((before, after)) = line.split_once(" begins ") {
            let value = |key: &str| {
                let found = after.split_once(&format!("{key}="))?.1.split(' ').next()?;
                Some(found.trim_matches('"').to_owned())
            };
            let task = before.rsplit_once("/control/").context("no task")?.1.to_owned();
            let epoch = value("epoch").context("no epoch")?.parse()?;
            trail.push(Begun { task, epoch, generation: value("generation").unwrap_or_default(), starts: 0 });
        } else if line.contains("the sub-process runs") {
            trail.last_mut().context("it runs although nobody asked")?.starts += 1;
        }
    }
    Ok(trail)
}

/// Nothing of an earlier leadership began once something of a later one had.
pub(crate) fn obeyed_in_order(pod: &Pod) -> Result {
    let trail = trail(pod)?;
    let ordered = trail.windows(2).all(|pair| pair[0].epoch <= pair[1].epoch);
    ensure!(ordered, "{} began {trail:#?}", pod.address());
    Ok(())
}

/// How often the sub-process was started for a generation that it had been started for before. A generation that comes
/// back after another is a new one.
pub(crate) fn second_starts(pod: &Pod) -> Result<usize> {
    let (mut second, mut started) = (0, None);
    for begun in trail(pod)?.into_iter().filter(|begun| begun.starts > 0) {
        let again = started.as_ref() == Some(&begun.generation);
        second += if again { begun.starts } else { begun.starts - 1 };
        started = Some(begun.generation);
    }
    Ok(second)
}
