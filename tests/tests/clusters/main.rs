//! Real clusters that plugins form, whose servers every test run has: one file per plugin.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]

mod haproxy;
mod load;
mod web;
mod zookeeper;

use std::{env, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::ensure;
use ochopod_tests::{Pod, PodBuilder, Result, TestEnv, artifacts, eventually, free_port};

/// Time for a configuration of several clusters with real servers, on few cores.
const LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

/// Clusters of one test, each with a directory that it shares.
struct Clusters {
    env: TestEnv,
}

impl Clusters {
    async fn new() -> Result<Self> {
        let env = TestEnv::new().await?;
        // Workers of nginx run as another user.
        fs::set_permissions(env.scratch(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { env })
    }

    /// Returns the directory of a plugin's files.
    fn directory(&self, plugin: &str) -> Result<PathBuf> {
        let directory = self.env.scratch().join(plugin);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Returns a pod of a cluster, with the directory of its plugin.
    fn pod(&self, plugin: &str, cluster: &str) -> Result<PodBuilder> {
        let directory = self.directory(plugin)?.display().to_string();
        let pod = self.env.pod(&artifacts::plugin(plugin)?).set("cluster", cluster);
        let path = format!("/usr/sbin:{}", env::var("PATH").unwrap_or_default());
        let pod = pod.set(&format!("{plugin}_dir"), &directory).flags(["--dir", &format!("{directory}::/data")]);
        Ok(pod.env("PATH", path).set("session", "5").set("set_check_every", "1").set("set_probe_every", "1"))
    }
}

/// Waits until the status of one of these pods has this text.
async fn has_status(pods: &[Pod], text: &str) -> Result {
    eventually(&format!("the status has {text:?}"), LIMIT, async || {
        let mut statuses = Vec::new();
        for pod in pods {
            statuses.push(pod.client().info().await?["status"].clone());
        }
        ensure!(
            statuses.iter().any(|status| status.as_str().is_some_and(|status| status.contains(text))),
            "{statuses:?}"
        );
        Ok(())
    })
    .await
}

/// Stops pods as a platform does, all together, and waits until each has ended with code 0.
async fn leave(pods: Vec<Pod>) -> Result {
    for pod in &pods {
        pod.term()?;
    }
    for mut pod in pods {
        ensure!(pod.exit_code().await? == 0, "{} did not exit with code 0", pod.address());
        pod.assert_clean().await?;
    }
    Ok(())
}
