//! Health checks: their time limits, what they may delay, and how they are reported.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, alive, consistently, eventually};
use serde_json::json;

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, service, sh},
};

/// Hangs once a file of that name exists, with a child, and ignores SIGTERM.
const HANGS: &str = "[ -e hang ] || exit 0; echo $$ >> hanging; trap 'echo TERM >> signals' TERM; \
                     sh -c 'trap \"\" TERM; echo $$ >> hanging; while :; do sleep 0.05; done' & \
                     while :; do sleep 0.05; done";

fn hang(pilot: &Pilot) -> Result {
    Ok(fs::write(pilot.directory().join("hang"), "")?)
}

async fn ends(pilot: &Pilot) -> Result {
    let hung = pilot.wait_lines("hanging", 2).await?;
    let hung = hung.iter().map(|pid| Ok(pid.parse()?)).collect::<Result<Vec<i32>>>()?;
    eventually("it is killed with its group", DEFAULT_TIMEOUT, async || {
        ensure!(!hung[..2].iter().any(|pid| alive(*pid)), "it is alive");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_check_that_hangs_delays_nothing_and_is_killed_with_its_group_at_its_deadline() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let services = json!([
        service("hanging", json!({ "health": sh(HANGS), "timeout": "6s", "ttl": 60 })),
        service("other", json!({ "health": "true", "timeout": "5s", "ttl": 5 })),
    ]);
    let pilot = pilot_env.pilot(json!({ "services": services })).shell(SLEEP).start()?;
    for name in ["hanging", "other"] {
        pilot_env.wait_status(name, "passing").await?;
    }
    hang(&pilot)?;
    pilot.wait_lines("hanging", 2).await?;
    let begin = Instant::now();
    let (failed, steady) = tokio::join!(
        pilot_env.wait_status("hanging", "critical"),
        consistently("the other is healthy", Duration::from_secs(7), async || pilot_env.is("other", "passing")),
    );
    failed?;
    steady?;
    ensure!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
    ends(&pilot).await?;
    ensure!(pilot.lines("signals").first().is_some_and(|got| got == "TERM"), "it was not terminated first");
    Ok(())
}

#[tokio::test]
async fn without_a_deadline_of_its_own_a_check_may_take_as_long_as_its_poll() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let checked = service("app", json!({ "health": sh(HANGS), "ttl": 60 }));
    let pilot = pilot_env.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    hang(&pilot)?;
    pilot_env.wait_status("app", "critical").await?;
    ends(&pilot).await?;
    fs::remove_file(pilot.directory().join("hang"))?;
    pilot_env.wait_status("app", "passing").await
}

#[tokio::test]
async fn checks_under_way_do_not_delay_the_end_and_are_not_left_behind() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let checked = service("app", json!({ "health": sh(HANGS), "timeout": "1h" }));
    let mut pilot = pilot_env.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    hang(&pilot)?;
    pilot.wait_lines("hanging", 2).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    pilot_env.is("app", "absent")?;
    pilot.assert_clean().await
}

#[tokio::test]
async fn checks_of_one_service_never_run_side_by_side() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let slow = sh("echo begin >> checks; sleep 1.3; echo end >> checks");
    let checked = service("app", json!({ "health": slow, "timeout": "20s" }));
    let pilot = pilot_env.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    let checks = pilot.wait_lines("checks", 6).await?;
    for pair in checks.chunks_exact(2) {
        ensure!(pair == ["begin", "end"], "they were {checks:?}");
    }
    pilot_env.wait_status("app", "passing").await
}

#[tokio::test]
async fn output_of_a_check_is_logged_with_its_service() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let talking = service("app", json!({ "health": sh("echo spoken; echo two words >&2") }));
    let configuration = json!({ "logging": { "format": "text" }, "services": [talking] });
    let pilot = pilot_env.pilot(configuration).shell(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let id = pilot_env.registered("app")?["ID"].as_str().context("no id")?.to_owned();
    for said in ["msg=spoken", "msg=\"two words\""] {
        pilot.wait_log(&format!("level=info {said} process=health serviceID={id} serviceName=app")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_first_failure_and_the_recovery_are_logged_and_not_each_check() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let checked = service("app", json!({ "health": sh("echo . >> checks; test -e healthy"), "timeout": "10s" }));
    let pilot = pilot_env.pilot(json!({ "services": [checked] })).shell(SLEEP).start()?;
    fs::write(pilot.directory().join("healthy"), "")?;
    pilot_env.wait_status("app", "passing").await?;
    let before = pilot.wait_log("registered").await?.lines().count();
    fs::remove_file(pilot.directory().join("healthy"))?;
    pilot_env.wait_status("app", "critical").await?;
    let checked = pilot.lines("checks").len();
    pilot.wait_lines("checks", checked + 3).await?;
    let failed = pilot.log()?.lines().count();
    ensure!(failed == before + 1, "{} lines report one failure: {}", failed - before, pilot.log()?);
    fs::write(pilot.directory().join("healthy"), "")?;
    pilot_env.wait_status("app", "passing").await?;
    eventually("the recovery is logged", DEFAULT_TIMEOUT, async || {
        ensure!(pilot.log()?.lines().count() == failed + 1, "it is not: {}", pilot.log()?);
        Ok(())
    })
    .await
}
