//! Coprocesses: restarts and exits.

use std::time::Instant;

use ochopod_pilot::config::{Config, Coprocess, RestartLimit};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::kit::{CapturedLog, MS, SECOND, ScriptDir, TestActors, config, eventually, gone, is_alive, sh};

fn coprocess(name: &str, restarts: RestartLimit, script: &str) -> Coprocess {
    Coprocess { name: name.to_owned(), command: sh(script), restarts }
}

fn with_coprocesses(coprocesses: &[Coprocess]) -> Config {
    Config { coprocesses: coprocesses.to_vec(), ..config() }
}

#[tokio::test]
async fn coprocess_runs_as_often_as_in_containerpilot() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/coprocesses.json")).unwrap();
    let dir = ScriptDir::new();
    let cases: Vec<_> =
        vectors["runs_of_a_command_that_exits_at_once"].as_array().unwrap().iter().enumerate().collect();
    let coprocess_of = |(number, case): &(usize, &Value)| {
        let most = match &case["restarts"] {
            Value::Number(number) => number.as_u64().unwrap(),
            Value::String(text) => text.parse().unwrap_or(0),
            _ => 0,
        };
        coprocess(&number.to_string(), RestartLimit::AtMost(most), &dir.script(&format!("echo . >> @{number}")))
    };
    let coprocesses: Vec<_> = cases.iter().map(coprocess_of).collect();
    let (test, _) = TestActors::applied(&with_coprocesses(&coprocesses));
    let status = || test.actors.status().borrow().status();
    eventually("all have ended", || status().coprocesses.iter().all(|it| it.status == "ended")).await;
    for (number, case) in cases {
        assert_eq!(case["runs"], dir.lines(&number.to_string()), "{case}");
    }
    let restarts: Vec<_> = status().coprocesses.iter().map(|it| it.restarts).collect();
    assert_eq!(restarts, [3, 1, 0, 0, 0]);
}

#[tokio::test]
async fn crashed_coprocess_restarts_immediately_and_is_logged() {
    let (dir, log) = (ScriptDir::new(), CapturedLog::listen());
    let script = dir.script("echo . >> @runs; echo helping; test $(wc -l < @runs) = 1 && exit 9; exec sleep 1000");
    let begin = Instant::now();
    let (mut test, _) =
        TestActors::applied(&with_coprocesses(&[coprocess("helper", RestartLimit::Unlimited, &script)]));
    dir.has("runs", 2).await;
    assert!(begin.elapsed() < 30 * SECOND, "{:?}", begin.elapsed());
    eventually("it says so", || log.count(r#"INFO helping process="coprocess" coprocess="helper""#) == 2).await;
    assert_eq!(log.count("WARN coprocess[helper]: exited with code 9; restarting"), 1);
    let status = || serde_json::to_value(test.actors.status().borrow().status()).unwrap()["Coprocesses"].take();
    let expected = json!([{"Name": "helper", "Status": "running", "Restarts": 1}]);
    eventually("it runs again", || status() == expected).await;
    test.actors.shut_down(SECOND).await;
}

#[tokio::test]
async fn failed_start_of_a_coprocess_uses_up_a_restart() {
    let log = CapturedLog::listen();
    let mut missing = coprocess("missing", RestartLimit::AtMost(1), "");
    missing.command.program = "/no/such/helper".to_owned();
    let (_test, _) = TestActors::applied(&with_coprocesses(&[missing]));
    let said = "coprocess[missing]: cannot execute /no/such/helper: No such file or directory";
    eventually("it was tried twice", || log.count(said) == 2).await;
    assert_eq!(log.count("not restarted"), 1);
}

#[tokio::test]
async fn coprocess_runs_until_the_shutdown() {
    let dir = ScriptDir::new();
    let script = dir.script("trap 'echo . > @ended; exit' TERM; echo $$ > @pid; while :; do sleep 0.01; done");
    let (mut test, _) =
        TestActors::applied(&with_coprocesses(&[coprocess("helper", RestartLimit::Unlimited, &script)]));
    let pid = dir.pid("pid").await;
    test.actors.set_maintenance(true);
    test.actors.deregister(SECOND).await;
    sleep(100 * MS).await;
    assert!(is_alive(pid));
    test.actors.shut_down(10 * SECOND).await;
    assert_eq!(dir.lines("ended"), 1, "what it did on its way out is done");
    gone(pid).await;
}

#[tokio::test]
async fn coprocess_is_killed_with_its_group_after_the_grace() {
    let dir = ScriptDir::new();
    let script =
        dir.script("trap '' TERM; sleep 1000 & echo $! > @child; echo $$ > @pid; while :; do sleep 1000; done");
    let (mut test, _) =
        TestActors::applied(&with_coprocesses(&[coprocess("helper", RestartLimit::Unlimited, &script)]));
    let (pid, child) = (dir.pid("pid").await, dir.pid("child").await);
    let requested = Instant::now();
    test.actors.shut_down(300 * MS).await;
    assert!(requested.elapsed() >= 300 * MS);
    gone(pid).await;
    gone(child).await;
}

#[tokio::test]
async fn changed_coprocess_is_replaced_with_new_counts() {
    let dir = ScriptDir::new();
    let script = |name: &str, version: u32| {
        let script = "trap 'sleep 0.1; rmdir @NAME; exit' TERM; mkdir @NAME || echo . >> @twice; echo $$ > @NAME-VERSION; \
                      while :; do sleep 0.01; done";
        dir.script(&script.replace("NAME", name).replace("VERSION", &version.to_string()))
    };
    let helper = |version| coprocess("helper", RestartLimit::AtMost(1), &script("helper", version));
    let other = coprocess("other", RestartLimit::Unlimited, &script("other", 1));
    let (mut test, _) = TestActors::applied(&with_coprocesses(&[helper(1), other.clone()]));
    let (first, same) = (dir.pid("helper-1").await, dir.pid("other-1").await);
    test.actors.apply(&with_coprocesses(&[other, helper(2)])).unwrap();
    let second = dir.pid("helper-2").await;
    assert!(!is_alive(first) && is_alive(second) && is_alive(same));
    assert_eq!(dir.lines("twice"), 0);
    let status = test.actors.status().borrow().status();
    assert_eq!(status.coprocesses.iter().map(|it| it.restarts).collect::<Vec<_>>(), [0, 0]);
    test.actors.apply(&with_coprocesses(&[])).unwrap();
    gone(second).await;
    gone(same).await;
}

#[tokio::test]
async fn dropped_actors_leave_no_process() {
    let dir = ScriptDir::new();
    let (test, _) = TestActors::applied(&with_coprocesses(&[coprocess(
        "helper",
        RestartLimit::Unlimited,
        &dir.script("echo $$ > @pid; exec sleep 1000"),
    )]));
    let pid = dir.pid("pid").await;
    drop(test);
    gone(pid).await;
}
