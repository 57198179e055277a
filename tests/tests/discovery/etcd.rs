//! Specifics of etcd's v3 API.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_discovery::{
    ChangeIndex, EtcdAddress, EtcdVersion, Fingerprint, Registry, RegistryConfig, RegistryConfigError, RegistryError,
    ServiceRegistration, TlsFiles,
};
use ochopod_tests::{CertificateAuthority, Etcd, EtcdClient, free_port};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    DEFAULT_TIMEOUT, Server, find, found, found_within, invalid_entries, listed, query, registration, settled_index,
};

const PREFIX: &str = "/containerpilot";
const TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) struct TestServer(Etcd);

impl Server for TestServer {
    async fn start() -> Self {
        Self(Etcd::own().await.unwrap())
    }

    fn registry(&self) -> RegistryConfig {
        registry(self.0.url(), PREFIX)
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

pub(crate) fn address(endpoints: &[&str], prefix: &str, tls: TlsFiles) -> EtcdAddress {
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    EtcdAddress {
        endpoints,
        prefix: prefix.to_owned(),
        version: EtcdVersion::V3,
        tls,
        credentials: None,
        credentials_fingerprint: Fingerprint::default(),
    }
}

fn registry(url: &str, prefix: &str) -> RegistryConfig {
    RegistryConfig::Etcd(address(&[url], prefix, TlsFiles::default()))
}

pub(crate) async fn alone(prefix: &str) -> (Arc<Etcd>, Arc<dyn Registry>) {
    let server = Etcd::shared().await.unwrap();
    let registry = registry(server.url(), prefix).open().unwrap();
    (server, registry)
}

/// Returns a registry on a separate server, and another client of that server.
async fn own() -> (Etcd, Arc<dyn Registry>, EtcdClient) {
    let server = Etcd::own().await.unwrap();
    let registry = registry(server.url(), PREFIX).open().unwrap();
    let client = server.client().unwrap();
    (server, registry, client)
}

fn forgotten() -> Result<(), RegistryError> {
    Err(RegistryError::NotRegistered("web-a".to_owned()))
}

#[tokio::test]
async fn instance_is_a_key_with_a_lease() {
    let (server, registry) = alone("/an/instance/").await;
    let client = server.client().unwrap();
    let ttl = Duration::from_millis(9001);
    let web = ServiceRegistration { tags: vec!["x".to_owned()], ttl, ..registration("web", "a", 8080) };
    registry.register(&web).await.unwrap();
    let stored = client.get("/an/instance/web/web-a").await.unwrap().expect("no such key");
    let content: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!(content, json!({"id": "web-a", "name": "web", "address": "10.0.0.1", "port": 8080, "tags": ["x"]}));
    assert_eq!(client.granted_ttl(stored.lease).await.unwrap(), 10);
}

#[tokio::test]
async fn registering_again_has_no_gap_and_outlives_the_old_lease() {
    let (server, registry) = alone("/again").await;
    let web = query("web");
    let short = ServiceRegistration { ttl: Duration::from_secs(4), ..registration("web", "a", 1) };
    registry.register(&short).await.unwrap();
    let successor = self::registry(server.url(), "/again").open().unwrap();
    let looks = async {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(8) {
            assert_eq!(find(&*registry, &web).await.instances.len(), 1);
        }
    };
    let register = async {
        sleep(Duration::from_millis(500)).await;
        for port in 2..20 {
            successor.register(&registration("web", "a", port)).await.unwrap();
        }
    };
    tokio::join!(looks, register);
    found(&*registry, &web, &["web-a at 10.0.0.1:19"]).await;
}

#[tokio::test]
async fn key_removed_by_hand_is_reported_by_the_next_pass() {
    let (server, registry) = alone("/by-hand").await;
    let (web, key) = (registration("web", "a", 8080), "/by-hand/web/web-a");
    let client = server.client().unwrap();
    registry.register(&web).await.unwrap();
    client.delete(key).await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten());
    client.put(key, r#"{"id":"web-a","name":"web","address":"h","port":1}"#, 0).await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten(), "it would never go");
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn leftover_of_an_earlier_process_is_removed() {
    let (server, registry) = alone("/earlier").await;
    registry.register(&registration("web", "a", 1)).await.unwrap();
    let successor = self::registry(server.url(), "/earlier").open().unwrap();
    successor.deregister(&registration("web", "a", 2)).await.unwrap();
    found(&*registry, &query("web"), &[]).await;
}

#[tokio::test]
async fn invalid_entries_are_skipped_and_names_stay_within_their_segment() {
    let (server, registry) = alone("/garbage").await;
    let client = server.client().unwrap();
    for (key, content) in [("web/x", "rubbish"), ("web/", "{}"), ("web/a/b", "[]"), ("web/y", "{\"id\":1}")] {
        client.put(&format!("/garbage/{key}"), content, 0).await.unwrap();
    }
    registry.register(&registration("web", "a", 1)).await.unwrap();
    registry.register(&registration("web/b", "c", 2)).await.unwrap();
    registry.register(&registration("../garbage/web", "d", 3)).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:1"]).await;
    found(&*registry, &query("web/b"), &["web/b-c at 10.0.0.1:2"]).await;
}

#[tokio::test]
async fn entries_with_invalid_addresses_are_skipped() {
    let (server, registry) = alone("/invalid").await;
    let client = server.client().unwrap();
    for (number, content) in invalid_entries().into_iter().enumerate() {
        client.put(&format!("/invalid/db/i{number}"), &content, 0).await.unwrap();
    }
    registry.register(&registration("db", "a", 5432)).await.unwrap();
    found(&*registry, &query("db"), &["db-a at 10.0.0.1:5432"]).await;
}

#[tokio::test]
async fn restart_with_data_keeps_registrations_and_one_without_is_noticed() {
    let (server, registry, _) = own().await;
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    server.stop().unwrap();
    server.start().await.unwrap();
    registry.pass(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;

    server.stop().unwrap();
    server.wipe().unwrap();
    server.start().await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten());
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
}

#[tokio::test]
async fn index_from_before_the_store_was_emptied_returns_immediately() {
    let (server, registry, client) = own().await;
    for _ in 0..20 {
        client.put("/other", "", 0).await.unwrap();
    }
    let before = settled_index(&*registry, &query("web")).await;
    server.stop().unwrap();
    server.wipe().unwrap();
    server.start().await.unwrap();
    let waited = timeout(DEFAULT_TIMEOUT * 5, registry.instances(&query("web"), Some(before), TIMEOUT)).await;
    let ChangeIndex(after) = waited.expect("it waits on").unwrap().index.unwrap();
    assert!(after < before.0, "{after} {before:?}");
}

#[tokio::test]
async fn compaction_disturbs_no_wait_and_outdated_indexes_return_immediately() {
    let (_server, registry, client) = own().await;
    let (web, before) = (query("web"), find(&*registry, &query("web")).await.index);
    registry.register(&registration("web", "a", 1)).await.unwrap();
    let compact = async |client: &EtcdClient| {
        let revision = client.put("/other", "", 0).await.unwrap();
        client.compact(revision).await.unwrap();
    };
    compact(&client).await;
    let found =
        timeout(DEFAULT_TIMEOUT, registry.instances(&web, before, TIMEOUT)).await.expect("it waits on").unwrap();
    assert_eq!(found.instances.len(), 1);

    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.instances(&query("web"), found.index, TIMEOUT).await.unwrap() }
    });
    for _ in 0..3 {
        sleep(Duration::from_millis(200)).await;
        compact(&client).await;
    }
    assert!(!waiting.is_finished());
    registry.register(&registration("web", "b", 2)).await.unwrap();
    let found = timeout(DEFAULT_TIMEOUT, waiting).await.expect("it waits on").unwrap();
    assert_eq!(found.instances.len(), 2);
}

