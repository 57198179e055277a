//! User of a pilot's programs, and their access to outputs.

use anyhow::ensure;
use nix::unistd::{User, geteuid};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, eventually};
use serde_json::{Value, json};

use crate::pilot_env::{PilotEnv, sh, with};

/// Identity that a program prints.
const IDENTITY: &str = "$(id -u) $(id -G) $HOME $(ulimit -Sn) $(ulimit -Hn)";
/// Opens both outputs by name. Writes nothing there: in a file, each descriptor has a position of its own.
const OPEN: &str = "true >> /dev/stdout && true >> /dev/stderr && echo opened";

#[tokio::test]
async fn every_program_of_a_pilot_runs_as_the_user_and_within_the_limits() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let print_identity = |name: &str| sh(&format!("echo {name} {IDENTITY}"));
    let configuration = json!({
        "preStart": print_identity("hook"),
        "tasks": [{ "name": "task", "command": print_identity("task"), "frequency": "1s" }],
        "coprocesses": [{ "command": print_identity("coprocess") }],
    });
    let pilot = pilot_env.pilot(configuration).flags(["-rlimit", "nofile=100:200"]);
    let pilot = if geteuid().is_root() { pilot.flags(["-user", "nobody"]) } else { pilot };
    let pilot = pilot.shell(&format!("echo application {IDENTITY}; exec sleep 86400")).start()?;
    let expected = match User::from_name("nobody")?.filter(|_| geteuid().is_root()) {
        Some(user) => format!("{} {} {} 100 200", user.uid, user.gid, user.dir.display()),
        None => " 100 200".to_owned(),
    };
    for name in ["hook", "task", "coprocess", "application"] {
        eventually(&format!("the {name} reports"), DEFAULT_TIMEOUT, async || {
            let said = pilot.output()? + &pilot.log()?;
            let line = said.lines().find(|line| line.contains(&format!("{name} ")) && line.contains(" 100 200"));
            ensure!(line.is_some_and(|line| line.contains(&expected)), "unexpected output {said}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn bad_users_and_limits_of_a_pilot_are_reported_together() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = pilot_env.pilot(json!({})).env("ochopod_rlimit_files", "1").flags(["-user", "no such user"]);
    let mut pilot = pilot.flags(["-rlimit", "nofile=2:1"]).shell("true").start()?;
    ensure!(pilot.exit_code().await? == 64, "it did not exit with code 64");
    let console = pilot.console()?;
    for expected in ["--user: ", "ochopod_rlimit_files: ", "--rlimit nofile: invalid value \"2:1\""] {
        ensure!(console.contains(expected), "{expected} is not in {console}");
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_on_processes_of_root_is_warned_about() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = pilot_env.pilot(json!({})).flags(["-rlimit", "nproc=100"]).shell("exec sleep 86400").start()?;
    if geteuid().is_root() {
        pilot.wait_log("limit on processes without effect").await?;
    }
    Ok(())
}

#[tokio::test]
async fn another_user_opens_the_outputs_be_they_a_file_a_pipe_or_a_terminal() -> Result {
    if !geteuid().is_root() {
        return Ok(());
    }
    let pilot_env = PilotEnv::new().await?;
    let piped = "exec \"$@\" > >(exec cat) 2> >(exec cat >&2)";
    let terminal = "exec script -qefc \"$(printf '%q ' \"$@\")\" /dev/null";
    for (behind, start) in [("a file", None), ("a pipe", Some(piped)), ("a terminal", Some(terminal))] {
        let quiet: Value = with(json!({}), json!({ "logging": { "level": "ERROR" } }));
        let pilot = pilot_env.pilot_in(&behind.replace(' ', "-"), quiet).flags(["-user", "nobody"]).shell(OPEN);
        let pilot = match start {
            Some(start) => pilot.within(["bash", "-c", start, "bash"]),
            None => pilot,
        };
        let mut pilot = pilot.start()?;
        let code = pilot.exit_code().await?;
        ensure!(code == 0, "{behind}: {code} {}", pilot.console()?);
        // What copies from a pipe may outlive the pilot.
        eventually(&format!("{behind} is opened"), DEFAULT_TIMEOUT, async || {
            let said = pilot.output()?;
            ensure!(said.contains("opened"), "{said} {}", pilot.console()?);
            Ok(())
        })
        .await?;
    }
    Ok(())
}
