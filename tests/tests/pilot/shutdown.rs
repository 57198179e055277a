//! Shutdowns: the order of deregistration, signals, kills and hooks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, consistently, eventually, namespaces};
use serde_json::{Value, json};

use crate::{
    SLEEP, STUBBORN,
    pilot_env::{PilotEnv, service, sh, with},
};

/// Returns the service `app`, and these.
fn app(more: Value) -> Value {
    with(json!({ "services": [service("app", json!({}))] }), more)
}

/// Returns text for the shell that reports an event to the agent, by a path unknown to it.
fn mark(pilot_env: &PilotEnv, moment: &str) -> String {
    format!("curl -s http://{}/moment/{moment} >/dev/null", pilot_env.consul.address())
}

/// Waits until a pilot's application runs and its service is registered.
async fn up(pilot_env: &PilotEnv, pilot: &Pilot) -> Result {
    pilot.started(1).await?;
    pilot_env.wait_status("app", "passing").await
}

#[tokio::test]
async fn a_request_deregisters_then_runs_pre_stop_then_ends_the_application_then_runs_post_stop() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let moments = ["pre-stop", "terminated", "post-stop"];
        let [pre_stop, terminated, post_stop] = moments.map(|moment| mark(&pilot_env, &format!("{signal}-{moment}")));
        let hooks = json!({ "preStop": sh(&pre_stop), "postStop": sh(&post_stop) });
        let text = format!("trap '{terminated}; exit 5' TERM; while :; do sleep 0.05; done");
        let mut pilot = pilot_env.pilot_in(signal.as_str(), app(hooks)).count_starts(&text).start()?;
        up(&pilot_env, &pilot).await?;
        let before = pilot_env.consul.calls().len();
        pilot.signal(signal)?;
        ensure!(pilot.exit_code().await? == 5, "the code is not the application's");
        pilot_env.is("app", "absent")?;
        pilot.assert_clean().await?;

        let expected: Vec<String> = moments.iter().map(|moment| format!("/moment/{signal}-{moment}")).collect();
        let calls = pilot_env.consul.calls().into_iter().skip(before).map(|call| call.path);
        let end: Vec<String> = calls.skip_while(|path| !path.contains("/deregister/app-")).skip(1).collect();
        ensure!(end == expected, "after the deregistration: {end:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_application_that_exits_on_its_own_is_deregistered_too() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = json!({ "preStop": sh("touch pre-stop"), "postStop": sh("echo ran > post-stop") });
    let mut pilot =
        pilot_env.pilot(app(hooks)).count_starts("while [ ! -e end ]; do sleep 0.05; done; exit 3").start()?;
    up(&pilot_env, &pilot).await?;
    std::fs::write(pilot.directory().join("end"), "")?;
    ensure!(pilot.exit_code().await? == 3, "the code is not the application's");
    pilot_env.is("app", "absent")?;
    ensure!(pilot.lines("post-stop") == ["ran"], "postStop did not run");
    ensure!(!pilot.directory().join("pre-stop").exists(), "preStop ran");
    Ok(())
}

#[tokio::test]
async fn a_failing_pre_start_ends_the_pilot_and_takes_back_what_an_earlier_life_left() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("app-web-1", "app", json!({})).await?;
    let hooks = json!({ "preStart": sh("echo $$ >> pre; exit 6"), "postStop": sh("touch post-stop") });
    let pilot = pilot_env.pilot(app(hooks)).within(namespaces::init_on("web-1")).count_starts(SLEEP);
    let mut pilot = pilot.start()?;
    ensure!(pilot.exit_code().await? == 6, "the code is not preStart's");
    pilot_env.is("app", "absent")?;
    ensure!(pilot.lines("pre").len() == 1 && pilot.starts()?.is_empty(), "the application was started");
    Ok(())
}

/// Registers a service as an earlier pilot on the host `web-1` did, which was killed.
async fn leave_behind(pilot_env: &PilotEnv) -> Result {
    pilot_env.add("app-web-1", "app", json!({ "Address": "127.0.0.1", "Port": 8080 })).await
}

#[tokio::test]
async fn service_of_an_earlier_life_is_deregistered_though_it_was_never_healthy_in_this_one() -> Result {
    for (place, health) in [json!({ "poll": 60, "ttl": 180 }), json!({ "health": "false" })].into_iter().enumerate() {
        let pilot_env = PilotEnv::new().await?;
        leave_behind(&pilot_env).await?;
        let configuration = json!({ "services": [service("app", health)] });
        let pilot = pilot_env.pilot_in(&place.to_string(), configuration).within(namespaces::init_on("web-1"));
        let mut pilot = if place == 0 {
            pilot.count_starts("exit 4").start()?
        } else {
            pilot.count_starts(&format!("trap 'exit 4' TERM; {SLEEPING}")).start()?
        };
        if place == 1 {
            pilot.wait_log("app.health: exited with code 1").await?;
            pilot.term()?;
        }
        ensure!(pilot.exit_code().await? == 4, "the code is not the application's");
        pilot_env.is("app", "absent")?;
    }
    Ok(())
}

