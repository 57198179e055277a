//! Configurations that stop some pods at a time, and pods that are left out.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, consistently, eventually};
use serde_json::json;

use crate::{
    all,
    leader_with_fakes::status,
    monitoring::unready,
    pod,
    readiness::{Files, by_seq},
    started_once,
};

/// Records the times of its starts and stops, in nanoseconds.
const RECORDED: &str = "trap 'date +%s%N >> stopped; exit 1' TERM; echo $$ >> starts; date +%s%N >> started; \
                        while :; do sleep 0.05; done";

/// Pods of the cluster `web`, which depends on `db` and configures one pod at a time.
fn dependant(env: &TestEnv) -> PodBuilder {
    let pod = pod(env).command(RECORDED).set("cluster", "web").set("set_depends_on", "db");
    pod.set("set_batch", "1").set("set_probe_every", "1")
}

/// Starts three such pods, and returns them with the position of their leader.
async fn dependants(env: &TestEnv, complete: impl Fn(PodBuilder) -> PodBuilder) -> Result<(Vec<Pod>, usize)> {
    let pods = (0..3).map(|_| complete(dependant(env)).start()).collect::<Result<Vec<Pod>>>()?;
    let pods: Vec<Pod> =
        by_seq(pods.into_iter().map(|pod| (pod, ())).collect()).await?.into_iter().map(|it| it.0).collect();
    let leader = env.cluster("web").wait_formed(&all(&pods)).await?;
    for pod in &pods {
        pod.started(1).await?;
    }
    known_ready(env, &pods, leader).await?;
    Ok((pods, leader))
}

/// Waits until the leader knows that these pods are ready: it begins with pods that are down.
async fn known_ready(env: &TestEnv, pods: &[Pod], leader: usize) -> Result {
    eventually("the states are published", DEFAULT_TIMEOUT, async || {
        let web = env.cluster("web");
        for pod in pods {
            let key = pod.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
            let state = web.store().json(&web.path(&format!("states/{key}"))).await?;
            ensure!(state["ready"] == true, "{} has {state}", pod.address());
        }
        Ok(())
    })
    .await?;
    let probes = pods[leader].count_log("callback probe")?;
    eventually("the leader probes", DEFAULT_TIMEOUT, async || {
        ensure!(pods[leader].count_log("callback probe")? > probes, "no probe");
        Ok(())
    })
    .await
}

/// Returns when a pod was last stopped, and when it was last started.
async fn last_stop(pod: &Pod) -> Result<(u64, u64)> {
    let last =
        |file: &str| pod.lines(file).last().and_then(|line| line.parse().ok()).with_context(|| format!("no {file}"));
    eventually("it was stopped and started", DEFAULT_TIMEOUT * 2, async || {
        let (stopped, started) = (last("stopped")?, last("started")?);
        ensure!(stopped < started, "it is stopped");
        Ok((stopped, started))
    })
    .await
}

