//! What is special to ZooKeeper.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use ochopod::{
    coord::{Access, Ensemble, Mode, Op},
    discovery::{Discovery, DiscoveryError, Place, Registration, ZooKeeper as Ephemeral},
};
use ochopod_tests::{ZooKeeper, eventually};
use tokio::time::{sleep, timeout};

use crate::{SOON, Server, found, found_within, look, mark, registration, sought};

const PATIENCE: Duration = Duration::from_secs(20);
const SESSION: Duration = Duration::from_secs(2);

pub(crate) struct Own(ZooKeeper);

impl Server for Own {
    async fn start() -> Self {
        Self(ZooKeeper::own().await.unwrap())
    }

    fn place(&self) -> Place {
        Place::ZooKeeper(self.0.address().to_string().parse().unwrap())
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

fn ensemble(server: &ZooKeeper, chroot: &str) -> Ensemble {
    let address = format!("zk://{}/{chroot}", server.address()).parse().unwrap();
    Ensemble::ZooKeeper { address, timeout: SESSION }
}

pub(crate) async fn alone(chroot: &str) -> (Arc<ZooKeeper>, Arc<dyn Discovery>) {
    let server = ZooKeeper::shared().await.unwrap();
    let place = Ephemeral::new(ensemble(&server, chroot));
    (server, Arc::new(place))
}

fn forgotten() -> Result<(), DiscoveryError> {
    Err(DiscoveryError::Forgotten("web-a".to_owned()))
}

#[tokio::test]
async fn an_instance_is_an_ephemeral_node() {
    let (server, place) = alone("node").await;
    let tags = vec!["x".to_owned()];
    place.register(&Registration { tags, ..registration("web", "a", 8080) }).await.unwrap();
    let session = ensemble(&server, "node").connect().await.unwrap();
    let node = session.read("/ochopod/services/web/web-a").await.unwrap().expect("there is no such node");
    assert!(node.owner.is_some());
    let content: serde_json::Value = serde_json::from_slice(&node.data).unwrap();
    let expected =
        serde_json::json!({"id": "web-a", "name": "web", "address": "10.0.0.1", "port": 8080, "tags": ["x"]});
    assert_eq!(content, expected);
}

#[tokio::test]
async fn who_lost_the_session_is_forgotten_and_may_register_again() {
    let server = ZooKeeper::own().await.unwrap();
    let place = Ephemeral::new(ensemble(&server, ""));
    let web = registration("web", "a", 8080);
    place.register(&web).await.unwrap();
    place.pass(&web).await.unwrap();
    server.freeze().unwrap();
    sleep(SESSION * 3).await;
    assert!(matches!(place.pass(&web).await, Err(DiscoveryError::Unavailable(_))));
    server.thaw().unwrap();
    let told = eventually("it is told that it is forgotten", SOON * 10, async || {
        let passed = place.pass(&web).await;
        ensure!(passed == forgotten(), "{passed:?}");
        Ok(())
    });
    told.await.unwrap();
    place.register(&web).await.unwrap();
    // What the lost session left behind does not take the new one with it.
    sleep(SESSION * 2).await;
    place.pass(&web).await.unwrap();
    found(&place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn what_an_earlier_session_left_behind_is_replaced_at_once() {
    let (server, place) = alone("leftover").await;
    place.register(&registration("web", "other", 1)).await.unwrap();
    let earlier = ensemble(&server, "leftover").connect().await.unwrap();
    let create = Op::Create {
        path: "/ochopod/services/web/web-a".to_owned(),
        data: br#"{"id":"web-a","name":"web","address":"h","port":1}"#.to_vec(),
        mode: Mode::Ephemeral,
        access: Access::Readable,
    };
    earlier.commit(vec![create]).await.unwrap();
    let web = registration("web", "a", 2);
    assert_eq!(place.pass(&web).await, forgotten(), "it goes with its session");
    place.register(&web).await.unwrap();
    earlier.close().await;
    place.pass(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:2", "web-other at 10.0.0.1:1"]).await;
}

#[tokio::test]
async fn many_may_be_the_first_of_a_service() {
    let server = ZooKeeper::shared().await.unwrap();
    let places: Vec<_> = (0..8).map(|_| Ephemeral::new(ensemble(&server, "first"))).collect();
    let registrations: Vec<_> = (0..8).map(|host| registration("web", &host.to_string(), 80)).collect();
    let registering = places.iter().zip(&registrations).map(|(place, web)| place.register(web));
    for registered in futures_util::future::join_all(registering).await {
        registered.unwrap();
    }
    assert_eq!(look(&places[0], &sought("web")).await.instances.len(), 8);
}

#[tokio::test]
async fn instances_go_soon_when_their_host_lets_go_of_the_place() {
    let (server, place) = alone("dropped").await;
    let other = Ephemeral::new(ensemble(&server, "dropped"));
    place.register(&registration("web", "a", 1)).await.unwrap();
    other.register(&registration("web", "b", 2)).await.unwrap();
    let mark = mark(&*place, &sought("web")).await;
    drop(other);
    let waited = timeout(SESSION, place.instances(&sought("web"), Some(mark), PATIENCE)).await;
    assert_eq!(waited.expect("it waits on").unwrap().instances.len(), 1);
}

#[tokio::test]
async fn what_was_removed_by_hand_is_forgotten_at_the_next_pass() {
    let (server, place) = alone("by-hand").await;
    let web = registration("web", "a", 8080);
    place.register(&web).await.unwrap();
    let session = ensemble(&server, "by-hand").connect().await.unwrap();
    session.commit(vec![Op::Delete("/ochopod/services/web/web-a".to_owned())]).await.unwrap();
    assert_eq!(place.pass(&web).await, forgotten());
    place.register(&web).await.unwrap();
    place.pass(&web).await.unwrap();
}

#[tokio::test]
async fn what_is_no_instance_is_skipped() {
    let (server, place) = alone("garbage").await;
    place.register(&registration("web", "a", 1)).await.unwrap();
    let session = ensemble(&server, "garbage").connect().await.unwrap();
    let create = |name: &str, data: &str| {
        let (path, data) = (format!("/ochopod/services/web/{name}"), data.as_bytes().to_vec());
        Op::Create { path, data, mode: Mode::Persistent, access: Access::Open }
    };
    session.commit(vec![create("empty", ""), create("rubbish", "\u{1}x")]).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:1"]).await;
}

#[tokio::test]
async fn waiting_leaves_no_watches_behind() {
    let server = ZooKeeper::own().await.unwrap();
    let place = Ephemeral::new(ensemble(&server, ""));
    for host in ["a", "b", "c"] {
        place.register(&registration("web", host, 1)).await.unwrap();
    }
    let web = sought("web");
    let mark = mark(&place, &web).await;
    for _ in 0..5 {
        place.instances(&web, Some(mark), Duration::from_millis(50)).await.unwrap();
        let waiting = place.instances(&web, Some(mark), PATIENCE);
        assert!(timeout(Duration::from_millis(50), waiting).await.is_err(), "it ended by itself");
    }
    let gone = eventually("no watch is left", SOON, async || {
        let told = server.ask("wchs").await?;
        ensure!(told.contains("Total watches:0"), "{told}");
        Ok(())
    });
    gone.await.unwrap();
    let sessions = server.ask("cons").await.unwrap().matches("sid=").count();
    assert_eq!(sessions, 1, "one session is enough");
}

#[tokio::test]
async fn who_may_not_read_is_told_so() {
    let server = ZooKeeper::shared().await.unwrap();
    let with = |credentials: &str, world_readable: bool| {
        let address = format!("zk://{credentials}{}/secret", server.address()).parse().unwrap();
        let address: ochopod::coord::ZooKeeperAddress = address;
        let address = if world_readable { address.world_readable() } else { address };
        Ephemeral::new(Ensemble::ZooKeeper { address, timeout: SESSION })
    };
    let (own, open, stranger) = (with("me:secret@", false), with("me:secret@", true), with("", false));
    own.register(&registration("own", "a", 1)).await.unwrap();
    open.register(&registration("open", "a", 1)).await.unwrap();
    stranger.register(&registration("open", "b", 2)).await.unwrap();
    found(&own, &sought("own"), &["own-a at 10.0.0.1:1"]).await;
    found(&stranger, &sought("open"), &["open-a at 10.0.0.1:1", "open-b at 10.0.0.1:2"]).await;
    let refused = stranger.instances(&sought("own"), None, Duration::ZERO).await;
    assert!(matches!(refused, Err(DiscoveryError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_session_goes_on_after_a_short_outage() {
    let server = ZooKeeper::own().await.unwrap();
    let place = Ephemeral::new(Ensemble::ZooKeeper {
        address: server.address().to_string().parse().unwrap(),
        timeout: Duration::from_secs(10),
    });
    let web = registration("web", "a", 8080);
    place.register(&web).await.unwrap();
    server.stop().unwrap();
    sleep(SOON).await;
    server.start().await.unwrap();
    eventually("it is still registered", SOON * 5, async || Ok(place.pass(&web).await?)).await.unwrap();
    found_within(SOON, &place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}
