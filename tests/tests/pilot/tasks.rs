//! Tasks and coprocesses.

use std::time::{Duration, Instant};

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, alive, consistently, eventually};
use serde_json::{Value, json};

use crate::{
    OBEDIENT, SLEEP, STUBBORN,
    pilot_env::{PilotEnv, sh},
};

fn task(frequency: &str, text: &str) -> Value {
    json!({ "command": sh(text), "frequency": frequency })
}

async fn with_tasks(pilot_env: &PilotEnv, tasks: Value) -> Result<Pilot> {
    let pilot = pilot_env.pilot(json!({ "tasks": tasks })).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    Ok(pilot)
}

#[tokio::test]
async fn tasks_run_again_and_again_whatever_they_end_with() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let tasks = json!([
        task("200ms", "echo . >> quick"),
        task("1", "echo . >> slow"),
        task("100ms", "echo . >> failing; exit 3"),
        { "command": "/no/such/file", "frequency": "100ms" },
        task("1h", "echo . >> rare"),
    ]);
    let mut pilot = with_tasks(&pilot_env, tasks).await?;
    let begin = Instant::now();
    let from = pilot.lines("quick").len();
    pilot.wait_lines("quick", from + 10).await?;
    let took = begin.elapsed();
    ensure!(took > Duration::from_millis(1700), "ten runs of a task of 200 ms took {took:?}");
    pilot.wait_lines("slow", 1).await?;
    pilot.wait_lines("failing", 5).await?;
    ensure!(pilot.lines("rare").is_empty(), "a task ran before its first interval ended");
    ensure!(pilot.is_up()?, "the pilot ended");
    Ok(())
}

#[tokio::test]
async fn a_task_is_killed_at_its_deadline_and_never_runs_concurrently() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let dots = "echo begin >> dots; while :; do sleep 0.1; echo . >> dots; done";
    let tasks = json!([
        { "command": sh(dots), "frequency": "4s", "timeout": "350ms" },
        { "command": sh("echo begin >> slow; sleep 0.5; echo end >> slow"), "frequency": "100ms", "timeout": "20s" },
        { "command": sh(STUBBORN), "frequency": "300ms" },
    ]);
    let pilot = with_tasks(&pilot_env, tasks).await?;
    eventually("the first starts twice", DEFAULT_TIMEOUT, async || {
        let begins = pilot.lines("dots").iter().filter(|line| *line == "begin").count();
        ensure!(begins >= 2, "it started {begins} times");
        Ok(())
    })
    .await?;
    let dots = pilot.lines("dots").join("").replace("begin", " ");
    for run in dots.split_whitespace() {
        // By default, it would be ended after its frequency: after about 38.
        ensure!(run.len() <= 20, "a run was not ended: {dots}");
    }
    let slow = pilot.wait_lines("slow", 4).await?;
    for pair in slow.chunks_exact(2) {
        ensure!(pair == ["begin", "end"], "they were {slow:?}");
    }
    Ok(())
}

#[tokio::test]
async fn tasks_and_coprocesses_end_with_the_pilot() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = json!({
        "tasks": [{ "command": sh("echo . >> task; exec sleep 86400"), "frequency": "100ms", "timeout": "1h" }],
        "coprocesses": [
            { "command": sh(&format!("trap 'echo terminated >> terminated; exit' TERM; echo . >> one; {LOOP}")) },
            { "command": sh(&format!("{STUBBORN} & {LOOP}")) },
        ],
    });
    for (place, application) in [SLEEP, "while [ ! -e end ]; do sleep 0.05; done"].into_iter().enumerate() {
        let mut pilot =
            pilot_env.pilot_in(&place.to_string(), configuration.clone()).count_starts(application).start()?;
        for file in ["starts", "task", "one"] {
            pilot.wait_lines(file, 1).await?;
        }
        std::fs::write(pilot.directory().join("end"), "")?;
        if application == SLEEP {
            pilot.term()?;
        }
        pilot.exit_code().await?;
        ensure!(pilot.lines("terminated") == ["terminated"], "the coprocess was not terminated");
        pilot.assert_clean().await?;
    }
    Ok(())
}

