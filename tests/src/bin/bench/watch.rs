//! Moments, as ZooKeeper's watches tell them.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{Cluster, Result};
use zookeeper_client::Error;

const LIMIT: Duration = Duration::from_secs(30);

/// Waits until exactly so many pods are configured by a write of `hash` after this transaction, and tells when.
pub(crate) async fn configured(cluster: &Cluster<'_>, pods: usize, after: i64) -> Result<Instant> {
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
    tokio::time::timeout(LIMIT, wait).await.with_context(|| format!("{pods} pods were not configured in {LIMIT:?}"))?
}

/// Waits until so many pods are registered, and tells when.
pub(crate) async fn registered(cluster: &Cluster<'_>, pods: usize) -> Result<Instant> {
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
    tokio::time::timeout(LIMIT, wait).await.with_context(|| format!("{pods} pods did not register in {LIMIT:?}"))?
}
