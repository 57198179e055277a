//! Runs of programs: codes, limits, output and environment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_init::Privileges;
use ochopod_pilot::{
    Environment, Purpose, RunOutcome, Runner,
    config::{CommandLine, Config, Telemetry},
};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::kit::{
    CapturedLog, MS, SECOND, ScriptDir, TIMEOUT, config, eventually, gone, init, is_alive, runner, service, sh,
};

const HOOK: Purpose = Purpose::Hook("preStart");

fn task(name: &str) -> Purpose {
    Purpose::Task(name.to_owned())
}

async fn run(command: &CommandLine, limit: Option<Duration>) -> RunOutcome {
    runner().run(&HOOK, command, limit, &CancellationToken::new()).await
}

fn program(path: &str) -> CommandLine {
    CommandLine { program: path.to_owned(), arguments: Vec::new() }
}

#[tokio::test]
async fn exit_codes_are_those_of_a_shell() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/commands.json")).unwrap();
    let dir = ScriptDir::new();
    std::fs::write(dir.path("plain"), "").unwrap();
    let missing = vectors["run"][2]["v2_7"].as_i64().unwrap();
    assert_eq!(vectors["run"][2]["cmd"], "file missing");
    for (command, code, is_success) in [
        (sh("exit 0"), 0, true),
        (sh("exit 255"), 255, false),
        (sh("exit 3"), 3, false),
        (sh("kill -9 $$"), 137, false),
        (program("/no/such/program"), missing, false),
        (program("no-such-program"), missing, false),
        (program(dir.path("plain").to_str().unwrap()), 126, false),
        (program("true"), 0, true),
        (program("true"), 0, true),
    ] {
        let outcome = run(&command, Some(TIMEOUT)).await;
        assert_eq!((i64::from(outcome.code()), outcome.is_success()), (code, is_success), "{command:?}");
    }
}

#[tokio::test]
async fn group_is_terminated_at_the_limit_and_killed_after_the_grace() {
    let log = CapturedLog::listen();
    for (script, least) in [
        ("trap 'echo . > @terminated; exit 0' TERM; echo $$ > @pid; while :; do sleep 0.01; done", 0),
        ("trap '' TERM; sleep 1000 & echo $! > @pid; wait; while :; do sleep 1000; done", 1000),
    ] {
        let dir = ScriptDir::new();
        let begin = Instant::now();
        let outcome = run(&sh(&dir.script(script)), Some(3 * SECOND)).await;
        assert_eq!((outcome.code(), outcome.is_success()), (124, false));
        assert_eq!(outcome.to_string(), "timeout after 3s");
        let took = begin.elapsed();
        assert!(took >= 3 * SECOND + least * MS && took < TIMEOUT, "{took:?}");
        gone(dir.pid("pid").await).await;
        assert_eq!(dir.lines("terminated"), usize::from(least == 0));
    }
    assert_eq!(log.count("WARN preStart timeout after 3s: '[-c trap"), 2);
}

#[tokio::test]
async fn failure_before_the_limit_is_no_timeout() {
    let log = CapturedLog::listen();
    assert_eq!(run(&sh("exit 1"), Some(3 * SECOND)).await.code(), 1);
    assert_eq!(run(&program("/no/such/program"), Some(3 * SECOND)).await.code(), 127);
    tokio::time::sleep(3 * SECOND + 200 * MS).await;
    assert_eq!(log.count("timeout"), 0);
}

