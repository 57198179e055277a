//! `ochopod up`: pods of one cluster in one process, without ZooKeeper.

use anyhow::{Context, ensure};
use ochopod_tests::{Client, Pod, PodBuilder, Result, SOON, Site, artifacts, eventually, free_port};
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
        let builder = complete(builder.set("set_grace", "5").counted(crate::SLEEP));
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

    /// Waits until exactly these pods run, and gives the last number of the leader's address.
    async fn formed(&self, hosts: &[u8]) -> Result<u8> {
        eventually("the pods form", SOON, async || {
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
    let leader = up.formed(&[2, 3, 4]).await?;
    up.pod.say("add")?;
    up.formed(&[2, 3, 4, 5]).await?;
    up.pod.started(4).await?;
    ensure!(up.pod.starts()?.len() == 4, "somebody was restarted: {:?}", up.pod.starts()?);
    // The first pod is at 127.0.0.2.
    up.pod.say(&format!("kill {}", leader - 1))?;
    let rest: Vec<u8> = [2, 3, 4, 5].into_iter().filter(|host| *host != leader).collect();
    let next = up.formed(&rest).await?;
    ensure!(next != leader, "the killed pod leads");
    ensure!(up.pod.starts()?.len() == 4, "somebody was restarted: {:?}", up.pod.starts()?);
    up.pod.say("quit")?;
    ensure!(up.pod.exit_code().await? == 0, "it did not leave with code 0");
    up.pod.leaves_nothing().await
}

#[tokio::test]
async fn a_signal_ends_it_in_order() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    up.formed(&[2, 3]).await?;
    up.pod.term()?;
    ensure!(up.pod.exit_code().await? == 0, "it did not leave with code 0");
    ensure!(up.pod.logged("callback finalize")? == 2, "not all were finalized");
    up.pod.leaves_nothing().await
}

#[tokio::test]
async fn commands_that_are_none_are_told_and_change_nothing() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    up.formed(&[2, 3]).await?;
    for line in ["", "dance", "kill", "kill x", "kill 99", "add 1 2 3", "\u{1b}[A"] {
        up.pod.say(line)?;
    }
    up.pod.say("add")?;
    up.formed(&[2, 3, 4]).await?;
    // It runs a moment before it writes that it does.
    up.pod.started(3).await?;
    ensure!(up.pod.starts()?.len() == 3, "somebody was restarted");
    Ok(())
}

#[tokio::test]
async fn a_line_per_event_tells_what_happens() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    let leader = up.formed(&[2, 3]).await?;
    let said = eventually("it tells of the leader", SOON, async || {
        let said = up.pod.output()? + &up.pod.console()?;
        ensure!(said.contains("leader") && said.contains("running"), "it said {said}");
        Ok(said)
    })
    .await?;
    ensure!(said.contains(&format!("127.0.0.{leader}")), "it said {said}");
    up.pod.say("quit")?;
    ensure!(up.pod.exit_code().await? == 0, "it did not leave with code 0");
    Ok(())
}

#[tokio::test]
async fn the_end_of_its_input_ends_it() -> Result {
    let mut up = Up::new(2, |pod| pod)?;
    up.formed(&[2, 3]).await?;
    up.pod.hang_up();
    ensure!(up.pod.exit_code().await? == 0, "it did not leave with code 0");
    up.pod.leaves_nothing().await
}

#[tokio::test]
async fn with_zookeeper_its_pods_are_like_any_other() -> Result {
    let site = Site::new().await?;
    let up = Up::new(2, |pod| pod.set("zk", site.store().connect_string()))?;
    up.formed(&[2, 3]).await?;
    ensure!(site.cluster("default").registered().await?.len() == 2, "they are not registered");
    Ok(())
}
