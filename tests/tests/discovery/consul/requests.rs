//! Requests to an agent.

use std::time::Duration;

use hyper::Method;
use ochopod_discovery::{ChangeIndex, ConsulAddress, RegistryError, ServiceQuery, ServiceRegistration};
use ochopod_tests::{Client, consul::FakeConsul};
use serde_json::{Value, json};

use super::{address, agent, lines, open};
use crate::{DEFAULT_TIMEOUT, find, found, found_within, listed, query, registration};

/// Returns recorded requests and replies of ContainerPilot and Consul.
fn seen() -> Value {
    let text = include_str!("../../../vectors/discovery.json");
    serde_json::from_str::<Value>(text).unwrap()["consul"].clone()
}

/// Returns the path of a request of ContainerPilot's.
fn path(seen: &Value, what: &str, id: &str) -> String {
    seen[what]["path"].as_str().unwrap().replace("<service id>", id)
}

/// Returns the body of a request of ContainerPilot's, for the service `app` on the host `host`.
fn body(seen: &Value, what: &str) -> Value {
    let text = seen[what]["body"].to_string();
    let filled = [
        ("<name>", "app"),
        ("<hostname>", "host"),
        ("<ip>", "10.0.0.1"),
        ("<service id>", "app-host"),
        ("<ttl>", "10"),
    ];
    let filled = filled.iter().fold(text, |text, (from, to)| text.replace(from, to));
    let mut body: Value = serde_json::from_str(&filled).unwrap();
    let body_object = body.as_object_mut().unwrap();
    // Present only if they were set.
    body_object.retain(|key, _| !["EnableTagOverride", "DeregisterCriticalServiceAfter"].contains(&&**key));
    body
}

fn app() -> ServiceRegistration {
    ServiceRegistration {
        tags: vec!["t1".to_owned(), "t2".to_owned()],
        ttl: Duration::from_secs(10),
        ..registration("app", "host", 8080)
    }
}

#[tokio::test]
async fn service_and_check_are_registered_in_one_call_equal_to_the_two_of_container_pilot() {
    let seen = seen();
    let (agent, registry) = agent().await;
    registry.register(&app()).await.unwrap();
    let calls = agent.calls();
    let register = path(&seen, "register", "");
    let heartbeat = path(&seen, "heartbeat", "app-host");
    // The first request checks whether the id is known in another case.
    let expected = ["GET /v1/agent/services".to_owned(), format!("PUT {register}"), format!("PUT {heartbeat}")];
    assert_eq!(lines(&calls), expected);
    let mut expected = body(&seen, "register");
    let mut check = body(&seen, "check");
    let object = check.as_object_mut().unwrap();
    assert_eq!(object.remove("ServiceID"), Some("app-host".into()), "it is the check of the service it comes with");
    let id = object.remove("ID").unwrap();
    object.insert("CheckID".to_owned(), id);
    object.insert("Status".to_owned(), "passing".into());
    expected["Check"] = check;
    expected.as_object_mut().unwrap().remove("Checks");
    assert_eq!(calls[1].body, expected);
}

#[tokio::test]
async fn consul_options_are_passed_on() {
    let (agent, registry) = agent().await;
    let service = ServiceRegistration {
        enable_tag_override: true,
        deregister_critical_service_after: Some("40m".to_owned()),
        tags: Vec::new(),
        address: "fd00::1".parse().unwrap(),
        ..app()
    };
    registry.register(&service).await.unwrap();
    let expected = json!({
        "ID": "app-host", "Name": "app", "Tags": [], "Port": 8080, "Address": "fd00::1", "EnableTagOverride": true,
        "Check": {
            "CheckID": "app-host", "Name": "app-host", "Notes": "TTL for app set by containerpilot", "TTL": "10s",
            "Status": "passing", "DeregisterCriticalServiceAfter": "40m",
        },
    });
    assert_eq!(agent.calls()[1].body, expected);
}

#[tokio::test]
async fn other_requests_equal_those_of_container_pilot() {
    let seen = seen();
    let (agent, registry) = agent().await;
    registry.register(&app()).await.unwrap();
    let begin = agent.calls().len();
    registry.pass(&app()).await.unwrap();
    registry.fail(&app(), "exit code 1").await.unwrap();
    registry.deregister(&app()).await.unwrap();
    find(&*registry, &query("db")).await;
    let tagged = ServiceQuery { tag: Some("t1 ä".to_owned()), ..query("a/b c") };
    find(&*registry, &tagged).await;
    registry.instances(&tagged, Some(ChangeIndex(1)), Duration::from_secs(1)).await.unwrap();
    let expected = [
        format!("PUT {}", path(&seen, "heartbeat", "app-host")),
        "PUT /v1/agent/check/fail/app-host?note=exit%20code%201".to_owned(),
        format!("PUT {}", path(&seen, "deregister", "app-host")),
        "GET /v1/health/service/db?passing=1".to_owned(),
        "GET /v1/health/service/a%2Fb%20c?passing=1&tag=t1%20%C3%A4".to_owned(),
        "GET /v1/health/service/a%2Fb%20c?passing=1&tag=t1%20%C3%A4&index=1&wait=1s".to_owned(),
    ];
    assert_eq!(lines(&agent.calls()[begin..]), expected);
}

