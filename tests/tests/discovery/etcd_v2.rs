//! Specifics of etcd's v2 keys: they are shared with hosts that run ContainerPilot.

use std::{sync::Arc, time::Duration};

use hyper::Method;
use ochopod_discovery::{
    EtcdAddress, EtcdVersion, Fingerprint, Registry, RegistryConfig, RegistryError, ServiceQuery, ServiceRegistration,
    TlsFiles,
};
use ochopod_tests::{Client, Etcd};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{DEFAULT_TIMEOUT, Server, find, found, found_within, invalid_entries, query, registration, settled_index};

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

fn registry(url: &str, prefix: &str) -> RegistryConfig {
    let (endpoints, prefix) = (vec![url.to_owned()], prefix.to_owned());
    RegistryConfig::Etcd(EtcdAddress {
        endpoints,
        prefix,
        version: EtcdVersion::V2,
        tls: TlsFiles::default(),
        credentials: None,
        credentials_fingerprint: Fingerprint::default(),
    })
}

pub(crate) async fn alone(prefix: &str) -> (Arc<Etcd>, Arc<dyn Registry>) {
    let server = Etcd::shared().await.unwrap();
    let registry = registry(server.url(), prefix).open().unwrap();
    (server, registry)
}

/// The requests of a ContainerPilot.
struct Pilot {
    keys: Client,
    prefix: &'static str,
}

impl Pilot {
    async fn new(prefix: &'static str) -> Self {
        Self { keys: Etcd::shared().await.unwrap().keys().unwrap(), prefix }
    }

    async fn request(&self, method: Method, key: &str, form: String) -> Value {
        let (path, kind) = (format!("/v2/keys{}/{key}", self.prefix), "application/x-www-form-urlencoded");
        let reply = self.keys.send(method, &path, &[("content-type", kind)], form.into()).await.unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    }

    async fn register(&self, host: &str, ttl: u64, content: &Value) {
        let key = format!("web/web-{host}");
        let made = self.request(Method::PUT, &format!("{key}?dir=true"), format!("ttl={ttl}")).await;
        assert_eq!(made["node"]["dir"], true, "{made}");
        self.request(Method::PUT, &format!("{key}/service"), format!("value={content}")).await;
    }

