//! Backends: changes, and reactions to them.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use ochopod_tests::{Client, DEFAULT_TIMEOUT, Pilot, Result, consistently, eventually};
use serde_json::json;

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, backend, service, with},
};

/// Time without a reaction after which none is expected: longer than a poll.
const QUIET: Duration = Duration::from_millis(1300);

/// Starts a pilot that counts changes of the backend `db` in the file `changes`.
async fn watching(pilot_env: &PilotEnv) -> Result<Pilot> {
    let configuration = json!({ "backends": [backend("db", "echo . >> changes")] });
    let pilot = pilot_env.pilot(configuration).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    Ok(pilot)
}

/// Checks that a file has exactly this number of lines, and gets no more for a while.
async fn stays(pilot: &Pilot, file: &str, lines: usize) -> Result {
    pilot.wait_lines(file, lines).await?;
    consistently(&format!("{file} has {lines} lines"), QUIET, async || {
        let found = pilot.lines(file);
        ensure!(found.len() == lines, "it has {found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn instances_of_the_first_query_are_a_change_and_none_are_not() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("a", "full", json!({})).await?;
    pilot_env.add("b", "full", json!({ "Port": 1001 })).await?;
    let backends = json!([backend("full", "echo . >> full"), backend("empty", "echo . >> empty")]);
    let pilot = pilot_env.pilot(json!({ "backends": backends })).shell(SLEEP).start()?;
    stays(&pilot, "full", 1).await?;
    ensure!(pilot.lines("empty").is_empty(), "nothing was a change");
    Ok(())
}

#[tokio::test]
async fn a_change_is_what_containerpilot_takes_for_one() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = watching(&pilot_env).await?;
    let mut changes = 0;
    for (what, change) in [
        ("nothing", 0),
        ("A passes", 1),
        ("A passes again", 0),
        ("A has another port", 1),
        ("A has another address", 1),
        ("A has other tags", 0),
        ("B is registered, critical", 0),
        ("B passes", 1),
        ("B warns", 1),
        ("B fails", 0),
        ("A is replaced by C at the same address and port", 0),
        ("all are gone", 1),
    ] {
        make(&pilot_env, what).await?;
        changes += change;
        stays(&pilot, "changes", changes).await.with_context(|| format!("after {what}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn consul_without_a_leader_or_with_lost_state_is_no_change() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for port in 1..5 {
        pilot_env.add("a", "db", json!({ "Port": port })).await?;
    }
    let pilot = watching(&pilot_env).await?;
    stays(&pilot, "changes", 1).await?;
    pilot_env.consul.lose_leader();
    pilot_env.consul.answer(200, "[]", Some(99));
    pilot.wait_log("has no leader").await?;
    pilot_env.consul.recover();
    stays(&pilot, "changes", 1).await?;
    pilot_env.consul.forget();
    pilot.wait_log("went back to an earlier index").await?;
    stays(&pilot, "changes", 1).await?;
    pilot_env.add("a", "db", json!({ "Port": 4 })).await?;
    stays(&pilot, "changes", 1).await?;
    pilot_env.remove("a").await?;
    stays(&pilot, "changes", 2).await
}

/// Executes the named action.
async fn make(pilot_env: &PilotEnv, what: &str) -> Result {
    let moved = json!({ "Port": 1001, "Address": "127.0.0.9" });
    match what {
        "A passes" => pilot_env.add("a", "db", json!({})).await,
        "A passes again" => pilot_env.set_check("a", "pass").await,
        "A has another port" => pilot_env.add("a", "db", json!({ "Port": 1001 })).await,
        "A has another address" => pilot_env.add("a", "db", moved).await,
        "A has other tags" => pilot_env.add("a", "db", with(moved, json!({ "Tags": ["new"] }))).await,
        "B is registered, critical" => {
            let check = json!({ "CheckID": "b", "TTL": "1h", "Status": "critical" });
            pilot_env.add("b", "db", json!({ "Check": check })).await
        }
        "B passes" => pilot_env.set_check("b", "pass").await,
        "B warns" => pilot_env.set_check("b", "warn").await,
        "B fails" => pilot_env.set_check("b", "fail").await,
        "A is replaced by C at the same address and port" => {
            pilot_env.consul.replace("a", "c");
            Ok(())
        }
        "all are gone" => pilot_env.remove("c").await,
        _ => Ok(()),
    }
}

#[tokio::test]
async fn changes_during_a_run_are_one_change_and_two_never_run_concurrently() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let script = format!(
        "echo begin >> changes; while [ ! -e go ]; do sleep 0.05; done; \
         curl -s 'http://{}/v1/health/service/db?passing=1' | grep -o '\"Port\":[0-9]*' | sort -u | wc -l >> changes",
        pilot_env.consul.address()
    );
    let pilot = pilot_env.pilot(json!({ "backends": [with(backend("db", &script), json!({ "timeout": "1m" }))] }));
    let pilot = pilot.count_starts(SLEEP).start()?;
    pilot_env.add("a", "db", json!({})).await?;
    pilot.wait_lines("changes", 1).await?;
    for port in 2001..2006 {
        pilot_env.add(&format!("a{port}"), "db", json!({ "Port": port })).await?;
    }
    // The pilot waits from an index on once it has seen all that was before.
    let seen = Client::new(pilot_env.consul.address()).get("/v1/health/service/db?passing=1").await?;
    let index = format!("index={}&", seen.headers["x-consul-index"].to_str()?);
    eventually("all changes are noticed", DEFAULT_TIMEOUT, async || {
        ensure!(pilot_env.consul.calls().iter().any(|call| call.query.contains(&index)), "no query with this index");
        Ok(())
    })
    .await?;
    fs::write(pilot.directory().join("go"), "")?;
    let runs = pilot.wait_lines("changes", 4).await?;
    ensure!(runs[0] == "begin" && runs[2] == "begin" && runs[3] == "6", "it ran {runs:?}");
    stays(&pilot, "changes", 4).await
}

#[tokio::test]
async fn backends_of_one_name_with_different_tags_are_different() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("m", "db", json!({ "Tags": ["main"], "Port": 1001 })).await?;
    pilot_env.add("r", "db", json!({ "Tags": ["replica"], "Port": 1002 })).await?;
    let tagged = |tag: &str| with(backend("db", &format!("echo . >> {tag}")), json!({ "tag": tag }));
    let backends = json!([tagged("main"), tagged("replica")]);
    let pilot = pilot_env.pilot(json!({ "backends": backends })).shell(SLEEP).start()?;
    pilot.wait_lines("replica", 1).await?;
    stays(&pilot, "main", 1).await?;
    pilot_env.remove("m").await?;
    stays(&pilot, "main", 2).await?;
    ensure!(pilot.lines("replica").len() == 1, "the other ran, too");
    Ok(())
}

#[tokio::test]
async fn the_result_of_a_change_has_no_effect_on_later_changes() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let backends = json!([
        backend("db", "echo . >> db; exit 7"),
        with(backend("gone", ""), json!({ "onChange": "/no/such/file" })),
    ]);
    let mut pilot = pilot_env.pilot(json!({ "backends": backends })).shell(SLEEP).start()?;
    for count in 1..=2 {
        for name in ["db", "gone"] {
            pilot_env.add(&format!("{name}{count}"), name, json!({ "Port": 1000 + count })).await?;
        }
        stays(&pilot, "db", count).await?;
    }
    ensure!(pilot.is_up()?, "the pilot ended");
    Ok(())
}

#[tokio::test]
async fn a_change_knows_of_the_pilot_and_its_services() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("a", "db", json!({})).await?;
    let configuration = json!({
        "preStart": "true",
        "services": [service("web-app", json!({ "interfaces": "static:127.0.0.8" }))],
        "backends": [backend("db", "env | grep ^CONTAINERPILOT | sort > seen.next; mv seen.next seen")],
    });
    let pilot = pilot_env.pilot(configuration).count_starts(SLEEP).start()?;
    let application = pilot.started(1).await?;
    pilot.wait_lines("seen", 4).await?;
    let seen = pilot.lines("seen");
    for expected in [
        format!("CONTAINERPILOT_PID={}", pilot.pid()),
        format!("CONTAINERPILOT_APP_PID={application}"),
        "CONTAINERPILOT_WEB_APP_IP=127.0.0.8".to_owned(),
    ] {
        ensure!(seen.contains(&expected), "{expected} is not in {seen:?}");
    }
    ensure!(seen.iter().any(|line| line.starts_with("CONTAINERPILOT_PRESTART_PID=")), "it saw {seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_question_that_fails_is_no_change() -> Result {
    let mut pilot_env = PilotEnv::new().await?;
    pilot_env.add("a", "db", json!({})).await?;
    let pilot = watching(&pilot_env).await?;
    stays(&pilot, "changes", 1).await?;
    pilot_env.consul.answer(500, "rpc error", None);
    stays(&pilot, "changes", 1).await?;
    pilot_env.consul.recover();
    pilot_env.consul.refuse().await;
    stays(&pilot, "changes", 1).await?;
    pilot_env.consul.open().await?;
    stays(&pilot, "changes", 1).await?;
    pilot_env.add("b", "db", json!({ "Port": 1001 })).await?;
    stays(&pilot, "changes", 2).await
}

#[tokio::test]
async fn a_change_that_hangs_delays_no_other_and_is_killed_at_its_deadline() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hang = "echo $$ >> hanging; trap '' TERM; sleep 86400 & while :; do sleep 0.05; done";
    let hanging = with(backend("one", hang), json!({ "timeout": "3s" }));
    let backends = json!([hanging, backend("two", "echo . >> two")]);
    let pilot = pilot_env.pilot(json!({ "backends": backends })).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    for count in 1..=2 {
        for name in ["one", "two"] {
            pilot_env.add(&format!("{name}{count}"), name, json!({ "Port": 1000 + count })).await?;
        }
        pilot.wait_lines("two", count).await?;
        pilot.wait_lines("hanging", count).await?;
    }
    only_the_application_is_left(&pilot).await
}

