//! Contracts of the coordination store, verified against the embedded store and a real ZooKeeper.
//!
//! | module | verifies |
//! |---|---|
//! | `contract` | the interface of the crate: registration, leadership, observation, fenced commits |
//! | `nodes` | the layer of nodes below it |
//! | `members`, `zookeeper` | outages of a real ZooKeeper |

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of it is test"
)]

/// Runs each test against each store.
macro_rules! contract {
    ($($test:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $test() {
                super::$test(ochopod_store::StoreBackend::embedded(ochopod_store::EmbeddedStore::new(crate::SESSION))).await;
            })*
        }
        mod zookeeper {
            $(#[tokio::test] async fn $test() {
                let server = ochopod_tests::ZooKeeper::shared().await.unwrap();
                super::$test(crate::zookeeper(&server, concat!("/", stringify!($test)), crate::SESSION)).await;
            })*
        }
    };
}

mod contract;
mod members;
mod nodes;
mod zookeeper;

use std::{sync::Arc, time::Duration};

use ochopod_model::{ClusterName, PodId};
use ochopod_store::{
    Leadership, Membership, MembershipHandle, StoreBackend,
    znodes::{Coordination, Mode, NodeAccess, Op, Watch},
};
use ochopod_tests::ZooKeeper;
use tokio::{task::JoinHandle, time};

/// Limit of everything that does not wait for a timeout of ZooKeeper.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Session timeout where no test waits for it: a session that is not closed ends later than is waited for that.
const SESSION: Duration = Duration::from_secs(30);

fn zookeeper(server: &ZooKeeper, chroot: &str, timeout: Duration) -> StoreBackend {
    let address = format!("zk://{}{chroot}", server.address()).parse().unwrap();
    StoreBackend::zookeeper(address, timeout)
}

fn create(path: &str, data: &str, mode: Mode) -> Op {
    Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec(), mode, access: NodeAccess::Cluster }
}

/// Opens a session, and creates the persistent node `/top`.
async fn session(store: &StoreBackend) -> Arc<dyn Coordination> {
    let session = store.nodes().connect().await.unwrap();
    if session.read("/top").await.unwrap().is_none() {
        session.commit(vec![create("/top", "", Mode::Persistent)]).await.unwrap();
    }
    session
}

async fn fires(what: &str, watch: &mut Watch) {
    assert!(time::timeout(DEFAULT_TIMEOUT, watch).await.is_ok(), "the watch should have completed: {what}");
}

/// A pod of a cluster of the namespace `ns`.
struct Pod {
    member: MembershipHandle,
    actor: JoinHandle<()>,
}

impl Pod {
    fn start(store: &StoreBackend, cluster: &str, id: &str) -> Self {
        let registration = serde_json::json!({"ip": "127.0.0.1", "port": "8080"}).as_object().unwrap().clone();
        let cluster = ClusterName::new("ns", cluster).unwrap();
        let (member, actor) = MembershipHandle::start(store.clone(), &cluster, PodId::from(id), registration);
        Self { member, actor: tokio::spawn(actor) }
    }

    async fn until(&self, what: &str, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = self.member.watch();
        let reached = time::timeout(Duration::from_mins(1), watch.wait_for(condition)).await;
        reached.unwrap_or_else(|_| panic!("not within 60 s: {what}")).unwrap().clone()
    }

    async fn registered(&self) -> u64 {
        self.until("registered", |m| m.registered.is_some()).await.registered.unwrap().seq
    }

    async fn leading(&self) -> Leadership {
        self.until("leading", |m| m.leadership.is_some()).await.leadership.unwrap()
    }

    /// Waits for a leadership after this epoch.
    async fn leading_after(&self, epoch: i64) -> Leadership {
        let is_later = |m: &Membership| m.leadership.as_ref().is_some_and(|l| l.epoch > epoch);
        self.until("leading again", is_later).await.leadership.unwrap()
    }
}
