//! Tasks and sensors.

use std::time::{Duration, Instant};

use ochopod_pilot::config::{Config, Sensor, SensorKind, Task, Telemetry};
use serde_json::Value;
use tokio::time::sleep;

use crate::kit::{
    CapturedLog, MS, SECOND, ScriptDir, TIMEOUT, TestActors, config, eventually, gone, is_alive, service, sh,
};

fn task(name: &str, frequency: Duration, script: &str) -> Task {
    Task { name: name.to_owned(), command: sh(script), frequency, limit: TIMEOUT }
}

fn doing(tasks: &[Task]) -> Config {
    Config { tasks: tasks.to_vec(), ..config() }
}

fn sensor(metric: &str, script: &str) -> Sensor {
    let (help, kind) = (String::new(), SensorKind::Gauge);
    Sensor { metric: metric.to_owned(), help, kind, poll: 50 * MS, check: sh(script), limit: TIMEOUT }
}

fn measuring(sensors: &[Sensor]) -> Config {
    let (address, sensors) = (service("x").address, sensors.to_vec());
    Config { telemetry: Some(Telemetry { address, port: 9090, tags: Vec::new(), sensors }), ..config() }
}

#[tokio::test]
async fn task_runs_periodically_and_its_output_is_logged() {
    let (dir, log) = (ScriptDir::new(), CapturedLog::listen());
    let begin = Instant::now();
    let (test, _) =
        TestActors::applied(&doing(&[task("clean", 200 * MS, &dir.script("echo . >> @runs; echo cleaning; exit 4"))]));
    dir.has("runs", 1).await;
    assert!(begin.elapsed() >= 200 * MS);
    dir.has("runs", 3).await;
    assert!(begin.elapsed() >= 600 * MS);
    eventually("it is logged", || log.count("WARN task[clean]: exited with code 4") >= 2).await;
    assert!(log.count(r#"INFO cleaning process="task" task="clean""#) >= 2, "{}", log.text());
    assert_eq!(test.actors.status().borrow().status().tasks, ["clean"]);
}

#[tokio::test]
async fn task_is_stopped_with_its_group_at_its_limit() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/tasks.json")).unwrap();
    let case = &vectors["timing"][1];
    assert_eq!((&case["frequency"], &case["timeout"]), (&"400ms".into(), &"200ms".into()));
    let (dir, log) = (ScriptDir::new(), CapturedLog::listen());
    let script =
        dir.script("test -e @pid && exit; sleep 1000 & echo $! > @pid; while :; do sleep 0.1; echo . >> @dots; done");
    let begin = Instant::now();
    let dots = Task { limit: 200 * MS, ..task("dots", 400 * MS, &script) };
    let (mut test, _) = TestActors::applied(&doing(&[dots]));
    eventually("it took too long", || log.count("WARN task[dots] timeout after 200ms: '[-c ") == 1).await;
    assert!(begin.elapsed() >= 600 * MS);
    gone(dir.pid("pid").await).await;
    test.actors.shut_down(SECOND).await;
    // More of them where this machine is slow to end it; without a limit of its own, it would run for a minute.
    let most = case["dots"].as_u64().unwrap() + 100;
    assert!(u64::try_from(dir.lines("dots")).unwrap() <= most, "{}", dir.lines("dots"));
}

#[tokio::test]
async fn long_task_never_runs_twice_concurrently() {
    let dir = ScriptDir::new();
    let script = dir.script("mkdir @busy || echo . >> @twice; sleep 0.2; rmdir @busy; echo . >> @runs");
    let (_test, _) = TestActors::applied(&doing(&[task("slow", 30 * MS, &script)]));
    dir.has("runs", 4).await;
    assert_eq!(dir.lines("twice"), 0);
}

#[tokio::test]
async fn maintenance_completes_a_task_and_starts_no_other() {
    let dir = ScriptDir::new();
    let script = dir.script("echo . >> @started; while test ! -e @go; do sleep 0.01; done; echo . >> @ended");
    let (mut test, _) = TestActors::applied(&doing(&[task("slow", 50 * MS, &script)]));
    dir.has("started", 1).await;
    test.actors.set_maintenance(true);
    std::fs::write(dir.path("go"), "").unwrap();
    dir.has("ended", 1).await;
    sleep(300 * MS).await;
    assert_eq!((dir.lines("started"), dir.lines("ended")), (1, 1));
    test.actors.set_maintenance(false);
    dir.has("ended", 2).await;
}

#[tokio::test]
async fn removed_task_is_terminated() {
    let dir = ScriptDir::new();
    let waits = |name: &str| {
        let script =
            format!("trap 'echo . > @{name}-ended; exit' TERM; echo $$ > @{name}; while :; do sleep 0.01; done");
        task(name, 30 * MS, &dir.script(&script))
    };
    let (mut test, _) = TestActors::applied(&doing(&[waits("one"), waits("two")]));
    let (one, two) = (dir.pid("one").await, dir.pid("two").await);
    test.actors.apply(&doing(&[waits("two")])).unwrap();
    dir.has("one-ended", 1).await;
    gone(one).await;
    assert!(is_alive(two));
    test.actors.deregister(SECOND).await;
    dir.has("two-ended", 1).await;
    gone(two).await;
}

#[tokio::test]
async fn sensor_output_is_recorded_on_success_only() {
    let log = CapturedLog::listen();
    let sensors = [
        sensor("good", "echo 42; echo noise >&2"),
        sensor("long", "head -c 1000000 /dev/zero | tr '\\0' 7"),
        sensor("bad", "echo 1; exit 3"),
        Sensor { limit: 100 * MS, ..sensor("slow", "echo 2; exec sleep 1000") },
    ];
    let (test, _) = TestActors::applied(&measuring(&sensors));
    eventually("the slow one was ended", || log.count("ERROR slow.sensor: timeout after 100ms") > 0).await;
    eventually("the bad one failed", || log.count("ERROR bad.sensor: exited with code 3") > 1).await;
    eventually("an invalid number is logged", || log.count("ERROR sensor long: invalid output \"777") > 0).await;
    eventually("a value arrives", || test.metric("good ").as_deref() == Some("42")).await;
    for metric in ["bad ", "long ", "slow "] {
        assert_eq!(test.metric(metric).as_deref(), Some("0"), "{metric}");
    }
    assert!(log.count("WARN slow.sensor timeout after 100ms: '[-c echo 2; exec sleep 1000]'") > 0);
}

#[tokio::test]
async fn sensors_pause_during_maintenance() {
    let dir = ScriptDir::new();
    let (mut test, _) = TestActors::applied(&measuring(&[sensor("some", &dir.script("echo . >> @runs; echo 1"))]));
    dir.has("runs", 2).await;
    test.actors.set_maintenance(true);
    let (mut runs, mut since) = (dir.lines("runs"), Instant::now());
    eventually("it rests", || {
        let now = dir.lines("runs");
        if now != runs {
            (runs, since) = (now, Instant::now());
        }
        since.elapsed() >= 500 * MS
    })
    .await;
    test.actors.set_maintenance(false);
    dir.has("runs", runs + 1).await;
}
