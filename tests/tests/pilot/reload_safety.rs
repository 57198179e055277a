//! SIGHUP with files that cannot be read, or not yet: the host continues, and nothing is applied partially.

use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, PilotBuilder, Result, consistently, eventually, free_port};
use serde_json::{Value, json};

use crate::{
    OBEDIENT, SLEEP,
    pilot_env::{PilotEnv, service, sh, with},
};

/// Time for an application that handles SIGTERM and its host to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

fn fifo(path: &Path) -> Result {
    if path.exists() {
        fs::remove_file(path)?;
    }
    ensure!(Command::new("mkfifo").arg(path).status()?.success(), "no FIFO at {}", path.display());
    Ok(())
}

#[tokio::test]
async fn a_fifo_instead_of_the_configuration_blocks_neither_the_host_nor_its_shutdown() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let checked = service("app", json!({ "health": sh("echo . >> checks") }));
    let mut pilot = pilot_env.pilot(json!({ "services": [checked] })).count_starts(OBEDIENT).start()?;
    pilot_env.wait_status("app", "passing").await?;
    fifo(&pilot.directory().join("pilot.json5"))?;
    for _ in 0..6 {
        pilot.signal(Signal::SIGHUP)?;
    }
    let checks = pilot.lines("checks").len();
    pilot.wait_lines("checks", checks + 3).await?;
    pilot_env.wait_status("app", "passing").await?;
    pilot.term()?;
    let ended = pilot.wait(EXIT_TIMEOUT).await?;
    ensure!(ended.code() == Some(0), "it ended with {ended}");
    pilot_env.is("app", "absent")?;
    pilot.assert_clean().await
}

#[tokio::test]
async fn a_fifo_instead_of_a_certificate_blocks_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let checked = service("app", json!({ "health": sh("echo . >> checks") }));
    let configuration = json!({ "services": [checked] });
    let mut pilot = pilot_env.pilot(configuration.clone()).count_starts(OBEDIENT).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let certificate = pilot.directory().join("ca.pem");
    fifo(&certificate)?;
    let consul = json!({ "address": pilot_env.consul.address(), "scheme": "https", "tls": { "cafile": certificate } });
    pilot.reload(&with(configuration, json!({ "consul": consul })))?;
    let checks = pilot.lines("checks").len();
    pilot.wait_lines("checks", checks + 3).await?;
    pilot.term()?;
    let ended = pilot.wait(EXIT_TIMEOUT).await?;
    ensure!(ended.code() == Some(0), "it ended with {ended}");
    Ok(())
}

#[tokio::test]
async fn a_fifo_at_the_start_leaves_the_host_able_to_end() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let file = pilot_env.scratch().join("fifo.json5");
    fifo(&file)?;
    let flags = ["-config".to_owned(), file.display().to_string()];
    let mut pilot = PilotBuilder::new(&pilot_env.scratch().join("pilot")).flags(flags).shell(SLEEP).start()?;
    eventually("it listens for TERM, or has ended", DEFAULT_TIMEOUT, async || {
        let status = fs::read_to_string(format!("/proc/{}/status", pilot.pid())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap_or("4000").trim(), 16)?;
        ensure!(caught & (1 << (Signal::SIGTERM as i32 - 1)) != 0, "SIGTERM is not caught");
        Ok(())
    })
    .await?;
    if pilot.is_up()? {
        pilot.term()?;
    }
    let ended = pilot.wait(EXIT_TIMEOUT).await?;
    ensure!(matches!(ended.code(), Some(0 | 64)), "it ended with {ended}");
    Ok(())
}

#[tokio::test]
async fn logging_changes_only_when_all_else_succeeded() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let pilot = pilot_env.pilot(json!({ "services": [service("old", json!({}))] })).count_starts(SLEEP).start()?;
    pilot_env.wait_status("old", "passing").await?;
    let telemetry = |port: u16| json!({ "port": port, "interfaces": "lo" });
    let wanted = |port: u16| -> Value {
        json!({
            "logging": { "format": "json", "output": "stderr" },
            "services": [service("new", json!({}))],
            "telemetry": telemetry(port),
        })
    };
    pilot.reload(&pilot_env.with_registry(wanted(port)))?;
    pilot.wait_log("cannot serve telemetry").await?;
    consistently("nothing changes", Duration::from_secs(1), async || {
        ensure!(!pilot.log()?.contains("{\"level\""), "it logs in the new format: {}", pilot.log()?);
        pilot_env.is("old", "passing")?;
        pilot_env.is("new", "absent")
    })
    .await?;
    pilot.reload(&pilot_env.with_registry(wanted(free_port()?)))?;
    eventually("it logs in the new format", DEFAULT_TIMEOUT, async || {
        ensure!(
            pilot.log()?.contains("{\"level\":\"info\",\"msg\":\"configuration reloaded"),
            "it does not: {}",
            pilot.log()?
        );
        Ok(())
    })
    .await?;
    pilot_env.wait_status("new", "passing").await
}
