//! What an agent is asked.

use std::time::Duration;

use hyper::Method;
use ochopod::discovery::{ConsulAddress, DiscoveryError, Mark, Registration, Sought};
use ochopod_tests::{Client, consul::StandIn};
use serde_json::{Value, json};

use super::{address, agent, lines, open};
use crate::{found, found_within, look, registration, shown, sought};

/// What ContainerPilot and Consul were seen to say to each other.
fn seen() -> Value {
    let text = include_str!("../../../vectors/discovery.json");
    serde_json::from_str::<Value>(text).unwrap()["consul"].clone()
}

/// The path of a request of ContainerPilot's.
fn path(seen: &Value, what: &str, id: &str) -> String {
    seen[what]["path"].as_str().unwrap().replace("<service id>", id)
}

/// The body of a request of ContainerPilot's, for the service `app` on the host `host`.
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
    // Ones that are there only if they were set.
    body_object.retain(|key, _| !["EnableTagOverride", "DeregisterCriticalServiceAfter"].contains(&&**key));
    body
}

fn app() -> Registration {
    Registration {
        tags: vec!["t1".to_owned(), "t2".to_owned()],
        ttl: Duration::from_secs(10),
        ..registration("app", "host", 8080)
    }
}

#[tokio::test]
async fn service_and_check_are_registered_in_one_call_that_says_what_container_pilot_says_in_two() {
    let seen = seen();
    let (agent, place) = agent().await;
    place.register(&app()).await.unwrap();
    let asked = agent.asked();
    let register = path(&seen, "register", "");
    assert_eq!(lines(&asked), [format!("PUT {register}"), format!("PUT {}", path(&seen, "heartbeat", "app-host"))]);
    let mut expected = body(&seen, "register");
    let mut check = body(&seen, "check");
    let object = check.as_object_mut().unwrap();
    assert_eq!(object.remove("ServiceID"), Some("app-host".into()), "it is the check of the service it comes with");
    let id = object.remove("ID").unwrap();
    object.insert("CheckID".to_owned(), id);
    object.insert("Status".to_owned(), "passing".into());
    expected["Check"] = check;
    expected.as_object_mut().unwrap().remove("Checks");
    assert_eq!(asked[0].body, expected);
}

#[tokio::test]
async fn what_was_configured_for_consul_is_passed_on() {
    let (agent, place) = agent().await;
    let told = Registration {
        enable_tag_override: true,
        deregister_critical_service_after: Some("40m".to_owned()),
        tags: Vec::new(),
        address: "fd00::1".parse().unwrap(),
        ..app()
    };
    place.register(&told).await.unwrap();
    let expected = json!({
        "ID": "app-host", "Name": "app", "Tags": [], "Port": 8080, "Address": "fd00::1", "EnableTagOverride": true,
        "Check": {
            "CheckID": "app-host", "Name": "app-host", "Notes": "TTL for app set by containerpilot", "TTL": "10s",
            "Status": "passing", "DeregisterCriticalServiceAfter": "40m",
        },
    });
    assert_eq!(agent.asked()[0].body, expected);
}

#[tokio::test]
async fn the_other_requests_are_container_pilot_s() {
    let seen = seen();
    let (agent, place) = agent().await;
    place.register(&app()).await.unwrap();
    let begin = agent.asked().len();
    place.pass(&app()).await.unwrap();
    place.fail(&app(), "exit code 1").await.unwrap();
    place.deregister(&app()).await.unwrap();
    look(&*place, &sought("db")).await;
    let tagged = Sought { tag: Some("t1 ä".to_owned()), ..sought("a/b c") };
    look(&*place, &tagged).await;
    place.instances(&tagged, Some(Mark(1)), Duration::from_secs(1)).await.unwrap();
    let expected = [
        format!("PUT {}", path(&seen, "heartbeat", "app-host")),
        "PUT /v1/agent/check/fail/app-host?note=exit%20code%201".to_owned(),
        format!("PUT {}", path(&seen, "deregister", "app-host")),
        "GET /v1/health/service/db?passing=1".to_owned(),
        "GET /v1/health/service/a%2Fb%20c?passing=1&tag=t1%20%C3%A4".to_owned(),
        "GET /v1/health/service/a%2Fb%20c?passing=1&tag=t1%20%C3%A4&index=1&wait=1s".to_owned(),
    ];
    assert_eq!(lines(&agent.asked()[begin..]), expected);
}

