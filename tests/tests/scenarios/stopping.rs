//! Stopping loses no data, and a shutdown completes within its limit.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::{Pid, geteuid},
};
use ochopod_tests::{
    DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, ZooKeeper, artifacts, eventually, free_port, namespaces,
};

use crate::{SLEEP, pod, running};

/// Exits slowly, and reports its exit.
const SAVING: &str = "trap 'sleep 4; echo saved > saved; exit 0' TERM; while :; do sleep 0.05; done";
const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.1; done";
/// Reports SIGTERM.
const POLITE: &str = "trap 'echo terminated > terminated; exit 0' TERM; while :; do sleep 0.05; done";
/// Tolerance for a loaded machine.
const TOLERANCE: Duration = Duration::from_secs(8);

fn has_file(pod: &Pod, file: &str) -> bool {
    fs::exists(pod.directory().join(file)).unwrap_or_default()
}

/// Terminates it, and measures the time.
async fn leaves(pod: &mut Pod) -> Result<Duration> {
    let begin = Instant::now();
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    Ok(begin.elapsed())
}

#[tokio::test]
async fn a_first_signal_and_a_kill_leave_a_stop_under_way_its_grace() -> Result {
    for (request, signalled) in [("off", true), ("kill", true), ("off", false)] {
        let (_env, mut pod) = running(|pod| pod.count_trapped_starts(SAVING).set("set_grace", "30")).await?;
        pod.started(1).await?;
        let (client, path) = (pod.client().clone(), format!("/control/{request}/60"));
        let stop = tokio::spawn(async move { client.post(&path).await });
        pod.wait_info("process", "terminating").await?;
        if signalled {
            pod.term()?;
            ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
        } else {
            pod.client().post("/control/kill/60").await?.json(200)?;
            pod.wait_log("callback finalize").await?;
        }
        ensure!(has_file(&pod, "saved"), "{request}: it was killed within its grace");
        ensure!(pod.count_log("killing sub-process")? == 0, "{request}: it was killed");
        stop.abort();
        pod.assert_clean().await.or_else(|error| if signalled { Err(error) } else { Ok(()) })?;
    }
    Ok(())
}

#[tokio::test]
async fn command_of_a_wrapper_that_exits_first_keeps_its_grace() -> Result {
    let wrapper = format!("sh -c \"{}\"; :", SAVING.replace("while", "echo . > up; while"));
    for request in ["off", "term"] {
        let (_env, mut pod) = running(|pod| pod.count_starts(&wrapper).set("set_grace", "30")).await?;
        pod.wait_lines("up", 1).await?;
        if request == "off" {
            pod.client().post("/control/off/60").await?.json(200)?;
            pod.client().post("/control/on/60").await?.json(200)?;
            pod.started(2).await?;
        } else {
            leaves(&mut pod).await?;
            pod.assert_clean().await?;
        }
        ensure!(has_file(&pod, "saved"), "{request}: the command was killed within its grace");
    }
    Ok(())
}

#[tokio::test]
async fn a_tear_down_that_hangs_does_not_keep_sigterm_from_the_sub_process() -> Result {
    for how in ["sleep", "spin"] {
        let (_env, mut pod) =
            running(|pod| pod.count_trapped_starts(POLITE).misbehave("tear_down", how).set("set_grace", "4")).await?;
        pod.started(1).await?;
        let took = leaves(&mut pod).await?;
        ensure!(has_file(&pod, "terminated"), "{how}: it was killed and not terminated");
        ensure!(took < Duration::from_secs(4) + TOLERANCE, "{how}: the shutdown took {took:?}");
    }
    Ok(())
}

/// Adds everything that can hang in a shutdown: tear-down, the sub-process, finalize and a daemon.
fn hanging(pod: PodBuilder) -> PodBuilder {
    let daemon = format!("setsid sh -c \"{STUBBORN}\" & {STUBBORN}");
    pod.count_trapped_starts(&daemon)
        .misbehave("tear_down", "sleep")
        .misbehave("finalize", "spin")
        .set("set_grace", "60")
}

#[tokio::test]
async fn a_shutdown_in_which_everything_hangs_is_over_within_stop_timeout() -> Result {
    let (env, mut pod) = running(|pod| hanging(pod).set("stop_timeout", "6")).await?;
    pod.started(1).await?;
    let took = leaves(&mut pod).await?;
    ensure!(took < Duration::from_secs(6) + TOLERANCE, "the shutdown took {took:?}");
    ensure!(took > Duration::from_secs(3), "the sub-process was not given its slice: {took:?}");
    ensure!(env.cluster("default").registered().await?.is_empty(), "a registration is left");
    ensure!(pod.count_log("callback finalize")? == 1, "finalize was left out");
    pod.assert_clean().await
}

#[tokio::test]
async fn a_store_that_is_silent_does_not_delay_the_end_past_stop_timeout() -> Result {
    let env = TestEnv::with_zookeeper(ZooKeeper::own().await?.into()).await?;
    let complete = |env: &TestEnv| pod(env).set("session", "30").set("stop_timeout", "5");
    let mut pods = env.start_cluster(1, complete).await?;
    env.zookeeper().stop()?;
    let took = leaves(&mut pods[0]).await?;
    ensure!(took < Duration::from_secs(5) + TOLERANCE, "the shutdown took {took:?}");
    pods[0].assert_clean().await
}

