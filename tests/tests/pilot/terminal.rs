//! Pilots on a terminal: foreground process group, and effects of `^C` and `^Z`.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, eventually};
use serde_json::json;

use crate::pilot_env::{PilotEnv, sh};

const CTRL_C: &str = "\u{3}";
const CTRL_Z: &str = "\u{1a}";
/// Text for bash. (dash starts programs by `vfork`, and does not notice one that is stopped within that.)
const BEATING: &str = "trap 'exit 9' TERM; while :; do echo . >> beats; sleep 0.05; done";

/// Returns the process group of a process, and the one that has its terminal's foreground.
fn groups(pid: i32) -> Result<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut fields = stat.rsplit_once(") ").context("no stat")?.1.split(' ').skip(2);
    let mut next = || fields.next().and_then(|field| field.parse().ok()).context("no number");
    let group = next()?;
    next()?;
    next()?;
    Ok((group, next()?))
}

async fn shows(pilot: &Pilot, text: &str) -> Result {
    eventually(&format!("the terminal shows {text:?}"), DEFAULT_TIMEOUT, async || {
        let screen = pilot.output()?;
        ensure!(screen.contains(text), "it shows {screen}");
        Ok(())
    })
    .await
}

/// Waits until such a group has the foreground of a pilot's terminal.
async fn has_foreground(pilot: &Pilot, is_right: impl Fn(i32) -> bool) -> Result {
    eventually("another group has the foreground", DEFAULT_TIMEOUT, async || {
        let (_, foreground) = groups(pilot.pid())?;
        ensure!(is_right(foreground), "it is {foreground}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_interactive_shell_works_as_an_application() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = pilot_env.pilot(json!({})).on_terminal().application(["bash", "--norc", "-i"]).start()?;
    pilot.press("echo $((6 * 7)) is it\n")?;
    shows(&pilot, "42 is it").await?;
    // The shell has job control of its own.
    let (host, shell) = groups(pilot.pid())?;
    ensure!(host != shell, "the shell has not the foreground");
    pilot.press("sleep 86399\n")?;
    // Before it runs the program, the process that has the foreground handles signals like the shell.
    eventually("sleep has the foreground", DEFAULT_TIMEOUT, async || {
        let (_, group) = groups(pilot.pid())?;
        let name = fs::read_to_string(format!("/proc/{group}/comm"))?;
        ensure!(group != host && name.trim() == "sleep", "{name} has it");
        Ok(())
    })
    .await?;
    pilot.press(CTRL_C)?;
    has_foreground(&pilot, |group| group == shell).await?;
    pilot.press("exit 7\n")?;
    ensure!(pilot.exit_code().await? == 7, "the code is not the shell's");
    pilot.assert_clean().await
}

#[tokio::test]
async fn an_interrupt_from_the_terminal_is_the_applications_alone_and_counts_once() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = "trap 'echo INT >> got' INT; trap 'exit 4' TERM; echo . >> up; while :; do sleep 0.05; done";
    let mut pilot = pilot_env.pilot(json!({ "stopTimeout": 60 })).on_terminal().shell(text).start()?;
    pilot.wait_lines("up", 1).await?;
    for times in 1..=3 {
        pilot.press(CTRL_C)?;
        let got = pilot.wait_lines("got", times).await?;
        ensure!(got.len() == times, "it got {got:?}");
    }
    ensure!(pilot.is_up()? && pilot.count_log("termination requested")? == 0, "the pilot counted the interrupts");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 4, "one TERM did not end it gracefully");
    ensure!(pilot.lines("got").len() == 3, "it got {:?}", pilot.lines("got"));
    pilot.assert_clean().await
}

#[tokio::test]
async fn an_application_that_the_interrupt_ends_ends_the_pilot() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = json!({ "postStop": sh("cut -d' ' -f5,8 /proc/$PPID/stat > groups") });
    let mut pilot = pilot_env.pilot(hooks).on_terminal().count_starts("exec sleep 86400").start()?;
    let application = pilot.started(1).await?;
    let (group, foreground) = groups(application)?;
    ensure!((group, foreground) == (application, application), "the foreground is {foreground}");
    pilot.press(CTRL_C)?;
    ensure!(pilot.exit_code().await? == 130, "the code is not that of INT");
    let after = pilot.lines("groups");
    let (group, foreground) = after[0].split_once(' ').context("no groups")?;
    ensure!(group == foreground, "the terminal was not taken back: {after:?}");
    pilot.assert_clean().await
}

#[tokio::test]
async fn a_size_change_is_no_shutdown_with_a_terminal_and_is_forwarded() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = "trap 'echo WINCH >> got' WINCH; echo . >> up; while :; do sleep 0.05; done";
    let mut pilot = pilot_env.pilot(json!({})).on_terminal().shell(text).start()?;
    pilot.wait_lines("up", 1).await?;
    pilot.signal(Signal::SIGWINCH)?;
    pilot.wait_lines("got", 1).await?;
    ensure!(pilot.is_up()? && pilot.count_log("termination requested")? == 0, "the pilot ends");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not that of TERM");
    Ok(())
}

/// The shell is the session's leader; the pilot is a job of it.
#[tokio::test]
async fn a_suspended_application_suspends_the_job_and_fg_continues_it() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let within = ["sh", "-c", "echo \"$@\" > line; exec bash --norc -i", "sh"];
    let pilot = pilot_env.pilot(json!({ "stopTimeout": 60 })).on_terminal().within(within);
    let mut shell = pilot.application(["bash", "./app"]).start()?;
    fs::write(shell.directory().join("app"), BEATING)?;
    shell.wait_lines("line", 1).await?;
    shell.press("$(cat line)\n")?;
    shell.wait_lines("beats", 3).await?;
    shell.press(CTRL_Z)?;
    shows(&shell, "Stopped").await?;
    shell.press("echo the shell $((40 + 2)) reads\n")?;
    shows(&shell, "the shell 42 reads").await?;
    let beats = shell.lines("beats").len();
    shell.press("fg\n")?;
    shell.wait_lines("beats", beats + 5).await?;
    shell.press(CTRL_C)?;
    shell.press("echo ended with $?\n")?;
    shows(&shell, "ended with 130").await?;
    shell.press("exit 0\n")?;
    ensure!(shell.wait(Duration::from_secs(20)).await?.code() == Some(0), "the shell did not end");
    shell.assert_clean().await
}

#[tokio::test]
async fn a_suspended_application_without_a_shell_continues() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let application = ["bash", "-c", BEATING];
    let mut pilot = pilot_env.pilot(json!({ "stopTimeout": 60 })).on_terminal().application(application).start()?;
    pilot.wait_lines("beats", 1).await?;
    pilot.press(CTRL_Z)?;
    pilot.wait_log("child bash stopped by SIGTSTP").await?;
    let beats = pilot.lines("beats").len();
    pilot.wait_lines("beats", beats + 5).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 9, "the code is not the application's");
    Ok(())
}
