//! Nodes of other clients in the store that must have no effect.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, NodeLifetime, Result, TestEnv, consistently, eventually};
use serde_json::json;

use crate::{leader_with_fakes::configured, pod};

#[tokio::test]
async fn invalid_registrations_are_skipped() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let deep = "[".repeat(100_000);
    let payloads: [&[u8]; 9] = [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"{}",
        b"{\"seq\":\"0\",\"ip\":\"127.0.0.9\",\"port\":\"1\"}",
        b"{\"seq\":-1,\"ip\":\"127.0.0.9\",\"port\":\"1\"}",
        b"\xff\xfe\x00",
        deep.as_bytes(),
    ];
    for payload in payloads {
        let key = uuid::Uuid::new_v4();
        cluster.store().create(&cluster.path(&format!("pods/{key}.")), payload, NodeLifetime::SessionNumbered).await?;
    }
    for name in ["no-number", ".0000000001", "x.y.z"] {
        let payload = json!({ "seq": 3, "ip": "127.0.0.9", "port": "1" }).to_string();
        cluster
            .store()
            .create(&cluster.path(&format!("pods/{name}")), payload.as_bytes(), NodeLifetime::Session)
            .await?;
    }
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    ensure!(cluster.snapshot().await?.len() == 1, "the snapshot has {:?}", cluster.snapshot().await?);
    Ok(())
}

#[tokio::test]
async fn a_peer_without_a_usable_address_is_excluded_by_name_and_delays_no_pod() -> Result {
    let hostile = [
        json!({ "seq": 0, "ip": "127.0.0.9" }),
        json!({ "seq": 0, "ip": "127.0.0.9", "port": "0" }),
        json!({ "seq": 0, "ip": "127.0.0.9", "port": { "nested": [] } }),
        json!({ "seq": 0, "ip": "127.0.0.9", "port": "8080", "ports": { "8080": "x" } }),
        json!({ "seq": 0, "port": "8080" }),
        json!({ "seq": 0, "ip": "", "port": "8080" }),
        json!({ "seq": 0, "ip": "user@evil/path?x#", "port": "8080" }),
        json!({ "seq": 0, "ip": "127.0.0.9\r\nX-Evil: yes", "port": "8080" }),
        json!({ "seq": 0, "ip": ["127.0.0.9"], "port": "8080" }),
        json!({ "seq": 0, "ip": "127.0.0.9:80", "port": "8080" }),
        json!({ "seq": 0, "ip": "fe80::1%lo", "port": "8080" }),
        json!({ "seq": 0, "ip": "0.0.0.0", "port": "8080" }),
        json!({ "seq": 0, "ip": "127.1", "port": "8080" }),
    ];
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let peer = cluster.fake_pod().await?;
    peer.register_as(hostile[0].to_string().as_bytes()).await?;
    let pod = pod(&env).start()?;
    for registration in hostile {
        peer.register_as(registration.to_string().as_bytes()).await?;
        let expected = format!("* excluded, no usable address: pod {}: its ", peer.key());
        eventually("the status names it", DEFAULT_TIMEOUT, async || {
            let info = pod.client().info().await?;
            let status = info["status"].as_str().unwrap_or_default().to_owned();
            ensure!(info["state"] == "leader" && status.starts_with(&expected), "the status is {status:?}");
            ensure!(!status.contains(['\r', '\n']), "the status breaks lines: {status:?}");
            Ok(())
        })
        .await
        .with_context(|| registration.to_string())?;
    }
    configured(&pod).await?;
    pod.started(1).await?;
    ensure!(pod.starts()?.len() == 1 && peer.tasks().is_empty(), "it received {:?}", peer.tasks());
    ensure!(cluster.snapshot().await?.len() == 1, "the snapshot has {:?}", cluster.snapshot().await?);
    peer.register_as(peer_registration(&env, peer.seq()).as_bytes()).await?;
    eventually("it is configured", DEFAULT_TIMEOUT, async || peer.last("on")).await?;
    eventually("the status is clear", DEFAULT_TIMEOUT, async || {
        let info = pod.client().info().await?;
        ensure!(info["status"] == "", "the status is {}", info["status"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_peers_with_one_number_hold_or_form_but_crash_no_pod() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let (first, second) = (cluster.fake_pod().await?, cluster.fake_pod().await?);
    let twin = json!({ "seq": first.seq(), "ip": "127.0.0.3", "port": env.port().to_string(), "ports": {} });
    second.register_as(twin.to_string().as_bytes()).await?;
    let mut pod = pod(&env).start()?;
    eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await.map(drop)).await?;
    consistently("it keeps answering", Duration::from_secs(3), async || pod.client().info().await.map(drop)).await?;
    ensure!(pod.is_up()?, "it crashed");
    second.leave().await?;
    configured(&pod).await
}

#[tokio::test]
async fn a_registration_of_a_mebibyte_is_refused_by_name_or_survived() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    let peer = cluster.fake_pod().await?;
    let mut fat = json!({ "seq": 7, "ip": "127.0.0.3", "port": env.port().to_string(), "ports": {} });
    // Random text: anything else would be compressed to little.
    let bytes = (0..62_500).flat_map(|_| uuid::Uuid::new_v4().into_bytes());
    fat["fat"] = bytes.map(|byte| char::from(b'#' + byte % 90)).collect::<String>().into();
    peer.register_as(fat.to_string().as_bytes()).await?;
    let short = peer.key().get(..4).unwrap_or_default();
    eventually("the status names it", DEFAULT_TIMEOUT, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.contains(short), "the status is {status:?}");
        Ok(())
    })
    .await?;
    pod.started(1).await?;
    ensure!(pod.starts()?.len() == 1, "its process was restarted");
    peer.leave().await?;
    configured(&pod).await
}