#[tokio::test]
async fn expired_lease_ends_a_wait() {
    let (_server, registry) = alone("/lease").await;
    let brief = ServiceRegistration { ttl: Duration::from_secs(4), ..registration("web", "a", 1) };
    registry.register(&brief).await.unwrap();
    let mark = find(&*registry, &query("web")).await.index;
    let found = timeout(DEFAULT_TIMEOUT * 6, registry.instances(&query("web"), mark, TIMEOUT)).await;
    assert_eq!(found.expect("it waits on").unwrap().instances, []);
}

#[tokio::test]
async fn frozen_server_ends_a_wait() {
    let (server, registry, _) = own().await;
    let mark = settled_index(&*registry, &query("web")).await;
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.instances(&query("web"), Some(mark), TIMEOUT * 10).await }
    });
    sleep(Duration::from_millis(200)).await;
    server.freeze().unwrap();
    let waited = timeout(Duration::from_secs(30), waiting).await.expect("it waits on").unwrap();
    assert!(matches!(waited, Err(RegistryError::Unavailable(_))), "{waited:?}");
}

#[tokio::test]
async fn stopped_or_frozen_servers_do_not_block_the_others() {
    let (frozen, live) = (Etcd::own().await.unwrap(), Etcd::shared().await.unwrap());
    frozen.freeze().unwrap();
    let unused = format!("http://127.0.0.1:{}", free_port().unwrap());
    let endpoints = [&*unused, frozen.url(), live.url()];
    let registry = RegistryConfig::Etcd(address(&endpoints, "/others", TlsFiles::default())).open().unwrap();
    let web = registration("web", "a", 8080);
    timeout(DEFAULT_TIMEOUT * 6, registry.register(&web)).await.expect("it takes too long").unwrap();
    let begin = Instant::now();
    // Each request would wait more than a second for the frozen one.
    for _ in 0..6 {
        registry.pass(&web).await.unwrap();
        assert_eq!(listed(&*registry, &query("web")).await, ["web-a at 10.0.0.1:8080"]);
    }
    assert!(
        begin.elapsed() < DEFAULT_TIMEOUT * 2,
        "the server that answered is not requested first: {:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn wait_continues_with_another_server_when_one_ends() {
    let [first, second] = [Etcd::own().await.unwrap(), Etcd::own().await.unwrap()];
    let registry =
        RegistryConfig::Etcd(address(&[first.url(), second.url()], PREFIX, TlsFiles::default())).open().unwrap();
    let elsewhere = second.client().unwrap();
    let content = r#"{"id":"web-z","name":"web","address":"h","port":1}"#;
    elsewhere.put(&format!("{PREFIX}/web/web-z"), content, 0).await.unwrap();
    let mark = settled_index(&*registry, &query("web")).await;
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.instances(&query("web"), Some(mark), TIMEOUT).await.unwrap() }
    });
    sleep(Duration::from_millis(200)).await;
    first.stop().unwrap();
    let found = timeout(DEFAULT_TIMEOUT * 3, waiting).await.expect("it waits on").unwrap();
    assert_eq!((found.instances.len(), found.index), (1, None));
    found_within(DEFAULT_TIMEOUT, &*registry, &query("web"), &["web-z at h:1"]).await;
}

