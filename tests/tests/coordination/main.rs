//! Both stores keep the same promises, and pods coordinate through a real ZooKeeper.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of it is test"
)]

mod contract;
mod members;
mod zookeeper;

use std::{sync::Arc, time::Duration};

use ochopod::coord::{Access, Coordination, Ensemble, Mode, Op, Watch};
use ochopod_tests::ZooKeeper;
use tokio::time;

/// How long anything may take that does not wait for a timeout of ZooKeeper.
const SOON: Duration = Duration::from_secs(5);

fn ensemble(server: &ZooKeeper, chroot: &str, timeout: Duration) -> Ensemble {
    let address = format!("zk://{}{chroot}", server.address()).parse().unwrap();
    Ensemble::ZooKeeper { address, timeout }
}

fn create(path: &str, data: &str, mode: Mode) -> Op {
    Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec(), mode, access: Access::Cluster }
}

/// A session, and the persistent node `/top`.
async fn session(store: &Ensemble) -> Arc<dyn Coordination> {
    let session = store.connect().await.unwrap();
    if session.read("/top").await.unwrap().is_none() {
        session.commit(vec![create("/top", "", Mode::Persistent)]).await.unwrap();
    }
    session
}

async fn fires(what: &str, watch: &mut Watch) {
    assert!(time::timeout(SOON, watch).await.is_ok(), "the watch should have completed: {what}");
}
