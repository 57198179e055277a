//! `make bench`: what the release binary costs and how quick it is, on a real ZooKeeper that waits for its disk.
//!
//! | | |
//! |---|---|
//! | `boot` | process start to configured; restarts; plugins cold, cached and compiled |
//! | `cluster` | joins, hand-overs, a leader that is killed |
//! | `idle` | memory, CPU and ZooKeeper's packets while nothing happens |
//! | `load` | `/info` per second |
//! | `pilot` | memory, threads and speed of `ochopod pilot` |
//! | `guests` | how quickly control answers while guests misbehave |
//! | `figures` | samples, and the table beside the targets and the Python SDK's figures |
//!
//! Times end when ZooKeeper's watch tells of the `hash` that the configuration writes last.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is for")]
#![allow(clippy::indexing_slicing, reason = "indexing is how JSON is looked into")]

mod boot;
mod cluster;
mod figures;
mod guests;
mod idle;
mod load;
mod pilot;
mod watch;

use std::{fs::Permissions, os::unix::fs::PermissionsExt, sync::Arc};

use ochopod_tests::{PodBuilder, Result, Site, ZooKeeper, artifacts};

use figures::Table;

/// What all measurements share.
struct Bench {
    zookeeper: Arc<ZooKeeper>,
    cache: tempfile::TempDir,
}

impl Bench {
    /// A corner of its own for one measurement.
    async fn site(&self) -> Result<Site> {
        Site::on(self.zookeeper.clone()).await
    }

    /// A pod of the release binary, with the plugin `hello` compiled before.
    fn pod(&self, site: &Site) -> Result<PodBuilder> {
        self.of_release(site.pod(&artifacts::plugin("hello")?))
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
    let mut table = Table::default();
    boot::measure(&bench, &mut table).await?;
    cluster::measure(&bench, &mut table).await?;
    idle::measure(&bench, &mut table).await?;
    load::measure(&bench, &mut table).await?;
    guests::measure(&bench, &mut table).await?;
    pilot::measure(&mut table).await?;
    println!("{table}");
    Ok(())
}
