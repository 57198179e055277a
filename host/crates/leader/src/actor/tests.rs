//! Requests whose tasks panic, are aborted or are cancelled.

use ochopod_client::{Auth, Client};
use ochopod_model::ClusterName;
use ochopod_store::{EmbeddedStore, StoreBackend};
use serde_json::Map;
use tokio::time::timeout;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the work in flight of a leadership over an embedded store.
async fn in_flight() -> InFlight {
    let ensemble = StoreBackend::embedded(EmbeddedStore::new(TIMEOUT));
    let (member, actor) = MembershipHandle::start(ensemble, &ClusterName::default(), PodId::from("a"), Map::new());
    tokio::spawn(actor);
    let leads = |m: &Membership| m.leadership.is_some();
    let leadership = member.watch().wait_for(leads).await.unwrap().leadership.clone().unwrap();
    let peers = PeerClient::new(Arc::new(Client::plain(Auth::None)), Duration::from_secs(1));
    let mut in_flight = InFlight::new(leadership, peers);
    assert!(matches!(in_flight.next().await, Event::Stored(..)));
    in_flight
}

async fn next(in_flight: &mut InFlight) -> Event {
    timeout(TIMEOUT, in_flight.next()).await.expect("something ends")
}

#[tokio::test]
async fn request_whose_task_panics_or_is_aborted_counts_as_unreachable() {
    let mut in_flight = in_flight().await;
    let panics = in_flight.posts.spawn(async { panic!("a request panics") });
    in_flight.aborts.insert(1, panics);
    assert!(matches!(next(&mut in_flight).await, Event::Answered(1, PeerReply::Unreachable(_))));

    let aborted = in_flight.posts.spawn(pending());
    in_flight.aborts.insert(2, aborted.clone());
    aborted.abort();
    assert!(matches!(next(&mut in_flight).await, Event::Answered(2, PeerReply::Unreachable(_))));
}

#[tokio::test]
async fn cancelled_request_is_not_answered() {
    let mut in_flight = in_flight().await;
    let cancelled = in_flight.posts.spawn(pending());
    cancelled.abort();
    let answered = in_flight.posts.spawn(async {
        PostResult { call: 2, pod: PodId::from("a"), reply: PeerReply::Status(200, String::new()), held: None }
    });
    in_flight.aborts.insert(2, answered);
    assert_eq!(next(&mut in_flight).await, Event::Answered(2, PeerReply::Status(200, String::new())));
}

#[tokio::test]
async fn lock_is_held_by_the_epoch_in_the_store() {
    let ensemble = StoreBackend::embedded(EmbeddedStore::new(TIMEOUT));
    let (member, actor) = MembershipHandle::start(ensemble, &ClusterName::default(), PodId::from("a"), Map::new());
    tokio::spawn(actor);
    let epoch = {
        let mut watch = member.watch();
        let membership = watch.wait_for(|m| m.leadership.is_some()).await.unwrap();
        membership.leadership.as_ref().unwrap().epoch
    };
    assert_eq!(holds_lock(member.clone(), epoch).await, Ok(true));
    assert_eq!(holds_lock(member.clone(), epoch - 1).await, Ok(false));
    member.leave().await;
    assert!(holds_lock(member, epoch).await.is_err());
}