async fn only_the_application_is_left(pilot: &Pilot) -> Result {
    eventually("only the application is left", DEFAULT_TIMEOUT, async || {
        let left = pilot.descendants();
        ensure!(left == pilot.starts()?, "left are {left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_change_under_way_does_not_delay_the_end() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("a", "db", json!({})).await?;
    let hang = with(backend("db", "echo . >> changes; exec sleep 86400"), json!({ "timeout": "1h" }));
    let mut pilot = pilot_env.pilot(json!({ "backends": [hang] })).shell(SLEEP).start()?;
    pilot.wait_lines("changes", 1).await?;
    pilot.term()?;
    let ended = pilot.wait(DEFAULT_TIMEOUT).await?;
    ensure!(ended.code() == Some(143), "it ended with {ended}");
    pilot.assert_clean().await
}

#[tokio::test]
async fn changes_are_seen_while_they_happen() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let slow = with(backend("db", "echo . >> changes"), json!({ "poll": 10 }));
    let pilot = pilot_env.pilot(json!({ "backends": [slow] })).shell(SLEEP).start()?;
    pilot_env.add("a", "db", json!({})).await?;
    pilot.wait_lines("changes", 1).await?;
    for change in 2..5 {
        pilot_env.add(&format!("a{change}"), "db", json!({ "Port": 1000 + change })).await?;
        let begin = std::time::Instant::now();
        pilot.wait_lines("changes", change).await?;
        ensure!(begin.elapsed() < Duration::from_secs(8), "it took {:?}", begin.elapsed());
    }
    Ok(())
}
