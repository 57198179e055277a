//! Guarantee 6: while the host lives, no child is left behind and no exit status is lost, in any order of exits.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, ZooKeeper, alive, eventually};

use crate::pod;

#[tokio::test]
async fn term_and_int_leave_no_process_and_no_node() -> Result {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let env = TestEnv::new().await?;
        let mut pods = env
            .start_cluster(1, |env| pod(env).count_starts("sleep 1000 & exec sleep 86400").set("set_grace", "40"))
            .await?;
        let pod = &mut pods[0];
        pod.signal(signal)?;
        let begin = Instant::now();
        let code = pod.exit_code().await?;
        ensure!(code == 0, "it ended with {code} after {signal}");
        ensure!(begin.elapsed() < Duration::from_secs(20), "the shutdown took {:?}", begin.elapsed());
        let cluster = env.cluster("default");
        ensure!(cluster.registered().await?.is_empty(), "a registration is left");
        ensure!(cluster.contenders().await?.is_empty(), "a lock node is left");
        ensure!(cluster.snapshot().await.is_err(), "the snapshot is left");
        pod.assert_clean().await?;
        ensure!(
            pod.count_log("callback tear-down")? == 1 && pod.count_log("callback finalize")? == 1,
            "a callback is missing"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_the_grace() -> Result {
    let env = TestEnv::new().await?;
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let mut pods = env.start_cluster(1, |env| pod(env).count_trapped_starts(stubborn).set("set_grace", "40")).await?;
    let pod = &mut pods[0];
    pod.started(1).await?;
    pod.term()?;
    pod.wait_info("process", "terminating").await?;
    let begin = Instant::now();
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    pod.assert_clean().await
}

#[tokio::test]
async fn while_it_leaves_it_answers_questions_and_refuses_commands() -> Result {
    let env = TestEnv::new().await?;
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let pods = env.start_cluster(1, |env| pod(env).count_trapped_starts(stubborn).set("set_grace", "40")).await?;
    pods[0].started(1).await?;
    pods[0].term()?;
    pods[0].wait_info("process", "terminating").await?;
    pods[0].client().post("/control/on").await?.error(410)?;
    pods[0].client().post("/control/signal").await?.error(410)?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_killed_takes_its_sub_process_along() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(1, pod).await?;
    let pid = pods[0].started(1).await?;
    let status = {
        pods[0].kill9().await?;
        pods[0].wait(DEFAULT_TIMEOUT).await?
    };
    ensure!(status.signal() == Some(9), "it ended with {status}");
    eventually("the sub-process ends", DEFAULT_TIMEOUT, async || {
        ensure!(!alive(pid), "it lives");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn leaving_does_not_wait_for_a_store_that_is_gone() -> Result {
    let env = TestEnv::with_zookeeper(ZooKeeper::own().await?.into()).await?;
    let mut pods = env.start_cluster(1, |env| pod(env).set("session", "2")).await?;
    env.zookeeper().stop()?;
    pods[0].term()?;
    let begin = Instant::now();
    ensure!(pods[0].exit_code().await? == 0, "it did not exit with code 0");
    ensure!(begin.elapsed() < Duration::from_secs(13), "it took {:?}", begin.elapsed());
    pods[0].assert_clean().await
}

#[tokio::test]
async fn leaving_before_it_ever_reached_the_store_is_quick() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod(&env).set("zk", "127.0.0.1:1").start()?;
    eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await).await?;
    pod.term()?;
    ensure!(pod.wait(Duration::from_secs(13)).await?.code() == Some(0), "it did not exit with code 0");
    Ok(())
}

#[tokio::test]
async fn orphans_of_the_sub_process_are_reaped() -> Result {
    let env = TestEnv::new().await?;
    let breeder = "for i in 1 2 3 4 5; do setsid sh -c 'sleep 0.2 & sleep 0.1' & done; echo . > bred; exec sleep 86400";
    let pods = env.start_cluster(1, |env| pod(env).count_starts(breeder)).await?;
    pods[0].wait_lines("bred", 1).await?;
    eventually("no zombie is a child of the host", DEFAULT_TIMEOUT, async || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pods[0].pid()))?;
        let zombies = children.split_whitespace().filter(|pid| pid.parse().is_ok_and(|pid| !alive(pid))).count();
        ensure!(zombies == 0, "there are {zombies}");
        ensure!(pods[0].descendants().len() <= 1, "left are {:?}", pods[0].descendants());
        Ok(())
    })
    .await
}