#[tokio::test]
async fn maintenance_deregisters_a_service_of_an_earlier_life() -> Result {
    let pilot_env = PilotEnv::new().await?;
    leave_behind(&pilot_env).await?;
    let configuration = json!({ "services": [service("app", json!({ "health": "false" }))] });
    let pilot = pilot_env.pilot(configuration).within(namespaces::init_on("web-1")).count_starts(SLEEP).start()?;
    pilot.wait_log("app.health: exited with code 1").await?;
    pilot_env.is("app", "passing")?;
    pilot.signal(Signal::SIGUSR1)?;
    pilot_env.wait_status("app", "absent").await
}

#[tokio::test]
async fn service_of_another_process_is_not_taken_for_one_of_an_earlier_life() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = |more: Value| json!({ "services": [service("app", more)] });
    let on_host = |name: &str, more: Value| {
        pilot_env.pilot_in(name, configuration(more)).within(namespaces::init_on("web-1")).count_starts(SLEEP)
    };
    let _one = on_host("one", json!({})).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let mut other = on_host("other", json!({ "health": "false" })).start()?;
    other.wait_log("app.health: exited with code 1").await?;
    other.term()?;
    ensure!(other.exit_code().await? == 143, "the code is not the application's");
    pilot_env.is("app", "passing")?;
    ensure!(pilot_env.calls("/service/deregister/").is_empty(), "the other pilot's service was deregistered");
    Ok(())
}

#[tokio::test]
async fn coprocesses_have_the_whole_stop_timeout_to_exit() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let coprocess = format!("trap 'sleep 7; echo . > ended; exit 0' TERM; echo . > up; {SLEEPING}");
    let configuration = json!({ "stopTimeout": 20, "coprocesses": [{ "command": sh(&coprocess) }] });
    let mut pilot = pilot_env.pilot(configuration).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    pilot.wait_lines("up", 1).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    ensure!(pilot.lines("ended") == ["."], "the coprocess was killed before stopTimeout");
    pilot.assert_clean().await
}

#[tokio::test]
async fn an_agent_that_is_away_or_hangs_does_not_hold_up_any_end() -> Result {
    let mut away = PilotEnv::new().await?;
    away.consul.refuse().await;
    let hangs = PilotEnv::new().await?;
    hangs.consul.stall();
    for pilot_env in [&away, &hangs] {
        let failing = app(json!({ "preStart": sh("exit 6") }));
        let mut failing = pilot_env.pilot_in("failing", failing).count_starts(SLEEP).start()?;
        let mut ended = pilot_env.pilot_in("ended", app(json!({}))).count_starts("sleep 1.5; exit 4").start()?;
        let mut terminated = pilot_env.pilot_in("terminated", app(json!({}))).count_starts(SLEEP).start()?;
        terminated.started(1).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        terminated.term()?;
        for (pilot, code) in [(&mut failing, 6), (&mut ended, 4), (&mut terminated, 143)] {
            let end = pilot.wait(DEFAULT_TIMEOUT).await?;
            ensure!(end.code() == Some(code), "it ended with {end} instead of {code}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn pre_start_exits_before_anything_else_starts() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = json!({
        "onStart": sh("sleep 1; echo pre-start >> moments"),
        "coprocesses": [{ "command": sh("echo coprocess >> moments; exec sleep 86400") }],
        "services": [service("app", json!({ "health": sh("echo health >> moments") }))],
    });
    let pilot = pilot_env.pilot(configuration).count_starts("echo application >> moments; exec sleep 86400").start()?;
    let moments = pilot.wait_lines("moments", 4).await?;
    ensure!(moments[0] == "pre-start", "the order is {moments:?}");
    pilot.started(1).await?;
    pilot.wait_log("onStart").await.context("the old name is not remarked")?;
    Ok(())
}

#[tokio::test]
async fn a_request_during_pre_start_cuts_it_and_starts_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let cut = [
        (
            "trap 'echo terminated >> terminated; exit 0' TERM; echo $$ >> pre; while :; do sleep 0.05; done",
            &["terminated"][..],
        ),
        ("trap '' TERM; echo $$ >> pre; while :; do sleep 0.05; done", &[]),
    ];
    for (place, (hook, terminated)) in cut.into_iter().enumerate() {
        let pilot = pilot_env.pilot_in(&place.to_string(), app(json!({ "preStart": sh(hook) })));
        let mut pilot = pilot.count_starts(SLEEP).start()?;
        pilot.wait_lines("pre", 1).await?;
        pilot.term()?;
        let ended = pilot.wait(Duration::from_secs(20)).await?;
        ensure!(ended.code() == Some(0), "it ended with {ended}");
        ensure!(pilot.lines("terminated") == terminated, "the hook was terminated {:?}", pilot.lines("terminated"));
        ensure!(pilot.starts()?.is_empty(), "the application was started");
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_application_that_does_not_end_is_killed_with_its_group_after_the_stop_timeout() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = format!("(trap '' TERM; echo child >> children; while :; do sleep 0.05; done) & {STUBBORN}");
    let mut pilot = pilot_env.pilot(app(json!({ "stopTimeout": 7 }))).count_starts(&text).start()?;
    pilot.wait_lines("children", 1).await?;
    pilot.started(1).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 137, "the code is not that of KILL");
    let took = begin.elapsed();
    // Longer than it is by default.
    ensure!(took > Duration::from_millis(6900) && took < Duration::from_secs(20), "it took {took:?}");
    pilot.assert_clean().await
}

