//! `make bench`: costs and latencies of the release binary, on a real ZooKeeper that waits for its disk.
//!
//! | | |
//! |---|---|
//! | `boot` | process start to configured; restarts; plugins cold, cached and compiled |
//! | `cluster` | joins, hand-overs, a leader that is killed |
//! | `idle` | memory, CPU and ZooKeeper's packets while nothing happens |
//! | `load` | `/info` per second |
//! | `pilot` | memory, threads and speed of `ochopod pilot` |
//! | `guests` | latency of the control API with misbehaving guests |
//! | `views` | checks of a view of 1,000 pods, by what the plugin reads of it |
//! | `figures` | samples, and the table with the targets and the Python SDK's figures |
//!
//! `tests/bench-baseline.json` contains the medians of the run that later ones are compared with. `make bench
//! BASELINE=write` replaces it.
//!
//! Times end when ZooKeeper's watch reports the `hash` that the configuration writes last.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is for")]
#![allow(clippy::indexing_slicing, reason = "indexing is how JSON is looked into")]

mod boot;
mod cluster;
mod figures;
mod guests;
mod idle;
mod load;
mod pilot;
mod views;
mod watch;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use figures::Table;
use ochopod_tests::{PodBuilder, Result, TestEnv, ZooKeeper, artifacts};

/// State shared by all measurements.
struct Bench {
    zookeeper: Arc<ZooKeeper>,
    cache: tempfile::TempDir,
}

impl Bench {
    /// Returns an environment for one measurement.
    async fn env(&self) -> Result<TestEnv> {
        TestEnv::with_zookeeper(self.zookeeper.clone()).await
    }

    /// Returns a pod of the release binary, with the plugin `hello` compiled before.
    fn pod(&self, env: &TestEnv) -> Result<PodBuilder> {
        self.of_release(env.pod(&artifacts::plugin("hello")?))
    }

    fn of_release(&self, pod: PodBuilder) -> Result<PodBuilder> {
        Ok(pod.binary(&artifacts::released()?).set("cache", self.cache.path().display()).quiet())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let zookeeper = Arc::new(ZooKeeper::durable().await?);
    let private = Permissions::from_mode(0o700);
    let cache = tempfile::Builder::new().prefix("ochopod-bench-").permissions(private).tempdir()?;
    let bench = Bench { zookeeper, cache };
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-baseline.json");
    let mut table = match fs::read_to_string(&baseline) {
        Ok(medians) => Table::compared_with(&medians)?,
        Err(_) => Table::default(),
    };
    boot::measure(&bench, &mut table).await?;
    cluster::measure(&bench, &mut table).await?;
    idle::measure(&bench, &mut table).await?;
    load::measure(&bench, &mut table).await?;
    guests::measure(&bench, &mut table).await?;
    views::measure(&bench, &mut table).await?;
    pilot::measure(&mut table).await?;
    println!("{table}");
    if env::var_os("BASELINE").is_some_and(|word| word == "write") {
        fs::write(&baseline, format!("{:#}\n", table.medians()))?;
    }
    Ok(())
}
