//! Input of `onChange` about a backend, and the file that is rendered before it runs.

use std::{fs, time::Duration};

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, consistently, eventually};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, backend, sh, with},
};

/// Writes standard input and the variables as lines of files. The line in `recorded` is its last act: a test that sees it
/// may change what decides about the outcome.
const RECORD: &str = "cat >> input; test ! -e fail; code=$?; \
                    echo \"$OCHOPOD_BACKEND|$OCHOPOD_ADDRESSES|$OCHOPOD_ADDED|$OCHOPOD_REMOVED\" >> recorded; \
                    exit $code";

async fn assert_recorded(pilot: &Pilot, expected: &[&str]) -> Result {
    let recorded = pilot.wait_lines("recorded", expected.len()).await?;
    ensure!(recorded == expected, "it recorded {recorded:?}");
    Ok(())
}

async fn watching(pilot_env: &PilotEnv, more: Value) -> Result<Pilot> {
    let configuration = json!({ "backends": [with(backend("db", RECORD), more)] });
    let pilot = pilot_env.pilot(configuration).env("OCHOPOD_ADDED", "not this").count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    Ok(pilot)
}

#[tokio::test]
async fn it_receives_all_addresses_and_the_changes_since_the_last_success() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let add = async |id: &str, address: &str, port: u16| {
        pilot_env.add(id, "db", json!({ "Address": address, "Port": port })).await
    };
    add("z", "10.0.0.9", 1).await?;
    let pilot = watching(&pilot_env, json!({})).await?;
    let first = "db|10.0.0.9:1|10.0.0.9:1|";
    assert_recorded(&pilot, &[first]).await?;
    add("a", "10.0.0.10", 2).await?;
    let second = "db|10.0.0.9:1,10.0.0.10:2|10.0.0.10:2|";
    assert_recorded(&pilot, &[first, second]).await?;
    let input: Value = serde_json::from_str(&pilot.lines("input")[1])?;
    let expected = json!({
        "backend": "db", "tag": null, "added": ["10.0.0.10:2"], "removed": [],
        "instances": [
            { "id": "z", "address": "10.0.0.9", "port": 1 },
            { "id": "a", "address": "10.0.0.10", "port": 2 },
        ],
    });
    ensure!(input == expected, "standard input is {input}");

    // A failed run does not count: the next one receives its changes, too.
    fs::write(pilot.directory().join("fail"), "")?;
    pilot_env.remove("z").await?;
    let third = "db|10.0.0.10:2||10.0.0.9:1";
    assert_recorded(&pilot, &[first, second, third]).await?;
    pilot.wait_log("db.onChange: exited with code 1").await?;
    fs::remove_file(pilot.directory().join("fail"))?;
    add("b", "::1", 3).await?;
    assert_recorded(&pilot, &[first, second, third, "db|10.0.0.10:2,[::1]:3|[::1]:3|10.0.0.9:1"]).await
}

/// Returns a backend whose file `upstreams` is rendered from `source`.
fn rendering(pilot_env: &PilotEnv) -> Value {
    let [source, destination] =
        ["source", "upstreams"].map(|name| pilot_env.scratch().join(name).display().to_string());
    json!({ "template": { "source": source, "destination": destination } })
}

#[tokio::test]
async fn the_file_is_rendered_before_on_change_runs() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let (source, destination) = (pilot_env.scratch().join("source"), pilot_env.scratch().join("upstreams"));
    fs::write(&source, "{{ range .Instances }}server {{ .Address }}:{{ .Port }};\n{{ end }}")?;
    let copy = format!("cat {} >> seen; echo . >> ran", destination.display());
    let configuration = json!({ "backends": [with(backend("db", &copy), rendering(&pilot_env))] });
    let pilot = pilot_env.pilot(configuration).count_starts(SLEEP).start()?;
    pilot_env.add("a", "db", json!({})).await?;
    ensure!(pilot.wait_lines("seen", 1).await? == ["server 127.0.0.1:1000;"], "it saw {:?}", pilot.lines("seen"));
    pilot.wait_lines("ran", 1).await?;

    // A failure leaves the file unchanged, and nothing runs.
    fs::write(&source, "{{ .Nope }}")?;
    pilot_env.add("b", "db", json!({ "Port": 1001 })).await?;
    pilot.wait_log("db.template: ").await?;
    ensure!(pilot.lines("ran").len() == 1, "onChange ran");
    ensure!(fs::read_to_string(&destination)? == "server 127.0.0.1:1000;\n", "the file changed");
    fs::write(&source, "{{ range .Instances }}{{ .Endpoint }}\n{{ end }}{{ join \",\" .Added }}\n")?;
    pilot_env.add("c", "db", json!({ "Port": 1002 })).await?;
    ensure!(pilot.wait_lines("ran", 2).await?.len() == 2, "onChange ran without a file");
    let seen = fs::read_to_string(&destination)?;
    let expected = "127.0.0.1:1000\n127.0.0.1:1001\n127.0.0.1:1002\n127.0.0.1:1001,127.0.0.1:1002\n";
    ensure!(seen == expected, "it holds {seen}");
    Ok(())
}