    async fn beat(&self, host: &str, ttl: u64) {
        let beat =
            self.request(Method::PUT, &format!("web/web-{host}?dir=true&prevExist=true"), format!("ttl={ttl}")).await;
        assert_eq!(beat["action"], "update", "{beat}");
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/discovery.json")).unwrap()
}

fn app() -> ServiceRegistration {
    ServiceRegistration {
        address: [127, 0, 0, 1].into(),
        ttl: Duration::from_secs(9),
        ..registration("app", "host", 8080)
    }
}

#[tokio::test]
async fn entry_equals_that_of_container_pilot_2_7() {
    let (_server, registry) = alone("/as/pilot").await;
    registry.register(&app()).await.unwrap();
    let pilot = Pilot::new("/as/pilot").await;
    let kept = &pilot.request(Method::GET, "app/app-host", String::new()).await["node"];
    assert_eq!((&kept["dir"], &kept["ttl"]), (&json!(true), &json!(9)), "{kept}");
    assert_eq!(kept["nodes"].as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(kept["nodes"][0]["key"], "/as/pilot/app/app-host/service");
    let content: Value = serde_json::from_str(kept["nodes"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(content, vectors()["etcd"]["value_2_7"]);
}

#[tokio::test]
async fn instances_of_container_pilot_match_any_tag() {
    let (_server, registry) = alone("/pilots").await;
    let pilot = Pilot::new("/pilots").await;
    for (host, version) in [("x", "value_2_0"), ("y", "value_2_7")] {
        let mut content = vectors()["etcd"][version].clone();
        content["id"] = format!("web-{host}").into();
        pilot.register(host, 30, &content).await;
    }
    pilot.request(Method::PUT, "web/file", "value=no directory".to_owned()).await;
    pilot.request(Method::PUT, "web/empty?dir=true", String::new()).await;
    pilot.request(Method::PUT, "web/odd/service", "value=rubbish".to_owned()).await;
    let tags = vec!["b".to_owned()];
    registry.register(&ServiceRegistration { tags, ..registration("web", "z", 1) }).await.unwrap();
    let theirs = ["web-x at 127.0.0.1:8080", "web-y at 127.0.0.1:8080"];
    found(&*registry, &query("web"), &[theirs[0], theirs[1], "web-z at 10.0.0.1:1"]).await;
    found(&*registry, &ServiceQuery { tag: Some("a".to_owned()), ..query("web") }, &theirs).await;
    found(
        &*registry,
        &ServiceQuery { tag: Some("b".to_owned()), ..query("web") },
        &[theirs[0], theirs[1], "web-z at 10.0.0.1:1"],
    )
    .await;
}

#[tokio::test]
async fn entries_with_invalid_addresses_are_skipped() {
    let (_server, registry) = alone("/invalid-v2").await;
    let pilot = Pilot::new("/invalid-v2").await;
    for (number, content) in invalid_entries().into_iter().enumerate() {
        let content = content.bytes().fold(String::new(), |form, byte| form + &format!("%{byte:02x}"));
        pilot.request(Method::PUT, &format!("db/i{number}/service"), format!("value={content}")).await;
    }
    registry.register(&registration("db", "a", 5432)).await.unwrap();
    found(&*registry, &query("db"), &["db-a at 10.0.0.1:5432"]).await;
}

#[tokio::test]
async fn restart_within_the_ttl_moves_the_instance_without_a_gap() {
    let (_server, registry) = alone("/restart").await;
    let pilot = Pilot::new("/restart").await;
    let mut content = vectors()["etcd"]["value_2_7"].clone();
    content["id"] = "web-a".into();
    pilot.register("a", 6, &content).await;
    found(&*registry, &query("web"), &["web-a at 127.0.0.1:8080"]).await;
    let web = ServiceRegistration { ttl: Duration::from_secs(6), ..registration("web", "a", 9090) };
    registry.register(&web).await.unwrap();
    for _ in 0..16 {
        found(&*registry, &query("web"), &["web-a at 10.0.0.1:9090"]).await;
        sleep(Duration::from_millis(500)).await;
        registry.pass(&web).await.unwrap();
    }
    found_within(DEFAULT_TIMEOUT * 6, &*registry, &query("web"), &[]).await;
    assert_eq!(registry.pass(&web).await, Err(RegistryError::NotRegistered("web-a".to_owned())));
}

#[tokio::test]
async fn heartbeat_does_not_end_a_wait_but_a_missing_one_does() {
    let (_server, registry) = alone("/beats").await;
    let pilot = Pilot::new("/beats").await;
    pilot.register("x", 6, &vectors()["etcd"]["value_2_7"]).await;
    let mark = settled_index(&*registry, &query("web")).await;
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.instances(&query("web"), Some(mark), TIMEOUT).await.unwrap() }
    });
    for _ in 0..16 {
        pilot.beat("x", 6).await;
        sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished(), "nothing has changed");
    }
    let found = timeout(DEFAULT_TIMEOUT * 6, waiting).await.expect("it waits on").unwrap();
    assert_eq!(found.instances, []);
}

#[tokio::test]
async fn index_before_the_history_returns_immediately() {
    let (_server, registry) = alone("/history").await;
    let pilot = Pilot::new("/history").await;
    let before = find(&*registry, &query("web")).await.index;
    registry.register(&registration("web", "a", 1)).await.unwrap();
    for _ in 0..1100 {
        pilot.request(Method::PUT, "other", "value=x".to_owned()).await;
    }
    let found = timeout(DEFAULT_TIMEOUT, registry.instances(&query("web"), before, TIMEOUT))
        .await
        .expect("it waits on")
        .unwrap();
    assert_eq!(found.instances.len(), 1);
}

#[tokio::test]
async fn removed_key_is_reported_and_registered_again() {
    let (server, registry) = alone("/taken-v2").await;
    let (web, keys) = (registration("web", "a", 8080), server.keys().unwrap());
    let forgotten = Err(RegistryError::NotRegistered("web-a".to_owned()));
    for taken in ["web/web-a/service", "web/web-a?recursive=true", "web?recursive=true"] {
        registry.register(&web).await.unwrap();
        registry.pass(&web).await.unwrap();
        let path = format!("/v2/keys/taken-v2/{taken}");
        keys.send(Method::DELETE, &path, &[], "".into()).await.unwrap().is(200).unwrap();
        assert_eq!(registry.pass(&web).await, forgotten, "{taken}");
        registry.register(&web).await.unwrap();
        found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
        registry.pass(&web).await.unwrap();
    }
}