#[tokio::test]
async fn a_negative_stop_timeout_kills_immediately_after_pre_stop() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = json!({ "stopTimeout": -1, "preStop": sh("echo ran > pre-stop") });
    let mut pilot = pilot_env
        .pilot(app(hooks))
        .count_starts(&format!("trap 'echo terminated > terminated' TERM; {SLEEPING}"))
        .start()?;
    up(&pilot_env, &pilot).await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 137, "the code is not that of KILL");
    ensure!(pilot.lines("pre-stop") == ["ran"] && pilot.lines("terminated").is_empty(), "it was terminated first");
    pilot_env.is("app", "absent")
}

#[tokio::test]
async fn a_pre_stop_that_hangs_is_killed_after_the_stop_timeout() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = json!({ "stopTimeout": 7, "preStop": ["sleep", "86400"], "postStop": ["sleep", "86400"] });
    let application = format!("trap 'echo . > terminated; exit 3' TERM; {SLEEPING}");
    let mut pilot = pilot_env.pilot(app(hooks)).count_starts(&application).start()?;
    up(&pilot_env, &pilot).await?;
    let begin = Instant::now();
    pilot.term()?;
    pilot.wait_lines("terminated", 1).await?;
    let terminated = begin.elapsed();
    // SIGTERM is sent a second before the end of the time, which is longer than the default.
    ensure!(terminated > Duration::from_millis(5900), "the application was terminated after {terminated:?}");
    ensure!(pilot.exit_code().await? == 124, "the code is not that of postStop");
    ensure!(begin.elapsed() > Duration::from_millis(11_800), "it took {:?}", begin.elapsed());
    Ok(())
}

/// Sleeps in a shell that handles traps immediately.
const SLEEPING: &str = "while :; do sleep 0.05; done";

#[tokio::test]
async fn a_second_request_kills_everything_immediately() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let late = [
        json!({ "stopTimeout": 60 }),
        json!({
            "stopTimeout": 60, "preStop": sh("trap '' TERM; echo . > in-hook; while :; do sleep 0.05; done"),
        }),
    ];
    for (place, late) in late.into_iter().enumerate() {
        let late = with(late, json!({ "coprocesses": [{ "command": sh(STUBBORN) }] }));
        let text = format!("trap 'echo . > in-hook' TERM; echo $$ >> starts; {SLEEPING}");
        let mut pilot = pilot_env.pilot_in(&place.to_string(), app(late)).shell(&text).start()?;
        up(&pilot_env, &pilot).await?;
        pilot.term()?;
        pilot.wait_lines("in-hook", 1).await?;
        pilot.signal(Signal::SIGINT)?;
        let ended = pilot.wait(DEFAULT_TIMEOUT).await?;
        ensure!(ended.code() == Some(137), "it ended with {ended}");
        pilot_env.is("app", "absent")?;
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_an_application_the_pilot_serves_until_terminated() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = json!({ "preStart": sh("echo ran > pre-start") });
    let mut pilot = pilot_env.pilot(app(hooks)).start()?;
    pilot_env.wait_status("app", "passing").await?;
    consistently("it serves", Duration::from_secs(2), async || {
        ensure!(pilot.is_up()?, "it ended");
        pilot_env.is("app", "passing")
    })
    .await?;
    ensure!(pilot.lines("pre-start") == ["ran"], "preStart did not run");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "it did not exit with code 0");
    pilot_env.is("app", "absent")
}

