//! Signals that stop a pod, and signals of its sub-process.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, alive, eventually, namespaces};

use crate::{SLEEP, pod};

/// A sub-process that writes the received signal, and exits.
const WRITES_SIGNAL: &str =
    "for s in TERM INT QUIT WINCH 37; do trap \"echo $s >> got; exit 5\" $s; done; while :; do sleep 0.05; done";

#[tokio::test]
async fn stop_signals_of_base_images_shut_a_pod_down_and_reach_the_sub_process() -> Result {
    let sent = [(3, "QUIT"), (37, "37"), (28, "WINCH"), (15, "TERM"), (2, "TERM")];
    let ways = [namespaces::without_terminal(), namespaces::init()];
    for (within, (number, expected)) in ways.iter().flat_map(|within| sent.map(|sent| (within, sent))) {
        let env = TestEnv::new().await?;
        let mut pods = env
            .start_cluster(1, |env| {
                let log = env.scratch().join("log");
                pod(env)
                    .within(within)
                    .count_trapped_starts(WRITES_SIGNAL)
                    .set("set_grace", "40")
                    .set("log", log.display())
            })
            .await?;
        let pod = &mut pods[0];
        pod.started(1).await?;
        let begin = Instant::now();
        pod.signal_number(number)?;
        ensure!(pod.exit_code().await? == 0, "signal {number}: it did not exit with code 0");
        ensure!(begin.elapsed() < Duration::from_secs(20), "signal {number}: it took {:?}", begin.elapsed());
        ensure!(pod.lines("got") == [expected], "signal {number}: the sub-process got {:?}", pod.lines("got"));
        let cluster = env.cluster("default");
        ensure!(cluster.registered().await?.is_empty(), "signal {number}: a registration is left");
        ensure!(pod.count_log("callback finalize")? == 1, "signal {number}: it was not finalized");
        pod.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_second_stop_signal_of_any_kind_does_not_wait_for_the_grace() -> Result {
    for (first, second) in [(3, 37), (37, 3), (28, 15), (15, 28)] {
        let env = TestEnv::new().await?;
        let stubborn = "trap '' TERM QUIT WINCH 37; while :; do sleep 0.1; done";
        let within = namespaces::without_terminal();
        let mut pods = env
            .start_cluster(1, |env| pod(env).within(&within).count_trapped_starts(stubborn).set("set_grace", "40"))
            .await?;
        let pod = &mut pods[0];
        pod.started(1).await?;
        pod.signal_number(first)?;
        pod.wait_info("process", "terminating").await?;
        let begin = Instant::now();
        pod.signal_number(second)?;
        ensure!(pod.exit_code().await? == 0, "signals {first}, {second}: it did not exit with code 0");
        ensure!(begin.elapsed() < Duration::from_secs(20), "signals {first}, {second}: {:?}", begin.elapsed());
        pod.assert_clean().await?;
    }
    Ok(())
}

/// Signals that a plugin sends are unchanged, whatever signal the host received.
#[tokio::test]
async fn a_tear_down_that_fails_is_replaced_by_the_signal_that_arrived() -> Result {
    let env = TestEnv::new().await?;
    let within = namespaces::without_terminal();
    let failing =
        |env: &TestEnv| pod(env).within(&within).count_trapped_starts(WRITES_SIGNAL).misbehave("tear_down", "reject");
    let mut pods = env.start_cluster(1, failing).await?;
    pods[0].started(1).await?;
    pods[0].signal_number(3)?;
    ensure!(pods[0].exit_code().await? == 0, "it did not exit with code 0");
    ensure!(pods[0].lines("got") == ["QUIT"], "the sub-process got {:?}", pods[0].lines("got"));
    Ok(())
}

#[tokio::test]
async fn a_pod_whose_parent_left_signals_blocked_or_ignored_supervises_and_stops() -> Result {
    for way in ["--block-signal", "--ignore-signal"] {
        let env = TestEnv::new().await?;
        let within = ["env".to_owned(), format!("{way}=CHLD,HUP,INT,QUIT,TERM,USR1,USR2,WINCH,ALRM")];
        let masks = "grep -E 'Sig(Blk|Ign)' /proc/self/status >> masks";
        let text = format!("{masks}; [ $(wc -l < starts) -gt 1 ] || exit 3; {SLEEP}");
        let mut pods = env.start_cluster(1, |env| pod(env).within(&within).count_starts(&text)).await?;
        let pod = &mut pods[0];
        // Its exit was noticed, or it would not have been restarted.
        let pid = pod.started(2).await?;
        let masks = pod.wait_lines("masks", 4).await?;
        // glibc keeps two signals ignored in every child.
        ensure!(
            masks.iter().all(|line| ["0000000000000000", "0000000180000000"].iter().any(|mask| line.ends_with(mask))),
            "{way}: it has {masks:?}"
        );
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "{way}: it did not exit with code 0");
        ensure!(!alive(pid), "{way}: the sub-process lives");
        pod.assert_clean().await?;
    }
    Ok(())
}

/// The kernel kills the sub-process itself, the guard its children; a daemon in a session of its own is not covered.
#[tokio::test]
async fn a_host_that_is_killed_leaves_nothing_of_its_childrens_groups() -> Result {
    let env = TestEnv::new().await?;
    let workers =
        "trap '' TERM HUP; (trap '' TERM HUP; echo $$ > inner; while :; do sleep 0.05; done) & sleep 86400 & wait";
    let mut pods = env.start_cluster(1, |env| pod(env).count_starts(workers)).await?;
    pods[0].wait_lines("inner", 1).await?;
    eventually("all workers are there", DEFAULT_TIMEOUT, async || {
        ensure!(pods[0].descendants().len() >= 3, "there are {:?}", pods[0].descendants());
        Ok(())
    })
    .await?;
    pods[0].kill9().await?;
    pods[0].assert_clean().await
}

#[tokio::test]
async fn the_guard_ends_with_the_host_and_holds_nothing_of_it() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(1, pod).await?;
    let guard = guard_of(pods[0].pid()).await?;
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{guard}/fd"))?
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    let is_harmless = |target: &String| target.starts_with("pipe:") || target == "/dev/null";
    ensure!(open.iter().all(is_harmless), "it holds {open:?}");
    // A signal to all processes of the machine does not end it before the host.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), Signal::SIGTERM)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), Signal::SIGHUP)?;
    pods[0].term()?;
    ensure!(pods[0].exit_code().await? == 0, "it did not exit with code 0");
    eventually("the guard ends", DEFAULT_TIMEOUT, async || {
        ensure!(!alive(guard), "it outlives its host");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_guard_that_is_killed_is_replaced_with_the_next_child() -> Result {
    let env = TestEnv::new().await?;
    let mut pods = env.start_cluster(1, |env| pod(env).count_starts("(while :; do sleep 0.05; done) & wait")).await?;
    let first = guard_of(pods[0].pid()).await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), Signal::SIGKILL)?;
    let pid = pods[0].started(1).await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)?;
    pods[0].started(2).await?;
    let second = guard_of(pods[0].pid()).await?;
    ensure!(first != second, "it is the same one");
    pods[0].kill9().await?;
    pods[0].assert_clean().await
}

async fn guard_of(host: i32) -> Result<i32> {
    eventually("there is a guard", DEFAULT_TIMEOUT, async || {
        let threads = std::fs::read_dir(format!("/proc/{host}/task"))?.flatten();
        let children: Vec<i32> = threads
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        let is_guard = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.ends_with(b"\0guard\0") && alive(*pid)
        };
        children.into_iter().find(is_guard).ok_or_else(|| anyhow::anyhow!("no guard"))
    })
    .await
}
