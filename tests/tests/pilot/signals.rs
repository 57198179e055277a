//! Signals that stop a pilot, signals that are forwarded, and dispositions inherited from the parent process.

use std::time::Duration;

use anyhow::ensure;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, eventually, namespaces};
use serde_json::json;

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, service, sh, with},
};

const QUIT: i32 = Signal::SIGQUIT as i32;
const TERM: i32 = Signal::SIGTERM as i32;
const INT: i32 = Signal::SIGINT as i32;
const WINCH: i32 = Signal::SIGWINCH as i32;
/// The number that container runtimes use.
const RTMIN_3: i32 = 37;

/// Returns an application that writes `up` once it listens, then each received signal, and exits with 5 after one of
/// these.
fn recording(signals: &[&str]) -> String {
    let ends = signals.iter().map(|signal| format!("trap 'echo {signal} >> got; exit 5' {signal};"));
    format!("{} echo . >> up; while :; do sleep 0.05; done", ends.collect::<String>())
}

fn quick() -> serde_json::Value {
    json!({ "stopTimeout": 60 })
}

#[tokio::test]
async fn each_stop_signal_deregisters_first_and_reaches_the_application_as_it_arrived() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let cases = [(QUIT, "QUIT"), (RTMIN_3, "37"), (WINCH, "WINCH"), (TERM, "TERM"), (INT, "TERM")];
    for (place, (sent, expected)) in cases.into_iter().enumerate() {
        let mark = format!("curl -s http://{}/moment/terminated >/dev/null;", pilot_env.consul.address());
        let text = recording(&["TERM", "INT", "QUIT", "WINCH", "37"]).replace("exit 5", &format!("{mark} exit 5"));
        let configuration = with(quick(), json!({ "services": [service("app", json!({}))] }));
        let pilot = pilot_env.pilot_in(&place.to_string(), configuration).within(namespaces::without_terminal());
        let mut pilot = pilot.shell(&text).start()?;
        pilot.wait_lines("up", 1).await?;
        pilot_env.wait_status("app", "passing").await?;
        let before = pilot_env.consul.calls().len();
        pilot.signal_number(sent)?;
        let code = pilot.exit_code().await?;
        ensure!(code == 5, "signal {sent}: the code is {code}");
        ensure!(pilot.lines("got") == [expected], "signal {sent}: it got {:?}", pilot.lines("got"));
        let paths: Vec<String> = pilot_env.consul.calls().into_iter().skip(before).map(|call| call.path).collect();
        let position = |text: &str| paths.iter().position(|path| path.contains(text));
        ensure!(position("/deregister/") < position("/moment/"), "signal {sent}: the order is {paths:?}");
        ensure!(position("/deregister/").is_some(), "signal {sent}: it was not deregistered");
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn as_pid_1_stop_signals_of_base_images_stop_it_too() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for (sent, expected) in [(QUIT, "QUIT"), (RTMIN_3, "37"), (WINCH, "WINCH")] {
        let pilot = pilot_env.pilot_in(expected, quick());
        let pilot = pilot.within(namespaces::without_terminal()).init();
        let mut pilot = pilot.shell(&recording(&["TERM", "QUIT", "WINCH", "37"])).start()?;
        pilot.wait_lines("up", 1).await?;
        signal_init(&pilot, sent)?;
        ensure!(pilot.exit_code().await? == 5, "signal {sent}: the code is not the application's");
        ensure!(pilot.lines("got") == [expected], "signal {sent}: it got {:?}", pilot.lines("got"));
    }
    Ok(())
}

/// Sends a signal to the host, which is PID 1 below `setsid` and `unshare`.
fn signal_init(pilot: &Pilot, number: i32) -> Result {
    let below = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().next().and_then(|pid| pid.parse::<i32>().ok())
    };
    let host = below(pilot.pid()).unwrap_or_else(|| pilot.pid());
    let sent = std::process::Command::new("kill").args([format!("-{number}"), host.to_string()]).status()?;
    ensure!(sent.success(), "signal {number} was not sent");
    Ok(())
}

