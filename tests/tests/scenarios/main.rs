//! What users of ochopod see: the real binary, real ZooKeeper, real redis.
//!
//! One binary, so that it is linked once. Scenarios run side by side, each in a chroot and on addresses of its own.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]

mod access;
mod control_api;
mod dependencies;
mod documents;
mod embedded;
mod fleet;
mod follower;
mod guarantees;
mod kit;
mod leadership;
mod led;
mod lifecycle;
mod mixed_fleet;
mod peers;
mod redis;
mod refusals;
mod rollout;
mod strictness;
mod sub_process_identity;
mod supervision;
mod tools;
mod witness;
mod zookeeper_access;

use ochopod_tests::{Pod, PodBuilder, Result, Site, artifacts};

/// What most sub-processes here do, after they said that they are there.
const SLEEP: &str = "exec sleep 86400";

/// A pod of the misbehaving guest, which behaves, with a sub-process whose starts are counted.
fn pod(site: &Site) -> PodBuilder {
    let guest = artifacts::misbehaving().unwrap_or_default();
    site.pod(&guest).counted(SLEEP).set("set_grace", "5")
}

/// A pod that leads a cluster of its own and runs its sub-process.
async fn running(complete: impl Fn(PodBuilder) -> PodBuilder) -> Result<(Site, Pod)> {
    let site = Site::new().await?;
    let mut pods = site.form(1, |site| complete(pod(site))).await?;
    Ok((site, pods.remove(0)))
}

fn all(pods: &[Pod]) -> Vec<&Pod> {
    pods.iter().collect()
}

/// The sub-process of each of these was started once and no more.
fn started_once(pods: &[Pod]) -> Result {
    for pod in pods {
        anyhow::ensure!(pod.starts()?.len() == 1, "{} was started {} times", pod.address(), pod.starts()?.len());
    }
    Ok(())
}
