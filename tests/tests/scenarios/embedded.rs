//! `ochopod up`: pods of one cluster in one process, without ZooKeeper.

use anyhow::{Context, ensure};
use ochopod_tests::{Client, DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, artifacts, eventually, free_port};
use serde_json::Value;

struct Up {
    pod: Pod,
    port: u16,
    _scratch: tempfile::TempDir,
}

impl Up {
    fn new(pods: u8, complete: impl FnOnce(PodBuilder) -> PodBuilder) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let port = free_port()?;
        let guest = artifacts::misbehaving()?;
        let builder = PodBuilder::new(&guest, scratch.path()).up().reached_at("127.0.0.2", port).set("port", port);
        let builder = complete(builder.set("set_grace", "5").count_starts(crate::SLEEP));
        let pod = builder.flags(["--pods", &pods.to_string()]).start()?;
        Ok(Self { pod, port, _scratch: scratch })
    }

    async fn infos(&self, hosts: impl IntoIterator<Item = u8>) -> Result<Vec<Value>> {
        let mut infos = Vec::new();
        for host in hosts {
            infos.push(Client::new(format!("127.0.0.{host}:{}", self.port)).info().await?);
        }
        Ok(infos)
    }

    /// Waits until exactly these pods run, and returns the last number of the leader's address.
    async fn wait_formed(&self, hosts: &[u8]) -> Result<u8> {
        eventually("the pods form", DEFAULT_TIMEOUT, async || {
            let infos = self.infos(hosts.iter().copied()).await?;
            ensure!(infos.iter().all(|info| info["process"] == "running"), "not all run: {infos:?}");
            let leaders: Vec<u8> =
                hosts.iter().zip(&infos).filter(|(_, info)| info["state"] == "leader").map(|(host, _)| *host).collect();
            ensure!(leaders.len() == 1, "leaders are {leaders:?}");
            leaders.first().copied().context("no leader")
        })
        .await
    }
}

#[tokio::test]
async fn pods_form_join_and_are_killed_on_command() -> Result {
    let mut up = Up::new(3, |pod| pod)?;
    let leader = up.wait_formed(&[2, 3, 4]).await?;
    up.pod.write_stdin("add")?;
    up.wait_formed(&[2, 3, 4, 5]).await?;
    up.pod.started(4).await?;
    ensure!(up.pod.starts()?.len() == 4, "a sub-process was restarted: {:?}", up.pod.starts()?);
    // The first pod is at 127.0.0.2.
    up.pod.write_stdin(&format!("kill {}", leader - 1))?;
    let rest: Vec<u8> = [2, 3, 4, 5].into_iter().filter(|host| *host != leader).collect();
    let next = up.wait_formed(&rest).await?;
    ensure!(next != leader, "the killed pod leads");
    ensure!(up.pod.starts()?.len() == 4, "a sub-process was restarted: {:?}", up.pod.starts()?);
    up.pod.write_stdin("quit")?;
    ensure!(up.pod.exit_code().await? == 0, "it did not exit with code 0");
    up.pod.assert_clean().await
}

#[tokio::test]
async fn a_signal_ends_it_in_order() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    up.wait_formed(&[2, 3]).await?;
    up.pod.term()?;
    ensure!(up.pod.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(up.pod.count_log("callback finalize")? == 2, "not all were finalized");
    up.pod.assert_clean().await
}

#[tokio::test]
async fn unknown_commands_are_reported_and_change_nothing() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    up.wait_formed(&[2, 3]).await?;
    for line in ["", "dance", "kill", "kill x", "kill 99", "add 1 2 3", "\u{1b}[A"] {
        up.pod.write_stdin(line)?;
    }
    up.pod.write_stdin("add")?;
    up.wait_formed(&[2, 3, 4]).await?;
    // It runs for a moment before it writes its line.
    up.pod.started(3).await?;
    ensure!(up.pod.starts()?.len() == 3, "a sub-process was restarted");
    Ok(())
}

#[tokio::test]
async fn every_event_is_reported_on_one_line() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    let leader = up.wait_formed(&[2, 3]).await?;
    eventually("it reports the leader", DEFAULT_TIMEOUT, async || {
        let said = up.pod.output()? + &up.pod.console()?;
        ensure!(said.contains("leader") && said.contains("running"), "unexpected output {said}");
        ensure!(said.contains(&format!("127.0.0.{leader}")), "unexpected output {said}");
        Ok(())
    })
    .await?;
    up.pod.write_stdin("quit")?;
    ensure!(up.pod.exit_code().await? == 0, "it did not exit with code 0");
    Ok(())
}

#[tokio::test]
async fn the_end_of_its_input_ends_it() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    up.wait_formed(&[2, 3]).await?;
    up.pod.close_stdin();
    ensure!(up.pod.exit_code().await? == 0, "it did not exit with code 0");
    up.pod.assert_clean().await
}

#[tokio::test]
async fn with_zookeeper_its_pods_are_like_any_other() -> Result {
    let env = TestEnv::new().await?;
    let up = Up::new(2, |pod| pod.set("zk", env.store().connect_string()))?;
    up.wait_formed(&[2, 3]).await?;
    ensure!(env.cluster("default").registered().await?.len() == 2, "they are not registered");
    Ok(())
}

#[tokio::test]
async fn every_line_of_a_pod_carries_its_number() -> Result {
    let said = "echo said by the sub-process; exec sleep 86400";
    let mut up = Up::new(2, |pod| pod.command(said).set("set_pipe_subprocess", "true").set("log_level", "debug"))?;
    up.wait_formed(&[2, 3]).await?;
    up.pod.client().post_json("/control/signal", &serde_json::json!({})).await?.is(200)?;
    up.pod.wait_log("callback signaled").await?;
    up.pod.write_stdin("quit")?;
    ensure!(up.pod.exit_code().await? == 0, "it did not exit with code 0");
    let console = up.pod.console()?;
    for text in [
        "callback configure",
        "callback signaled",
        "callback finalize",
        "said by the sub-process",
        "sub-process started",
    ] {
        let lines: Vec<&str> = console.lines().filter(|line| line.contains(text)).collect();
        ensure!(!lines.is_empty(), "{text:?} is not in {console}");
        let unlabelled = lines.iter().find(|line| !line.contains("pod=1 : ") && !line.contains("pod=2 : "));
        ensure!(unlabelled.is_none(), "no pod in this line: {unlabelled:?}");
    }
    Ok(())
}

#[tokio::test]
async fn lines_carry_the_number_of_their_pod_at_each_level() -> Result {
    let up = Up::new(1, |pod| pod.set("log_level", "warn").misbehave("sanity_check", "reject"))?;
    let console = eventually("a check fails", DEFAULT_TIMEOUT, async || {
        let console = up.pod.console()?;
        ensure!(console.contains("sanity check failed"), "unexpected output {console}");
        Ok(console)
    })
    .await?;
    let line = console.lines().find(|line| line.contains("sanity check failed")).unwrap_or_default();
    ensure!(line.contains("pod=1 : "), "no pod in this line: {line:?}");
    Ok(())
}
