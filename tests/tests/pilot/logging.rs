//! Log lines, their formats and outputs, and text that is passed unchanged.

use std::fs;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pilot, Result, eventually};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, service, sh, with},
};

/// Runs a service whose check prints text, with this logging, and returns the output.
fn with_logging(logging: &Value) -> Value {
    let talking = service("app", json!({ "health": sh("echo hout") }));
    json!({ "logging": logging, "services": [talking] })
}

/// Returns a line with `0` for every digit.
fn shape(line: &str) -> String {
    line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

/// Returns the first line of the log with a text.
async fn line(pilot: &Pilot, text: &str) -> Result<String> {
    let log = pilot.wait_log(text).await?;
    log.lines().find(|line| line.contains(text)).map(str::to_owned).context("the line is gone")
}

#[tokio::test]
async fn lines_are_as_go_writes_them_by_default() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for (place, logging) in
        [json!({}), json!({ "level": "info", "format": "Default", "output": "STDOUT" })].into_iter().enumerate()
    {
        let pilot = pilot_env.pilot_in(&place.to_string(), with_logging(&logging)).shell(SLEEP).start()?;
        let line = line(&pilot, "hout").await?;
        ensure!(shape(&line) == "0000/00/00 00:00:00 hout", "it is {line:?}");
        ensure!(pilot.console()?.is_empty(), "standard error has {}", pilot.console()?);
    }
    Ok(())
}

#[tokio::test]
async fn lines_are_texts_as_logrus_writes_them() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = pilot_env.pilot(with_logging(&json!({ "format": "text" }))).env("TZ", "UTC").shell(SLEEP).start()?;
    let line = line(&pilot, "hout").await?;
    pilot_env.wait_status("app", "passing").await?;
    let id = pilot_env.registered("app")?["ID"].as_str().context("no id")?.to_owned();
    let (time, rest) = line.split_at_checked(27).context("a short line")?;
    ensure!(shape(time) == "time=\"0000-00-00T00:00:00Z\"", "it is {line:?}");
    let expected = format!(" level=info msg=hout process=health serviceID={id} serviceName=app ");
    ensure!(rest == expected, "it is {line:?}");
    Ok(())
}

#[tokio::test]
async fn lines_are_objects_as_logrus_writes_them() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = pilot_env
        .pilot(with_logging(&json!({ "format": "json", "output": "stderr" })))
        .env("TZ", "UTC")
        .shell(SLEEP)
        .start()?;
    let text = line(&pilot, "hout").await?;
    let line: Value = serde_json::from_str(&text)?;
    let time = shape(line["time"].as_str().context("no time")?);
    ensure!(time == "0000-00-00T00:00:00Z", "it is {text}");
    ensure!(line["level"] == "info" && line["msg"] == "hout" && line["serviceName"] == "app", "it is {text}");
    let keys: Vec<usize> = ["level", "msg", "process", "serviceID", "serviceName", "time"]
        .iter()
        .map(|key| text.find(&format!("\"{key}\":")).with_context(|| format!("missing {key} in {text}")))
        .collect::<Result<_>>()?;
    ensure!(keys.is_sorted(), "the keys are not: {text}");
    ensure!(pilot.output()?.is_empty(), "standard output has {}", pilot.output()?);
    for line in pilot.console()?.lines() {
        serde_json::from_str::<Value>(line).with_context(|| format!("{line} is not JSON"))?;
    }
    Ok(())
}

#[tokio::test]
async fn only_what_is_severe_enough_is_logged() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let failing = |level: &str| with(with_logging(&json!({ "level": level })), json!({ "preStart": "/no/such/file" }));
    let mut quiet = pilot_env.pilot_in("fatal", failing("FATAL")).shell("true").start()?;
    let mut errors = pilot_env.pilot_in("error", failing("ERROR")).shell("true").start()?;
    for pilot in [&mut quiet, &mut errors] {
        ensure!(pilot.exit_code().await? == 127, "the code is not preStart's");
    }
    ensure!(quiet.log()?.is_empty(), "the log has {}", quiet.log()?);
    ensure!(errors.log()?.contains("/no/such/file"), "the log has {}", errors.log()?);
    Ok(())
}

#[tokio::test]
async fn output_of_the_application_and_the_hooks_is_unchanged() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = json!({
        "logging": { "format": "json", "output": "stderr" },
        "preStart": sh("printf 'pre\\r\\n'"), "postStop": sh("printf '\\001post'"),
    });
    let application =
        "printf '\\377\\376\\000raw {\\n\\n'; head -c 300000 /dev/zero; printf 'no newline'; printf err >&2";
    let mut pilot = pilot_env.pilot(hooks).shell(application).start()?;
    ensure!(pilot.exit_code().await? == 0, "it did not end with code 0");
    let written = fs::read(pilot.directory().join("stdout"))?;
    let expected = [b"pre\r\n\xff\xfe\0raw {\n\n".to_vec(), vec![0; 300_000], b"no newline\x01post".to_vec()].concat();
    ensure!(written == expected, "{} bytes arrived, {} were written", written.len(), expected.len());
    ensure!(pilot.console()?.contains("err"), "its standard error is lost");
    Ok(())
}

#[tokio::test]
async fn the_application_has_no_input_and_the_pilots_directory() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = pilot_env.pilot(json!({})).shell("readlink /proc/self/fd/0; pwd").start()?;
    ensure!(pilot.exit_code().await? == 0, "it did not end with code 0");
    let output = pilot.output()?;
    let said: Vec<&str> = output.lines().filter(|line| line.starts_with('/')).collect();
    ensure!(said == ["/dev/null", &*pilot.directory().to_string_lossy()], "unexpected output {output}");
    Ok(())
}

#[tokio::test]
async fn every_line_of_a_flood_arrives() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let flood =
        json!({ "command": sh("[ -e flooded ] || seq 20000; touch flooded"), "frequency": "100ms", "timeout": "20s" });
    let pilot = pilot_env.pilot(json!({ "tasks": [flood], "logging": { "format": "text" } })).shell(SLEEP).start()?;
    let log = eventually("the last line arrives", DEFAULT_TIMEOUT * 2, async || {
        let log = pilot.log()?;
        ensure!(log.contains("msg=20000 "), "the last line is missing");
        Ok(log)
    })
    .await?;
    let lines = log.lines().filter(|line| line.contains("level=info msg=")).count();
    ensure!(lines >= 20_000, "{lines} lines of 20000 arrived");
    Ok(())
}
