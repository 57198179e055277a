//! The redis plugin with real redis servers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ochopod_tests::{
    DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, ZooKeeper, artifacts, eventually, free_port, redis,
};

/// Returns an environment whose redis servers have a port of their own.
struct Servers {
    env: TestEnv,
    port: u16,
    grants: &'static [&'static str],
}

impl Servers {
    async fn on(zookeeper: Arc<ZooKeeper>) -> Result<Self> {
        let (env, port) = (TestEnv::with_zookeeper(zookeeper).await?, free_port()?);
        Ok(Self { env, port, grants: &["--net", "peers"] })
    }

    async fn new() -> Result<Self> {
        Self::on(ZooKeeper::shared().await?).await
    }

    fn pod(&self) -> Result<PodBuilder> {
        let redis = artifacts::plugin("redis")?;
        let pod = self.env.pod(&redis).env("PORT_6379", self.port).flags(self.grants.iter().copied());
        Ok(pod.set("session", "2").set("set_probe_every", "1").set("set_check_every", "1").set("set_grace", "10"))
    }

    async fn start_cluster(&self, count: usize) -> Result<Vec<Pod>> {
        let pods = (0..count).map(|_| self.pod()?.start()).collect::<Result<Vec<Pod>>>()?;
        self.replicating(&pods).await?;
        Ok(pods)
    }

    fn server(&self, pod: &Pod) -> String {
        format!("{}:{}", pod.address(), self.port)
    }

    async fn run_id(&self, pod: &Pod) -> Result<String> {
        let info = redis::info(&self.server(pod), "server").await?;
        Ok(info.get("run_id").context("no run_id")?.clone())
    }

    async fn run_ids(&self, pods: &[Pod]) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for pod in pods {
            ids.push(self.run_id(pod).await?);
        }
        Ok(ids)
    }

    /// Waits until one is a primary that all others replicate, and all publish their roles. Returns the position of the primary.
    async fn replicating(&self, pods: &[Pod]) -> Result<usize> {
        eventually("one primary, the others replicate it", DEFAULT_TIMEOUT * 2, async || {
            let (mut replication, mut roles) = (Vec::new(), Vec::new());
            for pod in pods {
                replication.push(redis::info(&self.server(pod), "replication").await?);
                roles.push(pod.client().info().await?["role"].clone());
            }
            let is_primary = |role: &serde_json::Value| role == "primary";
            let primary = roles.iter().position(is_primary).with_context(|| format!("the roles are {roles:?}"))?;
            for (position, info) in replication.iter().enumerate() {
                let expected = if position == primary { "primary" } else { "replica" };
                ensure!(roles[position] == expected, "the roles are {roles:?}");
                let has = |key: &str, value: &str| info.get(key).is_some_and(|found| found == value);
                if position == primary {
                    let replicas = (pods.len() - 1).to_string();
                    ensure!(has("role", "master") && has("connected_slaves", &replicas), "the primary has {info:?}");
                } else {
                    let follows = has("master_host", pods[primary].address()) && has("master_link_status", "up");
                    ensure!(has("role", "slave") && follows, "a replica has {info:?}");
                }
            }
            Ok(primary)
        })
        .await
    }

    /// Checks that data written to the primary arrives at all replicas.
    async fn write(&self, pods: &[Pod], value: &str) -> Result {
        let primary = self.replicating(pods).await?;
        redis::request(&self.server(&pods[primary]), &["SET", "key", value]).await?;
        eventually("all have it", DEFAULT_TIMEOUT, async || self.have(pods, value).await).await
    }

    /// Checks that all pods have this value.
    async fn have(&self, pods: &[Pod], value: &str) -> Result {
        for pod in pods {
            let found = redis::request(&self.server(pod), &["GET", "key"]).await?;
            ensure!(found == value, "{} has {found:?}", pod.address());
        }
        Ok(())
    }
}

#[tokio::test]
async fn three_pods_replicate_and_a_fourth_joins_without_a_restart() -> Result {
    let servers = Servers::new().await?;
    let mut pods = servers.start_cluster(3).await?;
    servers.write(&pods, "first").await?;
    let before = servers.run_ids(&pods).await?;
    pods.push(servers.pod()?.start()?);
    servers.replicating(&pods).await?;
    ensure!(servers.run_ids(&pods[..3]).await? == before, "a redis was restarted");
    servers.write(&pods, "second").await
}

