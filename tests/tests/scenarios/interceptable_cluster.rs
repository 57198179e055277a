//! A cluster whose leader can be intercepted at every step of a configuration, and the events in its pods' logs.

use anyhow::{Context, ensure};
use ochopod_tests::{
    DEFAULT_TIMEOUT, Pod, PodBuilder, Proxy, Result, TestEnv, eventually,
    proxy::{CatchPoint, PendingIntercept},
};
use serde_json::Value;

/// A step of a configuration; posts go to one pod of several.
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
pub(crate) struct ProxiedPod {
    pub(crate) pod: Pod,
    pub(crate) proxies: PodProxies,
}

/// The proxies around a pod.
pub(crate) struct PodProxies {
    control: Proxy,
    store: Proxy,
}

impl PodProxies {
    async fn around(env: &TestEnv, pod: PodBuilder) -> Result<(PodBuilder, Self)> {
        let (pod, control) = pod.proxied().await?;
        let (store, through) = env.proxy().await?;
        Ok((pod.set("zk", through), Self { control, store }))
    }

    /// Intercepts a post to this pod.
    pub(crate) fn catch_post(&self, step: Step, when: CatchPoint) -> PendingIntercept {
        self.control.intercept(when, move |message| step.task().is_some_and(|task| message.posts(task)))
    }

    /// Intercepts a write of this pod as a leader.
    pub(crate) fn catch_write(&self, step: Step, when: CatchPoint) -> PendingIntercept {
        let beginning = if step == Step::Pending { "pending:" } else { "1:" };
        self.store.intercept(when, move |message| message.writes("hash", beginning))
    }
}

/// Pods of the cluster `default`, each completed by `complete`.
pub(crate) struct InterceptableCluster {
    pub(crate) env: TestEnv,
    pub(crate) members: Vec<ProxiedPod>,
    complete: Box<dyn Fn(&TestEnv) -> PodBuilder>,
}

impl InterceptableCluster {
    pub(crate) async fn form(count: usize, complete: impl Fn(&TestEnv) -> PodBuilder + 'static) -> Result<Self> {
        let env = TestEnv::new().await?;
        let mut cluster = Self { env, members: Vec::new(), complete: Box::new(complete) };
        for _ in 0..count {
            let (pod, proxies) = cluster.newcomer().await?;
            cluster.members.push(ProxiedPod { pod: pod.start()?, proxies });
        }
        cluster.wait_formed().await?;
        Ok(cluster)
    }

    /// Returns a pod that is not started yet, so that posts to it can be intercepted from the start.
    pub(crate) async fn newcomer(&self) -> Result<(PodBuilder, PodProxies)> {
        PodProxies::around(&self.env, (self.complete)(&self.env)).await
    }

    pub(crate) fn add(&mut self, pod: Pod, proxies: PodProxies) {
        self.members.push(ProxiedPod { pod, proxies });
    }

    /// Waits until all pods are configured together, and returns the position of the leader. The store has one complete
    /// configuration then, and every pod was turned on with it.
    pub(crate) async fn wait_formed(&self) -> Result<usize> {
        let pods: Vec<&Pod> = self.members.iter().map(|member| &member.pod).collect();
        let cluster = self.env.cluster("default");
        let leader = cluster.wait_formed(&pods).await?;
        eventually("the snapshot is that of the view", DEFAULT_TIMEOUT, async || {
            let view = cluster.store().json(&cluster.path("view")).await?;
            ensure!(view["pods"] == Value::Object(cluster.snapshot().await?), "the view is {view}");
            Ok(())
        })
        .await?;
        eventually("all were turned on with the same view last", DEFAULT_TIMEOUT, async || {
            let mut last = Vec::new();
            for pod in &pods {
                let on = started_tasks(pod)?.into_iter().rfind(|task| task.task == "on");
                last.push(on.context("it was never turned on")?.generation);
            }
            ensure!(last.iter().all(|generation| *generation == last[0]), "they were with {last:?}");
            Ok(())
        })
        .await?;
        Ok(leader)
    }
}

/// A command of a leadership that a pod started.
#[derive(Debug)]
pub(crate) struct StartedTask {
    pub(crate) task: String,
    pub(crate) epoch: i64,
    pub(crate) generation: String,
    /// Number of starts of the sub-process until the next command.
    pub(crate) starts: usize,
}

/// Returns the commands of leaderships that a pod started, in order, from its log.
pub(crate) fn started_tasks(pod: &Pod) -> Result<Vec<StartedTask>> {
    let mut started_tasks: Vec<StartedTask> = Vec::new();
    for line in pod.console()?.lines() {
        if let Some((_, after)) = line.split_once("control request started ") {
            let value = |key: &str| {
                let found = after.split_once(&format!("{key}="))?.1.split(' ').next()?;
                Some(found.trim_matches('"').to_owned())
            };
            let task = value("task").context("no task")?;
            let epoch = value("epoch").context("no epoch")?.parse()?;
            started_tasks.push(StartedTask {
                task,
                epoch,
                generation: value("generation").unwrap_or_default(),
                starts: 0,
            });
        } else if line.contains("sub-process started") {
            started_tasks.last_mut().context("it runs without a task")?.starts += 1;
        }
    }
    Ok(started_tasks)
}

/// Checks that nothing of an earlier leadership started after something of a later one.
pub(crate) fn assert_epoch_order(pod: &Pod) -> Result {
    let started_tasks = started_tasks(pod)?;
    let ordered = started_tasks.windows(2).all(|pair| pair[0].epoch <= pair[1].epoch);
    ensure!(ordered, "{} began {started_tasks:#?}", pod.address());
    Ok(())
}

/// Returns the number of repeated starts for one generation. A generation that returns after another one is new.
pub(crate) fn second_starts(pod: &Pod) -> Result<usize> {
    let (mut second, mut started) = (0, None);
    for task in started_tasks(pod)?.into_iter().filter(|task| task.starts > 0) {
        let again = started.as_ref() == Some(&task.generation);
        second += if again { task.starts } else { task.starts - 1 };
        started = Some(task.generation);
    }
    Ok(second)
}
