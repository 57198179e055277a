//! Specifics of ZooKeeper.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use ochopod_discovery::{Registry, RegistryConfig, RegistryError, ServiceRegistration, ZooKeeper as Ephemeral};
use ochopod_store::{
    StoreBackend,
    znodes::{Mode, NodeAccess, Op},
};
use ochopod_tests::{ZooKeeper, eventually};
use tokio::time::{sleep, timeout};

use crate::{DEFAULT_TIMEOUT, Server, find, found, found_within, invalid_entries, query, registration, settled_index};

const TIMEOUT: Duration = Duration::from_mins(1);
const SESSION: Duration = Duration::from_secs(10);
/// A session that expires in a test.
const BRIEF: Duration = Duration::from_secs(3);

pub(crate) struct TestServer(ZooKeeper);

impl Server for TestServer {
    async fn start() -> Self {
        Self(ZooKeeper::own().await.unwrap())
    }

    fn registry(&self) -> RegistryConfig {
        RegistryConfig::ZooKeeper(self.0.address().to_string().parse().unwrap())
    }

    async fn stop(&mut self) {
        self.0.stop().unwrap();
    }

    async fn restart(&mut self) {
        self.0.start().await.unwrap();
    }

    fn freeze(&self) {
        self.0.freeze().unwrap();
    }

    fn thaw(&self) {
        self.0.thaw().unwrap();
    }
}

fn ensemble(server: &ZooKeeper, chroot: &str) -> StoreBackend {
    let address = format!("zk://{}/{chroot}", server.address()).parse().unwrap();
    StoreBackend::zookeeper(address, SESSION)
}

pub(crate) async fn alone(chroot: &str) -> (Arc<ZooKeeper>, Arc<dyn Registry>) {
    let server = ZooKeeper::shared().await.unwrap();
    let registry = Ephemeral::new(ensemble(&server, chroot));
    (server, Arc::new(registry))
}

fn forgotten() -> Result<(), RegistryError> {
    Err(RegistryError::NotRegistered("web-a".to_owned()))
}

#[tokio::test]
async fn instance_is_an_ephemeral_node() {
    let (server, registry) = alone("node").await;
    let tags = vec!["x".to_owned()];
    registry.register(&ServiceRegistration { tags, ..registration("web", "a", 8080) }).await.unwrap();
    let session = ensemble(&server, "node").nodes().connect().await.unwrap();
    let node = session.read("/ochopod/services/web/web-a").await.unwrap().expect("no such node");
    assert!(node.owner.is_some());
    let content: serde_json::Value = serde_json::from_slice(&node.data).unwrap();
    let expected =
        serde_json::json!({"id": "web-a", "name": "web", "address": "10.0.0.1", "port": 8080, "tags": ["x"]});
    assert_eq!(content, expected);
}

