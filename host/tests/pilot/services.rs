//! Services: registration, health and removal.

use ochopod_model::status::{LifecycleReport, ProcessState};
use ochopod_pilot::config::{Config, HealthCheck, Service, Telemetry};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    kit::{
        CapturedLog, SECOND, ScriptDir, TIMEOUT, TestActors, at, checked, config, eventually, gone, is_alive, service,
        with_services,
    },
    memory_registry::{Availability, MemoryRegistry, second},
};

#[tokio::test(start_paused = true)]
async fn service_is_registered_after_one_poll_and_passes_at_each() {
    let begin = Instant::now();
    let (_test, registry) = TestActors::applied(&with_services(&[service("app")]));
    second(begin, 35.0).await;
    assert_eq!(registry.recorded(), ["10 register app-h:80", "20 pass app-h", "30 pass app-h"]);
    assert_eq!(registry.healthy(), ["app-h"]);
}

#[tokio::test(start_paused = true)]
async fn registration_matches_the_configuration() {
    let service = Service {
        tags: vec!["web".to_owned()],
        enable_tag_override: true,
        deregister_critical_service_after: Some("40m".to_owned()),
        ..service("app")
    };
    let begin = Instant::now();
    let (_test, registry) = TestActors::applied(&with_services(std::slice::from_ref(&service)));
    second(begin, 10.0).await;
    let found = registry.registration("app-h").unwrap();
    assert_eq!((found.name, found.address, found.port), (service.name, service.address, service.port));
    assert_eq!((found.tags, found.ttl), (service.tags, service.ttl));
    assert!(found.enable_tag_override);
    assert_eq!(found.deregister_critical_service_after, service.deregister_critical_service_after);
}

