//! Sub-processes that are stopped: by another process, or by a terminal that they do not have.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Result, TestEnv, eventually};

use crate::pod;

const OBEDIENT: &str = "trap 'echo . >> ended; exit 0' TERM; while :; do sleep 0.05; done";

async fn wait_status(pod: &Pod, text: &str) -> Result {
    eventually(&format!("its status has {text:?}"), DEFAULT_TIMEOUT, async || {
        let info = pod.client().info().await?;
        let status = info["status"].as_str().unwrap_or_default().to_owned();
        ensure!(text.is_empty() != status.contains("stopped by") && status.contains(text), "it has {status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stopped_sub_process_is_seen_and_ends_in_order() -> Result {
    for task in ["off", "kill", "term"] {
        let env = TestEnv::new().await?;
        let mut pods =
            env.start_cluster(1, |env| pod(env).count_trapped_starts(OBEDIENT).set("set_grace", "40")).await?;
        let pod = &mut pods[0];
        let pid = Pid::from_raw(pod.started(1).await?);
        signal::kill(pid, Signal::SIGSTOP)?;
        wait_status(pod, "* sub-process stopped by SIGSTOP").await?;
        pod.wait_log("stopped by SIGSTOP").await?;
        signal::kill(pid, Signal::SIGCONT)?;
        wait_status(pod, "").await?;
        signal::kill(pid, Signal::SIGSTOP)?;
        wait_status(pod, "* sub-process stopped by SIGSTOP").await?;
        eventually("the log reports the same", DEFAULT_TIMEOUT, async || {
            let (stops, continues) = ("child /bin/sh stopped by SIGSTOP", "child /bin/sh continued");
            ensure!(pod.count_log(stops)? == 2 && pod.count_log(continues)? == 1, "stops or continues are not logged");
            Ok(())
        })
        .await?;
        let begin = Instant::now();
        match task {
            "term" => {
                pod.term()?;
                ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
            }
            task => {
                pod.client().post(&format!("/control/{task}")).await?.is(200)?;
                wait_status(pod, "").await?;
            }
        }
        ensure!(begin.elapsed() < Duration::from_secs(20), "{task}: it took {:?}", begin.elapsed());
        ensure!(pod.lines("ended").len() == 1, "{task}: it did not handle TERM");
    }
    Ok(())
}

/// In the background of the host's terminal, the kernel stops a program that reads from it.
#[tokio::test]
async fn a_pod_keeps_its_terminal_and_reports_a_sub_process_that_reads_it() -> Result {
    let env = TestEnv::new().await?;
    let text = "readlink /proc/$$/fd/0 > input; read line < /dev/tty";
    let mut pods = env.start_cluster(1, |env| pod(env).on_terminal().count_starts(text)).await?;
    let pod = &mut pods[0];
    ensure!(pod.wait_lines("input", 1).await? == ["/dev/null"], "its input is {:?}", pod.lines("input"));
    wait_status(pod, "* sub-process stopped by SIGTTIN").await?;
    pod.press("\u{3}")?;
    ensure!(pod.exit_code().await? == 0, "an interrupt did not stop the pod");
    pod.assert_clean().await
}