#[tokio::test]
async fn lost_session_is_reported_and_the_instance_registers_again() {
    let server = ZooKeeper::own().await.unwrap();
    let address = server.address().to_string().parse().unwrap();
    let registry = Ephemeral::new(StoreBackend::zookeeper(address, BRIEF));
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
    server.freeze().unwrap();
    sleep(BRIEF * 3).await;
    assert!(matches!(registry.pass(&web).await, Err(RegistryError::Unavailable(_))));
    server.thaw().unwrap();
    let reported = eventually("the lost registration is reported", DEFAULT_TIMEOUT * 10, async || {
        let passed = registry.pass(&web).await;
        ensure!(passed == forgotten(), "{passed:?}");
        Ok(())
    });
    reported.await.unwrap();
    registry.register(&web).await.unwrap();
    // Expired nodes of the lost session do not remove the new one.
    sleep(BRIEF * 2).await;
    registry.pass(&web).await.unwrap();
    found(&registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn leftover_of_an_earlier_session_is_replaced_immediately() {
    let (server, registry) = alone("leftover").await;
    registry.register(&registration("web", "other", 1)).await.unwrap();
    let earlier = ensemble(&server, "leftover").nodes().connect().await.unwrap();
    let create = Op::Create {
        path: "/ochopod/services/web/web-a".to_owned(),
        data: br#"{"id":"web-a","name":"web","address":"h","port":1}"#.to_vec(),
        mode: Mode::Ephemeral,
        access: NodeAccess::Readable,
    };
    earlier.commit(vec![create]).await.unwrap();
    let web = registration("web", "a", 2);
    assert_eq!(registry.pass(&web).await, forgotten(), "it goes with its session");
    registry.register(&web).await.unwrap();
    earlier.close().await;
    registry.pass(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:2", "web-other at 10.0.0.1:1"]).await;
}

#[tokio::test]
async fn entries_with_invalid_addresses_are_skipped() {
    let (server, registry) = alone("invalid").await;
    registry.register(&registration("db", "a", 5432)).await.unwrap();
    let other = ensemble(&server, "invalid").nodes().connect().await.unwrap();
    let create = |(number, content): (usize, String)| Op::Create {
        path: format!("/ochopod/services/db/i{number}"),
        data: content.into_bytes(),
        mode: Mode::Ephemeral,
        access: NodeAccess::Readable,
    };
    other.commit(invalid_entries().into_iter().enumerate().map(create).collect()).await.unwrap();
    found(&*registry, &query("db"), &["db-a at 10.0.0.1:5432"]).await;
}

#[tokio::test]
async fn concurrent_first_registrations_of_a_service_succeed() {
    let server = ZooKeeper::shared().await.unwrap();
    let places: Vec<_> = (0..8).map(|_| Ephemeral::new(ensemble(&server, "first"))).collect();
    let registrations: Vec<_> = (0..8).map(|host| registration("web", &host.to_string(), 80)).collect();
    let registering = places.iter().zip(&registrations).map(|(registry, web)| registry.register(web));
    for registered in futures_util::future::join_all(registering).await {
        registered.unwrap();
    }
    assert_eq!(find(&places[0], &query("web")).await.instances.len(), 8);
}

#[tokio::test]
async fn instances_are_removed_soon_after_their_client_is_dropped() {
    let (server, registry) = alone("dropped").await;
    let other = Ephemeral::new(ensemble(&server, "dropped"));
    registry.register(&registration("web", "a", 1)).await.unwrap();
    other.register(&registration("web", "b", 2)).await.unwrap();
    let mark = settled_index(&*registry, &query("web")).await;
    drop(other);
    let waited = timeout(SESSION, registry.instances(&query("web"), Some(mark), TIMEOUT)).await;
    assert_eq!(waited.expect("it waits on").unwrap().instances.len(), 1);
}

#[tokio::test]
async fn key_removed_by_hand_is_reported_by_the_next_pass() {
    let (server, registry) = alone("by-hand").await;
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    let session = ensemble(&server, "by-hand").nodes().connect().await.unwrap();
    session.commit(vec![Op::Delete("/ochopod/services/web/web-a".to_owned())]).await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten());
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
}

#[tokio::test]
async fn invalid_entries_are_skipped() {
    let (server, registry) = alone("garbage").await;
    registry.register(&registration("web", "a", 1)).await.unwrap();
    let session = ensemble(&server, "garbage").nodes().connect().await.unwrap();
    let create = |name: &str, data: &str| {
        let (path, data) = (format!("/ochopod/services/web/{name}"), data.as_bytes().to_vec());
        Op::Create { path, data, mode: Mode::Persistent, access: NodeAccess::Open }
    };
    session.commit(vec![create("empty", ""), create("rubbish", "\u{1}x")]).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:1"]).await;
}

#[tokio::test]
async fn waits_leave_no_watches_behind() {
    let server = ZooKeeper::own().await.unwrap();
    let registry = Ephemeral::new(ensemble(&server, ""));
    for host in ["a", "b", "c"] {
        registry.register(&registration("web", host, 1)).await.unwrap();
    }
    let web = query("web");
    let mark = settled_index(&registry, &web).await;
    for _ in 0..5 {
        registry.instances(&web, Some(mark), Duration::from_millis(50)).await.unwrap();
        let waiting = registry.instances(&web, Some(mark), TIMEOUT);
        assert!(timeout(Duration::from_millis(50), waiting).await.is_err(), "the wait ended");
    }
    let gone = eventually("no watch is left", DEFAULT_TIMEOUT, async || {
        let answer = server.four_letter("wchs").await?;
        ensure!(answer.contains("Total watches:0"), "{answer}");
        Ok(())
    });
    gone.await.unwrap();
    let sessions = server.four_letter("cons").await.unwrap().matches("sid=").count();
    assert_eq!(sessions, 1, "one session is enough");
}

#[tokio::test]
async fn missing_read_permission_is_reported() {
    let server = ZooKeeper::shared().await.unwrap();
    let with = |credentials: &str, world_readable: bool| {
        let address = format!("zk://{credentials}{}/secret", server.address()).parse().unwrap();
        let address: ochopod_store::ZooKeeperAddress = address;
        let address = if world_readable { address.world_readable() } else { address };
        Ephemeral::new(StoreBackend::zookeeper(address, SESSION))
    };
    let (own, open, stranger) = (with("me:secret@", false), with("me:secret@", true), with("", false));
    own.register(&registration("own", "a", 1)).await.unwrap();
    open.register(&registration("open", "a", 1)).await.unwrap();
    let refused = stranger.register(&registration("open", "b", 2)).await;
    assert!(matches!(refused, Err(RegistryError::Rejected(_))), "a stranger adds an instance: {refused:?}");
    stranger.register(&registration("other", "b", 2)).await.unwrap();
    found(&own, &query("own"), &["own-a at 10.0.0.1:1"]).await;
    found(&stranger, &query("open"), &["open-a at 10.0.0.1:1"]).await;
    let refused = stranger.instances(&query("own"), None, Duration::ZERO).await;
    assert!(matches!(refused, Err(RegistryError::Rejected(_))), "{refused:?}");
}

#[tokio::test]
async fn session_survives_a_short_outage() {
    let server = ZooKeeper::own().await.unwrap();
    let registry =
        Ephemeral::new(StoreBackend::zookeeper(server.address().to_string().parse().unwrap(), Duration::from_secs(30)));
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    server.stop().unwrap();
    sleep(Duration::from_secs(1)).await;
    server.start().await.unwrap();
    eventually("it is still registered", DEFAULT_TIMEOUT * 5, async || Ok(registry.pass(&web).await?)).await.unwrap();
    found_within(DEFAULT_TIMEOUT, &registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn service_node_of_another_client_is_rejected_unless_accepted() {
    let server = ZooKeeper::shared().await.unwrap();
    let with = |credentials: &str, strict: Option<bool>| {
        let address = format!("zk://{credentials}{}/strict", server.address()).parse().unwrap();
        let address: ochopod_store::ZooKeeperAddress = address;
        let address = strict.into_iter().fold(address, ochopod_store::ZooKeeperAddress::strict);
        Ephemeral::new(StoreBackend::zookeeper(address, SESSION))
    };
    let stranger = with("", None);
    stranger.register(&registration("web", "evil", 1)).await.unwrap();
    let web = registration("web", "a", 2);
    for strict in [None, Some(true)] {
        let refused = with("me:secret@", strict).register(&web).await;
        let Err(RegistryError::Rejected(reason)) = refused else { panic!("{refused:?}") };
        for path in ["/strict/ochopod", "/strict/ochopod/services", "/strict/ochopod/services/web"] {
            assert!(reason.contains(&format!("setAcl {path} auth::cdrwa")), "{reason}");
        }
        assert!(!reason.contains("secret"), "{reason}");
    }
    let accepting = with("me:secret@", Some(false));
    accepting.register(&web).await.unwrap();
    found(&accepting, &query("web"), &["web-a at 10.0.0.1:2", "web-evil at 10.0.0.1:1"]).await;
}

#[tokio::test]
async fn deleted_or_overwritten_node_is_reported_and_registered_again() {
    let (server, registry) = alone("deleted/deep").await;
    let root = StoreBackend::zookeeper(server.address().to_string().parse().unwrap(), SESSION);
    let session = root.nodes().connect().await.unwrap();
    let web = registration("web", "a", 8080);
    let above = "/deleted/deep/ochopod/services/web/web-a";
    registry.register(&web).await.unwrap();
    for end in above.match_indices('/').skip(1).map(|(end, _)| end).chain([above.len()]) {
        let gone = &above[..end];
        let mut path = above.to_owned();
        let mut deletions = Vec::new();
        while path.len() >= gone.len() {
            deletions.push(Op::Delete(path.clone()));
            path.truncate(path.rfind('/').unwrap());
        }
        session.commit(deletions).await.unwrap();
        assert_eq!(registry.pass(&web).await, forgotten(), "{gone}");
        registry.register(&web).await.unwrap_or_else(|error| panic!("{gone}: {error}"));
        registry.pass(&web).await.unwrap();
        found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
    }
    session.commit(vec![Op::Set { path: above.to_owned(), data: b"garbage".to_vec() }]).await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten(), "overwritten");
    registry.register(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}
