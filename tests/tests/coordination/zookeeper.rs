//! Sessions with a real ZooKeeper.

use std::time::{Duration, Instant};

use ochopod::coord::{CoordError, Ensemble, Mode, SessionState};
use ochopod_tests::{ZooKeeper, free_port};
use tokio::time;

use crate::{SOON, create, ensemble, fires, session};

#[tokio::test]
async fn a_server_that_is_not_there_is_told_of_within_the_session_timeout() {
    for host in [format!("127.0.0.1:{}", free_port().unwrap()), "does-not-exist.invalid:2181".to_owned()] {
        let timeout = Duration::from_secs(2);
        let ensemble = Ensemble::ZooKeeper { address: host.parse().unwrap(), timeout };
        let before = Instant::now();
        let error = ensemble.connect().await.map(|session| session.id()).unwrap_err();
        assert!(matches!(error, CoordError::Unavailable(_)), "{error}");
        assert!(before.elapsed() < timeout + Duration::from_millis(500), "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn a_chroot_is_created_and_everything_lives_below_it() {
    let server = ZooKeeper::shared().await.unwrap();
    let inside = ensemble(&server, "/over/the/hills", SOON).connect().await.unwrap();
    inside.commit(vec![create("/x", "deep", Mode::Ephemeral)]).await.unwrap();
    let outside = ensemble(&server, "", SOON).connect().await.unwrap();
    assert_eq!(outside.read("/over/the/hills/x").await.unwrap().unwrap().data, b"deep");
    assert_eq!(outside.read("/x").await.unwrap(), None);
}

#[tokio::test]
async fn a_session_outlives_a_short_outage_and_its_watches_tell_of_it() {
    let server = ZooKeeper::own().await.unwrap();
    let ensemble = ensemble(&server, "", Duration::from_secs(10));
    let session = session(&ensemble).await;
    session.commit(vec![create("/top/e", "", Mode::Ephemeral)]).await.unwrap();
    let mut state = session.state();
    let (_, mut watch) = session.read_and_watch("/top/e").await.unwrap();
    server.stop().unwrap();
    fires("the connection is gone", &mut watch).await;
    state.wait_for(|state| *state == SessionState::Suspended).await.unwrap();

    server.start().await.unwrap();
    let back = time::timeout(Duration::from_secs(14), state.wait_for(|state| *state != SessionState::Suspended)).await;
    assert_eq!(*back.expect("neither restored nor lost").unwrap(), SessionState::Connected);
    assert_eq!(session.read("/top/e").await.unwrap().unwrap().owner, Some(session.id()));
}
