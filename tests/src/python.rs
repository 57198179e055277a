//! A pod of the Python SDK, according to the traces in `golden/`.
//!
//! Its model polls every tick, like that of the SDK: the pod with the lowest lock node compares the pods with `hash`,
//! and posts `check`, `on` and `ok` if they differ. It uses neither epochs nor `view`, and fences nothing.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::{Client, FakePod, NodeLifetime, Result, ZkClient};

/// The SDK takes a second; only the duration of tests depends on it.
const TICK: Duration = Duration::from_millis(100);

/// Returns the posts and writes of a leader of the SDK.
///
/// # Errors
/// If the trace is not JSON.
pub fn leader_posts() -> Result<Value> {
    Ok(serde_json::from_str(include_str!("../golden/leader_posts.json"))?)
}

/// Returns `/info` of the SDK, by the pod's state.
fn info() -> Result<Value> {
    Ok(serde_json::from_str(include_str!("../golden/info.json"))?)
}

/// A pod of the Python SDK: registered, and a leader in its turn. All of its nodes are removed when it is dropped.
#[derive(Debug)]
pub struct PythonPod {
    fake_pod: Arc<FakePod>,
    client: Client,
    _model: JoinSet<()>,
}

impl PythonPod {
    pub(crate) async fn join(store: &ZkClient, root: &str, ip: &str, port: u16) -> Result<Self> {
        let trace = leader_posts()?;
        let recorded = trace["plain_1real_2fakes"]["snapshot"].as_object().context("no snapshot in the trace")?;
        let mut registration = recorded.values().find(|pod| pod["fwk"].is_string()).context("no real pod")?.clone();
        registration["cluster"] = root.rsplit('.').next().into();
        registration["ip"] = ip.into();
        registration["public"] = ip.into();
        registration["port"] = port.to_string().into();
        registration["ports"] = json!({ port.to_string(): port, "8080": 8080 });
        let fake_pod = Arc::new(FakePod::join_as(store, root, ip, port, registration).await?);
        let name = uuid::Uuid::new_v4().simple().to_string();
        let node = format!("{root}/coordinator/{name}__lock__");
        let lock = fake_pod.store().create(&node, b"", NodeLifetime::SessionNumbered).await?;
        let model = PythonModel { fake_pod: Arc::clone(&fake_pod), root: root.to_owned(), port, lock, info: info()? };
        let mut running = JoinSet::new();
        running.spawn(model.run());
        Ok(Self { fake_pod, client: Client::new(format!("{ip}:{port}")), _model: running })
    }

    /// Returns the fake pod, with its requests and chosen replies.
    #[must_use]
    pub fn fake_pod(&self) -> &FakePod {
        &self.fake_pod
    }

    /// Returns its control API.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

struct PythonModel {
    fake_pod: Arc<FakePod>,
    root: String,
    port: u16,
    lock: String,
    info: Value,
}

impl PythonModel {
    async fn run(self) {
        loop {
            let turn = self.tick().await;
            let state = turn.unwrap_or_else(|error| {
                eprintln!("Python pod {} failed, retrying: {error:#}", self.fake_pod.key());
                "leader (configuration pending)"
            });
            self.set_state(state);
            tokio::time::sleep(TICK).await;
        }
    }

    fn set_state(&self, state: &str) {
        let mut info = self.info[if state == "follower" { "follower" } else { "leader" }].clone();
        info["state"] = state.into();
        self.fake_pod.set_info(info);
    }

    /// Executes one tick, and returns the state afterwards.
    async fn tick(&self) -> Result<&'static str> {
        let store = self.fake_pod.store();
        let names = store.children(&format!("{}/coordinator", self.root)).await?;
        let first = names.iter().min_by_key(|name| name.rsplit_once("__lock__").map(|(_, number)| number.to_owned()));
        if !first.is_some_and(|first| self.lock.ends_with(first)) {
            return Ok("follower");
        }
        let (hash, snapshot) = (format!("{}/hash", self.root), format!("{}/snapshot", self.root));
        for (path, data, lifetime) in [(&hash, "", NodeLifetime::Always), (&snapshot, "{}", NodeLifetime::Session)] {
            if store.find(path).await?.is_none() {
                store.create(path, data.as_bytes(), lifetime).await?;
            }
        }
        let mut pods = self.pods().await?;
        let latest = digest(&pods);
        if store.text(&hash).await? == latest {
            return Ok("leader");
        }
        self.set_state("leader (configuring)");
        self.configure(&mut pods).await?;
        store.set(&snapshot, Value::Object(pods).to_string().as_bytes()).await?;
        store.set(&hash, latest.as_bytes()).await?;
        Ok("leader")
    }

    async fn pods(&self) -> Result<Map<String, Value>> {
        let store = self.fake_pod.store();
        let mut pods = Map::new();
        for name in store.children(&format!("{}/pods", self.root)).await? {
            let (key, _) = name.split_once('.').context("a registration without a number")?;
            pods.insert(key.to_owned(), store.json(&format!("{}/pods/{name}", self.root)).await?);
        }
        Ok(pods)
    }

    async fn configure(&self, pods: &mut Map<String, Value>) -> Result {
        let mut codes = self.post("check", pods).await?;
        codes.retain(|key, code| {
            let dead = *code == 410;
            if dead {
                pods.remove(key);
            }
            !dead
        });
        ensure!(codes.values().all(|code| *code == 200), "1+ pods failed the pre-check: {codes:?}");
        let codes = self.post("on", pods).await?;
        ensure!(codes.values().all(|code| *code == 200), "1+ pods failed to configure: {codes:?}");
        self.post("ok", pods).await?;
        Ok(())
    }

    /// Posts to all pods concurrently, at the port to which each maps the control port. Returns the codes.
    async fn post(&self, task: &str, pods: &Map<String, Value>) -> Result<BTreeMap<String, u16>> {
        let mut posts = JoinSet::new();
        for (key, pod) in pods {
            let (ip, port) = (pod["ip"].as_str(), pod["ports"][self.port.to_string()].as_u64());
            let (ip, port) = ip.zip(port).with_context(|| format!("{key} is not exposing TCP {}", self.port))?;
            let (client, key) = (Client::new(format!("{ip}:{port}")), key.clone());
            let body = Bytes::from(json!({ "dependencies": {}, "pods": pods, "key": key }).to_string());
            let path = format!("/control/{task}/60");
            posts.spawn(async move {
                let headers = [("accept", "*/*"), ("user-agent", "python-requests/2.10.0")];
                let reply = client.send(Method::POST, &path, &headers, body).await;
                (key, reply.map(|reply| reply.status).unwrap_or_default())
            });
        }
        Ok(posts.join_all().await.into_iter().collect())
    }
}

/// Returns a digest in the form of the SDK: sixteen bytes.
fn digest(pods: &Map<String, Value>) -> String {
    let half = |which: u8| {
        let mut hasher = DefaultHasher::new();
        (which, json!(pods).to_string()).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    let bytes: Vec<String> = half(0).into_iter().chain(half(1)).map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}
