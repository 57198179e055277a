//! How programs are run: codes, limits, output and environment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod::{
    init::Privileges,
    pilot::{
        Environment, Outcome, Purpose, Runner,
        config::{Command, Config, Telemetry},
    },
};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::kit::{Desk, LIMIT, Log, MS, SECOND, config, gone, init, lives, runner, service, sh};

const HOOK: Purpose = Purpose::Hook("preStart");

fn logged(name: &str) -> Purpose {
    Purpose::Task(name.to_owned())
}

async fn run(command: &Command, limit: Option<Duration>) -> Outcome {
    runner().run(&HOOK, command, limit, &CancellationToken::new()).await
}

fn program(path: &str) -> Command {
    Command { program: path.to_owned(), arguments: Vec::new() }
}

#[tokio::test]
async fn codes_are_those_that_a_shell_would_report() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/commands.json")).unwrap();
    let desk = Desk::new();
    std::fs::write(desk.path("plain"), "").unwrap();
    let missing = vectors["run"][2]["v2_7"].as_i64().unwrap();
    assert_eq!(vectors["run"][2]["cmd"], "file missing");
    for (command, code, is_well) in [
        (sh("exit 0"), 0, true),
        (sh("exit 255"), 255, false),
        (sh("exit 3"), 3, false),
        (sh("kill -9 $$"), 137, false),
        (program("/no/such/program"), missing, false),
        (program("no-such-program"), missing, false),
        (program(desk.path("plain").to_str().unwrap()), 126, false),
        (program("true"), 0, true),
        (program("true"), 0, true),
    ] {
        let outcome = run(&command, Some(LIMIT)).await;
        assert_eq!((i64::from(outcome.code()), outcome.is_well()), (code, is_well), "{command:?}");
    }
}

#[tokio::test]
async fn at_the_limit_the_group_is_asked_to_end_and_what_does_not_is_killed() {
    let log = Log::listen();
    for (script, least) in [
        ("trap 'echo . > @asked; exit 0' TERM; echo $$ > @pid; while :; do sleep 0.01; done", 0),
        ("trap '' TERM; sleep 1000 & echo $! > @pid; wait; while :; do sleep 1000; done", 1000),
    ] {
        let desk = Desk::new();
        let begin = Instant::now();
        let outcome = run(&sh(&desk.script(script)), Some(500 * MS)).await;
        assert_eq!((outcome.code(), outcome.is_well()), (124, false));
        assert_eq!(outcome.to_string(), "timeout after 500ms");
        let took = begin.elapsed();
        assert!(took >= (500 + least) * MS && took < LIMIT, "{took:?}");
        gone(desk.pid("pid").await).await;
        assert_eq!(desk.lines("asked"), usize::from(least == 0));
    }
    assert_eq!(log.count("WARN preStart timeout after 500ms: '[-c trap"), 2);
}

#[tokio::test]
async fn what_fails_before_its_limit_is_not_told_to_be_late() {
    let log = Log::listen();
    assert_eq!(run(&sh("exit 1"), Some(100 * MS)).await.code(), 1);
    assert_eq!(run(&program("/no/such/program"), Some(100 * MS)).await.code(), 127);
    tokio::time::sleep(200 * MS).await;
    assert_eq!(log.count("timeout"), 0);
}

