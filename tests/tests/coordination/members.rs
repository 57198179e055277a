//! Outages of a real ZooKeeper, as registered pods see them.

use std::time::{Duration, Instant};

use anyhow::Context;
use ochopod_model::Registration;
use ochopod_store::{SessionState, StoreBackend, znodes::layout};
use ochopod_tests::{ZooKeeper, eventually};
use tokio::time;

use crate::{DEFAULT_TIMEOUT, Pod, SESSION, zookeeper};

/// Returns the identity and `seq` of all registrations.
async fn registrations(ensemble: &StoreBackend) -> Vec<(String, u64)> {
    let session = ensemble.nodes().connect().await.unwrap();
    let pods = layout::Layout::of("ns.web").pods();
    let mut found = Vec::new();
    for name in session.children(&pods).await.unwrap().unwrap_or_default() {
        let Some(node) = session.read(&format!("{pods}/{name}")).await.unwrap() else { continue };
        let (id, _) = layout::parse_registration(&name).unwrap();
        found.push((id.to_string(), Registration::parse(&node.data).unwrap().seq()));
    }
    session.close().await;
    found.sort_unstable();
    found
}

#[tokio::test]
async fn leadership_and_epoch_are_kept_over_a_short_outage() {
    let server = ZooKeeper::own().await.unwrap();
    let ensemble = zookeeper(&server, "", SESSION);
    let pods = [Pod::start(&ensemble, "web", "a"), Pod::start(&ensemble, "web", "b")];
    pods[1].registered().await;
    pods[0].until("settled", |m| m.registered.is_some()).await;
    let holder = pods[0].member.lock_holder().await.unwrap();
    let before = registrations(&ensemble).await;
    server.stop().unwrap();
    for pod in &pods {
        let away = pod.until("suspended", |m| m.state == SessionState::Suspended).await;
        assert!(away.leadership.is_none());
        let before_read = Instant::now();
        assert!(pod.member.lock_holder().await.is_err());
        assert!(before_read.elapsed() < SESSION / 4, "{:?}", before_read.elapsed());
    }
    server.start().await.unwrap();
    for pod in &pods {
        pod.until("connected", |m| m.state == SessionState::Connected).await;
    }
    let leads = async || pods.iter().find(|pod| pod.member.watch().borrow().leadership.is_some()).context("no leader");
    eventually("a pod leads", DEFAULT_TIMEOUT, async || leads().await.map(drop)).await.unwrap();
    assert_eq!(pods[1].member.lock_holder().await.unwrap(), holder);
    assert_eq!(registrations(&ensemble).await, before);
}

#[tokio::test]
async fn each_pod_is_registered_once_after_an_outage_longer_than_the_session() {
    let server = ZooKeeper::own().await.unwrap();
    let ensemble = zookeeper(&server, "", Duration::from_secs(3));
    let pods = [Pod::start(&ensemble, "web", "a"), Pod::start(&ensemble, "web", "b")];
    for pod in &pods {
        pod.registered().await;
    }
    let before = registrations(&ensemble).await;
    server.stop().unwrap();
    for pod in &pods {
        pod.until("lost", |m| m.state == SessionState::Lost).await;
    }
    // The server still has the nodes of the lost sessions when it is back.
    server.start().await.unwrap();
    for pod in &pods {
        let back = pod.until("registered again", |m| m.registered.is_some()).await;
        assert!(back.registered.unwrap().after_loss);
    }
    assert_eq!(registrations(&ensemble).await, before);
    time::sleep(Duration::from_secs(6)).await;
    assert_eq!(registrations(&ensemble).await, before, "and still once the old sessions have expired");
    eventually("one pod leads", DEFAULT_TIMEOUT, async || {
        let leaders = pods.iter().filter(|pod| pod.member.watch().borrow().leadership.is_some()).count();
        anyhow::ensure!(leaders == 1, "{leaders} pods do");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn rejected_credentials_are_final() {
    let enforce = ["-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest"];
    let server = ZooKeeper::with(&enforce).await.unwrap();
    let pod = Pod::start(&zookeeper(&server, "", DEFAULT_TIMEOUT), "web", "a");
    assert!(pod.until("rejected", |m| m.rejected.is_some()).await.registered.is_none());
    pod.member.leave().await;
    pod.actor.await.unwrap();

    let address = format!("zk://user:secret@{}", server.address()).parse().unwrap();
    let known = Pod::start(&StoreBackend::zookeeper(address, DEFAULT_TIMEOUT), "web", "b");
    assert_eq!(known.registered().await, 0);
}