#[tokio::test]
async fn any_second_stop_signal_kills_immediately() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for (first, second) in [(QUIT, TERM), (TERM, QUIT), (RTMIN_3, WINCH), (WINCH, RTMIN_3)] {
        let pilot = pilot_env.pilot_in(&format!("{first}-{second}"), quick());
        let text = "for s in TERM QUIT WINCH 37; do trap \"echo $s >> got\" $s; done; echo . >> up; \
                    while :; do sleep 0.05; done";
        let mut pilot = pilot.within(namespaces::without_terminal()).shell(text).start()?;
        pilot.wait_lines("up", 1).await?;
        pilot.signal_number(first)?;
        pilot.wait_lines("got", 1).await?;
        pilot.signal_number(second)?;
        let ended = pilot.wait(Duration::from_secs(20)).await?;
        ensure!(ended.code() == Some(137), "signals {first} and {second}: it ended with {ended}");
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn other_real_time_signals_are_forwarded_to_the_application_alone() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let signals = [35, 36, 38, 50, 64];
    let traps = signals.map(|number| format!("trap 'echo {number} >> got' {number};")).concat();
    let text = format!("{traps} sleep 86400 & echo . >> up; while :; do sleep 0.05; done");
    let mut pilot = pilot_env.pilot(json!({})).shell(&text).start()?;
    pilot.wait_lines("up", 1).await?;
    for (place, number) in signals.into_iter().enumerate() {
        pilot.signal_number(number)?;
        let got = pilot.wait_lines("got", place + 1).await?;
        ensure!(got.last().is_some_and(|got| *got == number.to_string()), "it got {got:?}");
    }
    ensure!(pilot.is_up()? && pilot.descendants().len() >= 2, "the application's child was ended");
    pilot.term()?;
    pilot.wait(Duration::from_secs(10)).await?;
    pilot.assert_clean().await
}

/// Commands that leave signals blocked or ignored for their child.
fn parents() -> [Vec<String>; 2] {
    let signals = "HUP,INT,QUIT,TERM,CHLD,USR1,USR2,PIPE,WINCH,ALRM,CONT,TTOU";
    let block = format!("--block-signal={signals}");
    let ignore = format!("--ignore-signal={}", signals.replace(",CONT", ""));
    [vec!["env".to_owned(), block], vec!["env".to_owned(), ignore]]
}

#[tokio::test]
async fn signals_that_the_parent_left_blocked_or_ignored_work_for_host_and_children() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for (place, parent) in parents().into_iter().enumerate() {
        let masks = "grep -E 'Sig(Blk|Ign)' /proc/self/status";
        let configuration = json!({
            "preStart": sh(&format!("{masks} >> masks")),
            "tasks": [{ "command": sh("echo ran >> tasks"), "frequency": "50ms", "timeout": "10s" }],
        });
        let pilot = pilot_env.pilot_in(&place.to_string(), configuration.clone()).within(parent);
        let mut pilot = pilot.count_starts(&format!("{masks} >> masks; {SLEEP}")).start()?;
        pilot.started(1).await?;
        let masks = pilot.wait_lines("masks", 4).await?;
        // glibc keeps two signals ignored in every child.
        ensure!(
            masks.iter().all(|line| ["0000000000000000", "0000000180000000"].iter().any(|mask| line.ends_with(mask))),
            "children have {masks:?}"
        );
        // Exits of children are noticed, and SIGHUP.
        pilot.wait_lines("tasks", 3).await?;
        pilot.reload(&pilot_env.with_registry(configuration))?;
        pilot.wait_log("configuration reloaded").await?;
        pilot.term()?;
        ensure!(pilot.exit_code().await? == 143, "TERM did not reach the application");
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn stopped_processes_are_continued_when_terminated() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let obedient = |file: &str| {
        format!("trap 'echo . >> {file}-ended; exit 0' TERM; echo $$ >> {file}; while :; do sleep 0.05; done")
    };
    let configuration = json!({
        "stopTimeout": 60,
        "coprocesses": [{ "command": sh(&obedient("coprocess")) }],
    });
    let mut pilot = pilot_env.pilot(configuration).shell(&obedient("app")).start()?;
    for file in ["app", "coprocess"] {
        let pid: i32 = pilot.wait_lines(file, 1).await?[0].parse()?;
        signal::kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    }
    eventually("both are reported", DEFAULT_TIMEOUT, async || {
        let count = pilot.count_log("child sh stopped by SIGSTOP")?;
        ensure!(count == 2, "{count} lines report it");
        Ok(())
    })
    .await?;
    pilot.term()?;
    let ended = pilot.wait(Duration::from_secs(20)).await?;
    ensure!(ended.code() == Some(0), "it ended with {ended}");
    for file in ["app-ended", "coprocess-ended"] {
        ensure!(pilot.lines(file).len() == 1, "{file}: it did not handle TERM");
    }
    pilot.assert_clean().await
}
