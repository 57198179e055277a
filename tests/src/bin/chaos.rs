//! `make chaos`: faults in a cluster on a real ensemble, one run for each shape of clusters.
//!
//! `SEED` repeats the schedule of an earlier run, `MINUTES` is the approximate duration of all runs. `SHAPE` selects
//! one of them: `plain`, `full-shutdown` or `sequential`.

#![allow(clippy::print_stdout, reason = "what happens is what it is for")]

use std::{
    env,
    str::FromStr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use ochopod_tests::{
    Result,
    chaos::{self, ChaosReport, ClusterShape, RunLength},
};

/// Duration of the faults before everything must converge.
const ROUND: Duration = Duration::from_secs(30);
const MINUTES: f64 = 5.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    tokio::select! {
        outcome = run_all() => outcome,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for an interrupt"),
    }
}

async fn run_all() -> Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = setting("SEED")?.unwrap_or(now % 100_000);
    let minutes: f64 = setting("MINUTES")?.unwrap_or(MINUTES);
    let wanted: Option<String> = setting("SHAPE")?;
    let shapes =
        ClusterShape::ALL.into_iter().filter(|shape| wanted.as_ref().is_none_or(|name| *name == shape.to_string()));
    let shapes: Vec<ClusterShape> = shapes.collect();
    ensure!(!shapes.is_empty(), "SHAPE is {wanted:?}, expected plain, full-shutdown or sequential");
    let (begin, each) = (Instant::now(), Duration::try_from_secs_f64(minutes * 60.0)? / u32::try_from(shapes.len())?);
    let mut report = ChaosReport::default();
    for shape in shapes {
        report.add(chaos::run(seed, shape, RunLength::Time(each), ROUND).await?);
    }
    println!("\nseed {seed}: {:.1} minutes", begin.elapsed().as_secs_f64() / 60.0);
    println!("{report}");
    Ok(())
}

/// Returns a variable, if it is set and not empty.
fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    let text = env::var(name).ok().filter(|text| !text.is_empty());
    text.map(|text| text.parse().with_context(|| format!("{name} is {text:?}"))).transpose()
}
