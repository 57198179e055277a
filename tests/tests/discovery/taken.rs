//! Two hosts with one name: an id that another process uses is left unchanged, and the conflict is reported.

use ochopod_discovery::{Registry, RegistryError};

use crate::{etcd, found, query, registration, zookeeper};

/// Checks two clients of one store.
async fn assert_id_is_left_to_the_other(one: &dyn Registry, other: &dyn Registry) {
    let (own, theirs) = (registration("web", "a", 1), registration("web", "a", 2));
    one.register(&own).await.unwrap();
    other.register(&theirs).await.unwrap();
    for _ in 0..2 {
        let taken = one.pass(&own).await;
        let named = matches!(&taken, Err(RegistryError::Taken(text)) if text.contains("web-a, at 10.0.0.1:2"));
        assert!(named, "{taken:?}");
        other.pass(&theirs).await.unwrap();
        found(one, &query("web"), &["web-a at 10.0.0.1:2"]).await;
    }
    other.deregister(&theirs).await.unwrap();
    assert_eq!(one.pass(&own).await, Err(RegistryError::NotRegistered("web-a".to_owned())));
    one.register(&own).await.unwrap();
    one.pass(&own).await.unwrap();
}

#[tokio::test]
async fn id_in_zookeeper_is_left_to_another_host() {
    let ((_server, one), (_, other)) = (zookeeper::alone("taken").await, zookeeper::alone("taken").await);
    assert_id_is_left_to_the_other(&*one, &*other).await;
}

#[tokio::test]
async fn id_in_etcd_is_left_to_another_host() {
    let ((_server, one), (_, other)) = (etcd::alone("taken").await, etcd::alone("taken").await);
    assert_id_is_left_to_the_other(&*one, &*other).await;
}
