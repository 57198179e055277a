//! Failed starts are reported with the error of the system and the missing file.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context, ensure};
use ochopod_tests::{Result, TestEnv};

use crate::{follower::Follower, pod};

fn executable(path: &Path, text: &str) -> Result {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[tokio::test]
async fn a_program_whose_interpreter_is_missing_is_reported_with_it_and_the_pod_dies() -> Result {
    let env = TestEnv::new().await?;
    let (windows, lost) = (env.scratch().join("windows"), env.scratch().join("lost"));
    executable(&windows, "#!/bin/sh\r\nexit 0\r\n")?;
    executable(&lost, "#!/opt/no/such/python -u\n")?;
    for (name, program, named) in [
        ("windows", &windows, r#"interpreter "/bin/sh\r" (the line ends with a carriage return) is missing"#),
        ("lost", &lost, r#"interpreter "/opt/no/such/python" is missing"#),
    ] {
        let pod = pod(&env).set("cluster", name).set("test_program", program.display()).start()?;
        pod.wait_info("process", "dead").await?;
        let reason = format!("cannot execute {}: No such file or directory (ENOENT)", program.display());
        let log = pod.wait_log(&reason).await.with_context(|| format!("{name}: the error is not reported"))?;
        let log = log.replace("\\\\", "\\").replace("\\\"", "\"");
        ensure!(log.contains(named), "{name}: the interpreter is not named: {log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failed_job_exits_with_1_and_a_finished_or_terminated_one_with_0() -> Result {
    let env = TestEnv::new().await?;
    for (name, callback, code) in [("initialize", "initialize", 1), ("configure", "configure", 1), ("none", "none", 0)]
    {
        let job = pod(&env).set("cluster", name).command("sleep 0.2").misbehave(callback, "reject");
        let mut job = job.set("exit_when_dead", "true").start()?;
        let ended = job.exit_code().await?;
        ensure!(ended == code, "{name}: it ended with {ended}");
        ensure!(env.cluster(name).registered().await?.is_empty(), "{name}: its registration is left behind");
    }
    let mut missing = pod(&env).set("cluster", "missing").set("test_program", "/no/such/program");
    missing = missing.set("exit_when_dead", "true");
    ensure!(missing.start()?.exit_code().await? == 1, "a program that is missing is a failure");
    let mut killed = pod(&env).set("cluster", "killed").set("exit_when_dead", "true").start()?;
    killed.wait_info("process", "running").await?;
    killed.client().post("/control/kill").await?.json(200)?;
    ensure!(killed.exit_code().await? == 0, "a kill on request is not a failure");
    Ok(())
}

#[tokio::test]
async fn a_configure_that_exceeds_its_limit_is_never_reported_as_running() -> Result {
    for how in ["sleep", "spin"] {
        let follower = Follower::with(|pod| pod.misbehave("configure", how)).await?;
        let error = follower.pod.client().post_json("/control/on/2", &follower.view).await?.error(406)?;
        ensure!(error.contains("exceeded its deadline"), "{how}: {error}");
        follower.pod.wait_info("process", "dead").await?;
        let log = follower.pod.wait_log("configuration failed, terminating pod").await?;
        ensure!(!log.contains("goes on") && !log.contains("still running"), "{how}: {log}");
    }
    Ok(())
}
