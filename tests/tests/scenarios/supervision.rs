//! Crashes, stops, checks and output of the sub-process.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, alive, artifacts, consistently, eventually};
use serde_json::json;

use crate::{monitoring::metric, pod, running};

fn crash(pid: i32) -> Result {
    Ok(signal::kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

#[tokio::test]
async fn a_crash_is_repaired_immediately_and_turns_nothing_off() -> Result {
    let (_env, pod) = running(|pod| pod.set("set_check_every", "1")).await?;
    let first = pod.started(1).await?;
    let begin = Instant::now();
    crash(first)?;
    let second = pod.started(2).await?;
    ensure!(begin.elapsed() < Duration::from_secs(8), "the restart took {:?}", begin.elapsed());
    // The sub-process may run before the pod knows.
    pod.wait_info("process", "running").await?;
    consistently("it runs on", Duration::from_secs(3), async || {
        ensure!(alive(second), "the second start ended");
        ensure!(pod.client().info().await?["process"] == "running", "it is not running");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn crashes_in_a_row_are_backed_off_and_turn_the_sub_process_off() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    // It is ready before it ends: otherwise the leader repeats the configuration.
    let pod =
        env.pod(&guest).count_starts("sleep 0.3; exit 3").set("set_check_every", "1").set("set_checks", "2").start()?;
    pod.wait_log("stopping sub-process").await?;
    pod.wait_info("process", "stopped").await?;
    let starts = pod.starts()?.len();
    ensure!((2..12).contains(&starts), "no back-off: {starts} starts");
    consistently("it stays off", Duration::from_secs(3), async || {
        ensure!(pod.starts()?.len() == starts, "it was started again");
        Ok(())
    })
    .await?;
    let info = pod.client().info().await?;
    ensure!(info["metrics"] == json!({}), "metrics are {}", info["metrics"]);
    Ok(())
}

#[tokio::test]
async fn off_waits_for_the_grace_and_kills_the_whole_group_then() -> Result {
    let stubborn = "trap '' TERM; (trap '' TERM; echo $BASHPID > /dev/null; while :; do sleep 0.1; done) & \
                    while :; do sleep 0.1; done";
    let (_env, pod) = running(|pod| pod.count_trapped_starts(stubborn).set("set_grace", "1")).await?;
    pod.started(1).await?;
    let begin = Instant::now();
    pod.client().post("/control/off/30").await?.json(200)?;
    let took = begin.elapsed();
    ensure!(took >= Duration::from_millis(900), "the grace was cut to {took:?}");
    ensure!(took < Duration::from_secs(12), "the grace took {took:?}");
    pod.assert_clean().await?;
    ensure!(pod.client().info().await?["process"] == "stopped", "it is not stopped");
    Ok(())
}

#[tokio::test]
async fn off_is_quick_if_the_sub_process_exits_on_term() -> Result {
    let (_env, pod) = running(|pod| pod.set("set_grace", "30")).await?;
    let begin = Instant::now();
    pod.client().post("/control/off/30").await?.json(200)?;
    ensure!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
    pod.wait_log("callback tear-down").await?;
    Ok(())
}

#[tokio::test]
async fn soft_releases_what_outlives_its_grace() -> Result {
    let lingering = "trap '' TERM; while :; do sleep 0.1; done";
    let (_env, pod) =
        running(|pod| pod.count_trapped_starts(lingering).set("set_grace", "1").set("set_soft", "true")).await?;
    let old = pod.started(1).await?;
    pod.client().post("/control/off/30").await?.json(200)?;
    ensure!(alive(old), "it was killed");
    ensure!(pod.client().info().await?["process"] == "stopped", "it is not stopped");
    pod.client().post("/control/on/30").await?.json(200)?;
    let new = pod.started(2).await?;
    ensure!(alive(old) && alive(new) && old != new, "the two do not run concurrently");
    signal::kill(Pid::from_raw(old), Signal::SIGKILL)?;
    eventually("the released one is reaped", DEFAULT_TIMEOUT, async || {
        ensure!(!fs::exists(format!("/proc/{old}"))?, "it is a zombie");
        Ok(())
    })
    .await?;
    consistently("the new one runs on", Duration::from_secs(1), async || {
        ensure!(alive(new), "the end of the old one ended the new one");
        ensure!(pod.starts()?.len() == 2, "the end of the old one was taken for a crash");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn off_by_hand_lasts_until_the_next_configuration() -> Result {
    let (env, first) = running(|pod| pod).await?;
    first.client().post("/control/off").await?.json(200)?;
    consistently("it stays off", Duration::from_secs(2), async || {
        ensure!(first.client().info().await?["process"] == "stopped", "it is not stopped");
        Ok(())
    })
    .await?;
    let second = pod(&env).start()?;
    env.cluster("default").wait_formed(&[&first, &second]).await?;
    first.started(2).await?;
    ensure!(first.starts()?.len() == 2, "the leader did not start it again");
    Ok(())
}

#[tokio::test]
async fn off_cancels_a_restart_that_is_pending() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    // It is ready before it ends: otherwise the leader repeats the configuration.
    let pod = env.pod(&guest).count_starts("sleep 0.3; exit 3").set("set_checks", "99").start()?;
    pod.started(3).await?;
    pod.client().post("/control/off").await?.json(200)?;
    let starts = pod.starts()?.len();
    consistently("nothing is started any longer", Duration::from_secs(4), async || {
        ensure!(pod.starts()?.len() == starts, "it was started again");
        ensure!(pod.client().info().await?["process"] == "stopped", "it is not stopped");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kill_and_term_cut_the_wait_for_a_restart() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    let crashing = || env.pod(&guest).count_starts("exit 3").set("set_checks", "99");
    let (killed, mut left) = (crashing().set("cluster", "one").start()?, crashing().set("cluster", "two").start()?);
    for pod in [&killed, &left] {
        pod.started(5).await?;
    }
    let begin = Instant::now();
    killed.client().post("/control/kill").await?.json(200)?;
    left.term()?;
    ensure!(left.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(begin.elapsed() < Duration::from_secs(4), "they waited {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn failing_sanity_checks_turn_the_sub_process_off() -> Result {
    let env = TestEnv::new().await?;
    let pod =
        pod(&env).misbehave("sanity_check", "reject").set("set_check_every", "1").set("set_checks", "3").start()?;
    metric(&pod, "ochopod_off 1").await?;
    metric(&pod, "ochopod_checks_failed_total 3").await.context("off after another number of checks")?;
    pod.wait_info("process", "stopped").await?;
    ensure!(pod.starts()?.len() == 1, "it was started again");
    Ok(())
}

#[tokio::test]
async fn metrics_of_the_sanity_check_are_shown_while_it_runs() -> Result {
    let env = TestEnv::new().await?;
    let metrics = artifacts::plugin("metrics")?;
    let pods = env.start_cluster(1, |env| env.pod(&metrics)).await?;
    eventually("metrics are shown", DEFAULT_TIMEOUT, async || {
        let info = pods[0].client().info().await?;
        let uptime = info["metrics"]["uptime"].as_str().unwrap_or_default().to_owned();
        ensure!(uptime.contains("minutes (pid "), "metrics are {}", info["metrics"]);
        Ok(())
    })
    .await?;
    pods[0].client().post("/control/off").await?.json(200)?;
    let info = pods[0].client().info().await?;
    ensure!(info["metrics"] == json!({}), "metrics of a stopped pod are {}", info["metrics"]);
    Ok(())
}

#[tokio::test]
async fn a_check_yields_to_a_request() -> Result {
    let (_env, pod) =
        running(|pod| pod.misbehave("sanity_check", "sleep").set("set_check_every", "30").set("set_checks", "9"))
            .await?;
    pod.wait_log("callback sanity-check").await?;
    let begin = Instant::now();
    pod.client().post("/control/signal/20").await?.json(200)?;
    ensure!(begin.elapsed() < Duration::from_secs(12), "the request waited {:?} for the check", begin.elapsed());
    ensure!(pod.client().info().await?["process"] == "running", "it is not running");
    Ok(())
}

#[tokio::test]
async fn output_of_the_sub_process_goes_to_the_log_if_requested() -> Result {
    let talkative = "echo spoken; echo cried >&2; exec 1>&- 2>&-; exec sleep 86400";
    let (_env, pod) = running(|pod| pod.count_starts(talkative).set("set_pipe_subprocess", "true")).await?;
    eventually("the log has it", DEFAULT_TIMEOUT, async || {
        let log = pod.client().log().await?;
        ensure!(log.contains("spoken") && log.contains("cried"), "the log has {log}");
        Ok(())
    })
    .await?;
    let busy = cpu_ticks(pod.pid())?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu_ticks(pod.pid())? - busy;
    ensure!(spent < 20, "a closed pipe costs {spent} % CPU");
    Ok(())
}

#[tokio::test]
async fn a_flood_of_output_does_not_stop_the_pod_from_answering() -> Result {
    let (_env, pod) = running(|pod| pod.count_starts("exec yes").set("set_pipe_subprocess", "true")).await?;
    for _ in 0..20 {
        let begin = Instant::now();
        pod.client().info().await?;
        ensure!(begin.elapsed() < Duration::from_secs(8), "/info took {:?}", begin.elapsed());
    }
    pod.client().post("/control/off").await?.json(200)?;
    pod.assert_clean().await
}

/// Returns user and system time of a process, in hundredths of a second.
fn cpu_ticks(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("no such process")?.1.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
