//! What is special to etcd's v3 API.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{Client, PutOptions};
use ochopod::discovery::{
    Discovery, DiscoveryError, EtcdAddress, EtcdVersion, Mark, OpenError, Place, Registration, TlsFiles,
};
use ochopod_tests::{Authority, Etcd, free_port};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{SOON, Server, found, found_within, look, mark, registration, shown, sought};

const PREFIX: &str = "/containerpilot";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Own(Etcd);

impl Server for Own {
    async fn start() -> Self {
        Self(Etcd::own().await.unwrap())
    }

    fn place(&self) -> Place {
        place(self.0.url(), PREFIX)
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

fn address(endpoints: &[&str], prefix: &str, tls: TlsFiles) -> EtcdAddress {
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    EtcdAddress { endpoints, prefix: prefix.to_owned(), version: EtcdVersion::V3, tls }
}

fn place(url: &str, prefix: &str) -> Place {
    Place::Etcd(address(&[url], prefix, TlsFiles::default()))
}

pub(crate) async fn alone(prefix: &str) -> (Arc<Etcd>, Arc<dyn Discovery>) {
    let server = Etcd::shared().await.unwrap();
    let place = place(server.url(), prefix).open().unwrap();
    (server, place)
}

/// A place at a server of one's own, and a foreign client of that.
async fn own() -> (Etcd, Arc<dyn Discovery>, Client) {
    let server = Etcd::own().await.unwrap();
    let place = place(server.url(), PREFIX).open().unwrap();
    let client = server.client().await.unwrap();
    (server, place, client)
}

fn forgotten() -> Result<(), DiscoveryError> {
    Err(DiscoveryError::Forgotten("web-a".to_owned()))
}

#[tokio::test]
async fn an_instance_is_a_key_with_a_lease() {
    let (server, place) = alone("/an/instance/").await;
    let mut client = server.client().await.unwrap();
    let ttl = Duration::from_millis(9001);
    let web = Registration { tags: vec!["x".to_owned()], ttl, ..registration("web", "a", 8080) };
    place.register(&web).await.unwrap();
    let kept = client.get("/an/instance/web/web-a", None).await.unwrap();
    let kept = kept.kvs().first().expect("there is no such key");
    let content: serde_json::Value = serde_json::from_slice(kept.value()).unwrap();
    assert_eq!(content, json!({"id": "web-a", "name": "web", "address": "10.0.0.1", "port": 8080, "tags": ["x"]}));
    let lease = client.lease_time_to_live(kept.lease(), None).await.unwrap();
    assert_eq!(lease.granted_ttl(), 10);
}

#[tokio::test]
async fn who_registers_again_is_there_all_the_time_and_stays_when_the_old_lease_is_over() {
    let (server, place) = alone("/again").await;
    let web = sought("web");
    let short = Registration { ttl: Duration::from_secs(2), ..registration("web", "a", 1) };
    place.register(&short).await.unwrap();
    let successor = self::place(server.url(), "/again").open().unwrap();
    let looks = async {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            assert_eq!(look(&*place, &web).await.instances.len(), 1);
        }
    };
    let register = async {
        sleep(Duration::from_millis(500)).await;
        for port in 2..20 {
            successor.register(&registration("web", "a", port)).await.unwrap();
        }
    };
    tokio::join!(looks, register);
    found(&*place, &web, &["web-a at 10.0.0.1:19"]).await;
}

#[tokio::test]
async fn what_was_removed_by_hand_is_forgotten_at_the_next_pass() {
    let (server, place) = alone("/by-hand").await;
    let (web, key) = (registration("web", "a", 8080), "/by-hand/web/web-a");
    let mut client = server.client().await.unwrap();
    place.register(&web).await.unwrap();
    client.delete(key, None).await.unwrap();
    assert_eq!(place.pass(&web).await, forgotten());
    client.put(key, r#"{"id":"web-a","name":"web","address":"h","port":1}"#, None).await.unwrap();
    assert_eq!(place.pass(&web).await, forgotten(), "it would never go");
    place.register(&web).await.unwrap();
    place.pass(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn what_an_earlier_life_left_behind_is_removed() {
    let (server, place) = alone("/earlier").await;
    place.register(&registration("web", "a", 1)).await.unwrap();
    let successor = self::place(server.url(), "/earlier").open().unwrap();
    successor.deregister(&registration("web", "a", 2)).await.unwrap();
    found(&*place, &sought("web"), &[]).await;
}

#[tokio::test]
async fn what_is_no_instance_is_skipped_and_no_name_leaves_its_place() {
    let (server, place) = alone("/garbage").await;
    let mut client = server.client().await.unwrap();
    for (key, content) in [("web/x", "rubbish"), ("web/", "{}"), ("web/a/b", "[]"), ("web/y", "{\"id\":1}")] {
        client.put(format!("/garbage/{key}"), content, None).await.unwrap();
    }
    place.register(&registration("web", "a", 1)).await.unwrap();
    place.register(&registration("web/b", "c", 2)).await.unwrap();
    place.register(&registration("../garbage/web", "d", 3)).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:1"]).await;
    found(&*place, &sought("web/b"), &["web/b-c at 10.0.0.1:2"]).await;
}

#[tokio::test]
async fn a_restart_with_its_data_costs_nothing_and_one_without_is_noticed() {
    let (server, place, _) = own().await;
    let web = registration("web", "a", 8080);
    place.register(&web).await.unwrap();
    server.stop().unwrap();
    server.start().await.unwrap();
    place.pass(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;

    server.stop().unwrap();
    server.wipe().unwrap();
    server.start().await.unwrap();
    assert_eq!(place.pass(&web).await, forgotten());
    place.register(&web).await.unwrap();
    place.pass(&web).await.unwrap();
}

#[tokio::test]
async fn a_mark_of_before_the_store_was_emptied_is_not_waited_for() {
    let (server, place, mut client) = own().await;
    for _ in 0..20 {
        client.put("/other", "", None).await.unwrap();
    }
    let before = mark(&*place, &sought("web")).await;
    server.stop().unwrap();
    server.wipe().unwrap();
    server.start().await.unwrap();
    let waited = timeout(SOON * 5, place.instances(&sought("web"), Some(before), PATIENCE)).await;
    let Mark(after) = waited.expect("it waits on").unwrap().mark.unwrap();
    assert!(after < before.0, "{after} {before:?}");
}

#[tokio::test]
async fn a_compaction_disturbs_nobody_who_waits_and_outdated_marks_are_answered_at_once() {
    let (_server, place, mut client) = own().await;
    let (web, before) = (sought("web"), look(&*place, &sought("web")).await.mark);
    place.register(&registration("web", "a", 1)).await.unwrap();
    let compact = async |client: &mut Client| {
        let revision = client.put("/other", "", None).await.unwrap().header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
    };
    compact(&mut client).await;
    let found = timeout(SOON, place.instances(&web, before, PATIENCE)).await.expect("it waits on").unwrap();
    assert_eq!(found.instances.len(), 1);

    let waiting = tokio::spawn({
        let place = place.clone();
        async move { place.instances(&sought("web"), found.mark, PATIENCE).await.unwrap() }
    });
    for _ in 0..3 {
        sleep(Duration::from_millis(200)).await;
        compact(&mut client).await;
    }
    assert!(!waiting.is_finished());
    place.register(&registration("web", "b", 2)).await.unwrap();
    let found = timeout(SOON, waiting).await.expect("it waits on").unwrap();
    assert_eq!(found.instances.len(), 2);
}

#[tokio::test]
async fn the_end_of_a_lease_ends_a_wait() {
    let (_server, place) = alone("/lease").await;
    let brief = Registration { ttl: Duration::from_secs(2), ..registration("web", "a", 1) };
    place.register(&brief).await.unwrap();
    let mark = look(&*place, &sought("web")).await.mark;
    let found = timeout(SOON * 6, place.instances(&sought("web"), mark, PATIENCE)).await;
    assert_eq!(found.expect("it waits on").unwrap().instances, []);
}

#[tokio::test]
async fn servers_that_are_away_or_frozen_do_not_stop_the_others() {
    let (frozen, live) = (Etcd::own().await.unwrap(), Etcd::shared().await.unwrap());
    frozen.freeze().unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port().unwrap());
    let endpoints = [&*nobody, frozen.url(), live.url()];
    let place = Place::Etcd(address(&endpoints, "/others", TlsFiles::default())).open().unwrap();
    let web = registration("web", "a", 8080);
    timeout(SOON * 6, place.register(&web)).await.expect("it takes too long").unwrap();
    let begin = Instant::now();
    place.pass(&web).await.unwrap();
    assert_eq!(shown(&*place, &sought("web")).await, ["web-a at 10.0.0.1:8080"]);
    assert!(begin.elapsed() < SOON, "who answered is asked first: {:?}", begin.elapsed());
}

#[tokio::test]
async fn who_waits_goes_on_with_another_server_when_that_one_ends() {
    let [first, second] = [Etcd::own().await.unwrap(), Etcd::own().await.unwrap()];
    let place = Place::Etcd(address(&[first.url(), second.url()], PREFIX, TlsFiles::default())).open().unwrap();
    let mut elsewhere = second.client().await.unwrap();
    let content = r#"{"id":"web-z","name":"web","address":"h","port":1}"#;
    elsewhere.put(format!("{PREFIX}/web/web-z"), content, None).await.unwrap();
    let mark = mark(&*place, &sought("web")).await;
    let waiting = tokio::spawn({
        let place = place.clone();
        async move { place.instances(&sought("web"), Some(mark), PATIENCE).await.unwrap() }
    });
    sleep(Duration::from_millis(200)).await;
    first.stop().unwrap();
    let found = timeout(SOON * 3, waiting).await.expect("it waits on").unwrap();
    assert_eq!((found.instances.len(), found.mark), (1, None));
    found_within(SOON, &*place, &sought("web"), &["web-z at h:1"]).await;
}

#[tokio::test]
async fn a_lease_that_others_keep_is_kept_on() {
    let (server, place) = alone("/kept").await;
    let mut client = server.client().await.unwrap();
    let lease = client.lease_grant(2, None).await.unwrap().id();
    let content = r#"{"id":"web-a","name":"web","address":"h","port":1}"#;
    let with_lease = PutOptions::new().with_lease(lease);
    client.put("/kept/web/web-a", content, Some(with_lease)).await.unwrap();
    let web = registration("web", "a", 8080);
    for _ in 0..8 {
        sleep(Duration::from_millis(500)).await;
        place.pass(&web).await.unwrap();
    }
    found(&*place, &sought("web"), &["web-a at h:1"]).await;
}

#[tokio::test]
async fn with_tls_each_side_knows_the_other() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    let server = Etcd::secure(&ours).await.unwrap();
    let own = ours.certify("pilot", &["pilot"]).unwrap();
    let good = TlsFiles {
        ca: Some(ours.certificate()),
        certificate: Some(own.certificate),
        key: Some(own.key),
        server_name: Some("localhost".to_owned()),
        verify: true,
    };
    let open = |tls: TlsFiles| Place::Etcd(address(&[server.url()], PREFIX, tls)).open();
    let web = registration("web", "a", 8080);
    for works in [good.clone(), TlsFiles { ca: None, server_name: None, verify: false, ..good.clone() }] {
        let place = open(works).unwrap();
        place.register(&web).await.unwrap();
        found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
    }
    for refused in
        [TlsFiles { ca: Some(theirs.certificate()), ..good.clone() }, TlsFiles { server_name: None, ..good.clone() }]
    {
        let error = open(refused).unwrap().register(&web).await.unwrap_err();
        assert!(matches!(&error, DiscoveryError::Refused(reason) if reason.contains("TLS with ")), "{error:?}");
    }
    let nobody = open(TlsFiles { certificate: None, key: None, ..good.clone() }).unwrap();
    // It may hang up before its reason has been read.
    assert!(nobody.register(&web).await.is_err());
    let unreadable = TlsFiles { ca: Some("/nowhere.pem".into()), ..good };
    assert!(matches!(open(unreadable), Err(OpenError::File { .. })));
}
