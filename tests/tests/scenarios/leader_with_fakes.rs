//! A pod that leads fake peers.

use anyhow::ensure;
use ochopod_tests::{DEFAULT_TIMEOUT, FakePod, Pod, PodBuilder, RecordedRequest, Result, TestEnv, eventually};

use crate::pod;

/// Adds fake peers first, and then starts a real pod that leads them: it is the only one that contends.
pub(crate) async fn led(
    count: usize,
    complete: impl FnOnce(PodBuilder) -> PodBuilder,
) -> Result<(TestEnv, Vec<FakePod>, Pod)> {
    let env = TestEnv::new().await?;
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(env.cluster("default").fake_pod().await?);
    }
    let pod = complete(pod(&env)).start()?;
    Ok((env, peers, pod))
}

pub(crate) async fn configured(pod: &Pod) -> Result {
    pod.wait_info("process", "running").await?;
    pod.wait_info("state", "leader").await?;
    Ok(())
}

pub(crate) async fn status(pod: &Pod, parts: &[&str]) -> Result {
    eventually("the status reports it", DEFAULT_TIMEOUT, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        for part in parts {
            ensure!(status.contains(part), "the status is {status:?}, without {part:?}");
        }
        Ok(())
    })
    .await
}

pub(crate) fn header<'a>(request: &'a RecordedRequest, name: &str) -> &'a str {
    request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
