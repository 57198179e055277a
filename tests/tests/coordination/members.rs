//! Pods that register and contend on a real ZooKeeper.

use std::time::{Duration, Instant};

use anyhow::Context;
use ochopod::{
    cluster::{ClusterName, PodId, Registration},
    coord::{Ensemble, Leadership, Member, Membership, SessionState, layout},
};
use ochopod_tests::{ZooKeeper, eventually};
use tokio::{task::JoinHandle, time};

use crate::{SOON, ensemble};

struct Pod {
    member: Member,
    actor: JoinHandle<()>,
}

fn start(ensemble: &Ensemble, id: &str) -> Pod {
    let registration = serde_json::json!({"ip": "127.0.0.1", "port": "8080"}).as_object().unwrap().clone();
    let cluster = ClusterName::new("ns", "web").unwrap();
    let (member, actor) = Member::start(ensemble.clone(), &cluster, PodId::from(id), registration);
    Pod { member, actor: tokio::spawn(actor) }
}

impl Pod {
    async fn until(&self, what: &str, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = self.member.watch();
        let reached = time::timeout(Duration::from_secs(30), watch.wait_for(condition)).await;
        reached.unwrap_or_else(|_| panic!("not within 30 s: {what}")).unwrap().clone()
    }

    async fn registered(&self) -> u64 {
        self.until("registered", |m| m.registered.is_some()).await.registered.unwrap().seq
    }

    async fn leading(&self) -> Leadership {
        self.until("leading", |m| m.leadership.is_some()).await.leadership.unwrap()
    }
}

/// Identity and `seq` of everything that is registered.
async fn registrations(ensemble: &Ensemble) -> Vec<(String, u64)> {
    let session = ensemble.connect().await.unwrap();
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
async fn pods_register_one_leads_and_hands_over_when_it_leaves() {
    let ensemble = ensemble(&ZooKeeper::shared().await.unwrap(), "/members", SOON);
    let first = start(&ensemble, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&ensemble, "b");
    assert_eq!((first.registered().await, second.registered().await), (0, 1));
    assert_eq!(second.member.holder().await.unwrap(), Some(epoch));
    assert_eq!(registrations(&ensemble).await, [("a".to_owned(), 0), ("b".to_owned(), 1)]);

    let before = Instant::now();
    first.member.leave().await;
    assert!(second.leading().await.epoch > epoch);
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    first.actor.await.unwrap();
    assert_eq!(registrations(&ensemble).await, [("b".to_owned(), 1)]);

    let epoch = second.leading().await.epoch;
    second.member.resign(epoch).await;
    second.until("leading anew", |m| m.leadership.as_ref().is_some_and(|l| l.epoch > epoch)).await;
    second.member.retire().await;
    assert_eq!(second.member.holder().await.unwrap(), None);
    second.member.leave().await;
    assert_eq!(registrations(&ensemble).await, []);
}

#[tokio::test]
async fn after_a_short_outage_the_same_pod_leads_with_the_same_epoch() {
    let server = ZooKeeper::own().await.unwrap();
    let ensemble = ensemble(&server, "", Duration::from_secs(10));
    let pods = [start(&ensemble, "a"), start(&ensemble, "b")];
    pods[1].registered().await;
    pods[0].until("settled", |m| m.registered.is_some()).await;
    let holder = pods[0].member.holder().await.unwrap();
    let before = registrations(&ensemble).await;
    server.stop().unwrap();
    for pod in &pods {
        let away = pod.until("suspended", |m| m.state == SessionState::Suspended).await;
        assert!(away.leadership.is_none());
        let asked = Instant::now();
        assert!(pod.member.holder().await.is_err());
        assert!(asked.elapsed() < Duration::from_millis(100));
    }
    server.start().await.unwrap();
    for pod in &pods {
        pod.until("connected", |m| m.state == SessionState::Connected).await;
    }
    let leads = async || pods.iter().find(|pod| pod.member.watch().borrow().leadership.is_some()).context("nobody");
    eventually("somebody leads", SOON, async || leads().await.map(drop)).await.unwrap();
    assert_eq!(pods[1].member.holder().await.unwrap(), holder);
    assert_eq!(registrations(&ensemble).await, before);
}

#[tokio::test]
async fn after_an_outage_longer_than_the_session_every_pod_is_registered_exactly_once() {
    let server = ZooKeeper::own().await.unwrap();
    let ensemble = ensemble(&server, "", Duration::from_secs(1));
    let pods = [start(&ensemble, "a"), start(&ensemble, "b")];
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
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(registrations(&ensemble).await, before, "and still once the old sessions have expired");
    assert_eq!(pods.iter().filter(|pod| pod.member.watch().borrow().leadership.is_some()).count(), 1);
}

#[tokio::test]
async fn refused_credentials_are_final_and_say_so() {
    let enforce = ["-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest"];
    let server = ZooKeeper::with(&enforce).await.unwrap();
    let pod = start(&ensemble(&server, "", SOON), "a");
    assert!(pod.until("refused", |m| m.refused.is_some()).await.registered.is_none());
    pod.member.leave().await;
    pod.actor.await.unwrap();

    let address = format!("zk://user:secret@{}", server.address()).parse().unwrap();
    let known = start(&Ensemble::ZooKeeper { address, timeout: SOON }, "b");
    assert_eq!(known.registered().await, 0);
}
