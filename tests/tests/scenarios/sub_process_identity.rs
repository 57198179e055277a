//! User and limits of the sub-process, and its view of the host.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context, ensure};
use nix::unistd::{User, geteuid};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, artifacts, eventually};
use serde_json::json;

use crate::pod;

/// Identity that a program prints.
const PRINT_IDENTITY: &str = "echo \"$(id -u) $(id -g) $(id -G) $HOME $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)\"";

/// Starts a pod whose sub-process writes text to standard output, and waits for that.
async fn run_script(env: &TestEnv, script: &str, complete: impl Fn(PodBuilder) -> PodBuilder) -> Result<(Pod, String)> {
    let script = format!("{script}; echo script-done; exec sleep 86400");
    let pod = complete(pod(env).command(&script)).start()?;
    let output = eventually("the sub-process reports", DEFAULT_TIMEOUT, async || {
        let output = pod.output()?;
        ensure!(output.contains("script-done"), "unexpected output {output}");
        Ok(output)
    })
    .await?;
    Ok((pod, output))
}

fn nobody() -> Result<User> {
    User::from_name("nobody")?.context("this system has no user nobody")
}

#[tokio::test]
async fn programs_run_as_the_requested_user_and_within_limits() -> Result {
    let env = TestEnv::new().await?;
    let limited = |pod: PodBuilder| {
        let pod = pod.flags(["--rlimit", "nofile=100:200", "--run", "/bin/sh"]).set("rlimit_core", "0");
        if geteuid().is_root() { pod.set("user", "nobody") } else { pod }
    };
    let (mut pod, output) = run_script(&env, PRINT_IDENTITY, limited).await?;
    let first = output.lines().next().unwrap_or_default().to_owned();
    let said: Vec<&str> = first.split(' ').collect();
    ensure!(said.ends_with(&["100", "200", "0"]), "unexpected output {said:?}");
    if geteuid().is_root() {
        let user = nobody()?;
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        ensure!(said[..4] == [&*uid, &*gid, &*gid, &*user.dir.to_string_lossy()], "unexpected output {said:?}");
    }
    let script = format!("/bin/sh -c {}", PRINT_IDENTITY.replace(' ', "${IFS}"));
    let tried =
        pod.client().post_json("/control/signal", &json!({ "try": "exec", "with": script })).await?.json(200)?;
    let same = tried["stdout"].as_str().is_some_and(|text| text.split_whitespace().eq(said));
    ensure!(same, "a program said {tried}, not {first}");
    pod.kill9().await?;
    pod.assert_clean().await
}

#[tokio::test]
async fn a_program_that_the_user_may_not_execute_is_refused_by_name() -> Result {
    if !geteuid().is_root() {
        return Ok(());
    }
    let env = TestEnv::new().await?;
    fs::set_permissions(env.scratch(), fs::Permissions::from_mode(0o755))?;
    let program = env.scratch().join("sleep");
    fs::write(&program, "#!/bin/sh\nexec /bin/sleep 86400\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let plugin = artifacts::plugin("hello")?;
    let pod = env.pod(&plugin).env("PATH", env.scratch().display());
    let refused = pod.clone().set("user", "nobody").start()?;
    refused.wait_log("cannot execute sleep: Permission denied").await?;
    drop(refused);
    pod.start()?.wait_info("process", "running").await?;
    Ok(())
}

#[tokio::test]
async fn bad_users_and_limits_are_reported_together() -> Result {
    let env = TestEnv::new().await?;
    let wrong = [("user", "no such user"), ("group", "no such group"), ("rlimit_files", "1")];
    let wrong = wrong.iter().fold(pod(&env), |pod, (name, value)| pod.set(name, value));
    let mut pod = wrong.flags(["--rlimit", "nofile=2:1"]).start()?;
    ensure!(pod.exit_code().await? == 64, "it did not exit with code 64");
    let console = pod.console()?;
    for expected in
        ["ochopod_user: ", "ochopod_group: ", "ochopod_rlimit_files: ", "--rlimit nofile: invalid value \"2:1\""]
    {
        ensure!(console.contains(expected), "{expected} is not in {console}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_above_those_of_the_host_are_reported_when_the_program_starts() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).without_capabilities().set("rlimit_nofile", "unlimited").start()?;
    pod.wait_log("cannot set the limits of /bin/sh (nofile=").await?;
    Ok(())
}

#[tokio::test]
async fn the_sub_process_cannot_inspect_the_host_even_as_the_same_user() -> Result {
    let env = TestEnv::new().await?;
    let look = "for file in environ mem maps; do
            if (true < /proc/$PPID/$file) 2>/dev/null; then echo \"host $file\"; fi
            if (true < /proc/$$/$file) 2>/dev/null; then echo \"own $file\"; fi
        done";
    let zk = format!("zk://web:hunter2@{}", env.store().connect_string());
    let (pod, output) = run_script(&env, look, |pod| pod.without_capabilities().set("zk", &zk)).await?;
    for own in ["own environ", "own mem", "own maps"] {
        ensure!(output.contains(own), "the sub-process cannot even see its {own}: {output}");
    }
    ensure!(!output.contains("host "), "it sees of the host: {output}");
    let environ = fs::read_to_string(format!("/proc/{}/environ", pod.pid()));
    if geteuid().is_root() {
        ensure!(environ?.contains("hunter2"), "the password is not where it was expected");
    }
    Ok(())
}

#[tokio::test]
async fn another_user_opens_the_outputs_of_the_host_and_those_that_go_to_its_log() -> Result {
    if !geteuid().is_root() {
        return Ok(());
    }
    let env = TestEnv::new().await?;
    // Writes nothing: in a file, each descriptor has a position of its own.
    let script = "true >> /dev/stdout && true >> /dev/stderr && echo opened";
    let (pod, output) = run_script(&env, script, |pod| pod.set("user", "nobody")).await?;
    ensure!(output.contains("opened"), "unexpected output {output}");
    drop(pod);
    let piped = pod_with_pipes(&env, script)?;
    piped.wait_log("opened pid=").await.map(drop)
}

/// Starts a pod whose sub-process writes to the log.
fn pod_with_pipes(env: &TestEnv, script: &str) -> Result<Pod> {
    let script = format!("{script}; exec sleep 86400");
    pod(env).command(&script).set("user", "nobody").set("set_pipe_subprocess", "true").start()
}
