//! Coprocesses: how often they run, and how they end.

use std::time::Instant;

use ochopod::pilot::config::{Config, Coprocess, Restarts};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::kit::{Desk, Log, MS, SECOND, Ship, config, eventually, gone, lives, sh};

fn coprocess(name: &str, restarts: Restarts, script: &str) -> Coprocess {
    Coprocess { name: name.to_owned(), command: sh(script), restarts }
}

fn beside(coprocesses: &[Coprocess]) -> Config {
    Config { coprocesses: coprocesses.to_vec(), ..config() }
}

#[tokio::test]
async fn a_coprocess_that_ends_runs_as_often_as_with_containerpilot() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/coprocesses.json")).unwrap();
    let desk = Desk::new();
    let cases: Vec<_> =
        vectors["runs_of_a_command_that_exits_at_once"].as_array().unwrap().iter().enumerate().collect();
    let coprocess_of = |(number, case): &(usize, &Value)| {
        let most = match &case["restarts"] {
            Value::Number(number) => number.as_u64().unwrap(),
            Value::String(text) => text.parse().unwrap_or(0),
            _ => 0,
        };
        coprocess(&number.to_string(), Restarts::Most(most), &desk.script(&format!("echo . >> @{number}")))
    };
    let coprocesses: Vec<_> = cases.iter().map(coprocess_of).collect();
    let (ship, _) = Ship::applied(&beside(&coprocesses));
    let status = || ship.crew.roster().borrow().status();
    eventually("all have ended", || status().coprocesses.iter().all(|it| it.status == "ended")).await;
    for (number, case) in cases {
        assert_eq!(case["runs"], desk.lines(&number.to_string()), "{case}");
    }
    let restarts: Vec<_> = status().coprocesses.iter().map(|it| it.restarts).collect();
    assert_eq!(restarts, [3, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_crash_is_repaired_at_once_and_output_and_ends_are_logged() {
    let (desk, log) = (Desk::new(), Log::listen());
    let script = desk.script("echo . >> @runs; echo helping; test $(wc -l < @runs) = 1 && exit 9; exec sleep 1000");
    let begin = Instant::now();
    let (mut ship, _) = Ship::applied(&beside(&[coprocess("helper", Restarts::Unlimited, &script)]));
    desk.has("runs", 2).await;
    assert!(begin.elapsed() < 10 * SECOND);
    eventually("it says so", || log.count(r#"INFO helping process="coprocess" coprocess="helper""#) == 2).await;
    assert_eq!(log.count("WARN coprocess[helper]: ended with code 9; starting it again"), 1);
    let status = serde_json::to_value(ship.crew.roster().borrow().status()).unwrap();
    assert_eq!(status["Coprocesses"], json!([{"Name": "helper", "Status": "running", "Restarts": 1}]));
    ship.crew.disband(SECOND).await;
}

#[tokio::test]
async fn a_coprocess_that_cannot_be_started_is_tried_as_often_as_it_may_be_restarted() {
    let log = Log::listen();
    let mut missing = coprocess("missing", Restarts::Most(1), "");
    missing.command.program = "/no/such/helper".to_owned();
    let (_ship, _) = Ship::applied(&beside(&[missing]));
    let said = "coprocess[missing]: cannot execute /no/such/helper: No such file or directory";
    eventually("it was tried twice", || log.count(said) == 2).await;
    assert_eq!(log.count("it is not started again"), 1);
}

#[tokio::test]
async fn neither_maintenance_nor_withdrawal_ends_a_coprocess_and_disbanding_does() {
    let desk = Desk::new();
    let script = desk.script("trap 'echo . > @ended; exit' TERM; echo $$ > @pid; while :; do sleep 0.01; done");
    let (mut ship, _) = Ship::applied(&beside(&[coprocess("helper", Restarts::Unlimited, &script)]));
    let pid = desk.pid("pid").await;
    ship.crew.maintain(true);
    ship.crew.withdraw(SECOND).await;
    sleep(100 * MS).await;
    assert!(lives(pid));
    ship.crew.disband(10 * SECOND).await;
    assert_eq!(desk.lines("ended"), 1, "what it did on its way out is done");
    gone(pid).await;
}

#[tokio::test]
async fn a_coprocess_that_does_not_end_when_asked_to_is_killed_with_its_group_after_the_grace() {
    let desk = Desk::new();
    let script =
        desk.script("trap '' TERM; sleep 1000 & echo $! > @child; echo $$ > @pid; while :; do sleep 1000; done");
    let (mut ship, _) = Ship::applied(&beside(&[coprocess("helper", Restarts::Unlimited, &script)]));
    let (pid, child) = (desk.pid("pid").await, desk.pid("child").await);
    let asked = Instant::now();
    ship.crew.disband(300 * MS).await;
    assert!(asked.elapsed() >= 300 * MS);
    gone(pid).await;
    gone(child).await;
}

#[tokio::test]
async fn a_changed_coprocess_is_ended_before_it_is_started_anew_with_fresh_counts_and_others_go_on() {
    let desk = Desk::new();
    let script = |name: &str, version: u32| {
        let script = "trap 'sleep 0.1; rmdir @NAME; exit' TERM; mkdir @NAME || echo . >> @twice; echo $$ > @NAME-VERSION; \
                      while :; do sleep 0.01; done";
        desk.script(&script.replace("NAME", name).replace("VERSION", &version.to_string()))
    };
    let helper = |version| coprocess("helper", Restarts::Most(1), &script("helper", version));
    let other = coprocess("other", Restarts::Unlimited, &script("other", 1));
    let (mut ship, _) = Ship::applied(&beside(&[helper(1), other.clone()]));
    let (first, same) = (desk.pid("helper-1").await, desk.pid("other-1").await);
    ship.crew.apply(&beside(&[other, helper(2)])).unwrap();
    let second = desk.pid("helper-2").await;
    assert!(!lives(first) && lives(second) && lives(same));
    assert_eq!(desk.lines("twice"), 0);
    let status = ship.crew.roster().borrow().status();
    assert_eq!(status.coprocesses.iter().map(|it| it.restarts).collect::<Vec<_>>(), [0, 0]);
    ship.crew.apply(&beside(&[])).unwrap();
    gone(second).await;
    gone(same).await;
}

#[tokio::test]
async fn dropping_a_crew_leaves_nothing() {
    let desk = Desk::new();
    let (ship, _) = Ship::applied(&beside(&[coprocess(
        "helper",
        Restarts::Unlimited,
        &desk.script("echo $$ > @pid; exec sleep 1000"),
    )]));
    let pid = desk.pid("pid").await;
    drop(ship);
    gone(pid).await;
}
