//! Guarantees 2 and 4 at every step of a configuration: its leader is killed just before the step, and just after it, at
//! each pod. Afterwards all pods are configured with the same view, none is left off, and no sub-process was started
//! twice for one generation.

use anyhow::{Context, ensure};
use futures_util::{StreamExt, stream};
use ochopod_tests::{PodBuilder, Result, TestEnv, proxy::CatchPoint};

use crate::{
    interceptable_cluster::{InterceptableCluster, PodProxies, Step, assert_epoch_order, second_starts},
    pod,
};

/// Pods of a cluster when its leader is killed: one has just joined.
const PODS: usize = 4;
/// Number of concurrent clusters.
const CLUSTERS: usize = 6;
/// Number of points of one cluster, one after the other.
const CHAIN: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    FullShutdown,
    Sequential,
}

/// The pod that the step concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Leader,
    Follower,
    Newcomer,
}

type Point = (Step, Target, CatchPoint);

fn complete(mode: Mode, env: &TestEnv) -> PodBuilder {
    let pod = pod(env).set("session", "2").quiet();
    match mode {
        Mode::Plain => pod,
        Mode::FullShutdown => pod.set("set_full_shutdown", "true"),
        Mode::Sequential => pod.set("set_sequential", "true"),
    }
}

fn points(mode: Mode) -> Vec<Point> {
    let mut points = Vec::new();
    for step in [Step::Check, Step::Pending, Step::Off, Step::On, Step::Ok, Step::Commit] {
        for target in [Target::Leader, Target::Follower, Target::Newcomer] {
            let happens = step != Step::Off || mode == Mode::FullShutdown;
            if happens && (step.is_posted() || target == Target::Leader) {
                points.extend([CatchPoint::Request, CatchPoint::Reply].map(|when| (step, target, when)));
            }
        }
    }
    points
}

/// Adds a pod, which causes a configuration, and kills its leader at this point. The intercepted message is lost.
async fn killed_at(cluster: &mut InterceptableCluster, (step, target, when): Point) -> Result {
    let leader = cluster.wait_formed().await?;
    let (newcomer, proxies) = cluster.newcomer().await?;
    let follower = (leader + 1) % cluster.members.len();
    let catch = |proxies: &PodProxies| {
        if step.is_posted() { proxies.catch_post(step, when) } else { proxies.catch_write(step, when) }
    };
    let catch = match target {
        Target::Leader => catch(&cluster.members[leader].proxies),
        Target::Follower => catch(&cluster.members[follower].proxies),
        Target::Newcomer => catch(&proxies),
    };
    let newcomer = newcomer.start()?;
    let caught = catch.caught().await?;
    let mut killed = cluster.members.remove(leader);
    killed.pod.kill9().await?;
    caught.cut();
    ensure!(second_starts(&killed.pod)? == 0, "the killed pod was started twice");
    cluster.add(newcomer, proxies);
    cluster.wait_formed().await?;
    Ok(())
}

/// Returns the number of points so far of one cluster, and the start of the second.
async fn survived(mode: Mode, points: Vec<Point>) -> Result<(usize, usize)> {
    let mut cluster = InterceptableCluster::form(PODS - 1, move |env| complete(mode, env)).await?;
    let mut second = 0;
    for point in &points {
        killed_at(&mut cluster, *point).await.with_context(|| format!("{mode:?}, killed at {point:?}"))?;
        for member in &cluster.members {
            assert_epoch_order(&member.pod)?;
            second += second_starts(&member.pod)?;
        }
        ensure!(second == 0, "{mode:?}, killed at {point:?}: {second} second starts");
    }
    Ok((points.len(), second))
}

#[tokio::test]
async fn guarantees_2_and_4_hold_wherever_a_leader_is_killed() -> Result {
    let chains = [Mode::Plain, Mode::FullShutdown, Mode::Sequential].into_iter().flat_map(|mode| {
        let points = points(mode);
        points.chunks(CHAIN).map(|chain| (mode, chain.to_vec())).collect::<Vec<_>>()
    });
    let mut survivals = stream::iter(chains).map(|(mode, chain)| survived(mode, chain)).buffer_unordered(CLUSTERS);
    let (mut points, mut second) = (0, 0);
    while let Some(survival) = survivals.next().await {
        let (more, starts) = survival?;
        points += more;
        second += starts;
    }
    eprintln!("kill points: {points} points x {PODS} pods, second starts {second}, left off 0");
    Ok(())
}
