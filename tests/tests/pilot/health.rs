//! Health checks: how long they may take, whom they may delay, and what is told of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ochopod_tests::{Pilot, Result, SOON, alive, eventually, steadily};
use serde_json::json;

use crate::{
    SLEEP,
    corner::{Corner, service, sh},
};

/// Hangs once there is a file of that name, with a child, and does not heed TERM.
const HANGS: &str = "[ -e hang ] || exit 0; echo $$ >> hanging; trap 'echo TERM >> signals' TERM; \
                     sh -c 'trap \"\" TERM; echo $$ >> hanging; while :; do sleep 0.05; done' & \
                     while :; do sleep 0.05; done";

fn hang(pilot: &Pilot) -> Result {
    Ok(fs::write(pilot.directory().join("hang"), "")?)
}

async fn ends(pilot: &Pilot) -> Result {
    let hung = pilot.wrote("hanging", 2).await?;
    let hung = hung.iter().map(|pid| Ok(pid.parse()?)).collect::<Result<Vec<i32>>>()?;
    eventually("it is killed with its group", SOON, async || {
        ensure!(!hung[..2].iter().any(|pid| alive(*pid)), "it is alive");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_check_that_hangs_delays_nothing_and_is_killed_with_its_group_at_its_deadline() -> Result {
    let corner = Corner::new().await?;
    let services = json!([
        service("hanging", json!({ "health": sh(HANGS), "timeout": "2s", "ttl": 60 })),
        service("other", json!({ "health": "true", "ttl": 2 })),
    ]);
    let pilot = corner.pilot(json!({ "services": services })).shell(SLEEP).start()?;
    for name in ["hanging", "other"] {
        corner.becomes(name, "passing").await?;
    }
    hang(&pilot)?;
    pilot.wrote("hanging", 2).await?;
    let begin = Instant::now();
    let (failed, steady) = tokio::join!(
        corner.becomes("hanging", "critical"),
        steadily("the other is healthy", Duration::from_secs(3), async || corner.is("other", "passing")),
    );
    failed?;
    steady?;
    ensure!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    ends(&pilot).await?;
    ensure!(pilot.lines("signals").first().is_some_and(|got| got == "TERM"), "it was not asked to end first");
    Ok(())
}

#[tokio::test]
async fn without_a_deadline_of_its_own_a_check_may_take_as_long_as_its_poll() -> Result {
    let corner = Corner::new().await?;
    let checked = service("app", json!({ "health": sh(HANGS), "ttl": 60 }));
    let pilot = corner.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    hang(&pilot)?;
    corner.becomes("app", "critical").await?;
    ends(&pilot).await?;
    fs::remove_file(pilot.directory().join("hang"))?;
    corner.becomes("app", "passing").await
}

#[tokio::test]
async fn checks_under_way_do_not_delay_the_end_and_are_not_left_behind() -> Result {
    let corner = Corner::new().await?;
    let checked = service("app", json!({ "health": sh(HANGS), "timeout": "1h" }));
    let mut pilot = corner.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    hang(&pilot)?;
    pilot.wrote("hanging", 2).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    ensure!(begin.elapsed() < Duration::from_secs(8), "it took {:?}", begin.elapsed());
    corner.is("app", "absent")?;
    pilot.leaves_nothing().await
}

#[tokio::test]
async fn checks_of_one_service_never_run_side_by_side() -> Result {
    let corner = Corner::new().await?;
    let slow = sh("echo begin >> checks; sleep 1.3; echo end >> checks");
    let checked = service("app", json!({ "health": slow, "timeout": "5s" }));
    let pilot = corner.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    let checks = pilot.wrote("checks", 6).await?;
    for pair in checks.chunks_exact(2) {
        ensure!(pair == ["begin", "end"], "they were {checks:?}");
    }
    corner.becomes("app", "passing").await
}

#[tokio::test]
async fn what_a_check_writes_is_logged_with_whose_it_is() -> Result {
    let corner = Corner::new().await?;
    let talking = service("app", json!({ "health": sh("echo spoken; echo two words >&2") }));
    let configuration = json!({ "logging": { "format": "text" }, "services": [talking] });
    let pilot = corner.pilot(configuration).shell(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    let id = corner.registered("app")?["ID"].as_str().context("no id")?.to_owned();
    for said in ["msg=spoken", "msg=\"two words\""] {
        pilot.logs(&format!("level=info {said} process=health serviceID={id} serviceName=app")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_first_failure_and_the_recovery_are_logged_and_not_each_check() -> Result {
    let corner = Corner::new().await?;
    let checked = service("app", json!({ "health": sh("echo . >> checks; test -e healthy") }));
    let pilot = corner.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    fs::write(pilot.directory().join("healthy"), "")?;
    corner.becomes("app", "passing").await?;
    let before = pilot.logs("registered").await?.lines().count();
    fs::remove_file(pilot.directory().join("healthy"))?;
    corner.becomes("app", "critical").await?;
    let checked = pilot.lines("checks").len();
    pilot.wrote("checks", checked + 3).await?;
    let failed = pilot.log()?.lines().count();
    ensure!(failed == before + 1, "{} lines tell of one failure: {}", failed - before, pilot.log()?);
    fs::write(pilot.directory().join("healthy"), "")?;
    corner.becomes("app", "passing").await?;
    eventually("the recovery is logged", SOON, async || {
        ensure!(pilot.log()?.lines().count() == failed + 1, "it is not: {}", pilot.log()?);
        Ok(())
    })
    .await
}
