//! A pod that follows the kit: only the test sends it tasks.

use anyhow::Context;
use ochopod_tests::{DEFAULT_TIMEOUT, FakeLeader, Pod, PodBuilder, Result, TestEnv, eventually};
use serde_json::{Value, json};

use crate::pod;

/// A follower, registered and not yet configured, and the view that configures it.
pub(crate) struct Follower {
    pub(crate) pod: Pod,
    pub(crate) lead: FakeLeader,
    pub(crate) view: Value,
    pub(crate) env: TestEnv,
}

impl Follower {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(|pod| pod).await
    }

    pub(crate) async fn with(complete: impl FnOnce(PodBuilder) -> PodBuilder) -> Result<Self> {
        let env = TestEnv::new().await?;
        let lead = env.cluster("default").lead().await?;
        let pod = complete(pod(&env)).start()?;
        let view = eventually("the pod registers", DEFAULT_TIMEOUT, async || view_of(&env).await).await?;
        Ok(Self { pod, lead, view, env })
    }

    pub(crate) async fn on(&self) -> Result<i32> {
        self.pod.client().post_json("/control/on", &self.view).await?.is(200)?;
        self.pod.started(1).await
    }
}

/// Returns the view that configures the one pod that is registered.
pub(crate) async fn view_of(env: &TestEnv) -> Result<Value> {
    let pods = env.cluster("default").registrations().await?;
    let key = pods.keys().next().context("no pod is registered")?.clone();
    Ok(json!({ "key": key, "pods": pods, "dependencies": {} }))
}
