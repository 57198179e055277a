//! Sessions with a real ZooKeeper.

use std::time::{Duration, Instant};

use ochopod_store::{CoordError, SessionState, StoreBackend, znodes::Mode};
use ochopod_tests::{ZooKeeper, free_port};
use tokio::time;

use crate::{DEFAULT_TIMEOUT, SESSION, create, fires, session, zookeeper};

#[tokio::test]
async fn unreachable_server_is_reported_within_the_session_timeout() {
    for host in [format!("127.0.0.1:{}", free_port().unwrap()), "does-not-exist.invalid:2181".to_owned()] {
        let timeout = Duration::from_secs(2);
        let ensemble = StoreBackend::zookeeper(host.parse().unwrap(), timeout);
        let before = Instant::now();
        let error = ensemble.nodes().connect().await.map(|session| session.id()).unwrap_err();
        assert!(matches!(error, CoordError::Unavailable(_)), "{error}");
        assert!(before.elapsed() < timeout * 4, "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn chroot_is_created_and_contains_all_nodes() {
    let server = ZooKeeper::shared().await.unwrap();
    let inside = zookeeper(&server, "/over/the/hills", DEFAULT_TIMEOUT).nodes().connect().await.unwrap();
    inside.commit(vec![create("/x", "deep", Mode::Ephemeral)]).await.unwrap();
    let outside = zookeeper(&server, "", DEFAULT_TIMEOUT).nodes().connect().await.unwrap();
    assert_eq!(outside.read("/over/the/hills/x").await.unwrap().unwrap().data, b"deep");
    assert_eq!(outside.read("/x").await.unwrap(), None);
}

#[tokio::test]
async fn session_survives_a_short_outage_which_completes_its_watches() {
    let server = ZooKeeper::own().await.unwrap();
    let ensemble = zookeeper(&server, "", SESSION);
    let session = session(&ensemble).await;
    session.commit(vec![create("/top/e", "", Mode::Ephemeral)]).await.unwrap();
    let mut state = session.state();
    let (_, mut watch) = session.read_and_watch("/top/e").await.unwrap();
    server.stop().unwrap();
    fires("the connection is gone", &mut watch).await;
    state.wait_for(|state| *state == SessionState::Suspended).await.unwrap();

    server.start().await.unwrap();
    let back =
        time::timeout(SESSION + DEFAULT_TIMEOUT, state.wait_for(|state| *state != SessionState::Suspended)).await;
    assert_eq!(*back.expect("neither restored nor lost").unwrap(), SessionState::Connected);
    assert_eq!(session.read("/top/e").await.unwrap().unwrap().owner, Some(session.id()));
}