#[tokio::test]
async fn another_primary_takes_over_when_the_leader_is_killed() -> Result {
    let servers = Servers::new().await?;
    let mut pods = servers.start_cluster(3).await?;
    servers.write(&pods, "kept").await?;
    let leader = servers.env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    let mut killed = pods.remove(leader);
    let before = servers.run_ids(&pods).await?;
    let orphan = servers.server(&killed);
    killed.kill9().await?;
    eventually("its redis goes with it", DEFAULT_TIMEOUT, async || {
        ensure!(redis::request(&orphan, &["PING"]).await.is_err(), "it still answers");
        Ok(())
    })
    .await?;
    let begin = Instant::now();
    servers.env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    servers.replicating(&pods).await?;
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    ensure!(servers.run_ids(&pods).await? == before, "a redis was restarted");
    for pod in &pods {
        let found = redis::request(&servers.server(pod), &["GET", "key"]).await?;
        ensure!(found == "kept", "{} has {found:?}", pod.address());
    }
    servers.write(&pods, "new").await
}

/// The host starts redis again, without data.
#[tokio::test]
async fn data_survives_each_crash_of_the_redis_of_the_primary() -> Result {
    let servers = Servers::new().await?;
    let pods = servers.start_cluster(3).await?;
    servers.write(&pods, "kept").await?;
    for _ in 0..4 {
        let primary = servers.replicating(&pods).await?;
        let before = servers.run_id(&pods[primary]).await?;
        let info = redis::info(&servers.server(&pods[primary]), "server").await?;
        kill(Pid::from_raw(info["process_id"].parse()?), Signal::SIGKILL)?;
        eventually("it runs again", DEFAULT_TIMEOUT, async || {
            ensure!(servers.run_id(&pods[primary]).await? != before, "it is the same process");
            Ok(())
        })
        .await?;
        let now = servers.replicating(&pods).await?;
        ensure!(now != primary, "the redis without data is the primary again");
        eventually("all have the data", DEFAULT_TIMEOUT, async || servers.have(&pods, "kept").await).await?;
    }
    servers.env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    servers.write(&pods, "new").await
}

