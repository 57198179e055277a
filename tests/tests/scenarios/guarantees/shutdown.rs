//! Guarantee 6: the host exits with 0 at any request to terminate and leaves nothing behind; a second request kills.

use std::{
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, artifacts, eventually, namespaces};

use crate::{SLEEP, pod};

/// Time limit of one request: two graces of a second each, and the delays of a loaded machine.
const GRACEFUL: Duration = Duration::from_secs(10);
/// The same for a second request: much less than the grace of a minute.
const FORCED: Duration = Duration::from_secs(15);

/// Brings a pod into a phase that does not end automatically.
struct Phase {
    name: &'static str,
    complete: fn(PodBuilder) -> PodBuilder,
    /// Text in the pod's log in that phase.
    mark: &'static str,
    /// Requests sent before.
    request: Option<&'static str>,
}

const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.1; done";

fn phases() -> Vec<Phase> {
    let phase = |name, complete, mark| Phase { name, complete, mark, request: None };
    let with_request = |name, complete, mark, request| Phase { name, complete, mark, request: Some(request) };
    vec![
        phase("connecting", |pod| pod.set("zk", "127.0.0.1:1"), "starting pod"),
        phase("initialize", |pod| pod.misbehave("initialize", "sleep"), "callback initialize"),
        phase("check", |pod| pod.misbehave("can_configure", "sleep"), "callback can-configure"),
        phase("check that spins", |pod| pod.misbehave("can_configure", "spin"), "callback can-configure"),
        phase("configure", |pod| pod.misbehave("configure", "sleep"), "callback configure"),
        phase("ok", |pod| pod.misbehave("configured", "sleep"), "callback configured"),
        phase("sanity check", |pod| pod.misbehave("sanity_check", "spin"), "callback sanity-check"),
        phase("probe", |pod| pod.misbehave("probe", "spin"), "callback probe"),
        phase("back-off", |pod| pod.count_starts("exit 3").set("set_checks", "99"), "start=4"),
        with_request("signal", |pod| pod.misbehave("signaled", "sleep"), "callback signaled", "/control/signal/60"),
        with_request("tear-down", |pod| pod.misbehave("tear_down", "sleep"), "callback tear-down", "/control/off/60"),
        with_request("grace", |pod| pod.count_trapped_starts(STUBBORN), "callback tear-down", "/control/off/60"),
        with_request("finalize", |pod| pod.misbehave("finalize", "spin"), "callback finalize", "/control/kill/60"),
    ]
}

async fn reach(phase: &Phase, env: &TestEnv, grace: &str) -> Result<Pod> {
    let pod =
        (phase.complete)(pod(env).set("cluster", phase.name.replace(' ', "-")).set("set_grace", grace)).start()?;
    if let Some(path) = phase.request {
        pod.wait_info("process", "running").await?;
        pod.started(1).await?;
        let client = pod.client().clone();
        tokio::spawn(async move { client.post(path).await });
    }
    pod.wait_log(phase.mark).await?;
    Ok(pod)
}