#[tokio::test(start_paused = true)]
async fn telemetry_service_is_registered_after_five_seconds() {
    let begin = Instant::now();
    let telemetry =
        Telemetry { address: service("x").address, port: 9090, tags: vec!["t".to_owned()], sensors: Vec::new() };
    let (_test, registry) = TestActors::applied(&Config { telemetry: Some(telemetry), ..config() });
    second(begin, 12.0).await;
    assert_eq!(registry.recorded(), ["5 register containerpilot-h:9090", "10 pass containerpilot-h"]);
    let found = registry.registration("containerpilot-h").unwrap();
    assert_eq!((found.ttl, found.tags), (15 * SECOND, vec!["t".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn forgotten_service_is_registered_again_immediately() {
    let begin = Instant::now();
    let (_test, registry) = TestActors::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    registry.set_instances(&[]);
    second(begin, 25.0).await;
    assert_eq!(registry.recorded(), ["10 register app-h:80", "20 pass app-h", "20 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn unavailable_registry_is_updated_later_and_logged_once() {
    let log = CapturedLog::listen();
    let begin = Instant::now();
    let (_test, registry) = TestActors::applied(&with_services(&[service("app")]));
    registry.set_availability(Availability::Down);
    second(begin, 45.0).await;
    assert!(registry.healthy().is_empty());
    registry.set_availability(Availability::Up);
    second(begin, 50.0).await;
    assert_eq!(registry.healthy(), ["app-h"]);
    assert_eq!(log.count("WARN cannot update service app in the registry: no answer"), 1);
    assert_eq!(log.count("INFO service app: registry updates working again"), 1);
}

#[tokio::test(start_paused = true)]
async fn service_with_sanity_check_fails_with_its_pod() {
    let begin = Instant::now();
    let (test, registry) =
        TestActors::applied(&with_services(&[Service { health: HealthCheck::SanityCheck, ..service("app") }]));
    let report = |process, sane| LifecycleReport { process, last_check_passed: sane, ..LifecycleReport::default() };
    second(begin, 12.0).await;
    test.pod.send_replace(report(ProcessState::Running, None));
    second(begin, 22.0).await;
    assert!(registry.recorded().is_empty());
    test.pod.send_replace(report(ProcessState::Running, Some(true)));
    second(begin, 33.0).await;
    test.pod.send_replace(report(ProcessState::Running, Some(false)));
    second(begin, 45.0).await;
    test.pod.send_replace(report(ProcessState::Running, Some(true)));
    second(begin, 53.0).await;
    test.pod.send_replace(report(ProcessState::Stopped, None));
    second(begin, 54.0).await;
    let expected = [
        "30 register app-h:80",
        "33.001 fail app-h: sanity check failed",
        "50 pass app-h",
        "53.001 fail app-h: sub-process is stopped",
    ];
    assert_eq!(registry.recorded(), expected);
}

#[tokio::test(start_paused = true)]
async fn maintenance_deregisters_until_the_next_poll_after_it() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app"), service("other")]));
    second(begin, 12.0).await;
    test.actors.set_maintenance(true);
    second(begin, 15.0).await;
    assert!(registry.healthy().is_empty());
    let status = test.actors.status().borrow().status();
    assert_eq!(status.services.iter().map(|service| service.status).collect::<Vec<_>>(), ["maintenance"; 2]);
    registry.recorded();
    test.actors.apply(&with_services(&[service("app"), service("third")])).unwrap();
    assert!(test.actors.is_in_maintenance());
    second(begin, 55.0).await;
    assert!(registry.recorded().is_empty(), "maintenance survives a new configuration");
    test.actors.set_maintenance(false);
    second(begin, 59.0).await;
    assert!(registry.recorded().is_empty());
    second(begin, 66.0).await;
    assert_eq!(registry.recorded(), ["60 register app-h:80", "65.001 register third-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn deregister_removes_services_and_stops_polling() {
    let begin = Instant::now();
    let late = Service { poll: TIMEOUT, ..service("late") };
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app"), service("other"), late]));
    second(begin, 12.0).await;
    registry.recorded();
    assert_eq!(test.actors.deregister(5 * SECOND).await, 0);
    second(begin, 200.0).await;
    assert_eq!(
        registry.recorded_calls(),
        ["deregister app-h", "deregister other-h"],
        "what never was registered needs nothing"
    );
    assert_eq!(test.actors.deregister(5 * SECOND).await, 0);
}

#[tokio::test(start_paused = true)]
async fn hanging_registry_delays_deregistration_up_to_the_limit() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app"), service("other")]));
    second(begin, 12.0).await;
    registry.set_availability(Availability::Hanging);
    second(begin, 21.0).await;
    let requested = Instant::now();
    assert_eq!(test.actors.deregister(2 * SECOND).await, 2);
    assert_eq!(requested.elapsed(), 2 * SECOND);
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app"), service("other")]));
    second(Instant::now(), 12.0).await;
    registry.set_availability(Availability::Slow(SECOND));
    let requested = Instant::now();
    assert_eq!(test.actors.deregister(5 * SECOND).await, 0);
    assert_eq!(requested.elapsed(), SECOND, "all concurrently");
}

#[tokio::test(start_paused = true)]
async fn registration_in_progress_is_removed_too() {
    for maintenance in [false, true] {
        let begin = Instant::now();
        let (mut test, registry) = TestActors::applied(&with_services(&[service("app")]));
        registry.set_availability(Availability::Slow(2 * SECOND));
        second(begin, 11.0).await;
        if maintenance {
            test.actors.set_maintenance(true);
        } else {
            assert_eq!(test.actors.deregister(10 * SECOND).await, 0);
        }
        second(begin, 16.0).await;
        assert_eq!(registry.recorded(), ["10 register app-h:80", "12 deregister app-h"]);
        assert_eq!(registry.registration("app-h"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn leftovers_are_deregistered_without_starting_anything() {
    let (mut test, registry) = TestActors::alone();
    registry.set_availability(Availability::Slow(SECOND));
    let both = with_services(&[service("app"), service("other")]);
    let begin = Instant::now();
    assert_eq!(test.actors.deregister_config(&both, 5 * SECOND).await, 0);
    second(begin, 60.0).await;
    assert_eq!(registry.recorded(), ["0 deregister app-h", "0 deregister other-h"]);
    registry.set_availability(Availability::Down);
    assert_eq!(test.actors.deregister_config(&both, 5 * SECOND).await, 2);
    assert_eq!(test.actors.deregister_config(&Config { registry: at("nowhere"), ..both }, 5 * SECOND).await, 2);
}

#[tokio::test]
async fn service_follows_its_check_and_changes_are_logged() {
    let (dir, log) = (ScriptDir::new(), CapturedLog::listen());
    let script = dir.script("echo . >> @runs; echo looking; test -e @well || exit 3");
    let (_test, registry) = TestActors::applied(&with_services(&[checked("app", &script)]));
    dir.has("runs", 4).await;
    assert_eq!(registry.recorded(), Vec::<String>::new());
    std::fs::write(dir.path("well"), "").unwrap();
    eventually("it is registered", || registry.healthy() == ["app-h"]).await;
    std::fs::remove_file(dir.path("well")).unwrap();
    eventually("it fails", || registry.healthy().is_empty()).await;
    let runs = dir.lines("runs");
    dir.has("runs", runs + 3).await;
    std::fs::write(dir.path("well"), "").unwrap();
    eventually("it passes again", || registry.healthy() == ["app-h"]).await;
    assert_eq!(registry.recorded_calls(), ["register app-h:80", "fail app-h: exited with code 3"]);
    assert_eq!(log.count("WARN app.health: exited with code 3"), 2);
    assert_eq!(log.count("INFO app.health: passing again"), 2);
    assert!(log.count(r#"INFO looking process="health" serviceName="app" serviceID="app-h""#) >= 4, "{}", log.text());
}

#[tokio::test]
async fn check_exceeding_its_limit_fails_and_is_stopped() {
    let (dir, log) = (ScriptDir::new(), CapturedLog::listen());
    let script = dir.script("test -e @hang || exit 0; echo $$ > @pid; exec sleep 1000");
    let (_test, registry) =
        TestActors::applied(&with_services(&[Service { limit: 3 * SECOND, ..checked("app", &script) }]));
    eventually("it is registered", || registry.healthy() == ["app-h"]).await;
    std::fs::write(dir.path("hang"), "").unwrap();
    eventually("it fails", || registry.healthy().is_empty()).await;
    assert_eq!(registry.recorded_calls(), ["register app-h:80", "fail app-h: timeout after 3s"]);
    assert!(log.count(&format!("WARN app.health timeout after 3s: '[-c {script}]'")) > 0, "{}", log.text());
    assert_eq!(log.count("WARN app.health: timeout after 3s"), 1);
    let pid = dir.pid("pid").await;
    gone(pid).await;
}

#[tokio::test]
async fn check_that_cannot_start_fails_and_is_logged_once() {
    let log = CapturedLog::listen();
    let mut missing = checked("app", "");
    missing.health = HealthCheck::Command(ochopod_pilot::config::CommandLine {
        program: "/no/such/check".to_owned(),
        arguments: Vec::new(),
    });
    let (_test, registry) = TestActors::applied(&with_services(&[missing, checked("other", "exit 0")]));
    eventually("the other one passes", || registry.count("pass other-h") > 2).await;
    assert_eq!(registry.healthy(), ["other-h"]);
    assert_eq!(log.count("WARN app.health: cannot execute /no/such/check: No such file or directory"), 1);
}

#[tokio::test]
async fn hanging_check_delays_nothing_else() {
    let dir = ScriptDir::new();
    let script =
        dir.script("echo . >> @runs; test $(wc -l < @runs) = 1 && exit 0; trap '' TERM; echo $$ > @pid; sleep 1000");
    let (mut test, registry) =
        TestActors::applied(&with_services(&[checked("app", &script), checked("other", "exit 0")]));
    let pid = dir.pid("pid").await;
    let passes = registry.count("pass other-h");
    eventually("the other one passes", || registry.count("pass other-h") > passes).await;
    assert!(is_alive(pid));
    test.actors.set_maintenance(true);
    eventually("both are removed", || registry.healthy().is_empty()).await;
    gone(pid).await;
    test.actors.set_maintenance(false);
    std::fs::remove_file(dir.path("pid")).unwrap();
    let pid = dir.pid("pid").await;
    eventually("the other one is back", || registry.healthy() == ["other-h"]).await;
    let requested = std::time::Instant::now();
    assert_eq!(test.actors.deregister(TIMEOUT).await, 0);
    assert!(requested.elapsed() < TIMEOUT / 2, "{:?}", requested.elapsed());
    assert!(registry.healthy().is_empty());
    gone(pid).await;
}

#[tokio::test(start_paused = true)]
async fn status_lists_services_as_containerpilot_3() {
    let registry = MemoryRegistry::new();
    let mut test = TestActors::new(&[("here", registry)]);
    let begin = Instant::now();
    let sane = Service { health: HealthCheck::SanityCheck, ..service("pod") };
    let status_view = test.actors.status();
    test.actors.apply(&with_services(&[service("app"), sane])).unwrap();
    let status = || serde_json::to_value(status_view.borrow().status()).unwrap();
    assert_eq!(status()["Services"][0], json!({"Name": "app", "Address": "10.0.0.1", "Port": 80, "Status": "unknown"}));
    second(begin, 11.0).await;
    assert_eq!(status()["Services"][0]["Status"], "healthy");
    assert_eq!(status()["Services"][1]["Status"], "unhealthy");
    let version = env!("CARGO_PKG_VERSION");
    let found = status();
    assert_eq!((&found["Version"], &found["Watches"], &found["Tasks"]), (&json!(version), &json!([]), &json!([])));
    assert_eq!(found["Coprocesses"], json!([]));
}