#[tokio::test]
async fn an_application_that_exits_on_term_determines_the_exit_code() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = format!("trap 'exit 0' TERM; echo $$ >> starts; {SLEEPING}");
    let mut pilot = pilot_env.pilot(app(json!({ "stopTimeout": 60 }))).shell(&text).start()?;
    up(&pilot_env, &pilot).await?;
    let begin = Instant::now();
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the code is not the application's");
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    Ok(())
}

/// A shell that waits for a command, which takes a moment to exit and writes then.
const WRAPPER: &str =
    "sh -c \"trap 'sleep 1; echo . > done; exit 0' TERM; echo . > up; while :; do sleep 0.05; done\"; :";

#[tokio::test]
async fn command_of_a_wrapper_that_exits_first_keeps_its_grace() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for (place, signal) in [Signal::SIGTERM, Signal::SIGQUIT].into_iter().enumerate() {
        let config = app(json!({ "stopTimeout": 60, "postStop": sh("cat done > post-stop") }));
        let mut pilot = pilot_env.pilot_in(&place.to_string(), config).count_starts(WRAPPER).start()?;
        up(&pilot_env, &pilot).await?;
        pilot.wait_lines("up", 1).await?;
        pilot.signal(signal)?;
        let code = pilot.exit_code().await?;
        ensure!(code == 128 + signal as i32, "{signal}: the code is {code}, not the wrapper's");
        ensure!(pilot.lines("done") == ["."], "{signal}: the command was killed");
        ensure!(pilot.lines("post-stop") == ["."], "{signal}: postStop ran before the command ended");
        pilot.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn command_of_a_wrapper_is_killed_at_the_end_of_the_grace_or_when_the_wrapper_crashes() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let stubborn = "sh -c \"trap '' TERM; echo . > up; while :; do sleep 0.05; done\"; :";
    for (place, signal) in [Some(Signal::SIGTERM), None].into_iter().enumerate() {
        let config = app(json!({ "stopTimeout": if signal.is_some() { 7 } else { 600 } }));
        let mut pilot = pilot_env.pilot_in(&place.to_string(), config).count_starts(stubborn).start()?;
        up(&pilot_env, &pilot).await?;
        pilot.wait_lines("up", 1).await?;
        let begin = Instant::now();
        if let Some(signal) = signal {
            pilot.signal(signal)?;
        } else {
            let wrapper = pilot.lines("starts").first().context("it has not started")?.parse()?;
            kill(Pid::from_raw(wrapper), Signal::SIGKILL)?;
        }
        let code = pilot.exit_code().await?;
        ensure!(code == if signal.is_some() { 143 } else { 137 }, "the code is {code}");
        let grace = Duration::from_secs(if signal.is_some() { 7 } else { 0 });
        let took = begin.elapsed();
        ensure!((grace..grace + Duration::from_secs(15)).contains(&took), "{signal:?}: it took {took:?}");
        pilot.assert_clean().await?;
    }
    Ok(())
}

/// The host may not signal its application, which belongs to another user: only the kit can kill it.
#[tokio::test]
async fn an_application_that_cannot_be_killed_is_left_behind_after_deregistering() -> Result {
    ensure!(nix::unistd::geteuid().is_root(), "this test has to be root: its application is another user's");
    let pilot_env = PilotEnv::new().await?;
    let powers = ["setpriv", "--bounding-set=-kill", "--inh-caps=-all", "--"];
    let sleeper = ["setpriv", "--reuid", "65534", "--clear-groups", "sleep", "86400"];
    let config = app(json!({ "stopTimeout": 1 }));
    let mut pilot = pilot_env.pilot_in("unkillable", config).within(powers).application(sleeper).start()?;
    pilot_env.wait_status("app", "passing").await?;
    // Until the application has changed its user, the host can kill it.
    eventually("it runs as another user", DEFAULT_TIMEOUT, async || {
        let is_other = |pid: &i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.starts_with("Name:\tsleep\n") && status.contains("\nUid:\t65534\t")
        };
        ensure!(pilot.descendants().iter().any(is_other), "it does not yet");
        Ok(())
    })
    .await?;
    let begin = Instant::now();
    pilot.term()?;
    let code = pilot.exit_code().await?;
    ensure!(code == 137, "it ended with {code}");
    ensure!(begin.elapsed() < Duration::from_secs(20), "the shutdown took {:?}", begin.elapsed());
    let log = pilot.log()?;
    ensure!(log.contains("(\"sleep\", state S) not gone after SIGKILL, leaving it behind"), "reported is {log}");
    ensure!(pilot_env.registered("app").is_err(), "it is still registered");
    Ok(())
}
