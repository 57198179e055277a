//! Processes left running, output that is not read, and output that is not text.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{sys::stat::Mode, unistd};
use ochopod_tests::{
    Client, DEFAULT_TIMEOUT, PilotBuilder, Result, alive, consistently, eventually, free_port, namespaces,
};
use serde_json::json;
use tokio::net::unix::pipe;

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, service, sh},
};

/// Returns a pilot whose output goes to a pipe, and the end of it that is read.
fn piped(pilot_env: &PilotEnv, pilot: PilotBuilder) -> Result<(PilotBuilder, pipe::Receiver)> {
    let pipe = pilot_env.scratch().join("pipe");
    unistd::mkfifo(&pipe, Mode::S_IRWXU)?;
    let reader = pipe::OpenOptions::new().open_receiver(&pipe)?;
    Ok((pilot.within(namespaces::shell(&format!("exec \"$@\" >{} 2>&1", pipe.display()))), reader))
}

#[tokio::test]
async fn a_log_without_a_reader_delays_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = json!({
        "services": [service("app", json!({ "ttl": 5, "health": "true", "timeout": "5s" }))],
        "tasks": [{ "command": sh("seq 5000; echo . >> floods"), "frequency": "100ms", "timeout": "10s" }],
    });
    let (pilot, _unread) = piped(&pilot_env, pilot_env.pilot(configuration))?;
    let mut pilot = pilot.count_starts(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    pilot.wait_lines("floods", 3).await?;
    consistently("it is healthy", Duration::from_secs(8), async || pilot_env.is("app", "passing")).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    pilot_env.is("app", "absent")
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_ends_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = json!({
        "services": [service("app", json!({ "health": sh("echo checked"), "timeout": "10s" }))],
    });
    let (pilot, reader) = piped(&pilot_env, pilot_env.pilot(configuration))?;
    let mut pilot = pilot.count_starts("while [ ! -e end ]; do sleep 0.05; done; exit 3").start()?;
    pilot.started(1).await?;
    drop(reader);
    pilot_env.wait_status("app", "passing").await?;
    consistently("it is healthy", Duration::from_secs(2), async || pilot_env.is("app", "passing")).await?;
    fs::write(pilot.directory().join("end"), "")?;
    ensure!(pilot.exit_code().await? == 3, "the code is not the application's");
    pilot_env.is("app", "absent")
}

#[tokio::test]
async fn processes_left_by_pre_start_run_until_the_shutdown() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hook = json!({ "preStart": sh("sleep 86400 & echo $! > daemon") });
    let mut pilot = pilot_env.pilot(hook).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    let daemon: i32 = pilot.wait_lines("daemon", 1).await?[0].parse()?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(alive(daemon), "it was ended");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    pilot.assert_clean().await
}

#[tokio::test]
async fn processes_left_by_the_application_exit_with_the_pilot() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = "setsid sleep 86400 & (trap '' TERM; echo . > stubborn; while :; do sleep 0.05; done) & \
                while [ ! -e stubborn ]; do sleep 0.05; done; exit 3";
    let mut pilot = pilot_env.pilot(json!({ "stopTimeout": 1 })).shell(text).start()?;
    ensure!(pilot.exit_code().await? == 3, "the code is not the application's");
    pilot.assert_clean().await
}

#[tokio::test]
async fn a_check_that_leaves_something_running_is_over_when_it_ends() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let port = free_port()?;
    let sensor = json!({
        "name": "kit_left", "help": "h", "type": "gauge", "poll": 1, "check": sh("sleep 86400 & echo 5"),
    });
    let configuration = json!({
        "services": [service("app", json!({ "health": sh("sleep 86400 & echo . >> checks") }))],
        "telemetry": { "port": port, "interfaces": "lo", "sensors": [sensor] },
    });
    let mut pilot = pilot_env.pilot(configuration).count_starts(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    pilot.wait_lines("checks", 3).await?;
    pilot_env.wait_status("app", "passing").await?;
    eventually("the value is taken", DEFAULT_TIMEOUT, async || {
        let page = Client::new(format!("127.0.0.1:{port}")).get("/metrics").await?;
        ensure!(String::from_utf8_lossy(&page.body).contains("\nkit_left 5\n"), "the sample is missing");
        Ok(())
    })
    .await?;
    pilot.term()?;
    pilot.exit_code().await?;
    pilot.assert_clean().await
}

#[tokio::test]
async fn an_application_that_is_stopped_is_continued_to_end() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = pilot_env.pilot(json!({ "stopTimeout": 60 })).count_starts("kill -STOP $$").start()?;
    pilot.wait_log("child sh stopped by SIGSTOP").await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not that of TERM");
    pilot.assert_clean().await
}

#[tokio::test]
async fn words_and_variables_that_are_no_text_reach_the_application_as_they_are() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let odd = OsStr::from_bytes(b"\xff{{ .X }}\xfe");
    let words = [OsStr::new("sh"), OsStr::new("-c"), OsStr::new("printf %s \"$1$ODD\" > got"), OsStr::new("sh"), odd];
    let set = namespaces::shell("ODD=$(printf 'a\\377=b') exec \"$@\"");
    let mut pilot = pilot_env.pilot(json!({})).within(set).application(words).start()?;
    ensure!(pilot.exit_code().await? == 0, "it did not end with code 0");
    let got = fs::read(pilot.directory().join("got"))?;
    ensure!(got == [odd.as_bytes(), b"a\xff=b"].concat(), "it got {:?}", String::from_utf8_lossy(&got));
    Ok(())
}

#[tokio::test]
async fn files_that_are_not_a_configuration_are_rejected_by_name() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let file = pilot_env.scratch().join("odd");
    let directory = pilot_env.scratch().to_owned();
    for (path, bytes) in [(&file, &b"\xff\xfe{}"[..]), (&file, b""), (&file, b"\0"), (&directory, b"")] {
        if path == &file {
            fs::write(path, bytes)?;
        }
        let words = ["-config".to_owned(), format!("file://{}", path.display()), "true".to_owned()];
        let mut pilot = PilotBuilder::new(&pilot_env.scratch().join("pilot")).flags(words).start()?;
        let code = pilot.exit_code().await?;
        ensure!(code == 64 && !pilot.console()?.is_empty(), "{bytes:?} ended with {code}: {}", pilot.log()?);
    }
    Ok(())
}

#[tokio::test]
async fn telemetry_and_services_may_be_at_an_address_of_ip_6() -> Result {
    if tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
        return Ok(());
    }
    let pilot_env = PilotEnv::new().await?;
    let port = free_port()?;
    let configuration = json!({
        "services": [service("app", json!({ "interfaces": "lo:inet6" }))],
        "telemetry": { "port": port, "interfaces": ["lo:inet6"] },
    });
    let _pilot = pilot_env.pilot(configuration).shell(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let address = pilot_env.registered("app")?["Address"].as_str().context("no address")?.to_owned();
    ensure!(address == "::1", "it is at {address}");
    Client::new(format!("[::1]:{port}")).get("/metrics").await?.is(200)
}