#[tokio::test]
async fn what_is_stopped_is_asked_to_end_and_what_is_dropped_is_killed() {
    let desk = Desk::new();
    let script = desk.script("trap 'exit 5' TERM; echo $$ > @pid; while :; do sleep 0.01; done");
    let (runner, command) = (runner(), sh(&script));
    let stop = CancellationToken::new();
    let running = async { runner.run(&HOOK, &command, None, &stop).await };
    let stopping = async {
        desk.pid("pid").await;
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(running, stopping);
    assert_eq!(outcome.code(), 5);
    std::fs::remove_file(desk.path("pid")).unwrap();
    let command =
        sh(&desk.script("trap '' TERM; sleep 1000 & echo $! > @child; echo $$ > @pid; while :; do sleep 1000; done"));
    let stop = CancellationToken::new();
    let pid = tokio::select! {
        outcome = runner.run(&HOOK, &command, None, &stop) => panic!("{outcome}"),
        pid = desk.pid("pid") => pid,
    };
    gone(pid).await;
    gone(desk.pid("child").await).await;
}

#[tokio::test]
async fn every_line_of_what_a_program_prints_is_logged_before_its_end_is_told() {
    let log = Log::listen();
    let script = "i=0; while test $i -lt 3000; do echo line $i; echo error $i >&2; i=$((i+1)); done; printf 'no end'";
    let outcome = runner().run(&logged("talker"), &sh(script), Some(LIMIT), &CancellationToken::new()).await;
    assert!(outcome.is_well());
    assert_eq!((log.count("INFO line "), log.count("INFO error ")), (3000, 3000));
    assert_eq!(log.count(r#"INFO no end process="task" task="talker""#), 1);
}

#[tokio::test]
async fn a_daemon_that_holds_the_output_is_not_waited_for() {
    let desk = Desk::new();
    let command =
        sh(&desk.script("setsid sh -c 'echo $$ > @pid; exec sleep 1000' & while test ! -s @pid; do sleep 0.01; done"));
    let run = runner();
    let outcome = timeout(10 * SECOND, run.run(&logged("x"), &command, Some(LIMIT), &CancellationToken::new())).await;
    assert!(outcome.unwrap().is_well());
    let pid = desk.pid("pid").await;
    assert!(lives(pid));
    run.run(&HOOK, &sh(&format!("kill -9 {pid}")), None, &CancellationToken::new()).await;
}

#[tokio::test]
async fn standard_input_is_empty_and_the_group_is_the_programs_own() {
    let desk = Desk::new();
    let script = desk.script("cat > @input; cut -d ' ' -f 1,5 /proc/$$/stat > @group");
    assert!(run(&sh(&script), Some(LIMIT)).await.is_well());
    assert_eq!(desk.text("input"), "");
    let group = desk.text("group");
    let (pid, group) = group.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
}

#[tokio::test]
async fn programs_find_addresses_and_process_ids_in_their_environment() {
    let desk = Desk::new();
    let environment = Environment::new([
        ("PATH".into(), std::env::var_os("PATH").unwrap()),
        ("FOO".into(), "bar".into()),
        ("ochopod_token".into(), "secret".into()),
    ]);
    let telemetry =
        Telemetry { address: "10.9.9.9".parse().unwrap(), port: 9090, tags: Vec::new(), sensors: Vec::new() };
    let two = Config { services: vec![service("app"), service("my-db")], telemetry: Some(telemetry), ..config() };
    environment.advertise(&two);
    let runner = Runner::new(init(), environment.clone(), Privileges::default(), Arc::default());
    let never = CancellationToken::new();
    let helper = Purpose::Coprocess("consul-agent".to_owned());
    for (purpose, file) in [(HOOK, "hook"), (helper, "helper"), (logged("task"), "task")] {
        runner.run(&purpose, &sh(&desk.script(&format!("echo $$ > @{file}"))), None, &never).await;
    }
    environment.started("app", 77);
    // Not by a shell, which drops what it cannot name.
    let log = Log::listen();
    runner.run(&logged("x"), &program("env"), None, &never).await;
    let found = log.text();
    let found = found
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("INFO ")?.strip_suffix(r#" process="task" task="x""#));
    let mut found: Vec<_> = found.filter(|line| !line.starts_with("PATH=")).collect();
    found.sort_unstable();
    let expected = [
        "CONTAINERPILOT_APP_IP=10.0.0.1".to_owned(),
        "CONTAINERPILOT_APP_PID=77".to_owned(),
        "CONTAINERPILOT_CONTAINERPILOT_IP=10.9.9.9".to_owned(),
        format!("CONTAINERPILOT_COPROCESS[CONSUL-AGENT]_PID={}", desk.text("helper").trim()),
        "CONTAINERPILOT_MY_DB_IP=10.0.0.1".to_owned(),
        format!("CONTAINERPILOT_PID={}", std::process::id()),
        format!("CONTAINERPILOT_PRESTART_PID={}", desk.text("hook").trim()),
        "FOO=bar".to_owned(),
    ];
    assert_eq!(found, expected);
    environment.advertise(&config());
    assert!(!environment.snapshot().keys().any(|name| name.to_string_lossy().ends_with("_IP")));
}
