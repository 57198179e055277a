//! Tasks and sensors.

use std::time::{Duration, Instant};

use ochopod::pilot::config::{Config, Sensor, SensorKind, Task, Telemetry};
use serde_json::Value;
use tokio::time::sleep;

use crate::kit::{Desk, LIMIT, Log, MS, SECOND, Ship, config, eventually, gone, lives, service, sh};

fn task(name: &str, frequency: Duration, script: &str) -> Task {
    Task { name: name.to_owned(), command: sh(script), frequency, limit: LIMIT }
}

fn doing(tasks: &[Task]) -> Config {
    Config { tasks: tasks.to_vec(), ..config() }
}

fn sensor(metric: &str, script: &str) -> Sensor {
    let (help, kind) = (String::new(), SensorKind::Gauge);
    Sensor { metric: metric.to_owned(), help, kind, poll: 50 * MS, check: sh(script), limit: LIMIT }
}

fn measuring(sensors: &[Sensor]) -> Config {
    let (address, sensors) = (service("x").address, sensors.to_vec());
    Config { telemetry: Some(Telemetry { address, port: 9090, tags: Vec::new(), sensors }), ..config() }
}

#[tokio::test]
async fn a_task_first_runs_after_one_interval_and_then_again_and_again_and_its_output_is_logged() {
    let (desk, log) = (Desk::new(), Log::listen());
    let begin = Instant::now();
    let (ship, _) =
        Ship::applied(&doing(&[task("clean", 200 * MS, &desk.script("echo . >> @runs; echo cleaning; exit 4"))]));
    desk.has("runs", 1).await;
    assert!(begin.elapsed() >= 200 * MS);
    desk.has("runs", 3).await;
    assert!(begin.elapsed() >= 600 * MS);
    eventually("it is logged", || log.count("WARN task[clean]: ended with code 4") >= 2).await;
    assert!(log.count(r#"INFO cleaning process="task" task="clean""#) >= 2, "{}", log.text());
    assert_eq!(ship.crew.roster().borrow().status().tasks, ["clean"]);
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_ended_with_its_group_as_containerpilot_did() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/tasks.json")).unwrap();
    let case = &vectors["timing"][1];
    assert_eq!((&case["frequency"], &case["timeout"]), (&"400ms".into(), &"200ms".into()));
    let (desk, log) = (Desk::new(), Log::listen());
    let script =
        desk.script("test -e @pid && exit; sleep 1000 & echo $! > @pid; while :; do sleep 0.1; echo . >> @dots; done");
    let begin = Instant::now();
    let dots = Task { limit: 200 * MS, ..task("dots", 400 * MS, &script) };
    let (mut ship, _) = Ship::applied(&doing(&[dots]));
    eventually("it took too long", || log.count("WARN task[dots] timeout after 200ms: '[-c ") == 1).await;
    assert!(begin.elapsed() >= 600 * MS);
    gone(desk.pid("pid").await).await;
    ship.crew.disband(SECOND).await;
    // One more where this machine is slow to end it.
    let most = case["dots"].as_u64().unwrap() + 1;
    assert!(u64::try_from(desk.lines("dots")).unwrap() <= most, "{}", desk.lines("dots"));
}

#[tokio::test]
async fn a_task_that_takes_longer_than_its_frequency_is_never_there_twice() {
    let desk = Desk::new();
    let script = desk.script("mkdir @busy || echo . >> @twice; sleep 0.2; rmdir @busy; echo . >> @runs");
    let (_ship, _) = Ship::applied(&doing(&[task("slow", 30 * MS, &script)]));
    desk.has("runs", 4).await;
    assert_eq!(desk.lines("twice"), 0);
}

#[tokio::test]
async fn maintenance_lets_a_task_end_and_begins_no_other() {
    let desk = Desk::new();
    let script = desk.script("echo . >> @begun; while test ! -e @go; do sleep 0.01; done; echo . >> @ended");
    let (mut ship, _) = Ship::applied(&doing(&[task("slow", 50 * MS, &script)]));
    desk.has("begun", 1).await;
    ship.crew.maintain(true);
    std::fs::write(desk.path("go"), "").unwrap();
    desk.has("ended", 1).await;
    sleep(300 * MS).await;
    assert_eq!((desk.lines("begun"), desk.lines("ended")), (1, 1));
    ship.crew.maintain(false);
    desk.has("ended", 2).await;
}

#[tokio::test]
async fn a_task_that_is_gone_or_withdrawn_is_asked_to_end() {
    let desk = Desk::new();
    let waits = |name: &str| {
        let script =
            format!("trap 'echo . > @{name}-ended; exit' TERM; echo $$ > @{name}; while :; do sleep 0.01; done");
        task(name, 30 * MS, &desk.script(&script))
    };
    let (mut ship, _) = Ship::applied(&doing(&[waits("one"), waits("two")]));
    let (one, two) = (desk.pid("one").await, desk.pid("two").await);
    ship.crew.apply(&doing(&[waits("two")])).unwrap();
    desk.has("one-ended", 1).await;
    gone(one).await;
    assert!(lives(two));
    ship.crew.withdraw(SECOND).await;
    desk.has("two-ended", 1).await;
    gone(two).await;
}

#[tokio::test]
async fn a_sensor_hands_over_what_it_prints_and_only_when_it_ends_well() {
    let log = Log::listen();
    let sensors = [
        sensor("good", "echo 42; echo noise >&2"),
        sensor("long", "head -c 1000000 /dev/zero | tr '\\0' 7"),
        sensor("bad", "echo 1; exit 3"),
        Sensor { limit: 100 * MS, ..sensor("slow", "echo 2; exec sleep 1000") },
    ];
    let (ship, _) = Ship::applied(&measuring(&sensors));
    eventually("the slow one was ended", || log.count("ERROR slow.sensor: timeout after 100ms") > 0).await;
    eventually("the bad one failed", || log.count("ERROR bad.sensor: ended with code 3") > 1).await;
    eventually("what is no number is told", || log.count("ERROR the sensor long printed \"777") > 0).await;
    eventually("a value came", || ship.told("good ").as_deref() == Some("42")).await;
    for metric in ["bad ", "long ", "slow "] {
        assert_eq!(ship.told(metric).as_deref(), Some("0"), "{metric}");
    }
    assert!(log.count("WARN slow.sensor timeout after 100ms: '[-c echo 2; exec sleep 1000]'") > 0);
}

#[tokio::test]
async fn nothing_is_measured_during_maintenance() {
    let desk = Desk::new();
    let (mut ship, _) = Ship::applied(&measuring(&[sensor("some", &desk.script("echo . >> @runs; echo 1"))]));
    desk.has("runs", 2).await;
    ship.crew.maintain(true);
    sleep(200 * MS).await;
    let runs = desk.lines("runs");
    sleep(300 * MS).await;
    assert_eq!(desk.lines("runs"), runs);
    ship.crew.maintain(false);
    desk.has("runs", runs + 1).await;
}
