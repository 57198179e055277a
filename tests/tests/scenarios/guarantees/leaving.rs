//! Guarantee 6: whenever the host is asked to end, it ends with 0 and leaves nothing, and a second request is an order.

use std::{
    net::{TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{Pod, PodBuilder, Result, SOON, Site, artifacts, eventually, namespaces};

use crate::{SLEEP, pod};

/// How long one request may take: two graces of a second each, and the rest of a loaded machine.
const GRACEFUL: Duration = Duration::from_secs(8);
const FORCED: Duration = Duration::from_secs(3);

/// Brings a pod into a phase that does not end by itself.
struct Phase {
    name: &'static str,
    complete: fn(PodBuilder) -> PodBuilder,
    /// What the pod's log has in that phase.
    mark: &'static str,
    /// What it is asked by then.
    request: Option<&'static str>,
}

const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.1; done";

fn phases() -> Vec<Phase> {
    let told = |name, complete, mark| Phase { name, complete, mark, request: None };
    let asked = |name, complete, mark, request| Phase { name, complete, mark, request: Some(request) };
    vec![
        told("connecting", |pod| pod.set("zk", "127.0.0.1:1"), "starting pod"),
        told("initialize", |pod| pod.misbehave("initialize", "sleep"), "callback initialize"),
        told("check", |pod| pod.misbehave("can_configure", "sleep"), "callback can-configure"),
        told("check that spins", |pod| pod.misbehave("can_configure", "spin"), "callback can-configure"),
        told("configure", |pod| pod.misbehave("configure", "sleep"), "callback configure"),
        told("ok", |pod| pod.misbehave("configured", "sleep"), "callback configured"),
        told("sanity check", |pod| pod.misbehave("sanity_check", "spin"), "callback sanity-check"),
        told("probe", |pod| pod.misbehave("probe", "spin"), "callback probe"),
        told("back-off", |pod| pod.counted("exit 3").set("set_checks", "99"), "start=4"),
        asked("signal", |pod| pod.misbehave("signaled", "sleep"), "callback signaled", "/control/signal/60"),
        asked("tear-down", |pod| pod.misbehave("tear_down", "sleep"), "callback tear-down", "/control/off/60"),
        asked("grace", |pod| pod.counted(STUBBORN), "callback tear-down", "/control/off/60"),
        asked("finalize", |pod| pod.misbehave("finalize", "spin"), "callback finalize", "/control/kill/60"),
    ]
}

async fn reach(phase: &Phase, site: &Site, grace: &str) -> Result<Pod> {
    let pod =
        (phase.complete)(pod(site).set("cluster", phase.name.replace(' ', "-")).set("set_grace", grace)).start()?;
    if let Some(path) = phase.request {
        pod.shows("process", "running").await?;
        let client = pod.client().clone();
        tokio::spawn(async move { client.post(path).await });
    }
    pod.logs(phase.mark).await?;
    Ok(pod)
}

#[tokio::test]
async fn guarantee_6_term_in_every_phase_ends_with_0_and_leaves_nothing() -> Result {
    let site = Site::new().await?;
    for phase in phases() {
        let mut pod = reach(&phase, &site, "1").await.context(phase.name)?;
        let begin = Instant::now();
        pod.term()?;
        let code = pod.exit_code().await.context(phase.name)?;
        ensure!(code == 0, "{}: it ended with {code}", phase.name);
        ensure!(begin.elapsed() < GRACEFUL, "{}: it took {:?}", phase.name, begin.elapsed());
        pod.leaves_nothing().await.context(phase.name)?;
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_a_second_term_in_every_phase_ends_it_at_once() -> Result {
    let site = Site::new().await?;
    for phase in phases() {
        let mut pod = reach(&phase, &site, "60").await.context(phase.name)?;
        pod.term()?;
        // Two signals at once are one.
        pod.logs("leaving").await?;
        let begin = Instant::now();
        if pod.is_up()? {
            pod.term().ok();
        }
        let code = pod.exit_code().await.context(phase.name)?;
        ensure!(code == 0, "{}: it ended with {code}", phase.name);
        ensure!(begin.elapsed() < FORCED, "{}: it took {:?}", phase.name, begin.elapsed());
        pod.leaves_nothing().await.context(phase.name)?;
    }
    Ok(())
}

/// Before there is a log: from the first moment on, as PID 1 too, where what nobody listens to is lost.
#[tokio::test]
async fn guarantee_6_term_while_it_boots_leaves_nothing() -> Result {
    let site = Site::new().await?;
    for within in [Vec::new(), namespaces::init()] {
        for milliseconds in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
            let cache = site.scratch().join(uuid::Uuid::new_v4().to_string());
            let log = site.scratch().join("log");
            let pod = pod(&site).within(&within).set("cache", cache.display()).set("log", log.display());
            let mut pod = pod.start()?;
            becomes_ochopod(&pod).await?;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            pod.term()?;
            let code = pod.exit_code().await.with_context(|| format!("{milliseconds} ms"))?;
            ensure!(code == 0, "{milliseconds} ms: it ended with {code}");
            pod.leaves_nothing().await?;
        }
    }
    Ok(())
}

/// Waits until the process is the host, and its `main` was entered: TERM is held from then on.
async fn becomes_ochopod(pod: &Pod) -> Result {
    eventually("the host begins", SOON, async || {
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
    let site = Site::new().await?;
    let cache = site.scratch().join("cache");
    let mut pod = pod(&site).set("cache", cache.display()).start()?;
    eventually("the compiler runs", SOON, async || {
        ensure!(!pod.descendants().is_empty() && std::fs::read_dir(&cache)?.next().is_some(), "it does not");
        Ok(())
    })
    .await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    pod.leaves_nothing().await?;
    let left: Vec<_> = std::fs::read_dir(&cache)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    ensure!(left.is_empty(), "left in the cache: {left:?}");
    Ok(())
}

#[tokio::test]
async fn guarantee_6_term_is_heard_while_names_are_looked_up() -> Result {
    let site = Site::new().await?;
    let Ok(silent) = UdpSocket::bind("127.0.0.77:53") else {
        anyhow::bail!("this test has to be root: it stands in for a server of names");
    };
    let within = namespaces::with_resolver("127.0.0.77", site.scratch());
    let mut pod = pod(&site).within(within).env("HOST", "nowhere.invalid").start()?;
    silent.set_read_timeout(Some(SOON))?;
    silent.recv(&mut [0; 512]).context("it looked nothing up")?;
    let begin = Instant::now();
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    ensure!(begin.elapsed() < FORCED, "it took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn guarantee_6_term_is_heard_while_the_plugin_describes_itself_and_while_the_store_is_silent() -> Result {
    let site = Site::new().await?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let store = silent.local_addr()?;
    let mut describing = pod(&site).misbehave("settings", "sleep").start()?;
    let mut connecting = pod(&site).set("zk", store).counted(SLEEP).start()?;
    connecting.logs("starting pod").await?;
    // The guest that sleeps says nothing: by then its host has begun to listen for signals at least.
    for pod in [&mut connecting, &mut describing] {
        let begin = Instant::now();
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
        ensure!(begin.elapsed() < FORCED, "it took {:?}", begin.elapsed());
        pod.leaves_nothing().await?;
    }
    Ok(())
}
