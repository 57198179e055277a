//! Guarantee 2: when faults stop, every live pod is registered once and has answered 200 to `on` with the current view,
//! within a bounded time; nobody is left off.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use ochopod_tests::{Pod, Result, SOON, Site, ZooKeeper, eventually};

use crate::pod;

/// Numbers that are the same in every run: a fault that shows once shows again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides
    }
}

struct Storm {
    site: Site,
    pods: Vec<Pod>,
    dice: Dice,
}

impl Storm {
    async fn new(seed: u64) -> Result<Self> {
        let site = Site::on(Arc::new(ZooKeeper::own().await?)).await?;
        let pods = site.form(4, |site| pod(site).set("session", "2")).await?;
        Ok(Self { site, pods, dice: Dice(seed) })
    }

    async fn fault(&mut self) -> Result {
        let victim = self.dice.roll(self.pods.len());
        match self.dice.roll(7) {
            0 => {
                let mut killed = self.pods.remove(victim);
                killed.kill9().await?;
                self.pods.push(pod(&self.site).set("session", "2").start()?);
            }
            1 => {
                let mut leaving = self.pods.remove(victim);
                leaving.term()?;
                leaving.exit_code().await?;
                self.pods.push(pod(&self.site).set("session", "2").start()?);
            }
            2 => {
                self.pods[victim].signal(Signal::SIGSTOP)?;
                tokio::time::sleep(Duration::from_secs(3)).await;
                self.pods[victim].signal(Signal::SIGCONT)?;
            }
            3 => {
                // A pod that is still starting has nothing to answer with.
                _ = self.pods[victim].client().post("/reset").await;
            }
            4 => {
                if let Some(pid) = self.pods[victim].starts()?.last() {
                    _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
                }
            }
            5 => {
                self.site.zookeeper().stop()?;
                tokio::time::sleep(Duration::from_millis(500)).await;
                self.site.zookeeper().start().await?;
            }
            _ => {
                self.site.zookeeper().freeze()?;
                tokio::time::sleep(Duration::from_millis(1500)).await;
                self.site.zookeeper().thaw()?;
            }
        }
        Ok(())
    }

    /// Everybody is registered once, configured with the present view, and runs.
    async fn whole(&self) -> Result {
        let cluster = self.site.cluster("default");
        eventually("everybody is registered once", SOON * 2, async || {
            let registered = cluster.registered().await?;
            ensure!(registered.len() == self.pods.len(), "registered are {registered:?}");
            Ok(())
        })
        .await?;
        cluster.formed(&self.pods.iter().collect::<Vec<_>>()).await?;
        let contenders = cluster.contenders().await?;
        ensure!(contenders.len() == self.pods.len(), "contenders are {contenders:?}");
        let mut seqs = Vec::new();
        for pod in &self.pods {
            seqs.push(pod.client().info().await?["seq"].as_u64().context("seq is no number")?);
        }
        seqs.sort_unstable();
        seqs.dedup();
        ensure!(seqs.len() == self.pods.len(), "two pods have one number: {seqs:?}");
        Ok(())
    }
}

async fn survived(seed: u64, faults: usize) -> Result {
    let mut storm = Storm::new(seed).await?;
    for number in 0..faults {
        storm.fault().await.with_context(|| format!("fault {number} of seed {seed}"))?;
        let pause = 50 * u64::try_from(storm.dice.roll(20))?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    storm.whole().await.with_context(|| format!("after {faults} faults of seed {seed}"))
}

#[tokio::test]
async fn guarantee_2_when_faults_stop_everybody_is_configured() -> Result {
    survived(1, 12).await
}

#[tokio::test]
async fn guarantee_2_holds_for_another_order_of_faults() -> Result {
    survived(2, 12).await
}
