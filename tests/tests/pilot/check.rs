//! `pilot check`: for a pod, and warnings of probable mistakes.

use anyhow::ensure;
use ochopod_tests::{Pilot, PilotBuilder, Result};
use serde_json::{Value, json};

use crate::pilot_env::{PilotEnv, sh};

async fn check(pilot_env: &PilotEnv, directory: &str, words: &[&str]) -> Result<(i32, Pilot)> {
    let pilot = PilotBuilder::new(&pilot_env.scratch().join(directory)).flags(["check"]).flags(words.iter().copied());
    let mut pilot = pilot.start()?;
    Ok((pilot.exit_code().await?, pilot))
}

fn service(health: &str) -> Value {
    json!([{ "name": "app", "port": 80, "interfaces": "lo", "poll": 1, "ttl": 5, "health": health }])
}

#[tokio::test]
async fn a_configuration_without_a_registry_is_valid_for_a_pod_only() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = json!({ "services": service("sanity-check") }).to_string();
    let (code, pilot) = check(&pilot_env, "plain", &["-config", &text]).await?;
    ensure!(code == 64 && pilot.console()?.contains("No discovery backend defined"), "{code}: {}", pilot.log()?);
    for (directory, flag) in [("one", "-pod"), ("two", "--pod")] {
        let (code, pilot) = check(&pilot_env, directory, &[flag, "-config", &text]).await?;
        ensure!(code == 0 && pilot.output()?.contains("configuration valid"), "{flag}: {code}: {}", pilot.log()?);
    }
    let (code, pilot) = check(&pilot_env, "logging", &["-pod", "-config", "{ logging: { level: 'debug' } }"]).await?;
    ensure!(code == 0 && pilot.output()?.contains("1:12: logging"), "{code}: {}", pilot.log()?);
    let (code, _) = check(&pilot_env, "bad", &["-pod", "-config", "{ services: [{}] }"]).await?;
    ensure!(code == 64, "a bad one ended with {code}");
    let mut pilot = PilotBuilder::new(&pilot_env.scratch().join("run")).flags(["-pod", "-config", &text]).start()?;
    ensure!(pilot.exit_code().await? == 64, "without check, -pod means nothing");
    Ok(())
}

#[tokio::test]
async fn commands_that_were_meant_for_a_shell_are_warned_of_by_check_and_in_the_log() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let place = pilot_env.with_registry(json!({}))["consul"].clone();
    let text = format!("{{\n  consul: {place},\n  preStart: 'echo hi | grep hi'\n}}");
    let (code, pilot) = check(&pilot_env, "check", &["-config", &text]).await?;
    let warning = "3:13: preStart: shell syntax (|) in a command that is split at blanks and run without a shell;";
    ensure!(code == 0, "it ended with {code}: {}", pilot.log()?);
    let output = pilot.output()?;
    ensure!(output.contains(warning) && output.contains("[\"/bin/sh\", \"-c\", \"…\"]"), "unexpected output {output}");

    let pilot = PilotBuilder::new(&pilot_env.scratch().join("run")).written(&text).shell(crate::SLEEP).start()?;
    pilot.wait_log(warning).await?;
    pilot.reload(&pilot_env.with_registry(json!({ "tasks": [{ "frequency": 3600, "command": "rm *.log" }] })))?;
    pilot
        .wait_log("tasks[0].command: shell syntax (*) in a command that is split at blanks and run without a shell;")
        .await?;
    pilot.reload(&pilot_env.with_registry(json!({ "preStart": sh("a | b; $C") })))?;
    pilot.wait_log("configuration reloaded").await?;
    Ok(())
}