#[tokio::test]
async fn a_batch_of_one_never_has_two_pods_down() -> Result {
    let env = TestEnv::new().await?;
    let delay = Duration::from_millis(500);
    let (pods, leader) = dependants(&env, |pod| pod.misbehave("ready", "sleep:0.5")).await?;
    let _db = pod(&env).set("cluster", "db").start()?;
    let mut times = Vec::new();
    for (position, pod) in pods.iter().enumerate() {
        let (stopped, started) = last_stop(pod).await?;
        times.push((stopped, started, position));
    }
    times.sort_unstable();
    for pair in times.windows(2) {
        // The process of the pod before was stopped, then it was started, and then it took this long to be ready.
        let ready = pair[0].0 + u64::try_from(delay.as_nanos())?;
        ensure!(pair[1].0 >= ready, "a pod was stopped before the one before it was ready: {times:?}");
    }
    let order: Vec<usize> = times.iter().map(|(.., position)| *position).collect();
    let mut expected: Vec<usize> = (0..3).filter(|position| *position != leader).collect();
    expected.push(leader);
    ensure!(order == expected, "the order of the pods was {order:?} instead of {expected:?}");
    env.cluster("web").wait_formed(&all(&pods)).await?;
    for pod in &pods {
        ensure!(pod.starts()?.len() == 2, "{} was started {} times", pod.address(), pod.starts()?.len());
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_that_is_not_possible_yet_holds_the_others_as_they_are() -> Result {
    let env = TestEnv::new().await?;
    let mut started = Vec::new();
    for number in 0..3 {
        let files = Files::new(&env, &number.to_string())?;
        files.create("configure")?;
        started.push((files.wait(dependant(&env), "configure").start()?, files));
    }
    let pods = by_seq(started).await?;
    let (pods, files): (Vec<Pod>, Vec<Files>) = pods.into_iter().unzip();
    let leader = env.cluster("web").wait_formed(&all(&pods)).await?;
    known_ready(&env, &pods, leader).await?;
    let first = usize::from(leader == 0);
    files[first].remove("configure")?;
    let _db = pod(&env).set("cluster", "db").start()?;
    status(&pods[leader], &["failed on with 503", "/files/configure does not exist", "retrying in"]).await?;
    unready(&pods[first], "not configured yet").await?;
    consistently("the others run", Duration::from_secs(3), async || {
        for (position, pod) in pods.iter().enumerate().filter(|(position, _)| *position != first) {
            ensure!(pod.client().info().await?["process"] == "running", "pod {position} does not");
            ensure!(pod.starts()?.len() == 1, "pod {position} was restarted");
        }
        Ok(())
    })
    .await?;
    files[first].create("configure")?;
    for pod in &pods {
        eventually("it is restarted", DEFAULT_TIMEOUT * 3, async || {
            ensure!(pod.starts()?.len() == 2, "{} was started {} times", pod.address(), pod.starts()?.len());
            Ok(())
        })
        .await?;
    }
    env.cluster("web").wait_formed(&all(&pods)).await.map(drop)
}

#[tokio::test]
async fn a_batch_that_fails_stops_the_rollout() -> Result {
    let env = TestEnv::new().await?;
    let (pods, leader) = dependants(&env, |pod| pod).await?;
    let first = usize::from(leader == 0);
    let behaviour = json!({"behave": {"configure": "reject:bad template"}});
    pods[first].client().post_json("/control/signal", &behaviour).await?.is(200)?;
    let _db = pod(&env).set("cluster", "db").start()?;
    pods[leader].wait_log("configuration on hold").await?;
    let error = pods[leader].log()?;
    ensure!(error.contains("failed on with 406: bad template"), "the pod did not fail");
    ensure!(pods[leader].starts()?.len() == 1, "the last batch was reached");
    pods[first].wait_info("process", "dead").await?;
    status(&pods[leader], &["bad template", "retrying in", "dead: #"]).await?;
    // The hold of the rollout leaves time to pause it.
    let pause = json!({ "reason": "bad template" });
    pods[leader].client().post_json("/control/pause", &pause).await?.is(200)?;
    status(&pods[leader], &["* configurations paused: bad template"]).await?;
    for (_, pod) in pods.iter().enumerate().filter(|(position, _)| *position != first) {
        ensure!(pod.starts()?.len() == 1, "a pod that was not reached was restarted");
        pod.wait_info("process", "running").await?;
    }
    pods[leader].client().post("/control/resume").await?.is(200)?;
    for (_, pod) in pods.iter().enumerate().filter(|(position, _)| *position != first) {
        pod.started(2).await?;
        pod.wait_info("process", "running").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_tolerated_pod_is_left_out_and_included_again() -> Result {
    let env = TestEnv::new().await?;
    let tolerant = |pod: PodBuilder| pod.set("set_tolerate", "1");
    let mut pods = env.start_cluster(2, |env| tolerant(pod(env))).await?;
    let leader = env.cluster("default").wait_formed(&all(&pods)).await?;
    let files = Files::new(&env, "refusing")?;
    let refusing = files.wait(tolerant(pod(&env)), "can_configure").start()?;
    let address = format!("{}:{}", refusing.address(), env.port());
    status(&pods[leader], &["* left out, #", &address, "406: /files/can_configure does not exist"]).await?;
    env.cluster("default").wait_formed(&all(&pods)).await?;
    ensure!(refusing.lines("starts").is_empty(), "it was started");
    let another = tolerant(pod(&env)).start()?;
    pods.push(another);
    env.cluster("default").wait_formed(&all(&pods)).await?;
    status(&pods[leader], &["* left out, #", &address]).await?;

    files.create("can_configure")?;
    pods.push(refusing);
    eventually("it is included again", DEFAULT_TIMEOUT * 3, async || {
        ensure!(pods.last().is_some_and(|pod| !pod.lines("starts").is_empty()), "the last pod has no start");
        Ok(())
    })
    .await?;
    env.cluster("default").wait_formed(&all(&pods)).await?;
    let text = pods[leader].client().info().await?["status"].as_str().unwrap_or_default().to_owned();
    ensure!(!text.contains("left out"), "the status is {text:?}");
    started_once(&pods).await
}

#[tokio::test]
async fn more_pods_than_tolerated_hold_the_configuration() -> Result {
    let env = TestEnv::new().await?;
    let good = pod(&env).set("set_tolerate", "1").start()?;
    env.cluster("default").wait_formed(&[&good]).await?;
    let refusing = || pod(&env).misbehave("can_configure", "reject:no disk").start();
    let bad = [refusing()?, refusing()?];
    status(&good, &["failed check with 406", "no disk", "retrying in"]).await?;
    ensure!(bad.iter().all(|pod| pod.lines("starts").is_empty()), "a pod was started");
    ensure!(good.starts()?.len() == 1, "the good pod was restarted");
    Ok(())
}

#[tokio::test]
async fn settings_that_exclude_each_other_are_bad_usage() -> Result {
    let env = TestEnv::new().await?;
    for other in ["set_sequential", "set_full_shutdown"] {
        let mut pod = pod(&env).set("set_batch", "1").set(other, "true").start()?;
        ensure!(pod.exit_code().await? == 64, "it did not exit with code 64");
        ensure!(pod.console()?.contains("batch"), "unexpected output {}", pod.console()?);
    }
    Ok(())
}
