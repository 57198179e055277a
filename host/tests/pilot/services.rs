//! When services are registered, told to be healthy or not, and removed.

use std::time::Duration;

use ochopod::{
    pilot::config::{Config, Health, Service, Telemetry},
    status::{LifecycleReport, ProcessState},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    kit::{Desk, LIMIT, Log, MS, SECOND, Ship, at, checked, config, eventually, gone, lives, service, with_services},
    place::{InMemory, Weather, second},
};

#[tokio::test(start_paused = true)]
async fn a_service_is_registered_one_poll_after_the_start_and_passes_at_each_poll() {
    let begin = Instant::now();
    let (_ship, place) = Ship::applied(&with_services(&[service("app")]));
    second(begin, 35.0).await;
    assert_eq!(place.told(), ["10 register app-h:80", "20 pass app-h", "30 pass app-h"]);
    assert_eq!(place.healthy(), ["app-h"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_what_the_configuration_says() {
    let service = Service {
        tags: vec!["web".to_owned()],
        enable_tag_override: true,
        deregister_critical_service_after: Some("40m".to_owned()),
        ..service("app")
    };
    let begin = Instant::now();
    let (_ship, place) = Ship::applied(&with_services(std::slice::from_ref(&service)));
    second(begin, 10.0).await;
    let found = place.registration("app-h").unwrap();
    assert_eq!((found.name, found.address, found.port), (service.name, service.address, service.port));
    assert_eq!((found.tags, found.ttl), (service.tags, service.ttl));
    assert!(found.enable_tag_override);
    assert_eq!(found.deregister_critical_service_after, service.deregister_critical_service_after);
}

#[tokio::test(start_paused = true)]
async fn telemetry_is_a_service_that_is_registered_after_five_seconds() {
    let begin = Instant::now();
    let telemetry =
        Telemetry { address: service("x").address, port: 9090, tags: vec!["t".to_owned()], sensors: Vec::new() };
    let (_ship, place) = Ship::applied(&Config { telemetry: Some(telemetry), ..config() });
    second(begin, 12.0).await;
    assert_eq!(place.told(), ["5 register containerpilot-h:9090", "10 pass containerpilot-h"]);
    let found = place.registration("containerpilot-h").unwrap();
    assert_eq!((found.ttl, found.tags), (15 * SECOND, vec!["t".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_forgot_a_service_is_told_again_at_once() {
    let begin = Instant::now();
    let (_ship, place) = Ship::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    place.holds(&[]);
    second(begin, 25.0).await;
    assert_eq!(place.told(), ["10 register app-h:80", "20 pass app-h", "20 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_away_is_told_when_it_is_back_and_the_log_tells_it_once() {
    let log = Log::listen();
    let begin = Instant::now();
    let (_ship, place) = Ship::applied(&with_services(&[service("app")]));
    place.turns(Weather::Away);
    second(begin, 45.0).await;
    assert!(place.healthy().is_empty());
    place.turns(Weather::Fine);
    second(begin, 50.0).await;
    assert_eq!(place.healthy(), ["app-h"]);
    assert_eq!(log.count("WARN cannot tell how app is: nobody answers"), 1);
    assert_eq!(log.count("INFO it can be told again how app is"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_as_healthy_as_its_pod_fails_the_moment_the_pod_is_not_sane() {
    let begin = Instant::now();
    let (ship, place) = Ship::applied(&with_services(&[Service { health: Health::SanityCheck, ..service("app") }]));
    let report = |process, sane| LifecycleReport { process, sane, ..LifecycleReport::default() };
    second(begin, 12.0).await;
    ship.pod.send_replace(report(ProcessState::Running, None));
    second(begin, 22.0).await;
    assert!(place.told().is_empty());
    ship.pod.send_replace(report(ProcessState::Running, Some(true)));
    second(begin, 33.0).await;
    ship.pod.send_replace(report(ProcessState::Running, Some(false)));
    second(begin, 45.0).await;
    ship.pod.send_replace(report(ProcessState::Running, Some(true)));
    second(begin, 53.0).await;
    ship.pod.send_replace(report(ProcessState::Stopped, None));
    second(begin, 54.0).await;
    let expected = [
        "30 register app-h:80",
        "33.001 fail app-h: the sanity check failed",
        "50 pass app-h",
        "53.001 fail app-h: the sub-process is stopped",
    ];
    assert_eq!(place.told(), expected);
}

#[tokio::test(start_paused = true)]
async fn maintenance_removes_services_until_it_is_over_and_the_next_poll_comes() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app"), service("other")]));
    second(begin, 12.0).await;
    ship.crew.maintain(true);
    second(begin, 15.0).await;
    assert!(place.healthy().is_empty());
    let status = ship.crew.roster().borrow().status();
    assert_eq!(status.services.iter().map(|service| service.status).collect::<Vec<_>>(), ["maintenance"; 2]);
    place.told();
    ship.crew.apply(&with_services(&[service("app"), service("third")])).unwrap();
    assert!(ship.crew.is_in_maintenance());
    second(begin, 55.0).await;
    assert!(place.told().is_empty(), "maintenance survives a new configuration");
    ship.crew.maintain(false);
    second(begin, 59.0).await;
    assert!(place.told().is_empty());
    second(begin, 66.0).await;
    assert_eq!(place.told(), ["60 register app-h:80", "65.001 register third-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn withdrawing_removes_what_is_registered_and_stops_all_polls() {
    let begin = Instant::now();
    let late = Service { poll: LIMIT, ..service("late") };
    let (mut ship, place) = Ship::applied(&with_services(&[service("app"), service("other"), late]));
    second(begin, 12.0).await;
    place.told();
    assert_eq!(ship.crew.withdraw(5 * SECOND).await, 0);
    second(begin, 200.0).await;
    assert_eq!(place.news(), ["deregister app-h", "deregister other-h"], "what never was registered needs nothing");
    assert_eq!(ship.crew.withdraw(5 * SECOND).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_delays_the_withdrawal_by_no_more_than_the_limit_and_tells_how_many_remain() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app"), service("other")]));
    second(begin, 12.0).await;
    place.turns(Weather::Hanging);
    second(begin, 21.0).await;
    let asked = Instant::now();
    assert_eq!(ship.crew.withdraw(2 * SECOND).await, 2);
    assert_eq!(asked.elapsed(), 2 * SECOND);
    let (mut ship, place) = Ship::applied(&with_services(&[service("app"), service("other")]));
    second(Instant::now(), 12.0).await;
    place.turns(Weather::Slow(SECOND));
    let asked = Instant::now();
    assert_eq!(ship.crew.withdraw(5 * SECOND).await, 0);
    assert_eq!(asked.elapsed(), SECOND, "all at once");
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_under_way_is_not_left_behind() {
    for maintenance in [false, true] {
        let begin = Instant::now();
        let (mut ship, place) = Ship::applied(&with_services(&[service("app")]));
        place.turns(Weather::Slow(2 * SECOND));
        second(begin, 11.0).await;
        if maintenance {
            ship.crew.maintain(true);
        } else {
            assert_eq!(ship.crew.withdraw(10 * SECOND).await, 0);
        }
        second(begin, 16.0).await;
        assert_eq!(place.told(), ["10 register app-h:80", "12 deregister app-h"]);
        assert_eq!(place.registration("app-h"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_life_left_can_be_removed_without_starting_anything() {
    let (mut ship, place) = Ship::alone();
    place.turns(Weather::Slow(SECOND));
    let both = with_services(&[service("app"), service("other")]);
    let begin = Instant::now();
    assert_eq!(ship.crew.withdraw_all(&both, 5 * SECOND).await, 0);
    second(begin, 60.0).await;
    assert_eq!(place.told(), ["0 deregister app-h", "0 deregister other-h"]);
    place.turns(Weather::Away);
    assert_eq!(ship.crew.withdraw_all(&both, 5 * SECOND).await, 2);
    assert_eq!(ship.crew.withdraw_all(&Config { place: at("nowhere"), ..both }, 5 * SECOND).await, 2);
}

#[tokio::test]
async fn a_service_is_as_healthy_as_its_check_and_the_log_tells_changes_only() {
    let (desk, log) = (Desk::new(), Log::listen());
    let script = desk.script("echo . >> @runs; echo looking; test -e @well || exit 3");
    let (_ship, place) = Ship::applied(&with_services(&[checked("app", &script)]));
    desk.has("runs", 4).await;
    assert_eq!(place.told(), Vec::<String>::new());
    std::fs::write(desk.path("well"), "").unwrap();
    eventually("it is registered", || place.healthy() == ["app-h"]).await;
    std::fs::remove_file(desk.path("well")).unwrap();
    eventually("it fails", || place.healthy().is_empty()).await;
    let runs = desk.lines("runs");
    desk.has("runs", runs + 3).await;
    std::fs::write(desk.path("well"), "").unwrap();
    eventually("it passes again", || place.healthy() == ["app-h"]).await;
    assert_eq!(place.news(), ["register app-h:80", "fail app-h: ended with code 3"]);
    assert_eq!(log.count("WARN app.health: ended with code 3"), 2);
    assert_eq!(log.count("INFO app.health passes again"), 2);
    assert!(log.count(r#"INFO looking process="health" serviceName="app" serviceID="app-h""#) >= 4, "{}", log.text());
}

#[tokio::test]
async fn a_check_that_takes_too_long_is_a_failure_and_is_ended() {
    let (desk, log) = (Desk::new(), Log::listen());
    let script = desk.script("test -e @hang || exit 0; echo $$ > @pid; exec sleep 1000");
    let (_ship, place) = Ship::applied(&with_services(&[Service { limit: 300 * MS, ..checked("app", &script) }]));
    eventually("it is registered", || place.healthy() == ["app-h"]).await;
    std::fs::write(desk.path("hang"), "").unwrap();
    eventually("it fails", || place.healthy().is_empty()).await;
    assert_eq!(place.news(), ["register app-h:80", "fail app-h: timeout after 300ms"]);
    assert!(log.count(&format!("WARN app.health timeout after 300ms: '[-c {script}]'")) > 0, "{}", log.text());
    assert_eq!(log.count("WARN app.health: timeout after 300ms"), 1);
    let pid = desk.pid("pid").await;
    gone(pid).await;
}

#[tokio::test]
async fn a_check_that_cannot_be_started_is_a_failure_whose_reason_is_told_once() {
    let log = Log::listen();
    let mut missing = checked("app", "");
    missing.health = Health::Command(ochopod::pilot::config::Command {
        program: "/no/such/check".to_owned(),
        arguments: Vec::new(),
    });
    let (_ship, place) = Ship::applied(&with_services(&[missing, checked("other", "exit 0")]));
    eventually("the other one passes", || place.count("pass other-h") > 2).await;
    assert_eq!(place.healthy(), ["other-h"]);
    assert_eq!(log.count("WARN app.health: cannot execute /no/such/check: No such file or directory"), 1);
}

#[tokio::test]
async fn a_check_that_hangs_delays_neither_other_services_nor_maintenance_nor_the_withdrawal() {
    let desk = Desk::new();
    let script =
        desk.script("echo . >> @runs; test $(wc -l < @runs) = 1 && exit 0; trap '' TERM; echo $$ > @pid; sleep 1000");
    let (mut ship, place) = Ship::applied(&with_services(&[checked("app", &script), checked("other", "exit 0")]));
    let pid = desk.pid("pid").await;
    let passes = place.count("pass other-h");
    eventually("the other one passes", || place.count("pass other-h") > passes).await;
    assert!(lives(pid));
    ship.crew.maintain(true);
    eventually("both are removed", || place.healthy().is_empty()).await;
    gone(pid).await;
    ship.crew.maintain(false);
    std::fs::remove_file(desk.path("pid")).unwrap();
    let pid = desk.pid("pid").await;
    eventually("the other one is back", || place.healthy() == ["other-h"]).await;
    let asked = std::time::Instant::now();
    assert_eq!(ship.crew.withdraw(LIMIT).await, 0);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(place.healthy().is_empty());
    gone(pid).await;
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_services_as_containerpilot_3_does() {
    let place = InMemory::new();
    let mut ship = Ship::new(&[("here", place)]);
    let begin = Instant::now();
    let sane = Service { health: Health::SanityCheck, ..service("pod") };
    let roster = ship.crew.roster();
    ship.crew.apply(&with_services(&[service("app"), sane])).unwrap();
    let status = || serde_json::to_value(roster.borrow().status()).unwrap();
    assert_eq!(status()["Services"][0], json!({"Name": "app", "Address": "10.0.0.1", "Port": 80, "Status": "unknown"}));
    second(begin, 11.0).await;
    assert_eq!(status()["Services"][0]["Status"], "healthy");
    assert_eq!(status()["Services"][1]["Status"], "unhealthy");
    let version = env!("CARGO_PKG_VERSION");
    let found = status();
    assert_eq!((&found["Version"], &found["Watches"], &found["Tasks"]), (&json!(version), &json!([]), &json!([])));
    assert_eq!(found["Coprocesses"], json!([]));
}
