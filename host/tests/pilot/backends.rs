//! Backends: when `onChange` runs.

use std::time::{Duration, Instant};

use ochopod_discovery::ServiceRegistration;
use ochopod_pilot::config::{Backend, Config};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    kit::{CapturedLog, MS, SECOND, ScriptDir, TIMEOUT, TestActors, backend, config, eventually, gone, registered},
    memory_registry::{Availability, MemoryRegistry},
};

fn watching(backends: &[Backend]) -> Config {
    Config { backends: backends.to_vec(), ..config() }
}

fn db(port: u16) -> ServiceRegistration {
    registered("db", "db-1", port, &[])
}

/// Actors that watch these backends in this registry.
fn watched(registry: &MemoryRegistry, backends: &[Backend]) -> TestActors {
    let mut test = TestActors::new(&[("here", registry.clone())]);
    test.actors.apply(&watching(backends)).unwrap();
    test
}

/// Waits for this many more queries.
async fn wait_queries(registry: &MemoryRegistry, more: usize) {
    let wanted = registry.queries() + more;
    eventually("it was looked at", || registry.queries() >= wanted).await;
}

#[tokio::test]
async fn on_change_runs_at_each_change_only() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::new());
    registry.set_instances(&[db(1)]);
    let _test = watched(&registry, &[backend("db", 50 * MS, &dir.script("echo . >> @runs"))]);
    dir.has("runs", 1).await;
    let other = registered("web", "web-1", 9, &[]);
    let tagged = registered("db", "db-1", 2, &["new"]);
    for (held, runs) in [
        (vec![db(1)], 1),
        (vec![db(2)], 2),
        (vec![tagged], 2),
        (vec![db(2), other], 2),
        (vec![registered("db", "db-9", 2, &[])], 2),
        (vec![], 3),
        (vec![], 3),
        (vec![db(2)], 4),
    ] {
        registry.set_instances(&held);
        wait_queries(&registry, 3).await;
        dir.has("runs", runs).await;
        assert_eq!(dir.lines("runs"), runs, "{held:?}");
    }
}

#[tokio::test]
async fn first_query_follows_one_poll_after_the_start() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::new());
    registry.set_instances(&[db(1)]);
    let begin = Instant::now();
    let _test = watched(&registry, &[backend("db", 300 * MS, &dir.script("echo . >> @runs"))]);
    dir.has("runs", 1).await;
    assert!(begin.elapsed() >= 300 * MS);
}

#[tokio::test]
async fn backends_of_one_name_with_different_tags_do_not_flap() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::new());
    registry.set_instances(&[registered("db", "db-1", 1, &["blue"]), registered("db", "db-2", 2, &["green"])]);
    let tagged = |tag: &str| {
        let script = dir.script(&format!("echo . >> @{tag}"));
        Backend { tag: Some(tag.to_owned()), ..backend("db", 50 * MS, &script) }
    };
    let _test = watched(&registry, &[tagged("blue"), tagged("green"), tagged("red")]);
    dir.has("blue", 1).await;
    dir.has("green", 1).await;
    wait_queries(&registry, 12).await;
    assert_eq!(["blue", "green", "red"].map(|tag| dir.lines(tag)), [1, 1, 0]);
    registry.set_instances(&[registered("db", "db-1", 1, &["blue"])]);
    dir.has("green", 2).await;
    wait_queries(&registry, 6).await;
    assert_eq!(["blue", "green", "red"].map(|tag| dir.lines(tag)), [1, 2, 0]);
}

#[tokio::test]
async fn changes_during_on_change_cause_one_more_run() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::new());
    let script = "mkdir @busy || echo twice >> @twice; echo . >> @started; while test ! -e @go; do sleep 0.01; done; rmdir @busy; \
                  echo . >> @ended; exit 1";
    let _test = watched(&registry, &[backend("db", 20 * MS, &dir.script(script))]);
    registry.set_instances(&[db(1)]);
    dir.has("started", 1).await;
    for port in 2..7 {
        registry.set_instances(&[db(port)]);
        wait_queries(&registry, 2).await;
    }
    assert_eq!(dir.lines("started"), 1);
    std::fs::write(dir.path("go"), "").unwrap();
    dir.has("ended", 2).await;
    wait_queries(&registry, 5).await;
    assert_eq!((dir.lines("started"), dir.lines("ended"), dir.text("twice")), (2, 2, String::new()));
}

#[tokio::test]
async fn blocking_query_reports_a_change_immediately() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::blocking());
    let poll = 6 * SECOND;
    let _test = watched(&registry, &[backend("db", poll, &dir.script("echo . >> @runs"))]);
    wait_queries(&registry, 2).await;
    let mut slowest = Duration::ZERO;
    for round in 1..=5 {
        sleep(50 * MS).await;
        let begin = Instant::now();
        registry.set_instances(&[db(u16::try_from(round).unwrap())]);
        dir.has("runs", round).await;
        slowest = slowest.max(begin.elapsed());
    }
    assert!(slowest < poll * 3 / 4, "{slowest:?}");
    let before = registry.queries();
    sleep(poll).await;
    assert!(registry.queries() - before <= 3, "it is waited for, not polled");
}

