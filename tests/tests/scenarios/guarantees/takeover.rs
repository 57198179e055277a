//! Guarantee 1 when a leadership ends in the middle of a configuration: the next leader goes on with it, and nothing of
//! the earlier one begins any more, whatever it had posted and whatever it still tries.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::sys::signal::Signal;
use ochopod_tests::{Pod, PodBuilder, Result, SOON, Site, alive, eventually, proxy::When};

use crate::{
    fleet::{Fleet, Step, obeyed_in_order, second_starts, trail},
    pod,
};

/// Clusters at a time.
const CLUSTERS: usize = 4;

fn complete(site: &Site) -> PodBuilder {
    pod(site).set("session", "1").set("debug", "true").quiet()
}

/// The leader is stopped at this point, past its session. When the next one has configured everybody, it wakes up, and
/// what was caught on its way goes on.
async fn stopped_at(step: Step, when: When) -> Result {
    let mut fleet = Fleet::form(3, |site| complete(site).set("set_full_shutdown", "true")).await?;
    let leader = fleet.formed().await?;
    let stopped = fleet.members.remove(leader);
    let target = &fleet.members[0];
    let catch =
        if step.is_posted() { target.ways.catch_post(step, when) } else { stopped.ways.catch_write(step, when) };
    let (newcomer, ways) = fleet.newcomer().await?;
    fleet.add(newcomer.start()?, ways);
    let caught = catch.caught().await?;
    stopped.pod.signal(Signal::SIGSTOP)?;
    fleet.formed().await?;
    let epochs = fleet.members.iter().map(|member| latest_epoch(&member.pod)).collect::<Result<Vec<_>>>()?;
    let refused = fleet.members[0].pod.logged("is answered 409")?;
    if when == When::Request && step.is_posted() {
        // It was under way for all that time.
        caught.pass();
        answers_409(&fleet.members[0].pod, refused).await?;
        stopped.pod.signal(Signal::SIGCONT)?;
    } else {
        // The leader reads the answer when it wakes up, and goes on if it does not know better.
        stopped.pod.signal(Signal::SIGCONT)?;
        caught.pass();
    }
    fleet.members.push(stopped);
    fleet.formed().await?;
    for (member, epoch) in fleet.members.iter().zip(epochs) {
        obeyed_in_order(&member.pod)?;
        ensure!(latest_epoch(&member.pod)? >= epoch, "{} fell back", member.pod.address());
    }
    for member in &fleet.members {
        ensure!(second_starts(&member.pod)? == 0, "{} was started twice", member.pod.address());
    }
    Ok(())
}

/// Waits until the pod has answered so once more often.
async fn answers_409(pod: &Pod, before: usize) -> Result {
    eventually("a late post is refused", SOON, async || {
        ensure!(pod.logged("is answered 409")? > before, "it is not");
        Ok(())
    })
    .await
}

fn latest_epoch(pod: &Pod) -> Result<i64> {
    Ok(trail(pod)?.last().context("it obeyed nobody")?.epoch)
}

#[tokio::test]
async fn guarantee_1_nothing_of_a_stopped_leader_begins_when_it_wakes_up() -> Result {
    let steps = [Step::Check, Step::Pending, Step::Off, Step::On, Step::Commit];
    let points = steps.into_iter().flat_map(|step| [When::Request, When::Reply].map(|when| (step, when)));
    let stopped = |(step, when)| async move {
        stopped_at(step, when).await.with_context(|| format!("stopped at {step:?}, {when:?}"))
    };
    stream::iter(points).map(stopped).buffer_unordered(CLUSTERS).try_collect().await
}

/// The leader is asked to leave at this point, while its sub-process does not want to end.
async fn left_at(step: Step) -> Result {
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let complete = move |site: &Site| complete(site).counted(stubborn).set("session", "20").set("set_grace", "20");
    let mut fleet = Fleet::form(2, complete).await?;
    let leader = fleet.formed().await?;
    let leaving = fleet.members.remove(leader);
    let catch = if step.is_posted() {
        fleet.members[0].ways.catch_post(step, When::Request)
    } else {
        leaving.ways.catch_write(step, When::Request)
    };
    let (newcomer, ways) = fleet.newcomer().await?;
    fleet.add(newcomer.start()?, ways);
    let mut caught = Some(catch.caught().await?);
    let begin = Instant::now();
    leaving.pod.term()?;
    leaving.pod.logs("leaving").await?;
    if !step.is_posted() {
        // Its session says nothing else before this.
        if let Some(caught) = caught.take() {
            caught.pass();
        }
    }
    // What was committed with the leaving pod in it is complete as long as that is registered: nobody is configured anew.
    eventually("another leads and everybody is configured", SOON, async || {
        let mut leads = 0;
        for member in &fleet.members {
            let info = member.pod.client().info().await?;
            ensure!(info["process"] == "running", "{} is {}", member.pod.address(), info["process"]);
            leads += usize::from(info["state"] == "leader");
        }
        let hash = fleet.site.cluster("default").hash().await?;
        ensure!(leads == 1 && hash.starts_with("1:"), "{leads} lead, and the hash is {hash}");
        Ok(())
    })
    .await?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "the others went on after {:?}", begin.elapsed());
    leaving.pod.client().post("/control/off").await?.error(410)?;
    let pid = *leaving.pod.starts()?.last().context("it never ran")?;
    ensure!(alive(pid), "the leaving pod's sub-process has ended");
    if let Some(late) = caught {
        let refused = fleet.members[0].pod.logged("is answered 409")?;
        late.pass();
        answers_409(&fleet.members[0].pod, refused).await?;
    }
    for member in &fleet.members {
        obeyed_in_order(&member.pod)?;
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
