//! USR1: maintenance, and back.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{Pilot, Result, steadily};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    corner::{Corner, backend, service, sh},
};

fn configuration() -> Value {
    json!({
        "services": [service("app", json!({ "health": sh("echo . >> checks") }))],
        "backends": [backend("db", "echo . >> changes")],
        "tasks": [{ "command": sh("echo . >> tasks"), "frequency": "200ms" }],
        "coprocesses": [{ "command": sh("echo . >> coprocesses; exec sleep 86400") }],
    })
}

async fn up(corner: &Corner) -> Result<Pilot> {
    let pilot = corner.pilot(configuration()).counted(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    Ok(pilot)
}

#[tokio::test]
async fn in_maintenance_services_are_gone_and_everything_rests_until_it_is_over() -> Result {
    let corner = Corner::new().await?;
    let mut pilot = up(&corner).await?;
    for _ in 0..2 {
        pilot.signal(Signal::SIGUSR1)?;
        corner.becomes("app", "absent").await?;
        corner.add("a", "db", json!({})).await?;
        // What was under way ends.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let counts = || ["checks", "changes", "tasks"].map(|file| pilot.lines(file).len());
        let before = counts();
        steadily("it rests", Duration::from_millis(2500), async || {
            corner.is("app", "absent")?;
            ensure!(counts() == before, "{:?} became {:?}", before, counts());
            Ok(())
        })
        .await?;
        pilot.signal(Signal::SIGUSR1)?;
        corner.becomes("app", "passing").await?;
        pilot.wrote("changes", before[1] + 1).await?;
        pilot.wrote("tasks", before[2] + 1).await?;
        corner.remove("a").await?;
        pilot.wrote("changes", before[1] + 2).await?;
    }
    ensure!(pilot.is_up()? && pilot.starts()?.len() == 1, "the application was disturbed");
    ensure!(pilot.lines("coprocesses").len() == 1, "the coprocess was started again");
    Ok(())
}

#[tokio::test]
async fn maintenance_outlasts_a_reload_and_does_not_hinder_the_end() -> Result {
    let corner = Corner::new().await?;
    let mut pilot = up(&corner).await?;
    pilot.signal(Signal::SIGUSR1)?;
    corner.becomes("app", "absent").await?;
    let mut changed = configuration();
    changed["services"][0]["port"] = json!(8081);
    pilot.reload(&corner.with_place(changed))?;
    steadily("it is gone", Duration::from_millis(2500), async || corner.is("app", "absent")).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    corner.is("app", "absent")?;
    pilot.leaves_nothing().await
}
