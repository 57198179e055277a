//! Times of events, as ZooKeeper's watches report them.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{ClusterNodes, Result};
use zookeeper_client::Error;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until exactly this number of pods is configured by a write of `hash` after this transaction. Returns the time.
pub(crate) async fn configured(cluster: &ClusterNodes<'_>, pods: usize, after: i64) -> Result<Instant> {
    let wait = async {
        let client = cluster.store().client();
        let path = cluster.path("hash");
        loop {
            let watcher = match client.get_and_watch_data(&path).await {
                Ok((hash, stat, watcher)) => {
                    let seen = Instant::now();
                    let done = stat.mzxid > after && !hash.is_empty() && !hash.starts_with(b"pending:");
                    if done && cluster.snapshot().await.is_ok_and(|snapshot| snapshot.len() == pods) {
                        return anyhow::Ok(seen);
                    }
                    watcher
                }
                Err(Error::NoNode) => match client.check_and_watch_stat(&path).await? {
                    (None, watcher) => watcher,
                    (Some(_), _) => continue,
                },
                Err(error) => return Err(error.into()),
            };
            watcher.changed().await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait)
        .await
        .with_context(|| format!("{pods} pods were not configured in {TIMEOUT:?}"))?
}

/// Waits until this number of pods is registered. Returns the time.
pub(crate) async fn registered(cluster: &ClusterNodes<'_>, pods: usize) -> Result<Instant> {
    let wait = async {
        let client = cluster.store().client();
        loop {
            let (names, watcher) = client.list_and_watch_children(&cluster.path("pods")).await?;
            let seen = Instant::now();
            if names.len() == pods {
                return anyhow::Ok(seen);
            }
            ensure!(names.len() < pods, "{} pods are registered", names.len());
            watcher.changed().await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.with_context(|| format!("{pods} pods did not register in {TIMEOUT:?}"))?
}