#[tokio::test]
async fn a_primary_that_returns_becomes_a_replica_and_no_write_is_lost() -> Result {
    let servers = Servers::new().await?;
    let pods = servers.start_cluster(3).await?;
    servers.write(&pods, "first").await?;
    // Twice, so that the pod that returns is the oldest, and then one that is younger than the primary.
    for value in ["second", "third"] {
        let old = servers.replicating(&pods).await?;
        let cordon = serde_json::json!({ "reason": "test" });
        pods[old].client().post_json("/control/cordon", &cordon).await?.json(200)?;
        let rest: Vec<usize> = (0..pods.len()).filter(|position| *position != old).collect();
        let new = eventually("another primary", DEFAULT_TIMEOUT, async || {
            for position in &rest {
                let info = redis::info(&servers.server(&pods[*position]), "replication").await?;
                if info["role"] == "master" && info["connected_slaves"] == "1" {
                    return Ok(*position);
                }
            }
            anyhow::bail!("no other primary")
        })
        .await?;
        redis::request(&servers.server(&pods[new]), &["SET", "key", value]).await?;
        redis::request(&servers.server(&pods[old]), &["SET", "key", "lost"]).await?;
        pods[old].client().post("/control/uncordon").await?.json(200)?;
        let primary = servers.replicating(&pods).await?;
        ensure!(primary == new, "pod {primary} is the primary, expected pod {new}");
        servers.have(&pods, value).await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_the_network_of_peers_one_pod_is_the_primary_after_another_returns() -> Result {
    let servers = Servers { grants: &[], ..Servers::new().await? };
    let pods = servers.start_cluster(3).await?;
    let old = servers.replicating(&pods).await?;
    pods[old].client().post_json("/control/cordon", &serde_json::json!({ "reason": "test" })).await?.json(200)?;
    eventually("another primary", DEFAULT_TIMEOUT, async || {
        for (position, pod) in pods.iter().enumerate().filter(|(position, _)| *position != old) {
            if pod.client().info().await?["role"] == "primary" {
                return Ok(position);
            }
        }
        anyhow::bail!("no other primary")
    })
    .await?;
    pods[old].client().post("/control/uncordon").await?.json(200)?;
    servers.replicating(&pods).await?;
    servers.write(&pods, "after").await
}

#[tokio::test]
async fn an_outage_of_zookeeper_restarts_no_redis() -> Result {
    let servers = Servers::on(Arc::new(ZooKeeper::own().await?)).await?;
    let pods = servers.start_cluster(3).await?;
    let before = servers.run_ids(&pods).await?;
    servers.env.zookeeper().stop()?;
    for pod in &pods {
        pod.wait_info("session", "lost").await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    servers.write(&pods, "meanwhile").await?;
    servers.env.zookeeper().start().await?;
    servers.env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    servers.replicating(&pods).await?;
    ensure!(servers.run_ids(&pods).await? == before, "a redis was restarted");
    Ok(())
}

#[tokio::test]
async fn metrics_status_and_signals_describe_the_servers() -> Result {
    let servers = Servers::new().await?;
    let pods = servers.start_cluster(3).await?;
    let leader = servers.env.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
    let primary = servers.replicating(&pods).await?;
    eventually("the status counts the replicas", DEFAULT_TIMEOUT, async || {
        let status = pods[leader].client().info().await?["status"].clone();
        ensure!(status.as_str().is_some_and(|status| status.contains("2 replicas")), "the status is {status}");
        Ok(())
    })
    .await?;
    eventually("metrics are real", DEFAULT_TIMEOUT, async || {
        let metrics = pods[primary].client().info().await?["metrics"].clone();
        ensure!(metrics["role"] == "primary" && metrics["connected_replicas"] == 2, "metrics are {metrics}");
        Ok(())
    })
    .await?;
    let reply = pods[primary].client().post("/control/signal").await?.json(200)?;
    ensure!(reply["role"] == "primary", "unexpected output {reply}");
    let refused = pods[primary].client().post_json("/control/signal", &serde_json::json!({ "save": true })).await?;
    ensure!(refused.error(500)?.contains("ochopod_redis_dir"), "unexpected output {refused:?}");
    Ok(())
}

/// Each check that hangs discards the plugin's instance. The new one must find the redis on its own.
#[tokio::test]
async fn a_redis_that_hangs_for_a_while_shows_its_metrics_again_and_one_that_hangs_for_good_is_turned_off() -> Result {
    let servers = Servers::new().await?;
    let pods = vec![servers.pod()?.set("set_grace", "2").set("set_checks", "3").start()?];
    servers.replicating(&pods).await?;
    let pod = &pods[0];
    let redis = Pid::from_raw(redis::info(&servers.server(pod), "server").await?["process_id"].parse()?);

    kill(redis, Signal::SIGSTOP)?;
    pod.client().post("/control/signal/1").await?.is(408)?;
    kill(redis, Signal::SIGCONT)?;
    redis::request(&servers.server(pod), &["SET", "key", "value"]).await?;
    eventually("metrics are those of now", DEFAULT_TIMEOUT, async || {
        let metrics = pod.client().info().await?["metrics"].clone();
        ensure!(metrics["role"] == "primary" && metrics["keys"] == 1, "metrics are {metrics}");
        Ok(())
    })
    .await?;
    ensure!(pod.client().post("/control/signal").await?.json(200)?["keys"] == 1, "the signal reports another");

    kill(redis, Signal::SIGSTOP)?;
    pod.wait_info("process", "stopped").await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_file_and_data_are_kept_in_the_directory_of_the_operator() -> Result {
    let servers = Servers::new().await?;
    let data = servers.env.scratch().join("data");
    std::fs::create_dir(&data)?;
    let pod = servers.pod()?.set("redis_dir", data.display()).flags(["--dir", &format!("{}::/data", data.display())]);
    let mut pods = vec![pod.start()?];
    servers.write(&pods, "kept").await?;
    let files: Vec<_> = std::fs::read_dir(&data)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    let configured = files.iter().any(|name| name.to_string_lossy().ends_with(".conf"));
    ensure!(configured, "no configuration file among {files:?}");
    let reply = pods[0].client().post_json("/control/signal", &serde_json::json!({ "save": true })).await?;
    reply.json(200)?;
    eventually("it is saved", DEFAULT_TIMEOUT, async || {
        let saved = redis::info(&servers.server(&pods[0]), "persistence").await?;
        let pending = saved.get("rdb_changes_since_last_save").context("no persistence")?;
        ensure!(pending == "0", "{pending} changes are not saved");
        Ok(())
    })
    .await?;
    pods[0].term()?;
    ensure!(pods[0].exit_code().await? == 0, "it did not exit with code 0");
    pods[0].assert_clean().await
}
