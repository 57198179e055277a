//! Guarantee 2: when faults stop, every live pod is registered once and has answered 200 to `on` with the current view,
//! within a bounded time; nobody is left off.
//!
//! Short storms, the same in every run; `make chaos` makes long ones. They also hold what they see of guarantees 1, 3, 4
//! and 6.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{
    Result, Site,
    chaos::{Length, Shape, storm},
};

use crate::pod;

async fn survived(seed: u64, shape: Shape, rounds: u32) -> Result {
    let ledger = storm(seed, shape, Length::Rounds(rounds), Duration::from_secs(5)).await?;
    ensure!(ledger.broken.is_empty(), "{ledger}");
    ensure!(!ledger.faults.is_empty() && ledger.configurations > 0, "nothing happened: {ledger}");
    Ok(())
}

#[tokio::test]
async fn guarantee_2_a_host_that_was_stopped_while_it_configured_goes_on() -> Result {
    let site = Site::new().await?;
    let pod = pod(&site).misbehave("configure", "sleep:1").set("set_grace", "2").start()?;
    pod.logs("callback configure ").await?;
    pod.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    pod.signal(Signal::SIGCONT)?;
    site.cluster("default").formed(&[&pod]).await?;
    ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn guarantee_2_when_faults_stop_everybody_is_configured() -> Result {
    survived(1, Shape::Plain, 2).await
}

#[tokio::test]
async fn guarantee_2_holds_where_all_are_stopped_first_and_depend_on_others() -> Result {
    survived(2, Shape::FullShutdown, 1).await
}
