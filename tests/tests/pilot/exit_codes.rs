//! Exit codes, and signals for other processes.

use std::{env, time::Duration};

use anyhow::ensure;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, eventually, zombies};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, sh},
};

/// Number of runs of each exit code as PID 1: `PILOT_RUNS` increases it.
const RUNS: usize = 50;
/// Number of concurrent runs.
const MAX_CONCURRENT_RUNS: usize = 10;

/// Applications and hooks with their exits, and the exit code of the pilot.
fn endings() -> Vec<(&'static str, Value, i32)> {
    let post_stop = |code: u8| json!({ "postStop": sh(&format!("exit {code}")) });
    vec![
        ("exit 0", json!({}), 0),
        ("exit 3", json!({}), 3),
        ("exit 255", json!({}), 255),
        ("kill -9 $$", json!({}), 137),
        ("kill -15 $$", json!({}), 143),
        ("kill -11 $$", json!({}), 139),
        ("exit 3", post_stop(0), 3),
        ("exit 3", post_stop(7), 7),
        ("exit 0", post_stop(7), 7),
        ("exit 0", json!({ "postStop": "/no/such/file" }), 127),
        ("exit 3", json!({ "preStart": "true" }), 3),
        ("exit 3", json!({ "preStart": sh("exit 5") }), 5),
        ("exit 3", json!({ "preStart": sh("kill -9 $$") }), 137),
        ("exit 3", json!({ "preStart": "/no/such/file" }), 127),
    ]
}

#[tokio::test]
async fn the_code_is_the_applications_or_that_of_a_hook_that_fails() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilots = Vec::new();
    for (place, (application, hooks, code)) in endings().into_iter().enumerate() {
        let pilot = pilot_env.pilot_in(&place.to_string(), hooks.clone()).shell(application).start()?;
        pilots.push((format!("{application} with {hooks}"), code, pilot));
    }
    for (program, code) in [("/no/such/file", 127), ("no-such-program", 127), ("/etc/passwd", 126)] {
        let pilot = pilot_env.pilot_in(&program.replace('/', "-"), json!({})).application([program]).start()?;
        pilots.push((program.to_owned(), code, pilot));
    }
    for (what, expected, mut pilot) in pilots {
        let code = pilot.exit_code().await?;
        ensure!(code == expected, "{what} gave {code} instead of {expected}");
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn as_pid_1_the_code_is_the_applications_every_time() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let runs = env::var("PILOT_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    // Health checks that exit frequently, so that several children are reaped.
    let busy = json!({ "tasks": [{ "command": "true", "frequency": "5ms" }] });
    let mut run = 0;
    while run < runs {
        let pilots = (0..MAX_CONCURRENT_RUNS.min(runs - run)).map(|_| {
            run += 1;
            pilot_env.pilot_in(&run.to_string(), busy.clone()).init().quiet().shell("sleep 0.1; exit 3").start()
        });
        for pilot in pilots.collect::<Result<Vec<_>>>()? {
            let mut pilot = pilot;
            let code = pilot.exit_code().await?;
            ensure!(code == 3, "run {run}: the code is {code}: {}", pilot.log()?);
        }
    }
    Ok(())
}

#[tokio::test]
async fn as_pid_1_signals_count_as_everywhere() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = pilot_env.pilot(json!({})).init().count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not that of TERM");
    pilot.assert_clean().await
}

#[tokio::test]
async fn as_pid_1_what_the_application_leaves_is_reaped() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let orphans = "for n in 1 2 3 4 5; do sh -c 'sleep 0.2 &'; done; exec sleep 86400";
    let pilot = pilot_env.pilot(json!({})).init().count_starts(orphans).start()?;
    pilot.started(1).await?;
    // Only the application is left, and no zombie.
    eventually("all are reaped", DEFAULT_TIMEOUT, async || {
        let holdings = pilot.holdings()?;
        ensure!(holdings.children == 1 && zombies(pilot.pid()).is_empty(), "it holds {holdings:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn other_signals_go_to_the_application_itself() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let signals = [Signal::SIGUSR2, Signal::SIGTTIN, Signal::SIGPWR, Signal::SIGALRM, Signal::SIGIO];
    let traps = signals.map(|signal| format!("trap 'echo {signal} >> got' {};", &signal.as_str()[3..])).concat();
    // A child of the same group, which most of them would terminate.
    let text = format!("{traps} sleep 86400 & echo . >> up; while :; do sleep 0.05; done");
    let mut pilot = pilot_env.pilot(json!({})).shell(&text).start()?;
    pilot.wait_lines("up", 1).await?;
    for (place, signal) in signals.iter().enumerate() {
        pilot.signal(*signal)?;
        let got = pilot.wait_lines("got", place + 1).await?;
        ensure!(got.last().is_some_and(|got| got == signal.as_str()), "it got {got:?}");
    }
    ensure!(pilot.is_up()?, "the pilot ended");
    let sleeps = pilot.descendants().len();
    ensure!(sleeps >= 2, "the application's child was ended");
    pilot.term()?;
    pilot.wait(Duration::from_secs(10)).await?;
    pilot.assert_clean().await
}

#[tokio::test]
async fn an_application_that_stops_itself_is_no_application_that_ended() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = pilot_env.pilot(json!({})).count_starts("kill -STOP $$; exit 4").start()?;
    let application = pilot.started(1).await?;
    pilot.wait_log("child sh stopped by SIGSTOP").await?;
    ensure!(pilot.wait(Duration::from_secs(1)).await.is_err(), "the pilot ended");
    signal::kill(Pid::from_raw(application), Signal::SIGCONT)?;
    ensure!(pilot.exit_code().await? == 4, "the code is not the application's");
    Ok(())
}
