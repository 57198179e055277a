//! SIGUSR1: maintenance mode.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, consistently, eventually};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, backend, service, sh},
};

fn configuration() -> Value {
    json!({
        "services": [service("app", json!({ "health": sh("echo . >> checks") }))],
        "backends": [backend("db", "echo . >> changes")],
        "tasks": [{ "command": sh("echo . >> tasks"), "frequency": "200ms" }],
        "coprocesses": [{ "command": sh("echo . >> coprocesses; exec sleep 86400") }],
    })
}

async fn up(pilot_env: &PilotEnv) -> Result<Pilot> {
    let pilot = pilot_env.pilot(configuration()).count_starts(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    Ok(pilot)
}

#[tokio::test]
async fn in_maintenance_services_are_gone_and_everything_rests_until_it_is_over() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = up(&pilot_env).await?;
    for _ in 0..2 {
        pilot.signal(Signal::SIGUSR1)?;
        pilot_env.wait_status("app", "absent").await?;
        pilot_env.add("a", "db", json!({})).await?;
        let counts = || ["checks", "changes", "tasks"].map(|file| pilot.lines(file).len());
        let before = eventually("actions in progress end", DEFAULT_TIMEOUT, async || {
            let before = counts();
            tokio::time::sleep(Duration::from_secs(1)).await;
            ensure!(counts() == before, "{before:?} became {:?}", counts());
            Ok(before)
        })
        .await?;
        consistently("it rests", Duration::from_millis(2500), async || {
            pilot_env.is("app", "absent")?;
            ensure!(counts() == before, "{:?} became {:?}", before, counts());
            Ok(())
        })
        .await?;
        pilot.signal(Signal::SIGUSR1)?;
        pilot_env.wait_status("app", "passing").await?;
        pilot.wait_lines("changes", before[1] + 1).await?;
        pilot.wait_lines("tasks", before[2] + 1).await?;
        pilot_env.remove("a").await?;
        pilot.wait_lines("changes", before[1] + 2).await?;
    }
    ensure!(pilot.is_up()? && pilot.starts()?.len() == 1, "the application was disturbed");
    ensure!(pilot.lines("coprocesses").len() == 1, "the coprocess was started again");
    Ok(())
}

#[tokio::test]
async fn maintenance_outlasts_a_reload_and_does_not_hinder_the_end() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = up(&pilot_env).await?;
    pilot.signal(Signal::SIGUSR1)?;
    pilot_env.wait_status("app", "absent").await?;
    let mut changed = configuration();
    changed["services"][0]["port"] = json!(8081);
    pilot.reload(&pilot_env.with_registry(changed))?;
    pilot.wait_log("configuration reloaded").await?;
    consistently("it is gone", Duration::from_millis(2500), async || pilot_env.is("app", "absent")).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    pilot_env.is("app", "absent")?;
    pilot.assert_clean().await
}