#[tokio::test]
async fn unavailable_registry_is_no_change_and_logged_once() {
    let (dir, log, registry) = (ScriptDir::new(), CapturedLog::listen(), MemoryRegistry::blocking());
    registry.set_instances(&[db(1)]);
    let _test = watched(&registry, &[backend("db", 50 * MS, &dir.script("echo . >> @runs"))]);
    dir.has("runs", 1).await;
    registry.set_availability(Availability::Down);
    wait_queries(&registry, 6).await;
    registry.set_availability(Availability::Up);
    wait_queries(&registry, 3).await;
    assert_eq!(dir.lines("runs"), 1);
    registry.set_instances(&[]);
    dir.has("runs", 2).await;
    assert_eq!(log.count("WARN cannot query backend db: no answer"), 1);
    assert_eq!(log.count("INFO backend db reachable again"), 1);
}

#[tokio::test]
async fn failed_on_change_is_logged_and_not_repeated() {
    let (dir, log, registry) = (ScriptDir::new(), CapturedLog::listen(), MemoryRegistry::new());
    let script = dir.script("echo . >> @runs; echo reacting; test -e @hang && exec sleep 1000; exit 7");
    let _test = watched(&registry, &[Backend { limit: 3 * SECOND, ..backend("db", 30 * MS, &script) }]);
    registry.set_instances(&[db(1)]);
    eventually("it failed", || log.count("WARN db.onChange: exited with code 7") == 1).await;
    assert_eq!(log.count(r#"INFO reacting process="onChange" backend="db""#), 1);
    std::fs::write(dir.path("hang"), "").unwrap();
    registry.set_instances(&[db(2)]);
    eventually("it took too long", || log.count("WARN db.onChange timeout after 3s: '[-c ") == 1).await;
    wait_queries(&registry, 5).await;
    assert_eq!(dir.lines("runs"), 2);
}

#[tokio::test]
async fn changes_during_maintenance_are_seen_after_it() {
    for registry in [MemoryRegistry::new(), MemoryRegistry::blocking()] {
        let dir = ScriptDir::new();
        let mut test = watched(&registry, &[backend("db", 50 * MS, &dir.script("echo . >> @runs"))]);
        registry.set_instances(&[db(1)]);
        dir.has("runs", 1).await;
        test.actors.set_maintenance(true);
        sleep(20 * MS).await;
        let before = registry.queries();
        registry.set_instances(&[db(2)]);
        sleep(300 * MS).await;
        assert_eq!((registry.queries(), dir.lines("runs")), (before, 1));
        test.actors.set_maintenance(false);
        dir.has("runs", 2).await;
    }
}

#[tokio::test]
async fn known_instances_survive_a_reload_that_interrupts_on_change() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::new());
    registry.set_instances(&[db(1)]);
    let quick = backend("db", 50 * MS, &dir.script("echo $$ > @quick; echo . >> @runs"));
    let mut test = watched(&registry, std::slice::from_ref(&quick));
    dir.has("runs", 1).await;
    gone(dir.pid("quick").await).await;
    wait_queries(&registry, 1).await;
    let slow = backend("db", 40 * MS, &dir.script("echo $$ > @pid; echo . >> @slow; exec sleep 1000"));
    test.actors.apply(&watching(std::slice::from_ref(&slow))).unwrap();
    wait_queries(&registry, 4).await;
    assert_eq!((dir.lines("runs"), dir.lines("slow")), (1, 0));
    registry.set_instances(&[db(2)]);
    let pid = dir.pid("pid").await;
    test.actors.apply(&watching(std::slice::from_ref(&quick))).unwrap();
    dir.has("runs", 2).await;
    gone(pid).await;
    wait_queries(&registry, 4).await;
    assert_eq!((dir.lines("runs"), dir.lines("slow")), (2, 1));
}

#[tokio::test]
async fn hanging_registry_and_on_change_do_not_delay_the_shutdown() {
    let (dir, registry) = (ScriptDir::new(), MemoryRegistry::new());
    registry.set_instances(&[db(1)]);
    let script = dir.script("trap '' TERM; echo $$ > @pid; while :; do sleep 1000; done");
    let mut test = watched(&registry, &[backend("db", 50 * MS, &script), backend("web", 50 * MS, "exit 0")]);
    let pid = dir.pid("pid").await;
    registry.set_availability(Availability::Hanging);
    wait_queries(&registry, 1).await;
    let requested = Instant::now();
    assert_eq!(test.actors.deregister(TIMEOUT).await, 0);
    test.actors.shut_down(200 * MS).await;
    assert!(requested.elapsed() < TIMEOUT / 2, "{:?}", requested.elapsed());
    gone(pid).await;
}

#[tokio::test]
async fn status_counts_healthy_instances() {
    let registry = MemoryRegistry::new();
    registry.set_instances(&[db(1), registered("db", "db-2", 2, &["blue"])]);
    let blue = Backend { tag: Some("blue".to_owned()), ..backend("db", 20 * MS, "exit 0") };
    let test = watched(&registry, &[backend("db", 20 * MS, "exit 0"), blue]);
    let watches = || serde_json::to_value(test.actors.status().borrow().status()).unwrap()["Watches"].take();
    let expected = json!([{"Name": "db", "Healthy": 2}, {"Name": "db", "Tag": "blue", "Healthy": 1}]);
    eventually("all are counted", || watches() == expected).await;
}
