//! Exit codes, and signals that are not for the pilot.

use std::{env, time::Duration};

use anyhow::ensure;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use ochopod_tests::{Result, SOON, eventually, zombies};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    corner::{Corner, sh},
};

/// How often one exit code is looked at as PID 1: `PILOT_RUNS`, for those who want to be surer.
const RUNS: usize = 50;
/// How many of them run at once.
const AT_ONCE: usize = 10;

/// What ends in which way, with what of hooks, and what the pilot ends with.
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
    let corner = Corner::new().await?;
    let mut pilots = Vec::new();
    for (place, (application, hooks, code)) in endings().into_iter().enumerate() {
        let pilot = corner.pilot_in(&place.to_string(), hooks.clone()).shell(application).start()?;
        pilots.push((format!("{application} with {hooks}"), code, pilot));
    }
    for (program, code) in [("/no/such/file", 127), ("no-such-program", 127), ("/etc/passwd", 126)] {
        let pilot = corner.pilot_in(&program.replace('/', "-"), json!({})).application([program]).start()?;
        pilots.push((program.to_owned(), code, pilot));
    }
    for (what, expected, mut pilot) in pilots {
        let code = pilot.exit_code().await?;
        ensure!(code == expected, "{what} gave {code} instead of {expected}");
        pilot.leaves_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn as_pid_1_the_code_is_the_applications_every_time() -> Result {
    let corner = Corner::new().await?;
    let runs = env::var("PILOT_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    // Health checks that end all the time, so that there is more than one child to wait for.
    let busy = json!({ "tasks": [{ "command": "true", "frequency": "5ms" }] });
    let mut run = 0;
    while run < runs {
        let pilots = (0..AT_ONCE.min(runs - run)).map(|_| {
            run += 1;
            corner.pilot_in(&run.to_string(), busy.clone()).init().quiet().shell("sleep 0.1; exit 3").start()
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
    let corner = Corner::new().await?;
    let mut pilot = corner.pilot(json!({})).init().counted(SLEEP).start()?;
    pilot.started(1).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not that of TERM");
    pilot.leaves_nothing().await
}

#[tokio::test]
async fn as_pid_1_what_the_application_leaves_is_reaped() -> Result {
    let corner = Corner::new().await?;
    let orphans = "for n in 1 2 3 4 5; do sh -c 'sleep 0.2 &'; done; exec sleep 86400";
    let pilot = corner.pilot(json!({})).init().counted(orphans).start()?;
    pilot.started(1).await?;
    // The application alone is left, and no zombie.
    eventually("all are reaped", SOON, async || {
        let holdings = pilot.holdings()?;
        ensure!(holdings.children == 1 && zombies(pilot.pid()).is_empty(), "it holds {holdings:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn other_signals_go_to_the_application_itself() -> Result {
    let corner = Corner::new().await?;
    let signals = [Signal::SIGUSR2, Signal::SIGQUIT, Signal::SIGWINCH, Signal::SIGALRM, Signal::SIGIO];
    let traps = signals.map(|signal| format!("trap 'echo {signal} >> got' {};", &signal.as_str()[3..])).concat();
    // A child of the same group, which would be ended by most of them.
    let text = format!("{traps} sleep 86400 & echo . >> up; while :; do sleep 0.05; done");
    let mut pilot = corner.pilot(json!({})).shell(&text).start()?;
    pilot.wrote("up", 1).await?;
    for (place, signal) in signals.iter().enumerate() {
        pilot.signal(*signal)?;
        let got = pilot.wrote("got", place + 1).await?;
        ensure!(got.last().is_some_and(|got| got == signal.as_str()), "it got {got:?}");
    }
    ensure!(pilot.is_up()?, "the pilot ended");
    let sleeps = pilot.descendants().len();
    ensure!(sleeps >= 2, "the application's child was ended");
    pilot.term()?;
    pilot.wait(Duration::from_secs(10)).await?;
    pilot.leaves_nothing().await
}

#[tokio::test]
async fn an_application_that_stops_itself_is_no_application_that_ended() -> Result {
    let corner = Corner::new().await?;
    let mut pilot = corner.pilot(json!({})).counted("kill -STOP $$; exit 4").start()?;
    let application = pilot.started(1).await?;
    ensure!(pilot.wait(Duration::from_secs(1)).await.is_err(), "the pilot ended");
    signal::kill(Pid::from_raw(application), Signal::SIGCONT)?;
    ensure!(pilot.exit_code().await? == 4, "the code is not the application's");
    Ok(())
}
