//! The same lifecycle at every other registry: etcd by its v3 API and by its v2 keys, and ZooKeeper.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use ochopod_tests::{
    DEFAULT_TIMEOUT, Etcd, Pilot, PilotBuilder, Result, TestEnv, consistently, eventually, namespaces,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    SLEEP,
    pilot_env::{backend, service, sh, with},
};

/// Time for which a service counts as healthy.
const TTL: Duration = Duration::from_secs(6);

/// Verifies the lifecycle of one service at a registry: `place` is the configuration of the registry, `kept` returns
/// its entry of the service `app`.
async fn verify_lifecycle(place: Value, kept: impl AsyncFn() -> Result<Vec<Value>>) -> Result {
    let scratch = tempfile::Builder::new().prefix("ochopod-place-").tempdir()?;
    let watcher = with(place.clone(), json!({ "backends": [backend("app", "echo . >> changes")] }));
    let watcher = PilotBuilder::new(&scratch.path().join("watcher")).configured(&watcher).shell(SLEEP).start()?;
    let wait_entries = async |what: &str, port: Option<u16>| {
        eventually(what, DEFAULT_TIMEOUT * 2, async || {
            let kept = kept().await?;
            let ports: Vec<&Value> = kept.iter().map(|entry| &entry["port"]).collect();
            ensure!(ports.iter().eq(port.map(Value::from).iter().collect::<Vec<_>>().iter()), "kept is {kept:?}");
            Ok(kept)
        })
        .await
    };

    let first = app(&scratch, &place, "first", 8080)?;
    let entries = wait_entries("it is registered", Some(8080)).await?;
    ensure!(entries[0]["id"] == "app-web-1" && entries[0]["name"] == "app", "kept is {entries:?}");
    ensure!(entries[0]["address"] == "127.0.0.1", "kept is {entries:?}");
    watcher.wait_lines("changes", 1).await?;
    consistently("it stays", TTL + Duration::from_secs(1), async || {
        ensure!(kept().await?.len() == 1, "it is gone");
        Ok(())
    })
    .await?;
    fs::write(first.directory().join("sick"), "")?;
    watcher.wait_lines("changes", 2).await?;
    fs::remove_file(first.directory().join("sick"))?;
    watcher.wait_lines("changes", 3).await?;

    // It crashes, and starts again at another port before its TTL has expired.
    let mut first = first;
    first.kill9().await?;
    let mut second = app(&scratch, &place, "second", 8081)?;
    wait_entries("it is registered again", Some(8081)).await?;
    watcher.wait_lines("changes", 4).await?;
    consistently("it stays", TTL + Duration::from_secs(1), async || {
        ensure!(kept().await?.len() == 1, "it is gone");
        Ok(())
    })
    .await?;
    ensure!(watcher.lines("changes").len() == 4, "changes are {:?}", watcher.lines("changes"));
    second.term()?;
    ensure!(second.exit_code().await? == 143, "the code is not the application's");
    ensure!(kept().await?.is_empty(), "it is still registered");
    watcher.wait_lines("changes", 5).await?;

    // A service that crashes permanently is gone after its TTL.
    let mut third = app(&scratch, &place, "third", 8082)?;
    wait_entries("it is registered", Some(8082)).await?;
    third.kill9().await?;
    wait_entries("it is gone", None).await?;
    watcher.wait_lines("changes", 7).await?;
    Ok(())
}

/// Returns the service `app`, healthy unless a file `sick` exists.
fn app(scratch: &TempDir, place: &Value, directory: &str, port: u16) -> Result<Pilot> {
    let configuration = with(place.clone(), services(port));
    let pilot = PilotBuilder::new(&scratch.path().join(directory)).configured(&configuration);
    pilot.within(namespaces::init_on("web-1")).shell(SLEEP).start()
}

fn services(port: u16) -> Value {
    let app = json!({ "port": port, "ttl": TTL.as_secs(), "health": sh("test ! -e sick"), "timeout": "5s" });
    json!({ "services": [service("app", app)] })
}

#[tokio::test]
async fn etcd_keeps_services() -> Result {
    let etcd = Etcd::shared().await?;
    let place = json!({ "etcd": { "endpoints": [etcd.url()], "prefix": "/scenario-v3" } });
    verify_lifecycle(place, async || {
        let found = etcd.client()?.get_prefix("/scenario-v3/app/").await?;
        found.iter().map(|entry| Ok(serde_json::from_slice(&entry.value)?)).collect()
    })
    .await
}

#[tokio::test]
async fn the_old_keys_of_etcd_keep_services() -> Result {
    let etcd = Etcd::shared().await?;
    let keys = etcd.keys()?;
    let place = json!({ "etcd": { "endpoints": etcd.url(), "prefix": "/scenario-v2", "version": 2 } });
    verify_lifecycle(place, async || {
        let reply = keys.get("/v2/keys/scenario-v2/app?recursive=true").await?;
        let found: Value = serde_json::from_slice(&reply.body)?;
        let instances = found["node"]["nodes"].as_array().cloned().unwrap_or_default();
        let services = instances.iter().filter_map(|instance| {
            let keys = instance["nodes"].as_array()?;
            keys.iter().find(|key| key["key"].as_str().is_some_and(|key| key.ends_with("/service")))
        });
        services.map(|key| Ok(serde_json::from_str(key["value"].as_str().context("no value")?)?)).collect()
    })
    .await
}

#[tokio::test]
async fn zookeeper_keeps_services() -> Result {
    let env = TestEnv::new().await?;
    let place = json!({ "zookeeper": format!("zk://{}", env.store().connect_string()) });
    verify_lifecycle(place, async || {
        let mut entries = Vec::new();
        for name in env.store().children("/ochopod/services/app").await? {
            entries.push(env.store().json(&format!("/ochopod/services/app/{name}")).await?);
        }
        Ok(entries)
    })
    .await
}

#[tokio::test]
async fn zookeeper_keeps_services_while_a_reload_changes_the_access() -> Result {
    let env = TestEnv::new().await?;
    let address = format!("zk://{}", env.store().connect_string());
    let scratch = tempfile::Builder::new().prefix("ochopod-access-").tempdir()?;
    let watcher = json!({ "zookeeper": address, "backends": [backend("app", "echo . >> changes")] });
    let watcher = PilotBuilder::new(&scratch.path().join("watcher")).configured(&watcher).shell(SLEEP).start()?;
    let pilot = app(&scratch, &json!({ "zookeeper": address }), "pilot", 8080)?;
    watcher.wait_lines("changes", 1).await?;
    let path = "/ochopod/services/app/app-web-1";
    let former = env.store().owner(path).await?;
    let other = json!({ "zookeeper": { "address": address, "strict": false } });
    pilot.reload(&with(other, services(8080)))?;
    eventually("another session owns the node", DEFAULT_TIMEOUT, async || {
        ensure!(env.store().owner(path).await? != former, "it does not");
        Ok(())
    })
    .await?;
    consistently("it stays", TTL + Duration::from_secs(1), async || {
        env.store().owner(path).await?;
        ensure!(watcher.lines("changes").len() == 1, "the watcher saw it vanish");
        Ok(())
    })
    .await
}