#[tokio::test]
async fn hostile_texts_reach_only_the_view() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let peer = cluster.fake_pod().await?;
    let text = "\u{1b}[31m\r\nX-Evil: yes\u{0}\u{202e}'; rm -rf / #$(reboot)";
    let hostile = json!({ "seq": peer.seq(), "ip": "127.0.0.2", "port": env.port().to_string(), "ports": {
        "abc": "def", "-1": -1, "99999": 1, "1": null }, "status": text, "node": text, "task": [text], text: text });
    peer.register_as(hostile.to_string().as_bytes()).await?;
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    let view = peer.last("on")?.body["pods"][peer.key()].clone();
    ensure!(view == hostile, "unknown keys were not kept: {view}");
    let console = pod.wait_log("configuration complete").await?;
    ensure!(!console.contains("\u{1b}[31m") && !console.contains("\nX-Evil"), "the log was forged: {console}");
    Ok(())
}

#[tokio::test]
async fn of_two_registrations_of_one_pod_the_later_counts() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let peer = cluster.fake_pod().await?;
    let old = json!({ "seq": peer.seq(), "ip": "127.0.0.250", "port": "1", "ports": {} }).to_string();
    let later = peer_registration(&env, peer.seq());
    peer.register_as(old.as_bytes()).await?;
    let path = cluster.path(&format!("pods/{}.", peer.key()));
    cluster.store().create(&path, later.as_bytes(), NodeLifetime::SessionNumbered).await?;
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    ensure!(cluster.snapshot().await?.len() == 2, "the snapshot has {:?}", cluster.snapshot().await?);
    ensure!(peer.tasks().contains(&"on".to_owned()), "the later one received no request: {:?}", peer.tasks());
    Ok(())
}

fn peer_registration(env: &TestEnv, seq: u64) -> String {
    json!({ "seq": seq, "ip": "127.0.0.2", "port": env.port().to_string(), "ports": {} }).to_string()
}

#[tokio::test]
async fn garbage_in_the_nodes_of_the_leader_is_overwritten() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    for node in ["hash", "view"] {
        cluster.store().create(&cluster.path(node), b"\xff garbage {", NodeLifetime::Always).await?;
    }
    cluster.store().create(&cluster.path("snapshot"), b"garbage", NodeLifetime::Session).await?;
    cluster.store().create(&cluster.path("coordinator/garbage"), b"", NodeLifetime::Session).await?;
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    ensure!(cluster.snapshot().await?.len() == 1, "the snapshot was not replaced");
    ensure!(cluster.store().json(&cluster.path("view")).await?["pods"].is_object(), "the view was not replaced");
    Ok(())
}

#[tokio::test]
async fn a_registration_that_another_client_deletes_is_created_again() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    let before = pod.client().info().await?;
    let name = cluster.registered().await?.pop().context("no pod is registered")?;
    cluster.store().delete(&cluster.path(&format!("pods/{name}"))).await?;
    eventually("it is registered again", DEFAULT_TIMEOUT, async || {
        ensure!(cluster.registered().await?.len() == 1, "not one registration");
        Ok(())
    })
    .await?;
    let after = pod.client().info().await?;
    ensure!(before["key"] == after["key"] && before["seq"] == after["seq"], "{before} became {after}");
    configured(&pod).await?;
    pod.started(1).await?;
    ensure!(pod.starts()?.len() == 1, "it was restarted");
    Ok(())
}

#[tokio::test]
async fn a_lock_that_another_client_deletes_is_contended_for_again() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let pod = pod(&env).start()?;
    configured(&pod).await?;
    let lock = cluster.contenders().await?.pop().context("no pod leads")?;
    cluster.store().delete(&cluster.path(&format!("coordinator/{lock}"))).await?;
    eventually("it contends again", DEFAULT_TIMEOUT, async || {
        ensure!(cluster.contenders().await?.len() == 1, "not one contender");
        Ok(())
    })
    .await?;
    configured(&pod).await?;
    pod.started(1).await?;
    ensure!(pod.starts()?.len() == 1, "it was restarted");
    Ok(())
}