#[tokio::test]
async fn guarantee_6_term_in_every_phase_ends_with_0_and_leaves_nothing() -> Result {
    let env = TestEnv::new().await?;
    for phase in phases() {
        let mut pod = reach(&phase, &env, "1").await.context(phase.name)?;
        let begin = Instant::now();
        pod.term()?;
        let code = pod.exit_code().await.context(phase.name)?;
        ensure!(code == 0, "{}: it ended with {code}", phase.name);
        ensure!(begin.elapsed() < GRACEFUL, "{}: it took {:?}", phase.name, begin.elapsed());
        pod.assert_clean().await.context(phase.name)?;
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_a_second_term_in_every_phase_ends_it_immediately() -> Result {
    let env = TestEnv::new().await?;
    for phase in phases() {
        let mut pod = reach(&phase, &env, "60").await.context(phase.name)?;
        pod.term()?;
        // Two signals at the same time count as one.
        pod.wait_log("shutting down").await?;
        let begin = Instant::now();
        if pod.is_up()? {
            pod.term().ok();
        }
        let code = pod.exit_code().await.context(phase.name)?;
        ensure!(code == 0, "{}: it ended with {code}", phase.name);
        ensure!(begin.elapsed() < FORCED, "{}: it took {:?}", phase.name, begin.elapsed());
        pod.assert_clean().await.context(phase.name)?;
    }
    Ok(())
}

/// Before logging starts: from the first moment on, also as PID 1, where signals without a handler are lost.
#[tokio::test]
async fn guarantee_6_term_while_it_boots_leaves_nothing() -> Result {
    let env = TestEnv::new().await?;
    for within in [Vec::new(), namespaces::init()] {
        for milliseconds in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
            let cache = env.scratch().join(uuid::Uuid::new_v4().to_string());
            let log = env.scratch().join("log");
            let pod = pod(&env).within(&within).set("cache", cache.display()).set("log", log.display());
            let mut pod = pod.start()?;
            becomes_ochopod(&pod).await?;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            pod.term()?;
            let code = pod.exit_code().await.with_context(|| format!("{milliseconds} ms"))?;
            ensure!(code == 0, "{milliseconds} ms: it ended with {code}");
            pod.assert_clean().await?;
        }
    }
    Ok(())
}

/// Waits until the process is the host, and its `main` was entered: SIGTERM is blocked from then on.
async fn becomes_ochopod(pod: &Pod) -> Result {
    eventually("the host starts", DEFAULT_TIMEOUT, async || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pod.pid()))?;
        let exe = std::fs::read_link(format!("/proc/{}/exe", pod.pid()))?;
        ensure!(exe == artifacts::ochopod()?.canonicalize()?, "it is still {}", exe.display());
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            u64::from_str_radix(line.trim(), 16).unwrap_or_default() & 1 << (Signal::SIGTERM as u32 - 1) != 0
        };
        ensure!(mask("SigBlk:") || mask("SigCgt:"), "TERM is not held");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn guarantee_6_term_while_the_plugin_is_compiled_leaves_no_compiler_and_nothing_in_the_cache() -> Result {
    let env = TestEnv::new().await?;
    let cache = env.scratch().join("cache");
    let mut pod = pod(&env).set("cache", cache.display()).start()?;
    eventually("the compiler runs", DEFAULT_TIMEOUT, async || {
        ensure!(
            !pod.descendants().is_empty() && std::fs::read_dir(&cache)?.next().is_some(),
            "no compiler, or no file in the cache"
        );
        Ok(())
    })
    .await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    pod.assert_clean().await?;
    let left: Vec<_> = std::fs::read_dir(&cache)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    ensure!(left.is_empty(), "left in the cache: {left:?}");
    Ok(())
}

#[tokio::test]
async fn guarantee_6_term_is_heard_while_names_are_looked_up() -> Result {
    let env = TestEnv::new().await?;
    let Ok(silent) = UdpSocket::bind("127.0.0.77:53") else {
        anyhow::bail!("this test has to be root: it stands in for a server of names");
    };
    let within = namespaces::with_resolver("127.0.0.77", env.scratch());
    let mut pod = pod(&env).within(within).env("HOST", "nowhere.invalid").start()?;
    silent.set_read_timeout(Some(DEFAULT_TIMEOUT))?;
    silent.recv(&mut [0; 512]).context("it looked nothing up")?;
    let begin = Instant::now();
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(begin.elapsed() < FORCED, "it took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn guarantee_6_term_is_heard_while_the_plugin_describes_itself_and_while_the_store_is_silent() -> Result {
    let env = TestEnv::new().await?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let store = silent.local_addr()?;
    let mut connecting = pod(&env).set("zk", store).count_starts(SLEEP).start()?;
    connecting.wait_log("starting pod").await?;
    let begin = Instant::now();
    connecting.term()?;
    ensure!(connecting.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(begin.elapsed() < FORCED, "it took {:?}", begin.elapsed());
    connecting.assert_clean().await?;

    // The sleeping guest logs nothing, and its time limit of 2 s may be over before a busy machine sends the signal.
    eventually("TERM ends the description", DEFAULT_TIMEOUT * 2, async || {
        let mut describing = pod(&env).misbehave("settings", "sleep").start()?;
        becomes_ochopod(&describing).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        describing.term()?;
        let code = describing.exit_code().await?;
        ensure!(code == 0, "it ended with {code}");
        describing.assert_clean().await
    })
    .await
}
