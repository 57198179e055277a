//! Guarantee 2: when faults stop, every live pod is registered once and has answered 200 to `on` with the current view,
//! within a bounded time; nobody is left off.
//!
//! Short storms, the same in every run; `make chaos` makes long ones. They also hold what they see of guarantees 1, 3, 4
//! and 6.

use std::time::Duration;

use anyhow::ensure;
use ochopod_tests::{
    Result,
    chaos::{Length, Shape, storm},
};

async fn survived(seed: u64, shape: Shape, rounds: u32) -> Result {
    let ledger = storm(seed, shape, Length::Rounds(rounds), Duration::from_secs(5)).await?;
    ensure!(ledger.broken.is_empty(), "{ledger}");
    ensure!(!ledger.faults.is_empty() && ledger.configurations > 0, "nothing happened: {ledger}");
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
