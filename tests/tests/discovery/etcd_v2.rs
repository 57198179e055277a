//! What is special to etcd's v2 keys: they are shared with hosts that run ContainerPilot.

use std::{sync::Arc, time::Duration};

use hyper::Method;
use ochopod::discovery::{Discovery, DiscoveryError, EtcdAddress, EtcdVersion, Place, Registration, Sought, TlsFiles};
use ochopod_tests::{Client, Etcd};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{SOON, Server, found, found_within, look, mark, registration, sought};

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

fn place(url: &str, prefix: &str) -> Place {
    let (endpoints, prefix) = (vec![url.to_owned()], prefix.to_owned());
    Place::Etcd(EtcdAddress { endpoints, prefix, version: EtcdVersion::V2, tls: TlsFiles::default() })
}

pub(crate) async fn alone(prefix: &str) -> (Arc<Etcd>, Arc<dyn Discovery>) {
    let server = Etcd::shared().await.unwrap();
    let place = place(server.url(), prefix).open().unwrap();
    (server, place)
}

/// A ContainerPilot, as far as etcd sees it.
struct Pilot {
    keys: Client,
    prefix: &'static str,
}

impl Pilot {
    async fn new(prefix: &'static str) -> Self {
        Self { keys: Etcd::shared().await.unwrap().keys().unwrap(), prefix }
    }

    async fn ask(&self, method: Method, key: &str, form: String) -> Value {
        let (path, kind) = (format!("/v2/keys{}/{key}", self.prefix), "application/x-www-form-urlencoded");
        let reply = self.keys.send(method, &path, &[("content-type", kind)], form.into()).await.unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    }

    async fn register(&self, host: &str, ttl: u64, content: &Value) {
        let key = format!("web/web-{host}");
        let made = self.ask(Method::PUT, &format!("{key}?dir=true"), format!("ttl={ttl}")).await;
        assert_eq!(made["node"]["dir"], true, "{made}");
        self.ask(Method::PUT, &format!("{key}/service"), format!("value={content}")).await;
    }

    async fn beat(&self, host: &str, ttl: u64) {
        let beat =
            self.ask(Method::PUT, &format!("web/web-{host}?dir=true&prevExist=true"), format!("ttl={ttl}")).await;
        assert_eq!(beat["action"], "update", "{beat}");
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/discovery.json")).unwrap()
}

fn app() -> Registration {
    Registration { address: [127, 0, 0, 1].into(), ttl: Duration::from_secs(9), ..registration("app", "host", 8080) }
}

#[tokio::test]
async fn an_instance_is_kept_as_container_pilot_2_7_keeps_it() {
    let (_server, place) = alone("/as/pilot").await;
    place.register(&app()).await.unwrap();
    let pilot = Pilot::new("/as/pilot").await;
    let kept = &pilot.ask(Method::GET, "app/app-host", String::new()).await["node"];
    assert_eq!((&kept["dir"], &kept["ttl"]), (&json!(true), &json!(9)), "{kept}");
    assert_eq!(kept["nodes"].as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(kept["nodes"][0]["key"], "/as/pilot/app/app-host/service");
    let content: Value = serde_json::from_str(kept["nodes"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(content, vectors()["etcd"]["value_2_7"]);
}

#[tokio::test]
async fn what_container_pilot_registered_is_found_whatever_the_tag() {
    let (_server, place) = alone("/pilots").await;
    let pilot = Pilot::new("/pilots").await;
    for (host, version) in [("x", "value_2_0"), ("y", "value_2_7")] {
        let mut content = vectors()["etcd"][version].clone();
        content["id"] = format!("web-{host}").into();
        pilot.register(host, 30, &content).await;
    }
    pilot.ask(Method::PUT, "web/file", "value=no directory".to_owned()).await;
    pilot.ask(Method::PUT, "web/empty?dir=true", String::new()).await;
    pilot.ask(Method::PUT, "web/odd/service", "value=rubbish".to_owned()).await;
    let tags = vec!["b".to_owned()];
    place.register(&Registration { tags, ..registration("web", "z", 1) }).await.unwrap();
    let theirs = ["web-x at 127.0.0.1:8080", "web-y at 127.0.0.1:8080"];
    found(&*place, &sought("web"), &[theirs[0], theirs[1], "web-z at 10.0.0.1:1"]).await;
    found(&*place, &Sought { tag: Some("a".to_owned()), ..sought("web") }, &theirs).await;
    found(
        &*place,
        &Sought { tag: Some("b".to_owned()), ..sought("web") },
        &[theirs[0], theirs[1], "web-z at 10.0.0.1:1"],
    )
    .await;
}

#[tokio::test]
async fn who_starts_again_within_the_ttl_moves_and_does_not_drop_out() {
    let (_server, place) = alone("/restart").await;
    let pilot = Pilot::new("/restart").await;
    let mut content = vectors()["etcd"]["value_2_7"].clone();
    content["id"] = "web-a".into();
    pilot.register("a", 3, &content).await;
    found(&*place, &sought("web"), &["web-a at 127.0.0.1:8080"]).await;
    let web = Registration { ttl: Duration::from_secs(3), ..registration("web", "a", 9090) };
    place.register(&web).await.unwrap();
    for _ in 0..10 {
        found(&*place, &sought("web"), &["web-a at 10.0.0.1:9090"]).await;
        sleep(Duration::from_millis(500)).await;
        place.pass(&web).await.unwrap();
    }
    found_within(SOON * 6, &*place, &sought("web"), &[]).await;
    assert_eq!(place.pass(&web).await, Err(DiscoveryError::Forgotten("web-a".to_owned())));
}

#[tokio::test]
async fn a_heartbeat_is_no_change_but_the_lack_of_one_is() {
    let (_server, place) = alone("/beats").await;
    let pilot = Pilot::new("/beats").await;
    pilot.register("x", 2, &vectors()["etcd"]["value_2_7"]).await;
    let mark = mark(&*place, &sought("web")).await;
    let waiting = tokio::spawn({
        let place = place.clone();
        async move { place.instances(&sought("web"), Some(mark), PATIENCE).await.unwrap() }
    });
    for _ in 0..8 {
        pilot.beat("x", 2).await;
        sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished(), "nothing has changed");
    }
    let found = timeout(SOON * 6, waiting).await.expect("it waits on").unwrap();
    assert_eq!(found.instances, []);
}

#[tokio::test]
async fn a_mark_that_the_history_does_not_reach_back_to_is_answered_at_once() {
    let (_server, place) = alone("/history").await;
    let pilot = Pilot::new("/history").await;
    let before = look(&*place, &sought("web")).await.mark;
    place.register(&registration("web", "a", 1)).await.unwrap();
    for _ in 0..1100 {
        pilot.ask(Method::PUT, "other", "value=x".to_owned()).await;
    }
    let found = timeout(SOON, place.instances(&sought("web"), before, PATIENCE)).await.expect("it waits on").unwrap();
    assert_eq!(found.instances.len(), 1);
}
