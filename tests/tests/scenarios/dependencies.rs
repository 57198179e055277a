//! Clusters that depend on others.

use std::time::Duration;

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, NodeLifetime, Pod, PodBuilder, Result, TestEnv, consistently, eventually};
use serde_json::{Value, json};

use crate::pod;

fn member(env: &TestEnv, cluster: &str) -> PodBuilder {
    pod(env).set("cluster", cluster)
}

fn dependant(env: &TestEnv, on: &str) -> PodBuilder {
    member(env, "web").set("set_depends_on", on)
}

/// Waits until the configuration of `web` has exactly these pods of a dependency.
async fn sees(env: &TestEnv, dependency: &str, pods: &[&Pod]) -> Result {
    eventually("the dependants are configured", DEFAULT_TIMEOUT, async || {
        let mut keys = Vec::new();
        for pod in pods {
            keys.push(pod.client().info().await?["key"].as_str().unwrap_or_default().to_owned());
        }
        keys.sort();
        let cluster = env.cluster("web");
        let view = cluster.store().json(&cluster.path("view")).await?;
        let seen = view["dependencies"][dependency].as_object().cloned().unwrap_or_default();
        let seen: Vec<String> = seen.keys().cloned().collect();
        ensure!(seen == keys, "seen are {seen:?} instead of {keys:?}");
        let hash = cluster.hash().await?;
        ensure!(!hash.starts_with("pending:"), "a configuration is in progress");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dependency_that_appears_late_restarts_its_dependants_once() -> Result {
    let env = TestEnv::new().await?;
    let (web, other) = (dependant(&env, "db").start()?, dependant(&env, "db").start()?);
    env.cluster("web").wait_formed(&[&web, &other]).await?;
    let db = member(&env, "db").start()?;
    sees(&env, "db", &[&db]).await?;
    for pod in [&web, &other] {
        pod.started(2).await?;
    }
    consistently("nothing is started again", Duration::from_secs(2), async || {
        ensure!(web.starts()?.len() == 2 && other.starts()?.len() == 2, "started again");
        Ok(())
    })
    .await?;
    let info = web.client().info().await?;
    ensure!(info["dependencies"] == json!(["db"]), "dependencies are {}", info["dependencies"]);
    Ok(())
}

#[tokio::test]
async fn names_are_relative_absolute_or_globs() -> Result {
    let env = TestEnv::new().await?;
    let near = member(&env, "db-1").start()?;
    let far = member(&env, "db-2").set("namespace", "far.away").start()?;
    let web = dependant(&env, "db-1,/far.away.db-2,db-*,/*.db-*").start()?;
    env.cluster("web").wait_formed(&[&web]).await?;
    sees(&env, "db-1", &[&near]).await?;
    sees(&env, "/far.away.db-2", &[&far]).await?;
    sees(&env, "db-*", &[&near]).await?;
    sees(&env, "/*.db-*", &[&near, &far]).await?;
    Ok(())
}

#[tokio::test]
async fn a_glob_takes_in_clusters_that_appear_and_never_its_own() -> Result {
    let env = TestEnv::new().await?;
    let web = dependant(&env, "*").start()?;
    env.cluster("web").wait_formed(&[&web]).await?;
    sees(&env, "*", &[]).await?;
    let first = member(&env, "one").start()?;
    sees(&env, "*", &[&first]).await?;
    let second = member(&env, "two").start()?;
    sees(&env, "*", &[&first, &second]).await?;
    Ok(())
}

#[tokio::test]
async fn a_new_leader_of_a_dependency_does_not_restart_its_dependants() -> Result {
    let env = TestEnv::new().await?;
    let mut dbs = Vec::new();
    for _ in 0..2 {
        dbs.push(member(&env, "db").set("session", "2").start()?);
    }
    let leader = env.cluster("db").wait_formed(&[&dbs[0], &dbs[1]]).await?;
    let web = dependant(&env, "db").start()?;
    sees(&env, "db", &[&dbs[0], &dbs[1]]).await?;
    web.started(1).await?;
    let starts = web.starts()?.len();
    let mut killed = dbs.remove(leader);
    killed.kill9().await?;
    sees(&env, "db", &[&dbs[0]]).await?;
    web.started(starts + 1).await?;
    consistently("the change restarts it once", Duration::from_secs(3), async || {
        ensure!(web.starts()?.len() == starts + 1, "started {} times", web.starts()?.len() - starts);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dependency_that_is_gone_permanently_becomes_empty() -> Result {
    let env = TestEnv::new().await?;
    let mut db = member(&env, "db").start()?;
    let _web = dependant(&env, "db").start()?;
    sees(&env, "db", &[&db]).await?;
    db.term()?;
    db.exit_code().await?;
    sees(&env, "db", &[]).await
}

#[tokio::test]
async fn a_pod_that_joins_while_a_dependency_is_unsettled_is_not_configured_from_its_last_pods() -> Result {
    let env = TestEnv::new().await?;
    let mut db = member(&env, "db").start()?;
    env.cluster("db").wait_formed(&[&db]).await?;
    // The session is long enough to see the wait.
    let web = || dependant(&env, "db").set("session", "4");
    let first = web().start()?;
    sees(&env, "db", &[&db]).await?;
    first.started(1).await?;
    let starts = first.starts()?.len();
    db.term()?;
    db.exit_code().await?;
    let second = web().start()?;
    let waits = eventually("the status reports it", DEFAULT_TIMEOUT, async || {
        let info = first.client().info().await?;
        let status = info["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.starts_with("* waiting for dependency db to settle: "), "the status is {status:?}");
        ensure!(second.starts()?.is_empty(), "it was configured");
        ensure!(first.starts()?.len() == starts, "a running pod was restarted");
        Ok(())
    });
    waits.await?;
    sees(&env, "db", &[]).await?;
    second.started(1).await?;
    first.started(starts + 1).await?;
    ensure!(second.starts()?.len() == 1, "it was started {} times", second.starts()?.len());
    Ok(())
}

#[tokio::test]
async fn clusters_that_depend_on_each_other_recover_when_all_their_leaders_are_gone() -> Result {
    let env = TestEnv::new().await?;
    let each = |cluster: &str, on: &str| member(&env, cluster).set("set_depends_on", on).set("session", "2").start();
    let mut pods = [each("web", "db")?, each("db", "web")?];
    sees(&env, "db", &[&pods[1]]).await?;
    for pod in &mut pods {
        pod.kill9().await?;
    }
    let pods = [each("web", "db")?, each("db", "web")?];
    for pod in &pods {
        pod.wait_info("process", "running").await?;
    }
    sees(&env, "db", &[&pods[1]]).await
}

#[tokio::test]
async fn the_python_sdks_snapshot_is_a_dependency_too() -> Result {
    let env = TestEnv::new().await?;
    let python = json!({ "5f3c": { "node": "n", "application": "", "task": "", "seq": 0, "fwk": "marathon (debug)",
        "ip": "10.0.0.1", "zk": "127.0.0.1:2181", "namespace": "marathon", "public": "10.0.0.1", "cluster": "db",
        "start": "true", "debug": "true", "local": "true", "port": "8080", "ports": { "8080": 31000 } } });
    let cluster = env.cluster("db");
    cluster.store().create(&cluster.path("snapshot"), python.to_string().as_bytes(), NodeLifetime::Session).await?;
    let _web = dependant(&env, "db").start()?;
    eventually("it is seen", DEFAULT_TIMEOUT, async || {
        let web = env.cluster("web");
        let view = web.store().json(&web.path("view")).await?;
        ensure!(view["dependencies"]["db"] == python, "the view has {}", view["dependencies"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn garbage_in_a_dependency_is_skipped_and_crashes_no_pod() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("db");
    cluster.store().create(&cluster.path("snapshot"), b"\xff{garbage", NodeLifetime::Session).await?;
    let web = dependant(&env, "db").start()?;
    env.cluster("web").wait_formed(&[&web]).await?;
    let view: Value = env.cluster("web").store().json(&env.cluster("web").path("view")).await?;
    ensure!(view["dependencies"] == json!({ "db": {} }), "the view has {}", view["dependencies"]);
    Ok(())
}

#[tokio::test]
async fn a_dependency_that_is_no_name_is_bad_usage() -> Result {
    let env = TestEnv::new().await?;
    for bad in ["a/b", "db-["] {
        let mut pod = dependant(&env, bad).start()?;
        ensure!(pod.exit_code().await? == 64, "it did not exit with code 64");
        let console = pod.console()?;
        ensure!(console.contains(bad), "unexpected output {console}");
    }
    Ok(())
}
