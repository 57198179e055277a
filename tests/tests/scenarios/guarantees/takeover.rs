//! Guarantee 1 when a leadership ends during a configuration: the next leader continues it, and no request of the
//! earlier one starts, posted before or afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, alive, eventually, proxy::CatchPoint};

use crate::{
    interceptable_cluster::{InterceptableCluster, Step, assert_epoch_order, second_starts, started_tasks},
    pod,
};

/// Number of concurrent clusters.
const CLUSTERS: usize = 4;

fn complete(env: &TestEnv) -> PodBuilder {
    pod(env).set("session", "2").set("debug", "true").quiet()
}

/// Stops the leader at this point, longer than its session. After the next one has configured all pods, it
/// continues, and the intercepted message is forwarded.
async fn stopped_at(step: Step, when: CatchPoint) -> Result {
    let mut cluster = InterceptableCluster::form(3, |env| complete(env).set("set_full_shutdown", "true")).await?;
    let leader = cluster.wait_formed().await?;
    let stopped = cluster.members.remove(leader);
    let target = &cluster.members[0];
    let catch =
        if step.is_posted() { target.proxies.catch_post(step, when) } else { stopped.proxies.catch_write(step, when) };
    let (newcomer, proxies) = cluster.newcomer().await?;
    cluster.add(newcomer.start()?, proxies);
    let caught = catch.caught().await?;
    stopped.pod.signal(Signal::SIGSTOP)?;
    cluster.wait_formed().await?;
    let epochs = cluster.members.iter().map(|member| latest_epoch(&member.pod)).collect::<Result<Vec<_>>>()?;
    let refused = cluster.members[0].pod.count_log("status=409")?;
    if when == CatchPoint::Request && step.is_posted() {
        // The request was in flight for all that time.
        caught.pass();
        answers_409(&cluster.members[0].pod, refused).await?;
        stopped.pod.signal(Signal::SIGCONT)?;
    } else {
        // The leader reads the reply when it continues.
        stopped.pod.signal(Signal::SIGCONT)?;
        caught.pass();
    }
    cluster.members.push(stopped);
    cluster.wait_formed().await?;
    for (member, epoch) in cluster.members.iter().zip(epochs) {
        assert_epoch_order(&member.pod)?;
        ensure!(latest_epoch(&member.pod)? >= epoch, "{} fell back", member.pod.address());
    }
    for member in &cluster.members {
        ensure!(second_starts(&member.pod)? == 0, "{} was started twice", member.pod.address());
    }
    Ok(())
}

/// Waits until the pod has answered like this once more.
async fn answers_409(pod: &Pod, before: usize) -> Result {
    eventually("a late post is refused", DEFAULT_TIMEOUT, async || {
        ensure!(pod.count_log("status=409")? > before, "no further 409");
        Ok(())
    })
    .await
}

fn latest_epoch(pod: &Pod) -> Result<i64> {
    Ok(started_tasks(pod)?.last().context("it accepted no task")?.epoch)
}

#[tokio::test]
async fn guarantee_1_no_command_of_a_stopped_leader_starts_when_it_continues() -> Result {
    let steps = [Step::Check, Step::Pending, Step::Off, Step::On, Step::Commit];
    let points = steps.into_iter().flat_map(|step| [CatchPoint::Request, CatchPoint::Reply].map(|when| (step, when)));
    let stopped = |(step, when)| async move {
        stopped_at(step, when).await.with_context(|| format!("stopped at {step:?}, {when:?}"))
    };
    stream::iter(points).map(stopped).buffer_unordered(CLUSTERS).try_collect().await
}

/// Terminates the leader at this point, while its sub-process ignores SIGTERM.
async fn left_at(step: Step) -> Result {
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let complete =
        move |env: &TestEnv| complete(env).count_trapped_starts(stubborn).set("session", "40").set("set_grace", "40");
    let mut cluster = InterceptableCluster::form(2, complete).await?;
    let leader = cluster.wait_formed().await?;
    let leaving = cluster.members.remove(leader);
    let catch = if step.is_posted() {
        cluster.members[0].proxies.catch_post(step, CatchPoint::Request)
    } else {
        leaving.proxies.catch_write(step, CatchPoint::Request)
    };
    let (newcomer, proxies) = cluster.newcomer().await?;
    cluster.add(newcomer.start()?, proxies);
    let mut caught = Some(catch.caught().await?);
    let begin = Instant::now();
    leaving.pod.started(1).await?;
    leaving.pod.term()?;
    leaving.pod.wait_log("shutting down").await?;
    if !step.is_posted() {
        // Its session reports nothing else before this.
        if let Some(caught) = caught.take() {
            caught.pass();
        }
    }
    // A configuration committed with the leaving pod is complete while that is registered: no pod is configured again.
    eventually("another leads and all pods are configured", DEFAULT_TIMEOUT * 2, async || {
        let mut leads = 0;
        for member in &cluster.members {
            let info = member.pod.client().info().await?;
            ensure!(info["process"] == "running", "{} is {}", member.pod.address(), info["process"]);
            leads += usize::from(info["state"] == "leader");
        }
        let hash = cluster.env.cluster("default").hash().await?;
        ensure!(leads == 1 && hash.starts_with("1:"), "{leads} lead, and the hash is {hash}");
        Ok(())
    })
    .await?;
    ensure!(begin.elapsed() < Duration::from_secs(25), "the others continued after {:?}", begin.elapsed());
    leaving.pod.client().post("/control/off").await?.error(410)?;
    let pid = *leaving.pod.starts()?.last().context("it never ran")?;
    ensure!(alive(pid), "the leaving pod's sub-process has ended");
    if let Some(late) = caught {
        let refused = cluster.members[0].pod.count_log("status=409")?;
        late.pass();
        answers_409(&cluster.members[0].pod, refused).await?;
    }
    for member in &cluster.members {
        assert_epoch_order(&member.pod)?;
        ensure!(second_starts(&member.pod)? == 0, "{} was started twice", member.pod.address());
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_that_leaves_hands_a_configuration_over_at_every_step() -> Result {
    let left = |step| async move { left_at(step).await.with_context(|| format!("left at {step:?}")) };
    let steps = [Step::Check, Step::Pending, Step::On, Step::Commit];
    stream::iter(steps).map(left).buffer_unordered(CLUSTERS).try_collect().await
}
