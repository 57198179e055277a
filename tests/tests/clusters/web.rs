//! The web plugin with real nginx servers.

use anyhow::ensure;
use ochopod_tests::{Client, DEFAULT_TIMEOUT};

use super::*;

pub(crate) struct Web {
    pub(crate) clusters: Clusters,
    pub(crate) port: u16,
}

impl Web {
    pub(crate) async fn new() -> Result<Self> {
        Ok(Self { clusters: Clusters::new().await?, port: free_port()? })
    }

    /// Returns a pod of a cluster at the next address.
    pub(crate) fn pod(&self, cluster: &str) -> Result<PodBuilder> {
        Ok(self.clusters.pod("web", cluster)?.set("web_port", self.port).set("web_drain", "1"))
    }

    pub(crate) fn start(&self, cluster: &str, count: usize) -> Result<Vec<Pod>> {
        (0..count).map(|_| self.pod(cluster)?.start()).collect()
    }

    fn server(&self, pod: &Pod) -> Client {
        Client::new(format!("{}:{}", pod.address(), self.port))
    }
}

#[tokio::test]
async fn page_lists_the_pods_and_follows_them_without_a_restart() -> Result {
    let web = Web::new().await?;
    let mut pods = web.start("web", 2)?;
    let lists = async |pods: &[Pod]| {
        eventually("each page lists all pods", DEFAULT_TIMEOUT * 2, async || {
            for pod in pods {
                let page = web.server(pod).get("/").await?;
                let text = String::from_utf8_lossy(&page.body).into_owned();
                let listed = pods.iter().all(|other| text.contains(&format!("at {} on local</li>", other.address())));
                ensure!(page.status == 200 && listed, "{} has {text}", pod.address());
                ensure!(text.matches("<li>").count() == pods.len(), "{} lists more pods: {text}", pod.address());
            }
            Ok(())
        })
        .await
    };
    lists(&pods).await?;
    let pid = pods[0].client().info().await?["pid"].clone();
    pods.push(web.pod("web")?.set("web_title", "<b>third</b>").start()?);
    lists(&pods).await?;
    ensure!(pods[0].client().info().await?["pid"] == pid, "nginx was restarted");
    let third = web.server(&pods[2]).get("/").await?;
    ensure!(String::from_utf8_lossy(&third.body).contains("<h1>&lt;b&gt;third&lt;/b&gt;</h1>"), "unexpected {third:?}");
    eventually("metrics count the requests", DEFAULT_TIMEOUT, async || {
        let metrics = pods[0].client().info().await?["metrics"].clone();
        ensure!(metrics["requests"].as_u64().is_some_and(|requests| requests > 1), "metrics are {metrics}");
        Ok(())
    })
    .await?;
    leave(pods).await
}

#[tokio::test]
async fn pod_that_stops_serves_until_it_is_drained() -> Result {
    let web = Web::new().await?;
    let mut pod = web.pod("web")?.set("web_drain", "2").start()?;
    let server = web.server(&pod);
    let health = async |expected: u16| {
        eventually(&format!("/health answers {expected}"), DEFAULT_TIMEOUT, async || {
            let status = server.get("/health").await?.status;
            ensure!(status == expected, "it answers {status}");
            Ok(())
        })
        .await
    };
    health(200).await?;
    pod.term()?;
    health(404).await?;
    ensure!(server.get("/").await?.status == 200, "it does not serve");
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    let again = web.clusters.env.pod_at(&artifacts::plugin("web")?, pod.address(), pod.directory());
    let directory = web.clusters.directory("web")?.display().to_string();
    let again = again.set("cluster", "web").set("web_port", web.port).set("web_dir", &directory);
    let again = again.env("PATH", format!("/usr/sbin:{}", env::var("PATH")?));
    let again = again.flags(["--dir", &format!("{directory}::/data")]).start()?;
    again.wait_info("process", "running").await?;
    health(200).await
}

#[tokio::test]
async fn pod_without_its_directory_is_named() -> Result {
    let web = Web::new().await?;
    let pods = vec![web.pod("web")?.unset("web_dir").start()?];
    has_status(&pods, "ochopod_web_dir is not set").await
}
