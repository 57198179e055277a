//! Secrets of an application: no other program gets them.

use std::fs;

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, Result, eventually};
use serde_json::json;

use crate::pilot_env::{PilotEnv, service, sh};

const SECRET: &str = "hunter2-of-the-kit";

#[tokio::test]
async fn an_application_alone_gets_what_is_meant_for_it() -> Result {
    let pilot_env = PilotEnv::new().await?;
    // A file is whole once it is there.
    let write = |name: &str| format!("env > {name}.next; mv {name}.next {name}");
    let configuration = json!({
        "preStart": sh(&write("hook")),
        "services": [service("app", json!({ "health": sh(&write("health")) }))],
        "tasks": [{ "command": sh(&write("task")), "frequency": "100ms", "timeout": "10s" }],
        "coprocesses": [{ "command": sh(&format!("{}; exec sleep 86400", write("coprocess"))) }],
    });
    let pilot = pilot_env.pilot(configuration).count_starts(&format!("{}; exec sleep 86400", write("application")));
    let pilot = pilot
        .env("ochopod_secret_APP_PASSWORD", SECRET)
        .env("ochopod_secret_LD_PRELOAD", SECRET)
        .env("ochopod_db_dsn", SECRET)
        .env("ochopod_db_url", format!("postgres://me:{SECRET}@db"))
        .env("APP_TOKEN", "its-own");
    let pilot = pilot.start()?;
    pilot_env.wait_status("app", "passing").await?;
    for name in ["application", "hook", "health", "task", "coprocess"] {
        let found = eventually("it writes its environment", DEFAULT_TIMEOUT, async || {
            let found = fs::read_to_string(pilot.directory().join(name))?;
            ensure!(found.contains("PATH="), "{name} has {found:?}");
            Ok(found)
        })
        .await?;
        let secrets: Vec<&str> = found.lines().filter(|line| line.contains(SECRET)).collect();
        let expected = format!("APP_PASSWORD={SECRET}");
        let expected: &[&str] = if name == "application" { &[&expected] } else { &[] };
        ensure!(secrets == expected, "{name} has {secrets:?}");
        ensure!(found.lines().any(|line| line == "ochopod_db_url=postgres://db"), "{name} has {found}");
        ensure!(found.lines().any(|line| line == "APP_TOKEN=its-own"), "{name} has {found}");
    }
    for (name, note) in [
        ("ochopod_db_dsn", "secret withheld"),
        ("ochopod_db_url", "credentials removed"),
        ("ochopod_secret_APP_PASSWORD", "secret passed to the sub-process only"),
        ("ochopod_secret_LD_PRELOAD", "secret passed to nothing"),
    ] {
        let text = format!("{name}: {note}");
        let log = pilot.wait_log(&text).await?;
        let lines = log.matches(&text).count();
        ensure!(lines == 1, "{name} is logged {lines} times: {log}");
    }
    ensure!(!pilot.log()?.contains(SECRET), "the log contains it");
    Ok(())
}
