//! The ways out: what is deregistered, asked, killed and run, and in which order.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{Pilot, Result, namespaces, steadily};
use serde_json::{Value, json};

use crate::{
    OBEDIENT, SLEEP, STUBBORN,
    corner::{Corner, service, sh, with},
};

/// The service `app`, and these.
fn app(more: Value) -> Value {
    with(json!({ "services": [service("app", json!({}))] }), more)
}

/// Text for the shell that tells the agent of a moment, by a path that it does not know.
fn mark(corner: &Corner, moment: &str) -> String {
    format!("curl -s http://{}/moment/{moment} >/dev/null", corner.consul.address())
}

/// Waits until a pilot's application runs and its service is registered.
async fn up(corner: &Corner, pilot: &Pilot) -> Result {
    pilot.started(1).await?;
    corner.becomes("app", "passing").await
}

#[tokio::test]
async fn a_request_deregisters_then_runs_pre_stop_then_ends_the_application_then_runs_post_stop() -> Result {
    let corner = Corner::new().await?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let moments = ["pre-stop", "asked", "post-stop"];
        let [pre_stop, asked, post_stop] = moments.map(|moment| mark(&corner, &format!("{signal}-{moment}")));
        let hooks = json!({ "preStop": sh(&pre_stop), "postStop": sh(&post_stop) });
        let text = format!("trap '{asked}; exit 5' TERM; while :; do sleep 0.05; done");
        let mut pilot = corner.pilot_in(signal.as_str(), app(hooks)).counted(&text).start()?;
        up(&corner, &pilot).await?;
        let before = corner.consul.asked().len();
        pilot.signal(signal)?;
        ensure!(pilot.exit_code().await? == 5, "the code is not the application's");
        corner.is("app", "absent")?;
        pilot.leaves_nothing().await?;

        let expected: Vec<String> = moments.iter().map(|moment| format!("/moment/{signal}-{moment}")).collect();
        let asked = corner.consul.asked().into_iter().skip(before).map(|asked| asked.path);
        let end: Vec<String> = asked.skip_while(|path| !path.contains("/deregister/app-")).skip(1).collect();
        ensure!(end == expected, "after it was deregistered came {end:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_application_that_ends_by_itself_is_deregistered_too() -> Result {
    let corner = Corner::new().await?;
    let hooks = json!({ "preStop": sh("touch pre-stop"), "postStop": sh("echo ran > post-stop") });
    let mut pilot = corner.pilot(app(hooks)).counted("while [ ! -e end ]; do sleep 0.05; done; exit 3").start()?;
    up(&corner, &pilot).await?;
    std::fs::write(pilot.directory().join("end"), "")?;
    ensure!(pilot.exit_code().await? == 3, "the code is not the application's");
    corner.is("app", "absent")?;
    ensure!(pilot.lines("post-stop") == ["ran"], "postStop did not run");
    ensure!(!pilot.directory().join("pre-stop").exists(), "preStop ran");
    Ok(())
}

#[tokio::test]
async fn a_failing_pre_start_ends_the_pilot_and_takes_back_what_an_earlier_life_left() -> Result {
    let corner = Corner::new().await?;
    corner.add("app-web-1", "app", json!({})).await?;
    let hooks = json!({ "preStart": sh("echo $$ >> pre; exit 6"), "postStop": sh("touch post-stop") });
    let pilot = corner.pilot(app(hooks)).within(namespaces::init_on("web-1")).counted(SLEEP);
    let mut pilot = pilot.start()?;
    ensure!(pilot.exit_code().await? == 6, "the code is not preStart's");
    corner.is("app", "absent")?;
    ensure!(pilot.lines("pre").len() == 1 && pilot.starts()?.is_empty(), "the application was started");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_away_or_hangs_does_not_hold_up_any_end() -> Result {
    let mut away = Corner::new().await?;
    away.consul.refuse().await;
    let hangs = Corner::new().await?;
    hangs.consul.stall();
    for corner in [&away, &hangs] {
        let failing = app(json!({ "preStart": sh("exit 6") }));
        let mut failing = corner.pilot_in("failing", failing).counted(SLEEP).start()?;
        let mut ended = corner.pilot_in("ended", app(json!({}))).counted("sleep 1.5; exit 4").start()?;
        let mut asked = corner.pilot_in("asked", app(json!({}))).counted(SLEEP).start()?;
        asked.started(1).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        asked.term()?;
        for (pilot, code) in [(&mut failing, 6), (&mut ended, 4), (&mut asked, 143)] {
            let end = pilot.wait(Duration::from_secs(5)).await?;
            ensure!(end.code() == Some(code), "it ended with {end} instead of {code}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn pre_start_is_over_before_anything_else_begins() -> Result {
    let corner = Corner::new().await?;
    let configuration = json!({
        "onStart": sh("sleep 1; echo pre-start >> moments"),
        "coprocesses": [{ "command": sh("echo coprocess >> moments; exec sleep 86400") }],
        "services": [service("app", json!({ "health": sh("echo health >> moments") }))],
    });
    let pilot = corner.pilot(configuration).counted("echo application >> moments; exec sleep 86400").start()?;
    let moments = pilot.wrote("moments", 4).await?;
    ensure!(moments[0] == "pre-start", "the order is {moments:?}");
    pilot.started(1).await?;
    ensure!(pilot.logged("onStart")? > 0, "the old name is not remarked");
    Ok(())
}

#[tokio::test]
async fn a_request_during_pre_start_cuts_it_and_starts_nothing() -> Result {
    let corner = Corner::new().await?;
    let cut =
        [("echo $$ >> pre; exec sleep 86400", 3), ("trap '' TERM; echo $$ >> pre; while :; do sleep 0.05; done", 20)];
    for (place, (hook, limit)) in cut.into_iter().enumerate() {
        let pilot = corner.pilot_in(&place.to_string(), app(json!({ "preStart": sh(hook) })));
        let mut pilot = pilot.counted(SLEEP).start()?;
        pilot.wrote("pre", 1).await?;
        pilot.term()?;
        let ended = pilot.wait(Duration::from_secs(limit)).await?;
        ensure!(ended.code() == Some(0), "it ended with {ended}");
        ensure!(pilot.starts()?.is_empty(), "the application was started");
        pilot.leaves_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_application_that_does_not_end_is_killed_with_its_group_after_the_stop_timeout() -> Result {
    let corner = Corner::new().await?;
    let text = format!("(trap '' TERM; echo child >> children; while :; do sleep 0.05; done) & {STUBBORN}");
    let mut pilot = corner.pilot(app(json!({ "stopTimeout": 1 }))).counted(&text).start()?;
    pilot.wrote("children", 1).await?;
    pilot.started(1).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 137, "the code is not that of KILL");
    let took = begin.elapsed();
    ensure!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "it took {took:?}");
    pilot.leaves_nothing().await
}

#[tokio::test]
async fn a_negative_stop_timeout_kills_at_once_after_pre_stop() -> Result {
    let corner = Corner::new().await?;
    let hooks = json!({ "stopTimeout": -1, "preStop": sh("echo ran > pre-stop") });
    let mut pilot = corner.pilot(app(hooks)).counted(&format!("trap 'echo asked > asked' TERM; {SLEEPING}")).start()?;
    up(&corner, &pilot).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 137, "the code is not that of KILL");
    ensure!(pilot.lines("pre-stop") == ["ran"] && pilot.lines("asked").is_empty(), "it was asked first");
    corner.is("app", "absent")
}

/// Sleeps where traps are heeded.
const SLEEPING: &str = "while :; do sleep 0.05; done";

#[tokio::test]
async fn a_second_request_kills_all_at_once() -> Result {
    let corner = Corner::new().await?;
    let late = [
        json!({ "stopTimeout": 60 }),
        json!({ "preStop": sh("trap '' TERM; echo . > in-hook; while :; do sleep 0.05; done") }),
    ];
    for (place, late) in late.into_iter().enumerate() {
        let late = with(late, json!({ "coprocesses": [{ "command": sh(STUBBORN) }] }));
        let text = format!("trap 'echo . > in-hook' TERM; {SLEEPING}");
        let mut pilot = corner.pilot_in(&place.to_string(), app(late)).counted(&text).start()?;
        up(&corner, &pilot).await?;
        pilot.term()?;
        pilot.wrote("in-hook", 1).await?;
        pilot.signal(Signal::SIGINT)?;
        let ended = pilot.wait(Duration::from_secs(3)).await?;
        ensure!(ended.code() == Some(137), "it ended with {ended}");
        corner.is("app", "absent")?;
        pilot.leaves_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_an_application_the_pilot_serves_until_it_is_asked_to_end() -> Result {
    let corner = Corner::new().await?;
    let hooks = json!({ "preStart": sh("echo ran > pre-start") });
    let mut pilot = corner.pilot(app(hooks)).start()?;
    corner.becomes("app", "passing").await?;
    steadily("it serves", Duration::from_secs(2), async || {
        ensure!(pilot.is_up()?, "it ended");
        corner.is("app", "passing")
    })
    .await?;
    ensure!(pilot.lines("pre-start") == ["ran"], "preStart did not run");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "it did not leave with code 0");
    corner.is("app", "absent")
}

#[tokio::test]
async fn an_application_that_obeys_gives_its_own_code() -> Result {
    let corner = Corner::new().await?;
    let mut pilot = corner.pilot(app(json!({}))).counted(OBEDIENT).start()?;
    up(&corner, &pilot).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the code is not the application's");
    ensure!(begin.elapsed() < Duration::from_secs(2), "it took {:?}", begin.elapsed());
    Ok(())
}
