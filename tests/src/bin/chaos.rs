//! `make chaos`: storms of faults over a real ensemble, one for each shape of clusters.
//!
//! `SEED` repeats the schedule of an earlier run, `MINUTES` is how long all storms take together, about. `SHAPE` makes
//! just one of them: `plain`, `full-shutdown` or `sequential`.

#![allow(clippy::print_stdout, reason = "what happens is what it is for")]

use std::{
    env,
    str::FromStr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use ochopod_tests::{
    Result,
    chaos::{Ledger, Length, Shape, storm},
};

/// How long faults are made before everything has to become whole.
const ROUND: Duration = Duration::from_secs(30);
const MINUTES: f64 = 5.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    tokio::select! {
        outcome = storms() => outcome,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for an interrupt"),
    }
}

async fn storms() -> Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = setting("SEED")?.unwrap_or(now % 100_000);
    let minutes: f64 = setting("MINUTES")?.unwrap_or(MINUTES);
    let wanted: Option<String> = setting("SHAPE")?;
    let shapes = Shape::ALL.into_iter().filter(|shape| wanted.as_ref().is_none_or(|name| *name == shape.to_string()));
    let shapes: Vec<Shape> = shapes.collect();
    ensure!(!shapes.is_empty(), "SHAPE is {wanted:?}, expected plain, full-shutdown or sequential");
    let (begin, each) = (Instant::now(), Duration::try_from_secs_f64(minutes * 60.0)? / u32::try_from(shapes.len())?);
    let mut ledger = Ledger::default();
    for shape in shapes {
        ledger.add(storm(seed, shape, Length::Time(each), ROUND).await?);
    }
    println!("\nseed {seed}: {:.1} minutes", begin.elapsed().as_secs_f64() / 60.0);
    println!("{ledger}");
    Ok(())
}

/// A variable, when it is set to something.
fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    let text = env::var(name).ok().filter(|text| !text.is_empty());
    text.map(|text| text.parse().with_context(|| format!("{name} is {text:?}"))).transpose()
}