/// Sends the requests of ContainerPilot, and returns their codes.
async fn container_pilot(agent: &FakeConsul, sequence: &Value) -> Vec<String> {
    let seen = seen();
    let client = Client::new(agent.address());
    let mut answered = Vec::new();
    for step in sequence.as_array().unwrap() {
        let what = step.as_str().unwrap().split(" -> ").next().unwrap();
        let (path, body) = match what {
            "pass" => (path(&seen, "heartbeat", "app-host"), String::new()),
            "register" => (path(&seen, "register", ""), body(&seen, "register").to_string()),
            _ => (path(&seen, "check", ""), body(&seen, "check").to_string()),
        };
        let status = client.send(Method::PUT, &path, &[], body.into()).await.unwrap().status;
        answered.push(if what == "pass" { format!("pass -> {status}") } else { what.to_owned() });
    }
    answered
}

#[tokio::test]
async fn fake_consul_answers_container_pilot_as_consul_did() {
    let seen = seen();
    for version in ["2_0", "2_7"] {
        let agent = FakeConsul::start().await.unwrap();
        agent.use_old_api();
        let sequence = &seen[format!("first_heartbeat_{version}")];
        assert_eq!(json!(container_pilot(&agent, sequence).await), *sequence);
        let status = &agent.checks()["app-host"]["Status"];
        let expected = if version == "2_0" { "2.0" } else { "2.5+" };
        assert_eq!(*status, seen["status_after_first_heartbeat"][expected]);
    }
}

#[tokio::test]
async fn registration_of_container_pilot_is_replaced_with_its_check() {
    let (agent, registry) = agent().await;
    container_pilot(&agent, &seen()["first_heartbeat_2_0"]).await;
    found(&*registry, &query("app"), &[]).await;
    let ours = ServiceRegistration { port: 9090, ..app() };
    registry.register(&ours).await.unwrap();
    found(&*registry, &query("app"), &["app-host at 10.0.0.1:9090"]).await;
    assert_eq!(agent.checks().as_object().unwrap().len(), 1);
    // And the other way round.
    container_pilot(&agent, &seen()["first_heartbeat_2_7"]).await;
    found(&*registry, &query("app"), &["app-host at 10.0.0.1:8080"]).await;
    registry.pass(&ours).await.unwrap();
    registry.deregister(&ours).await.unwrap();
    assert_eq!((agent.services(), agent.checks()), (json!({}), json!({})));
}

#[tokio::test]
async fn instance_in_maintenance_stays_there() {
    let (agent, registry) = agent().await;
    registry.register(&app()).await.unwrap();
    let maintenance = json!({
        "ID": "_service_maintenance:app-host", "Name": "Service Maintenance Mode", "ServiceID": "app-host",
        "TTL": "1h", "Status": "critical",
    });
    let client = Client::new(agent.address());
    let body = maintenance.to_string().into();
    client.send(Method::PUT, "/v1/agent/check/register", &[], body).await.unwrap().is(200).unwrap();
    found(&*registry, &query("app"), &[]).await;
    registry.register(&app()).await.unwrap();
    found(&*registry, &query("app"), &[]).await;
}

#[tokio::test]
async fn critical_service_is_deregistered_after_the_configured_time() {
    let (agent, registry) = agent().await;
    let after = Some("4s".to_owned());
    let app = ServiceRegistration { deregister_critical_service_after: after, ..app() };
    registry.register(&app).await.unwrap();
    registry.fail(&app, "no").await.unwrap();
    assert!(agent.services()["app-host"].is_object());
    let gone = async || {
        anyhow::ensure!(agent.services() == json!({}), "it is there");
        Ok(())
    };
    ochopod_tests::eventually("it is gone", Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(registry.pass(&app).await, Err(RegistryError::NotRegistered("app-host".to_owned())));
    registry.register(&app).await.unwrap();
    found_within(DEFAULT_TIMEOUT, &*registry, &query("app"), &["app-host at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn token_is_sent_with_every_request_in_its_header_only() {
    let agent = FakeConsul::start().await.unwrap();
    agent.require("s3cret");
    let with = |token: &str| open(ConsulAddress { token: Some(token.to_owned()), ..address(&agent.address()) });
    let registry = with("s3cret").unwrap();
    registry.register(&app()).await.unwrap();
    assert_eq!(listed(&*registry, &query("app")).await, ["app-host at 10.0.0.1:8080"]);
    registry.deregister(&app()).await.unwrap();
    for call in agent.calls() {
        assert_eq!(call.token.as_deref(), Some("s3cret"), "{call:?}");
        assert!(!call.query.contains("s3cret"), "{call:?}");
    }
    let strangers = [open(address(&agent.address())).unwrap(), with("wr0ng").unwrap()];
    for stranger in strangers {
        let errors = [
            stranger.register(&app()).await.unwrap_err(),
            stranger.pass(&app()).await.unwrap_err(),
            stranger.deregister(&app()).await.unwrap_err(),
            stranger.instances(&query("app"), None, Duration::ZERO).await.unwrap_err(),
        ];
        for error in errors {
            let RegistryError::Rejected(reason) = &error else { panic!("{error:?}") };
            assert!(reason.contains("403") && reason.contains("Permission denied"), "{reason}");
            assert!(reason.contains(&agent.address()) && !reason.contains("wr0ng"), "{reason}");
        }
    }
    let error = with("s3cret\n").err().unwrap();
    assert!(!error.to_string().contains("s3cret"), "{error}");
    let shown = format!("{:?}", ConsulAddress { token: Some("s3cret".to_owned()), ..address("consul:8500") });
    assert!(!shown.contains("s3cret"), "{shown}");
}