#[tokio::test]
async fn up_is_over_within_stop_timeout_too() -> Result {
    let scratch = tempfile::tempdir()?;
    let port = free_port()?;
    let up = PodBuilder::new(&artifacts::misbehaving()?, scratch.path()).up().reached_at("127.0.0.2", port);
    let up = hanging(up).set("port", port).set("stop_timeout", "6").flags(["--pods", "2"]);
    let mut up = up.start()?;
    up.started(2).await?;
    let took = leaves(&mut up).await?;
    ensure!(took < Duration::from_secs(6) + TOLERANCE, "the shutdown took {took:?}");
    up.assert_clean().await
}

#[tokio::test]
async fn hooks_that_hang_around_a_pod_take_nothing_from_its_slice() -> Result {
    let config = r#"{preStop: "sleep 600", postStop: "sleep 600"}"#;
    let (env, mut pod) = running(|pod| {
        pod.count_trapped_starts(POLITE).set("config", config).set("set_grace", "60").set("stop_timeout", "8")
    })
    .await?;
    pod.started(1).await?;
    let begin = Instant::now();
    pod.term()?;
    pod.exit_code().await.context("it does not end")?;
    ensure!(begin.elapsed() < Duration::from_secs(8) + TOLERANCE, "the shutdown took {:?}", begin.elapsed());
    ensure!(has_file(&pod, "terminated"), "the sub-process was killed and not terminated");
    ensure!(env.cluster("default").registered().await?.is_empty(), "a registration is left");
    pod.assert_clean().await
}

#[tokio::test]
async fn pod_is_in_shutdown_from_the_first_signal_though_its_pre_stop_hook_runs() -> Result {
    let (env, mut first) =
        running(|pod| pod.set("config", r#"{preStop: "sleep 15"}"#).set("stop_timeout", "60")).await?;
    let process = first.started(1).await?;
    first.term()?;
    eventually("it is unready", DEFAULT_TIMEOUT, async || {
        let reason = first.client().get("/readyz").await?.error(503)?;
        ensure!(reason == "pod is shutting down", "the reason is {reason:?}");
        Ok(())
    })
    .await?;
    first.wait_info("state", "follower").await?;
    for path in ["/control/off", "/control/kill", "/control/on"] {
        first.client().post(path).await?.error(410)?;
    }
    let second = pod(&env).start()?;
    second.started(1).await?;
    second.wait_info("state", "leader").await?;
    ensure!(
        first.client().info().await?["process"] == "running",
        "the hook does not come before the sub-process's stop"
    );
    signal::kill(Pid::from_raw(process), Signal::SIGKILL)?;
    first.wait_info("process", "stopped").await?;
    ensure!(first.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(first.starts()?.len() == 1, "the sub-process was restarted in the shutdown");
    first.assert_clean().await
}

/// Makes the sub-process belong to another user, so that the host may not signal it: only the kit can kill it.
fn unkillable(pod: PodBuilder) -> PodBuilder {
    let powers = ["setpriv", "--bounding-set=-kill", "--inh-caps=-all", "--"];
    pod.within(powers).set("user", "nobody").command(SLEEP).set("set_grace", "60")
}

#[tokio::test]
async fn a_child_that_cannot_be_killed_is_reported_and_left_behind_after_deregistering() -> Result {
    ensure!(geteuid().is_root(), "this test has to be root: its sub-process is another user's");
    for second in [false, true] {
        let (env, mut pod) = running(|pod| unkillable(pod).set("stop_timeout", "6")).await?;
        let begin = Instant::now();
        pod.term()?;
        if second {
            pod.wait_info("process", "terminating").await?;
            pod.term()?;
        }
        ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
        let (took, limit) = (begin.elapsed(), Duration::from_secs(if second { 4 } else { 6 }));
        ensure!(took < limit + TOLERANCE, "the shutdown took {took:?}, second signal: {second}");
        let log = pod.log()?;
        let left = log.lines().find(|line| line.contains("not gone after SIGKILL, leaving it behind"));
        let left = left.context("what is left is not reported")?;
        ensure!(left.contains("(\"sleep\", state S)"), "reported is {left}");
        ensure!(env.cluster("default").registered().await?.is_empty(), "a registration is left");
    }
    Ok(())
}

#[tokio::test]
async fn the_platforms_kill_delay_limits_the_default_and_a_longer_setting_is_warned_of() -> Result {
    let env = TestEnv::new().await?;
    let on_nomad = |name: &str| pod(&env).set("cluster", name).env("NOMAD_ALLOC_ID", "4f1b").set("set_grace", "60");
    let default = on_nomad("default").start()?;
    default.wait_log("stop_timeout follows the kill delay; if kill_timeout differs").await?;
    ensure!(
        default.count_log("stop_timeout=4s kill_delay=5s platform=\"Nomad\"")? == 1,
        "it is not reported: {}",
        default.log()?
    );
    let set = on_nomad("set").set("stop_timeout", "20").start()?;
    let log = set.wait_log("stop_timeout exceeds the kill delay of the platform; raise kill_timeout").await?;
    ensure!(log.contains("WARN"), "it is not a warning");
    Ok(())
}

/// Also as PID 1: only the deadline ends a namespace.
#[tokio::test]
async fn as_pid_1_a_shutdown_is_over_within_stop_timeout() -> Result {
    let complete = |env: &TestEnv| {
        let log = env.scratch().join("log");
        hanging(pod(env)).within(namespaces::init()).set("log", log.display()).set("stop_timeout", "6")
    };
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(1, complete).await?;
    pods[0].started(1).await?;
    let took = leaves(&mut pods[0]).await?;
    ensure!(took < Duration::from_secs(6) + TOLERANCE, "the shutdown took {took:?}");
    pods[0].assert_clean().await
}