#[tokio::test]
async fn removed_key_is_reported_and_registered_again() {
    let (server, registry) = alone("/taken").await;
    let (web, client) = (registration("web", "a", 8080), server.client().unwrap());
    let key = "/taken/web/web-a";
    for what in ["key", "lease", "lease of the key"] {
        registry.register(&web).await.unwrap();
        registry.pass(&web).await.unwrap();
        match what {
            "key" => client.delete(key).await.unwrap(),
            "lease" => {
                let lease = client.get(key).await.unwrap().unwrap().lease;
                client.revoke(lease).await.unwrap();
            }
            _ => drop(client.put(key, "nothing", 0).await.unwrap()),
        }
        assert_eq!(registry.pass(&web).await, forgotten(), "{what}");
        registry.register(&web).await.unwrap();
        found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
        registry.pass(&web).await.unwrap();
    }
}

#[tokio::test]
async fn lease_granted_by_another_client_is_kept_alive() {
    let (server, registry) = alone("/kept").await;
    let client = server.client().unwrap();
    let lease = client.grant(4).await.unwrap();
    let content = r#"{"id":"web-a","name":"web","address":"h","port":1}"#;
    client.put("/kept/web/web-a", content, lease).await.unwrap();
    let web = registration("web", "a", 8080);
    for _ in 0..12 {
        sleep(Duration::from_millis(500)).await;
        registry.pass(&web).await.unwrap();
    }
    found(&*registry, &query("web"), &["web-a at h:1"]).await;
}

#[tokio::test]
async fn tls_verifies_both_sides() {
    let (ours, theirs) = (CertificateAuthority::new().unwrap(), CertificateAuthority::new().unwrap());
    let server = Etcd::secure(&ours).await.unwrap();
    let own = ours.certify("pilot", &["pilot"]).unwrap();
    let good = TlsFiles {
        ca: Some(ours.certificate()),
        certificate: Some(own.certificate),
        key: Some(own.key),
        server_name: Some("localhost".to_owned()),
        verify: true,
        ..TlsFiles::default()
    };
    let open = |tls: TlsFiles| RegistryConfig::Etcd(address(&[server.url()], PREFIX, tls)).open();
    let web = registration("web", "a", 8080);
    for works in [good.clone(), TlsFiles { ca: None, server_name: None, verify: false, ..good.clone() }] {
        let registry = open(works).unwrap();
        registry.register(&web).await.unwrap();
        found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
    }
    for refused in
        [TlsFiles { ca: Some(theirs.certificate()), ..good.clone() }, TlsFiles { server_name: None, ..good.clone() }]
    {
        let error = open(refused).unwrap().register(&web).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Rejected(reason) if reason.contains("TLS with ")), "{error:?}");
    }
    let anonymous = open(TlsFiles { certificate: None, key: None, ..good.clone() }).unwrap();
    // It may close the connection before its reason has been read.
    assert!(anonymous.register(&web).await.is_err());
    let unreadable = TlsFiles { ca: Some("/nowhere.pem".into()), ..good };
    assert!(matches!(open(unreadable), Err(RegistryConfigError::File { .. })));
}
