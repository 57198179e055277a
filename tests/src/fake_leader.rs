//! A fake leader.

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use crate::{Client, NodeLifetime, Reply, Result, ZkClient};

/// Holds a cluster's lock under a session of its own: pods that start later stay followers.
#[derive(Debug)]
pub struct FakeLeader {
    store: ZkClient,
    path: String,
    epoch: i64,
}

impl FakeLeader {
    pub(crate) async fn acquire(store: &ZkClient, root: &str) -> Result<Self> {
        let store = store.another().await?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path =
            store.create(&format!("{root}/coordinator/{name}__lock__"), b"", NodeLifetime::SessionNumbered).await?;
        let epoch = store.find(&path).await?.map(|(_, stat)| stat.czxid).unwrap_or_default();
        Ok(Self { store, path, epoch })
    }

    /// Returns the epoch of this leadership.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Posts a task with this leadership's epoch.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, to: &Client, task: &str, generation: &str, body: &Value) -> Result<Reply> {
        post(to, task, self.epoch, generation, body).await
    }

    /// Posts a task with the epoch of another leadership.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post_as(&self, epoch: i64, to: &Client, task: &str, generation: &str, body: &Value) -> Result<Reply> {
        post(to, task, epoch, generation, body).await
    }

    /// Releases the lock. The epoch can still be sent.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn resign(&self) -> Result {
        self.store.delete(&self.path).await
    }
}

async fn post(to: &Client, task: &str, epoch: i64, generation: &str, body: &Value) -> Result<Reply> {
    let epoch = epoch.to_string();
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("x-ochopod-epoch", &epoch),
        ("x-ochopod-generation", generation),
    ];
    to.send(Method::POST, &format!("/control/{task}/60"), &headers, Bytes::from(body.to_string())).await
}
