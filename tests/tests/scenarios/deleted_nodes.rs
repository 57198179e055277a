//! Nodes that other clients delete or overwrite in ZooKeeper are restored, and nothing is restarted.

use std::time::Duration;

use anyhow::{Context, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, NodeLifetime, Pod, Result, TestEnv, consistently, eventually};
use serde_json::Value;
use zookeeper_client::{Client, Error};

use crate::pod;

/// Deletes a node and everything below it, as `deleteall` of `zkCli.sh` does, while pods create nodes there.
async fn delete_all(client: &Client, path: &str) -> Result {
    loop {
        let names = match client.list_children(path).await {
            Ok(names) => names,
            Err(Error::NoNode) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for name in names {
            Box::pin(delete_all(client, &format!("{path}/{name}"))).await?;
        }
        match client.delete(path, None).await {
            Ok(()) | Err(Error::NoNode) => return Ok(()),
            Err(Error::NotEmpty) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn wait_formed(env: &TestEnv, pods: &[&Pod]) -> Result {
    env.cluster("default").wait_formed(pods).await.map(drop)
}

#[tokio::test]
async fn a_cluster_whose_chroot_is_deleted_forms_again_immediately_and_accepts_new_pods() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, pod).await?;
    let root = Client::connect(&env.zookeeper().address().to_string()).await?;
    let cluster = env.cluster("default");
    let nodes = ["pods", "coordinator", ""].map(|node| cluster.path(node).trim_end_matches('/').to_owned());
    let nodes = nodes.map(|node| format!("{}{node}", env.store().chroot()));
    let chroot = env.store().chroot().to_owned();
    for deleted in nodes.iter().chain([&format!("{chroot}/ochopod/clusters"), &format!("{chroot}/ochopod"), &chroot]) {
        delete_all(&root, deleted).await.with_context(|| format!("cannot delete {deleted}"))?;
        wait_formed(&env, &[&pods[0], &pods[1]]).await.with_context(|| format!("after {deleted} was deleted"))?;
    }
    let newcomer = pod(&env).start()?;
    wait_formed(&env, &[&pods[0], &pods[1], &newcomer]).await?;
    for pod in &pods {
        ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
    }
    Ok(())
}

#[tokio::test]
async fn nodes_of_the_leader_are_restored_without_a_configuration() -> Result {
    let env = TestEnv::new().await?;
    let pods = env.start_cluster(2, pod).await?;
    let (cluster, store) = (env.cluster("default"), env.store());
    let written = async || -> Result<[Value; 3]> {
        let text = |node: &'static str| cluster.path(node);
        let snapshot = store.json(&text("snapshot")).await?;
        Ok([snapshot, store.text(&text("hash")).await?.into(), store.json(&text("view")).await?])
    };
    let before = written().await?;
    let leader = store.owner(&cluster.path("snapshot")).await?;
    for (node, change) in [
        ("snapshot", "delete"),
        ("snapshot", "garbage"),
        ("snapshot", "{}"),
        ("snapshot", "replace"),
        ("hash", "delete"),
        ("hash", "garbage"),
        ("view", "delete"),
        ("view", "garbage"),
    ] {
        let path = cluster.path(node);
        match change {
            "delete" => store.delete(&path).await?,
            "replace" => {
                store.delete(&path).await?;
                // The leader may be faster.
                _ = store.create(&path, b"{}", NodeLifetime::Always).await;
            }
            data => store.set(&path, data.as_bytes()).await?,
        }
        eventually(&format!("{node} is restored after {change}"), DEFAULT_TIMEOUT, async || {
            let now = written().await?;
            ensure!(now == before, "it is {now:?}");
            ensure!(store.owner(&cluster.path("snapshot")).await? == leader, "the snapshot is not the leader's");
            Ok(())
        })
        .await?;
    }
    consistently("it stays", Duration::from_secs(1), async || {
        ensure!(written().await? == before, "it changed");
        Ok(())
    })
    .await?;
    for pod in &pods {
        ensure!(pod.starts()?.len() == 1, "it was started again");
        ensure!(pod.count_log("configuration complete")? <= 2, "it was configured again: {}", pod.console()?);
    }
    Ok(())
}