#[tokio::test]
async fn stopped_program_is_terminated_and_dropped_one_killed() {
    let dir = ScriptDir::new();
    let script = dir.script("trap 'exit 5' TERM; echo $$ > @pid; while :; do sleep 0.01; done");
    let (runner, command) = (runner(), sh(&script));
    let stop = CancellationToken::new();
    let running = async { runner.run(&HOOK, &command, None, &stop).await };
    let stopping = async {
        dir.pid("pid").await;
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(running, stopping);
    assert_eq!(outcome.code(), 5);
    std::fs::remove_file(dir.path("pid")).unwrap();
    let command =
        sh(&dir.script("trap '' TERM; sleep 1000 & echo $! > @child; echo $$ > @pid; while :; do sleep 1000; done"));
    let stop = CancellationToken::new();
    let pid = tokio::select! {
        outcome = runner.run(&HOOK, &command, None, &stop) => panic!("{outcome}"),
        pid = dir.pid("pid") => pid,
    };
    gone(pid).await;
    gone(dir.pid("child").await).await;
}

#[tokio::test]
async fn output_is_logged_before_the_exit_is_reported() {
    let log = CapturedLog::listen();
    let script = "i=0; while test $i -lt 3000; do echo line $i; echo error $i >&2; i=$((i+1)); done; printf 'no end'";
    let outcome = runner().run(&task("talker"), &sh(script), Some(TIMEOUT), &CancellationToken::new()).await;
    assert!(outcome.is_success());
    assert_eq!((log.count("INFO line "), log.count("INFO error ")), (3000, 3000));
    assert_eq!(log.count(r#"INFO no end process="task" task="talker""#), 1);
}

#[tokio::test]
async fn daemon_holding_the_output_is_not_awaited() {
    let dir = ScriptDir::new();
    let command =
        sh(&dir.script("setsid sh -c 'echo $$ > @pid; exec sleep 1000' & while test ! -s @pid; do sleep 0.01; done"));
    let run = runner();
    let outcome = timeout(TIMEOUT / 2, run.run(&task("x"), &command, Some(TIMEOUT), &CancellationToken::new())).await;
    assert!(outcome.unwrap().is_success());
    let pid = dir.pid("pid").await;
    assert!(is_alive(pid));
    run.run(&HOOK, &sh(&format!("kill -9 {pid}")), None, &CancellationToken::new()).await;
}

#[tokio::test]
async fn program_has_empty_stdin_and_its_own_group() {
    let dir = ScriptDir::new();
    let script = dir.script("cat > @input; cut -d ' ' -f 1,5 /proc/$$/stat > @group");
    assert!(run(&sh(&script), Some(TIMEOUT)).await.is_success());
    assert_eq!(dir.text("input"), "");
    let group = dir.text("group");
    let (pid, group) = group.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
}

#[tokio::test]
async fn environment_has_addresses_and_process_ids() {
    let dir = ScriptDir::new();
    let environment = Environment::new([
        ("PATH".into(), std::env::var_os("PATH").unwrap()),
        ("FOO".into(), "bar".into()),
        ("ochopod_token".into(), "secret".into()),
    ]);
    let telemetry =
        Telemetry { address: "10.9.9.9".parse().unwrap(), port: 9090, tags: Vec::new(), sensors: Vec::new() };
    let two = Config { services: vec![service("app"), service("my-db")], telemetry: Some(telemetry), ..config() };
    environment.set_services(&two);
    let runner = Runner::new(init(), environment.clone(), Privileges::default(), Arc::default());
    let never = CancellationToken::new();
    let helper = Purpose::Coprocess("consul-agent".to_owned());
    for (purpose, file) in [(HOOK, "hook"), (helper, "helper"), (task("task"), "task")] {
        runner.run(&purpose, &sh(&dir.script(&format!("echo $$ > @{file}"))), None, &never).await;
    }
    environment.set_pid("app", 77);
    // Not by a shell, which drops what it cannot name.
    let log = CapturedLog::listen();
    runner.run(&task("x"), &program("env"), None, &never).await;
    eventually("all is logged", || log.count(r#" process="task" task="x""#) > 8).await;
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
        format!("CONTAINERPILOT_COPROCESS[CONSUL-AGENT]_PID={}", dir.text("helper").trim()),
        "CONTAINERPILOT_MY_DB_IP=10.0.0.1".to_owned(),
        format!("CONTAINERPILOT_PID={}", std::process::id()),
        format!("CONTAINERPILOT_PRESTART_PID={}", dir.text("hook").trim()),
        "FOO=bar".to_owned(),
    ];
    assert_eq!(found, expected);
    environment.set_services(&config());
    assert!(!environment.snapshot().keys().any(|name| name.to_string_lossy().ends_with("_IP")));
}
