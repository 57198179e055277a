//! Two pilots on one host with a service of the same name.

use std::path::Path;

use anyhow::ensure;
use ochopod_tests::{
    DEFAULT_TIMEOUT, Etcd, Pilot, PilotBuilder, Result, TestEnv, consistently, eventually, namespaces,
};
use serde_json::{Value, json};

use crate::{
    OBEDIENT,
    pilot_env::{PilotEnv, service, with},
};

/// Longer than a poll and than a session.
const STEADY: std::time::Duration = std::time::Duration::from_millis(6500);

/// Starts a pilot on the host `web-1` whose service `app` is at this port.
fn app(directory: &Path, place: &Value, port: u16, more: Value) -> Result<Pilot> {
    let app = service("app", json!({ "port": port, "ttl": 6 }));
    let configuration = with(with(place.clone(), json!({ "services": [app] })), more);
    let pilot = PilotBuilder::new(directory).configured(&configuration).within(namespaces::init_on("web-1"));
    pilot.count_starts(OBEDIENT).start()
}

/// Verifies the lifecycle of two such pilots at a registry. `kept` returns the entries of the service, each with its id
/// and port.
async fn two_live(place: Value, kept: impl AsyncFn() -> Result<Vec<(String, u64)>>) -> Result {
    let scratch = tempfile::Builder::new().prefix("ochopod-same-").tempdir()?;
    let start = |name: &str, port| app(&scratch.path().join(name), &place, port, json!({}));
    let wait_entries = async |what: &str, expected: &[(&str, u64)]| {
        eventually(what, DEFAULT_TIMEOUT * 2, async || {
            let mut kept = kept().await?;
            kept.sort();
            let found: Vec<_> = kept.iter().map(|(id, port)| (id.as_str(), *port)).collect();
            ensure!(found == expected, "kept is {kept:?}");
            Ok(())
        })
        .await
    };
    let (first, second) = (("app-web-1", 8080), ("app-web-1-127.0.0.1-8081", 8081));

    let one = start("one", 8080)?;
    wait_entries("the first is registered under the usual id", &[first]).await?;
    let mut other = start("two", 8081)?;
    wait_entries("the second is registered too", &[first, second]).await?;
    consistently("both stay", STEADY, async || {
        ensure!(kept().await?.len() == 2, "kept is {:?}", kept().await?);
        Ok(())
    })
    .await?;
    let registered = "service app registered";
    ensure!(
        one.count_log(registered)? <= 1 && other.count_log(registered)? <= 1,
        "it is registered again and again: {}",
        one.log()?
    );
    other.wait_log("app: another process on this host registers app-web-1").await?;

    // It crashes and starts again: it replaces its old entry, in addition to the other pilot's.
    other.kill9().await?;
    let mut other = start("three", 8081)?;
    other.wait_log("service app registered").await?;
    wait_entries("it replaces what it left behind", &[first, second]).await?;

    // The same address and the same port.
    let mut third = start("four", 8081)?;
    third
        .wait_log("service app not registered: another process on this host registers app-web-1-127.0.0.1-8081")
        .await?;
    wait_entries("nothing changes", &[first, second]).await?;
    third.term()?;
    ensure!(third.exit_code().await? == 0, "it did not end with code 0");
    wait_entries("the one that was not registered removes nothing", &[first, second]).await?;

    let mut fourth = start("five", 8081)?;
    fourth.wait_log("service app not registered").await?;
    other.term()?;
    ensure!(other.exit_code().await? == 0, "it did not end with code 0");
    wait_entries("the one that waited takes over", &[first, second]).await?;
    fourth.wait_log("service app registered").await?;
    fourth.term()?;
    ensure!(fourth.exit_code().await? == 0, "it did not end with code 0");
    wait_entries("the first stays", &[first]).await
}

#[tokio::test]
async fn both_are_registered_in_consul() -> Result {
    let pilot_env = PilotEnv::new().await?;
    two_live(pilot_env.with_registry(json!({})), async || {
        let services = pilot_env.consul.services();
        let known = services.as_object().into_iter().flatten().map(|(_, known)| known);
        Ok(known.map(|known| (text(&known["ID"]), known["Port"].as_u64().unwrap_or_default())).collect())
    })
    .await
}

#[tokio::test]
async fn both_are_registered_in_etcd() -> Result {
    let etcd = Etcd::shared().await?;
    let place = json!({ "etcd": { "endpoints": [etcd.url()], "prefix": "/same-v3" } });
    two_live(place, async || {
        let found = etcd.client()?.get_prefix("/same-v3/app/").await?;
        found.iter().map(|entry| Ok(instance(&serde_json::from_slice(&entry.value)?))).collect()
    })
    .await
}

#[tokio::test]
async fn both_are_registered_in_zookeeper() -> Result {
    let env = TestEnv::new().await?;
    let place = json!({ "zookeeper": format!("zk://{}", env.store().connect_string()) });
    two_live(place, async || {
        let mut entries = Vec::new();
        for name in env.store().children("/ochopod/services/app").await? {
            entries.push(instance(&env.store().json(&format!("/ochopod/services/app/{name}")).await?));
        }
        Ok(entries)
    })
    .await
}

fn instance(entry: &Value) -> (String, u64) {
    (text(&entry["id"]), entry["port"].as_u64().unwrap_or_default())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_pilot_whose_pre_start_fails_removes_nothing_of_another_one() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let place = pilot_env.with_registry(json!({}));
    let _one = app(&pilot_env.scratch().join("one"), &place, 8080, json!({}))?;
    pilot_env.wait_status("app", "passing").await?;
    let mut other = app(&pilot_env.scratch().join("two"), &place, 8081, json!({ "preStart": "false" }))?;
    ensure!(other.exit_code().await? == 1, "its code is not that of preStart");
    pilot_env.is("app", "passing")?;
    ensure!(
        pilot_env.calls("/deregister/app-web-1").iter().all(|&at| pilot_env.consul.calls()[at].path.ends_with("8081"))
    );
    Ok(())
}

#[tokio::test]
async fn the_id_changes_with_a_port_that_a_reload_changes() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let place = pilot_env.with_registry(json!({}));
    let _one = app(&pilot_env.scratch().join("one"), &place, 8080, json!({}))?;
    pilot_env.wait_status("app", "passing").await?;
    let other = app(&pilot_env.scratch().join("two"), &place, 8081, json!({}))?;
    let ids = || -> Vec<String> {
        pilot_env.consul.services().as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect()
    };
    let become_ = async |expected: &[&str]| {
        eventually("the ids are as they should be", DEFAULT_TIMEOUT, async || {
            ensure!(ids() == expected, "they are {:?}", ids());
            Ok(())
        })
        .await
    };
    become_(&["app-web-1", "app-web-1-127.0.0.1-8081"]).await?;
    let moved = json!({ "services": [service("app", json!({ "port": 8082, "ttl": 6 }))] });
    other.reload(&with(place, moved))?;
    become_(&["app-web-1", "app-web-1-127.0.0.1-8082"]).await
}