/// Loops in a shell that handles traps immediately.
const LOOP: &str = "while :; do sleep 0.05; done";

#[tokio::test]
async fn coprocesses_end_after_the_application() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let recording = |name: &str| format!("trap 'echo {name} >> order; exit 0' TERM; echo . >> up; {LOOP}");
    let configuration = json!({
        "coprocesses": [{ "command": sh(&recording("coprocess")) }], "postStop": sh("echo post-stop >> order"),
    });
    let mut pilot = pilot_env.pilot(configuration).shell(&recording("application")).start()?;
    pilot.wait_lines("up", 2).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the code is not the application's");
    let order = pilot.lines("order");
    ensure!(order == ["application", "post-stop", "coprocess"], "they ended as {order:?}");
    Ok(())
}

#[tokio::test]
async fn coprocesses_are_restarted_up_to_their_limit() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let cases = [
        ("none", Value::Null, 1),
        ("never", json!("never"), 1),
        ("zero", json!(0), 1),
        ("text", json!("1"), 2),
        ("two", json!(2), 3),
    ];
    let coprocesses: Value = cases
        .iter()
        .map(|(name, restarts, _)| {
            let mut coprocess = json!({ "name": name, "command": sh(&format!("echo . >> {name}; exit 1")) });
            if !restarts.is_null() {
                coprocess["restarts"] = restarts.clone();
            }
            coprocess
        })
        .collect();
    let mut pilot = pilot_env.pilot(json!({ "coprocesses": coprocesses })).shell(SLEEP).start()?;
    for (name, _, runs) in &cases {
        pilot.wait_lines(name, *runs).await?;
    }
    consistently("they are not started again", Duration::from_secs(4), async || {
        for (name, _, runs) in &cases {
            let ran = pilot.lines(name).len();
            ensure!(ran == *runs, "{name} ran {ran} times");
        }
        Ok(())
    })
    .await?;
    ensure!(pilot.is_up()?, "the pilot ended");
    Ok(())
}

#[tokio::test]
async fn a_coprocess_that_crashes_is_restarted_with_delays_and_affects_nothing_else() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = json!({
        "coprocesses": [
            { "name": "crashing", "command": sh("echo . >> crashing; exit 1"), "restarts": "unlimited" },
            { "name": "killed", "command": sh("echo $$ >> killed; exec sleep 86400"), "restarts": "unlimited" },
            { "name": "missing", "command": "/no/such/file", "restarts": "unlimited" },
        ],
    });
    let mut pilot = pilot_env.pilot(configuration).count_starts(OBEDIENT).start()?;
    let first: i32 = pilot.wait_lines("killed", 1).await?[0].parse()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)?;
    pilot.wait_lines("killed", 2).await?;
    pilot.wait_lines("crashing", 3).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let crashes = pilot.lines("crashing").len();
    ensure!(crashes < 30, "no back-off: {crashes} starts");
    ensure!(pilot.is_up()? && alive(pilot.started(1).await?), "the application ended");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the code is not the application's");
    pilot.assert_clean().await
}

#[tokio::test]
async fn output_of_tasks_and_coprocesses_is_logged_with_their_names() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = json!({
        "logging": { "format": "text" },
        "tasks": [{ "name": "sweep", "command": sh("echo swept; echo gone"), "frequency": "100ms" }],
        "coprocesses": [{ "name": "side", "command": sh("echo beside >&2; exec sleep 86400") }],
    });
    let pilot = pilot_env.pilot(configuration).shell(SLEEP).start()?;
    for text in ["level=info msg=swept", "level=info msg=gone", "task=sweep", "level=info msg=beside", "coprocess=side"]
    {
        pilot.wait_log(text).await?;
    }
    Ok(())
}
