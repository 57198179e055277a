//! Guarantee 2: when faults stop, every live pod is registered once and has answered 200 to `on` with the current view,
//! within a bounded time; no pod is left off.
//!
//! Short chaos runs, the same each time; `make chaos` makes long ones. They also verify guarantees 1, 3, 4 and 6.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{
    Result, TestEnv,
    chaos::{self, ClusterShape, RunLength},
};

use crate::pod;

async fn survived(seed: u64, shape: ClusterShape, rounds: u32) -> Result {
    let report = chaos::run(seed, shape, RunLength::Rounds(rounds), Duration::from_secs(5)).await?;
    ensure!(report.broken.is_empty(), "{report}");
    ensure!(!report.faults.is_empty() && report.configurations > 0, "nothing happened: {report}");
    Ok(())
}

#[tokio::test]
async fn guarantee_2_a_host_that_was_stopped_while_it_configured_continues() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).misbehave("configure", "sleep:1").set("set_grace", "2").start()?;
    pod.wait_log("callback configure ").await?;
    pod.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    pod.signal(Signal::SIGCONT)?;
    env.cluster("default").wait_formed(&[&pod]).await?;
    pod.started(1).await?;
    ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn guarantee_2_when_faults_stop_every_pod_is_configured() -> Result {
    survived(1, ClusterShape::Plain, 2).await
}

#[tokio::test]
async fn guarantee_2_holds_where_all_are_stopped_first_and_depend_on_others() -> Result {
    survived(2, ClusterShape::FullShutdown, 1).await
}