/// Does what ContainerPilot does, and says which codes it got.
async fn container_pilot(agent: &StandIn, sequence: &Value) -> Vec<String> {
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
async fn the_stand_in_answers_container_pilot_as_consul_did() {
    let seen = seen();
    for version in ["2_0", "2_7"] {
        let agent = StandIn::start().await.unwrap();
        agent.grow_old();
        let sequence = &seen[format!("first_heartbeat_{version}")];
        assert_eq!(json!(container_pilot(&agent, sequence).await), *sequence);
        let status = &agent.checks()["app-host"]["Status"];
        let expected = if version == "2_0" { "2.0" } else { "2.5+" };
        assert_eq!(*status, seen["status_after_first_heartbeat"][expected]);
    }
}

#[tokio::test]
async fn what_container_pilot_left_is_replaced_with_its_check() {
    let (agent, place) = agent().await;
    container_pilot(&agent, &seen()["first_heartbeat_2_0"]).await;
    found(&*place, &sought("app"), &[]).await;
    let ours = Registration { port: 9090, ..app() };
    place.register(&ours).await.unwrap();
    found(&*place, &sought("app"), &["app-host at 10.0.0.1:9090"]).await;
    assert_eq!(agent.checks().as_object().unwrap().len(), 1);
    // And the other way round.
    container_pilot(&agent, &seen()["first_heartbeat_2_7"]).await;
    found(&*place, &sought("app"), &["app-host at 10.0.0.1:8080"]).await;
    place.pass(&ours).await.unwrap();
    place.deregister(&ours).await.unwrap();
    assert_eq!((agent.services(), agent.checks()), (json!({}), json!({})));
}

#[tokio::test]
async fn what_an_operator_has_in_maintenance_stays_there() {
    let (agent, place) = agent().await;
    place.register(&app()).await.unwrap();
    let maintenance = json!({
        "ID": "_service_maintenance:app-host", "Name": "Service Maintenance Mode", "ServiceID": "app-host",
        "TTL": "1h", "Status": "critical",
    });
    let client = Client::new(agent.address());
    let body = maintenance.to_string().into();
    client.send(Method::PUT, "/v1/agent/check/register", &[], body).await.unwrap().is(200).unwrap();
    found(&*place, &sought("app"), &[]).await;
    place.register(&app()).await.unwrap();
    found(&*place, &sought("app"), &[]).await;
}

#[tokio::test]
async fn a_critical_service_is_deregistered_after_a_while_if_that_is_wanted() {
    let (agent, place) = agent().await;
    let after = Some("1500ms".to_owned());
    let app = Registration { deregister_critical_service_after: after, ..app() };
    place.register(&app).await.unwrap();
    place.fail(&app, "no").await.unwrap();
    assert!(agent.services()["app-host"].is_object());
    let gone = async || {
        anyhow::ensure!(agent.services() == json!({}), "it is there");
        Ok(())
    };
    ochopod_tests::eventually("it is gone", Duration::from_secs(5), gone).await.unwrap();
    assert_eq!(place.pass(&app).await, Err(DiscoveryError::Forgotten("app-host".to_owned())));
    place.register(&app).await.unwrap();
    found_within(Duration::from_secs(1), &*place, &sought("app"), &["app-host at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn the_token_is_shown_with_every_request_and_in_its_header_only() {
    let agent = StandIn::start().await.unwrap();
    agent.require("s3cret");
    let with = |token: &str| open(ConsulAddress { token: Some(token.to_owned()), ..address(&agent.address()) });
    let place = with("s3cret").unwrap();
    place.register(&app()).await.unwrap();
    assert_eq!(shown(&*place, &sought("app")).await, ["app-host at 10.0.0.1:8080"]);
    place.deregister(&app()).await.unwrap();
    for asked in agent.asked() {
        assert_eq!(asked.token.as_deref(), Some("s3cret"), "{asked:?}");
        assert!(!asked.query.contains("s3cret"), "{asked:?}");
    }
    let strangers = [open(address(&agent.address())).unwrap(), with("wr0ng").unwrap()];
    for stranger in strangers {
        let errors = [
            stranger.register(&app()).await.unwrap_err(),
            stranger.pass(&app()).await.unwrap_err(),
            stranger.deregister(&app()).await.unwrap_err(),
            stranger.instances(&sought("app"), None, Duration::ZERO).await.unwrap_err(),
        ];
        for error in errors {
            let DiscoveryError::Refused(reason) = &error else { panic!("{error:?}") };
            assert!(reason.contains("403") && reason.contains("Permission denied"), "{reason}");
            assert!(reason.contains(&agent.address()) && !reason.contains("wr0ng"), "{reason}");
        }
    }
    let error = with("s3cret\n").err().unwrap();
    assert!(!error.to_string().contains("s3cret"), "{error}");
    let shown = format!("{:?}", ConsulAddress { token: Some("s3cret".to_owned()), ..address("consul:8500") });
    assert!(!shown.contains("s3cret"), "{shown}");
}
