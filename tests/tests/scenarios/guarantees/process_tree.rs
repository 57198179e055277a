//! Guarantee 6: as PID 1 of a namespace and as subreaper, the host terminates and reaps every descendant, in any group
//! or session.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, alive, eventually, namespaces};

use crate::{SLEEP, pod};

/// Returns the two kinds of init.
fn inits() -> [(&'static str, Vec<String>); 2] {
    [("a subreaper", Vec::new()), ("PID 1", namespaces::init())]
}

/// Returns a pod of this kind with a log of its own: PID 1 would use that of the machine.
fn as_init(pod: PodBuilder, within: &[String], env: &TestEnv) -> PodBuilder {
    pod.within(within).set("log", env.scratch().join("log").display())
}

/// Returns a grandchild in a session of its own, which does this on SIGTERM.
fn daemon(when_asked: &str) -> String {
    format!("setsid sh -c 'trap \"{when_asked}\" TERM; echo $$ >> daemons; while :; do sleep 0.05; done' & {SLEEP}")
}

async fn daemon_of(pod: &Pod) -> Result<i32> {
    eventually("the daemon is there", DEFAULT_TIMEOUT, async || {
        let file = fs::read_to_string(pod.directory().join("daemons"))?;
        ensure!(!file.trim().is_empty(), "not yet");
        Ok(())
    })
    .await?;
    // Outside the namespace it has another number.
    pod.descendants().into_iter().find(|pid| is_daemon(*pid)).context("the daemon is not among the descendants")
}

fn is_daemon(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("trap") && line.starts_with("sh"))
}

#[tokio::test]
async fn guarantee_6_a_shutdown_terminates_the_whole_tree_setsid_grandchildren_too() -> Result {
    for (what, within) in inits() {
        let env = TestEnv::new().await?;
        let polite = daemon("echo terminated > terminated; exit 0");
        let mut pods = env
            .start_cluster(1, |env| as_init(pod(env).count_starts(&polite).set("set_grace", "40"), &within, env))
            .await?;
        daemon_of(&pods[0]).await?;
        let begin = Instant::now();
        pods[0].term()?;
        ensure!(pods[0].exit_code().await? == 0, "{what} did not exit with code 0");
        ensure!(begin.elapsed() < Duration::from_secs(20), "{what}: the shutdown took {:?}", begin.elapsed());
        let terminated = fs::read_to_string(pods[0].directory().join("terminated")).unwrap_or_default();
        ensure!(terminated == "terminated\n", "{what}: the grandchild was not terminated");
        pods[0].assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_processes_that_ignore_sigterm_are_killed_after_the_grace_and_at_a_second_signal() -> Result {
    for (what, within) in inits() {
        let env = TestEnv::new().await?;
        let stubborn = daemon(":");
        let with = |grace: &str| {
            let name = format!("grace-{grace}");
            let pod = pod(&env).set("cluster", name).count_starts(&stubborn).set("set_grace", grace);
            as_init(pod, &within, &env).start()
        };
        let (mut patient, mut forced) = (with("2")?, with("40")?);
        for pod in [&patient, &forced] {
            daemon_of(pod).await?;
        }
        let begin = Instant::now();
        patient.term()?;
        forced.term()?;
        forced.wait_log("shutdown complete").await?;
        ensure!(alive(daemon_of(&forced).await?), "{what}: the grandchild was not given its grace");
        forced.term()?;
        ensure!(forced.exit_code().await? == 0, "{what} did not exit with code 0");
        ensure!(begin.elapsed() < Duration::from_secs(25), "{what}: the second signal took {:?}", begin.elapsed());
        ensure!(patient.exit_code().await? == 0, "{what} did not exit with code 0");
        ensure!(begin.elapsed() > Duration::from_secs(2), "{what}: the grace was cut to {:?}", begin.elapsed());
        for pod in [&patient, &forced] {
            pod.assert_clean().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_every_exit_is_reported_while_orphans_start_and_exit() -> Result {
    for (what, within) in inits() {
        let env = TestEnv::new().await?;
        // Each start leaves hundreds of orphans behind, and one that keeps running.
        let text = "n=$(wc -l < starts); i=0; while [ $i -lt 300 ]; do (: &); i=$((i+1)); done; (setsid sleep 3 &); \
                    if [ $n = 4 ]; then exec sleep 86400; elif [ $n = 3 ]; then kill -9 $$; else exit $n; fi";
        let pods = env
            .start_cluster(1, |env| as_init(pod(env).count_starts(text).set("set_checks", "99"), &within, env))
            .await?;
        eventually("the fourth start runs", DEFAULT_TIMEOUT * 2, async || {
            ensure!(pods[0].starts()?.len() == 4, "there were {} starts", pods[0].starts()?.len());
            ensure!(pods[0].client().info().await?["process"] == "running", "it is not running");
            Ok(())
        })
        .await?;
        for exit in ["exited with code 1", "exited with code 2", "killed by SIGKILL"] {
            let line = format!("exit={exit:?}");
            pods[0].wait_log(&line).await?;
            let count = pods[0].count_log(&line)?;
            ensure!(count == 1, "{what}: {exit} was logged {count} times");
        }
        let page = String::from_utf8_lossy(&pods[0].client().get("/metrics").await?.body).into_owned();
        ensure!(page.contains("ochopod_process_unexpected_ends_total 3\n"), "{what}: {page}");
        eventually("all orphans are reaped", DEFAULT_TIMEOUT, async || {
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pods[0].pid()))?;
            let count = children.split_whitespace().count();
            ensure!(count == 1, "{what}: there are {count} children");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
