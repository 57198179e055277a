//! Attacks and overload: planted files, few descriptors, pending requests.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use anyhow::ensure;
use nix::{sys::stat::Mode, unistd::mkfifo};
use ochopod_tests::{DEFAULT_TIMEOUT, Result, TestEnv, eventually};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::pod;

/// Number of concurrent requests for the log.
const READERS: usize = 300;
/// Connections that send half of a request.
const HALF_OPEN: usize = 600;
/// Checks that wait, of 4 MiB each.
const CHECKS: usize = 24;
/// Memory that the host may use for them, in MiB: less than a tenth of their total.
const MEMORY: f64 = 400.0;

#[tokio::test]
async fn files_planted_in_the_log_directory_are_neither_shown_nor_written_nor_waited_for() -> Result {
    let env = TestEnv::new().await?;
    let (shared, secret) = (env.scratch().join("shared"), env.scratch().join("secret"));
    fs::create_dir(&shared)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777))?;
    fs::write(&secret, "hunter2\n")?;
    let log = shared.join("pod.log");
    let mut pod = pod(&env).set("log", log.display()).set("log_level", "debug").start()?;
    pod.wait_info("process", "running").await?;
    for name in ["pod.log", "pod.log.1"] {
        _ = fs::remove_file(shared.join(name));
        symlink("../secret", shared.join(name))?;
    }
    for _ in 0..50 {
        ensure!(!pod.client().log().await?.contains("hunter2"), "the log shows what a link leads to");
    }
    fs::remove_file(&log)?;
    mkfifo(&log, Mode::S_IRWXU)?;
    for answer in futures_util::future::join_all((0..READERS).map(|_| pod.client().log())).await {
        answer?;
    }
    let threads = fs::read_dir(format!("/proc/{}/task", pod.pid()))?.count();
    ensure!(threads < 100, "{threads} threads");
    ensure!(fs::read_to_string(&secret)? == "hunter2\n", "a link was followed to write");
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave");
    symlink("../secret", shared.join("next.log"))?;
    let mut refused = crate::pod(&env).set("log", shared.join("next.log").display()).start()?;
    ensure!(refused.exit_code().await? == 64, "a link is taken for a log file");
    Ok(())
}

#[tokio::test]
async fn half_open_requests_neither_close_the_control_port_nor_prevent_a_restart() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod(&env).within(["prlimit", "--nofile=256:256"]).start()?;
    let first = pod.started(1).await?;
    let mut half_open = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut stream = TcpStream::connect(pod.client().authority()).await?;
        // The oldest ones are dropped.
        _ = stream.write_all(b"POST /control/check HTTP/1.1\r\nHost: pod\r\nX: ").await;
        half_open.push(stream);
    }
    pod.client().get("/healthz").await?.is(200)?;
    let held = fs::read_dir(format!("/proc/{}/fd", pod.pid()))?.count();
    ensure!(held < 192, "it holds {held} of 256 descriptors");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)?;
    pod.started(2).await?;
    pod.client().get("/readyz").await?;
    ensure!(pod.is_up()?, "it is gone");
    Ok(())
}

#[tokio::test]
async fn the_host_raises_its_limit_on_descriptors_and_children_get_the_former_one() -> Result {
    let env = TestEnv::new().await?;
    let print = "echo \"limits $(ulimit -Sn) $(ulimit -Hn)\"; exec sleep 86400";
    let pod = env.pod(&ochopod_tests::artifacts::misbehaving()?).command(print);
    let pod = pod.within(["prlimit", "--nofile=300:3000"]).start()?;
    eventually("the sub-process reports", DEFAULT_TIMEOUT, async || {
        let said = pod.output()?;
        ensure!(said.contains("limits 300 3000"), "unexpected output {said}");
        Ok(())
    })
    .await?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", pod.pid()))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    ensure!(line.split_whitespace().nth(3) == Some("3000"), "the host has {line}");
    Ok(())
}

#[tokio::test]
async fn large_checks_behind_a_slow_callback_are_bounded_and_dropped_with_their_clients() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).misbehave("signaled", "sleep").start()?;
    pod.started(1).await?;
    let busy = {
        let client = pod.client().clone();
        tokio::spawn(async move { client.post("/control/signal/60").await })
    };
    pod.wait_log("control request started task=\"signal\"").await?;
    let rack = "x".repeat(500);
    let key = pod.client().info().await?["key"].clone();
    let mut pods: serde_json::Map<String, serde_json::Value> =
        (0..7000).map(|n| (format!("{n:032}"), json!({ "seq": n, "ip": "10.0.0.1", "rack": rack }))).collect();
    pods.insert(key.as_str().unwrap_or_default().to_owned(), json!({ "seq": 7000, "ip": "10.0.0.1" }));
    let body = json!({ "key": key, "pods": pods, "dependencies": {} }).to_string();
    let checks: Vec<_> = (0..CHECKS)
        .map(|_| {
            let (client, body) = (pod.client().clone(), body.clone());
            tokio::spawn(async move { client.post_bytes("/control/check", body).await })
        })
        .collect();
    let refused = eventually("all are taken or refused", DEFAULT_TIMEOUT, async || {
        let done = checks.iter().filter(|check| check.is_finished()).count();
        ensure!(done > CHECKS / 2, "{done} are refused");
        Ok(done)
    })
    .await?;
    ensure!(refused < CHECKS, "none of them waits");
    let resident = pod.resident()?;
    ensure!(resident < MEMORY, "the host takes {resident} MiB");
    for check in checks {
        if check.is_finished() {
            check.await??.is(503)?;
        } else {
            check.abort();
        }
    }
    eventually("those that wait are dropped", DEFAULT_TIMEOUT, async || {
        let answer = pod.client().post_bytes("/control/check/0.2", body.clone()).await?;
        ensure!(answer.error(408)?.contains("request dropped before it started"), "another error");
        Ok(())
    })
    .await?;
    busy.abort();
    Ok(())
}