#[tokio::test]
async fn a_template_added_by_a_reload_is_rendered_immediately() -> Result {
    let pilot_env = PilotEnv::new().await?;
    fs::write(pilot_env.scratch().join("source"), "{{ len .Instances }} of {{ .Backend }}")?;
    let plain = backend("db", "echo . >> ran");
    pilot_env.add("a", "db", json!({})).await?;
    let pilot = pilot_env.pilot(json!({ "backends": [plain.clone()] })).count_starts(SLEEP).start()?;
    pilot.wait_lines("ran", 1).await?;
    pilot.reload(&pilot_env.with_registry(json!({ "backends": [with(plain, rendering(&pilot_env))] })))?;
    pilot.wait_lines("ran", 2).await?;
    ensure!(fs::read_to_string(pilot_env.scratch().join("upstreams"))? == "1 of db", "it was not rendered");
    Ok(())
}

#[tokio::test]
async fn a_template_that_failed_is_rendered_again_by_a_reload_that_changes_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let source = pilot_env.scratch().join("source");
    fs::write(&source, "{{ .Nope }}")?;
    let configuration = json!({ "backends": [with(backend("db", "echo . >> ran"), rendering(&pilot_env))] });
    pilot_env.add("a", "db", json!({})).await?;
    let pilot = pilot_env.pilot(configuration.clone()).count_starts(SLEEP).start()?;
    pilot.wait_log("db.template: ").await?;
    fs::write(&source, "{{ len .Instances }} of {{ .Backend }}")?;
    pilot.reload(&pilot_env.with_registry(configuration.clone()))?;
    pilot.wait_lines("ran", 1).await?;
    ensure!(fs::read_to_string(pilot_env.scratch().join("upstreams"))? == "1 of db", "it was not rendered");

    // Rendered successfully, it is not rendered again.
    pilot.reload(&pilot_env.with_registry(configuration))?;
    eventually("it is reloaded again", DEFAULT_TIMEOUT, async || {
        ensure!(pilot.count_log("configuration reloaded")? == 2, "it is not");
        Ok(())
    })
    .await?;
    consistently("onChange does not run again", Duration::from_secs(2), async || {
        ensure!(pilot.lines("ran").len() == 1, "it ran");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn check_finds_what_is_wrong_with_a_template() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let source = pilot_env.scratch().join("source");
    let configuration = json!({ "backends": [with(backend("db", "true"), rendering(&pilot_env))] });
    let check = |directory: &str| {
        let text = pilot_env.with_registry(configuration.clone()).to_string();
        let pilot = ochopod_tests::PilotBuilder::new(&pilot_env.scratch().join(directory));
        pilot.flags(["check", "-config", &text]).start()
    };
    for (directory, text, expected) in [
        ("missing", None, Some("no such file")),
        ("open", Some("{{ range .Instances }}"), Some("1:")),
        ("good", Some("{{ range .Instances }}{{ end }}"), None),
    ] {
        if let Some(text) = text {
            fs::write(&source, text)?;
        }
        let mut pilot = check(directory)?;
        let code = pilot.exit_code().await?;
        let log = pilot.log()?;
        match expected {
            Some(expected) => ensure!(
                code == 64 && log.contains("backends[0].template.source") && log.contains(expected),
                "{directory}: {code}: {log}"
            ),
            None => ensure!(code == 0, "{directory}: {code}: {log}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn only_on_change_has_these_variables_and_an_input() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let seen = |name: &str| sh(&format!("echo \"$OCHOPOD_ADDED\" >> {name}; cat >> {name}"));
    let configuration = json!({ "tasks": [{ "frequency": 1, "command": seen("task") }] });
    let pilot = pilot_env.pilot(configuration).env("OCHOPOD_ADDED", "the host's own").count_starts(SLEEP).start()?;
    ensure!(pilot.wait_lines("task", 1).await?[0] == "the host's own", "it saw {:?}", pilot.lines("task"));
    Ok(())
}
