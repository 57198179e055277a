//! Ochopod as an operator uses it: the real binary, real ZooKeeper, real redis.
//!
//! One binary, so that it is linked once. Scenarios run concurrently, each in a chroot and on addresses of its own.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]

mod access;
mod batches;
mod control_api;
mod deleted_nodes;
mod dependencies;
mod deployments;
mod documentation;
mod embedded;
mod etcd_cluster;
mod follower;
mod foreign_nodes;
mod guarantees;
mod hardening;
mod images;
mod interceptable_cluster;
mod json_schema;
mod kit_tests;
mod leader_with_fakes;
mod leadership;
mod lifecycle;
mod mixed_cluster;
mod monitoring;
mod numbers;
mod openapi;
mod operations;
mod peer_failures;
mod platforms;
mod readiness;
mod redis;
mod releases;
mod reload;
mod request_validation;
mod rollout;
mod secrets;
mod signals;
mod start_failures;
mod status_monitor;
mod stopped;
mod stopping;
mod sub_process_identity;
mod supervision;
mod tools;
mod zookeeper_access;

use ochopod_tests::{Pod, PodBuilder, Result, TestEnv, artifacts};

/// Command of most sub-processes here, after they have reported their start.
const SLEEP: &str = "exec sleep 86400";

/// Returns a pod of the misbehaving guest without a misbehaviour, with a sub-process whose starts are counted.
fn pod(env: &TestEnv) -> PodBuilder {
    let guest = artifacts::misbehaving().unwrap_or_default();
    env.pod(&guest).count_starts(SLEEP).set("set_grace", "5")
}

/// Returns a pod that leads a cluster of its own and runs its sub-process.
async fn running(complete: impl Fn(PodBuilder) -> PodBuilder) -> Result<(TestEnv, Pod)> {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(1, |env| complete(pod(env))).await?;
    Ok((env, pods.remove(0)))
}

fn all(pods: &[Pod]) -> Vec<&Pod> {
    pods.iter().collect()
}

/// Checks that the sub-process of each of these was started exactly once. It runs a moment before it reports its start.
async fn started_once(pods: &[Pod]) -> Result {
    for pod in pods {
        pod.started(1).await?;
        anyhow::ensure!(pod.starts()?.len() == 1, "{} was started {} times", pod.address(), pod.starts()?.len());
    }
    Ok(())
}
