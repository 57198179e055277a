//! Secrets reach the host only, and the sub-process if they are intended for it.

use std::fs;

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, PodBuilder, Result, TestEnv, artifacts, eventually};
use serde_json::json;

use crate::pod;

const SECRET: &str = "hunter2-of-the-kit";
const NAMES: [&str; 9] = [
    "db_dsn",
    "PASSWD",
    "db_pwd",
    "auth",
    "passphrase",
    "api_key_2",
    "private_key_pem",
    "token_file_2",
    "a_credential_b",
];

/// Returns an environment with a secret in every place that must not be visible.
fn secretive(env: &TestEnv, plugin: &std::path::Path) -> PodBuilder {
    let builder = NAMES.iter().fold(env.pod(plugin), |builder, name| builder.set(name, SECRET));
    builder
        .set("db_url", format!("postgres://me:{SECRET}@db:5432/shop"))
        .set("author", "me")
        .set("keyspace", "a")
        .set("monkey", "b")
        .set("secret_DB_PASSWORD", SECRET)
        .set("debug", "true")
        .set("set_grace", "5")
        .env("DB_URL", format!("postgres://me:{SECRET}@own"))
}

#[tokio::test]
async fn the_sub_process_alone_gets_what_is_meant_for_it() -> Result {
    let env = TestEnv::new().await?;
    let guest = artifacts::misbehaving()?;
    let builder = secretive(&env, &guest)
        .command("tr '\\0' '\\n' < /proc/self/environ > new; mv new environment; exec sleep 86400");
    let pod = builder.start()?;
    let info = pod.wait_info("process", "running").await?;
    let environment = eventually("the sub-process writes", DEFAULT_TIMEOUT, async || {
        let environment = fs::read_to_string(pod.directory().join("environment"))?;
        ensure!(environment.contains("PATH="), "it has {environment:?}");
        Ok(environment)
    })
    .await?;
    let secrets: Vec<&str> = environment.lines().filter(|line| line.contains(SECRET)).collect();
    let own = [format!("DB_PASSWORD={SECRET}"), format!("DB_URL=postgres://me:{SECRET}@own")];
    ensure!(secrets.len() == 2 && own.iter().all(|own| secrets.contains(&own.as_str())), "it has {secrets:?}");
    ensure!(!environment.contains("ochopod_secret_"), "it has {environment}");
    ensure!(environment.lines().any(|line| line == "ochopod_db_url=postgres://db:5432/shop"), "it has {environment}");

    ensure!(!info.to_string().contains(SECRET), "/info contains it: {info}");
    ensure!(!pod.client().log().await?.contains(SECRET), "/log contains it");
    let guest = pod.client().post_json("/control/signal", &json!({ "try": "environment" })).await?.json(200)?;
    ensure!(!guest.to_string().contains(SECRET), "the plugin has {guest}");
    ensure!(guest["ochopod_db_url"] == "postgres://db:5432/shop", "the plugin has {guest}");
    for registration in env.cluster("default").registrations().await?.values() {
        ensure!(!registration.to_string().contains(SECRET), "registered is {registration}");
        let kept = ["author", "keyspace", "monkey"].map(|name| registration[name].as_str().unwrap_or_default());
        ensure!(kept == ["me", "a", "b"], "registered is {registration}");
        ensure!(registration["db_url"] == "postgres://db:5432/shop", "registered is {registration}");
    }
    let console = pod.wait_log("callback signaled").await?;
    ensure!(!console.contains(SECRET), "the console contains it");
    for name in NAMES {
        let lines = console.lines().filter(|line| line.contains(&format!("\"ochopod_{name}\""))).count();
        ensure!(lines == 1, "{name} is logged {lines} times: {console}");
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_by_a_name_that_decides_which_code_runs_is_bad_usage() -> Result {
    let env = TestEnv::new().await?;
    for name in ["PATH", "LD_PRELOAD", "ochopod", "ochopod_ip", ""] {
        let mut pod = pod(&env).set(&format!("secret_{name}"), SECRET).start()?;
        ensure!(pod.exit_code().await? == 64, "{name} is taken");
        let console = pod.console()?;
        ensure!(
            console.contains(&format!("ochopod_secret_{name}: ")) && !console.contains(SECRET),
            "unexpected output {console}"
        );
    }
    Ok(())
}
