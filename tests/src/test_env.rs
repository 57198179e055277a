//! Environment of one test.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    DEFAULT_TIMEOUT, Ensemble, FakeLeader, FakePod, Pod, PodBuilder, Proxy, PythonPod, Result, ZkClient, ZooKeeper,
    eventually, port::free_port,
};

/// A chroot of a ZooKeeper, a control port that is free on all addresses, and a scratch directory.
#[derive(Debug)]
pub struct TestEnv {
    store: ZkClient,
    port: u16,
    scratch: TempDir,
    hosts: AtomicU8,
    zookeeper: Arc<ZooKeeper>,
}

impl TestEnv {
    /// Returns an environment on the shared ZooKeeper.
    ///
    /// # Errors
    /// If there is no ZooKeeper.
    pub async fn new() -> Result<Self> {
        Self::with_zookeeper(ZooKeeper::shared().await?).await
    }

    /// Returns an environment on this ZooKeeper.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn with_zookeeper(zookeeper: Arc<ZooKeeper>) -> Result<Self> {
        Self::at(&zookeeper.address().to_string(), zookeeper).await
    }

    /// Returns an environment on this ensemble.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn with_ensemble(ensemble: &Ensemble) -> Result<Self> {
        Self::at(&ensemble.addresses(), ensemble.members()[0].clone()).await
    }

    async fn at(addresses: &str, zookeeper: Arc<ZooKeeper>) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let chroot = format!("/test-env-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let store = ZkClient::connect(addresses, &chroot).await?;
        let scratch = tempfile::Builder::new().prefix("ochopod-test-").tempdir()?;
        Ok(Self { store, port: free_port()?, scratch, hosts: AtomicU8::new(2), zookeeper })
    }

    /// Returns the ZooKeeper server; of an ensemble, its first member.
    #[must_use]
    pub fn zookeeper(&self) -> &ZooKeeper {
        &self.zookeeper
    }

    /// Opens a new session for the kit: the old one is invalid after the server's data was replaced.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn reconnect(&mut self) -> Result {
        self.store = ZkClient::connect(&self.zookeeper.address().to_string(), self.store.chroot()).await?;
        Ok(())
    }

    /// Returns the kit's session in the chroot.
    #[must_use]
    pub fn store(&self) -> &ZkClient {
        &self.store
    }

    /// Returns the control port of all pods of this environment.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns a directory that is removed with the test.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Returns the next address: 127.0.0.2, 127.0.0.3…
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.{}", self.hosts.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns a builder of a pod of the cluster `default` at the next address, with this plugin.
    #[must_use]
    pub fn pod(&self, plugin: &Path) -> PodBuilder {
        let address = self.address();
        self.pod_at(plugin, &address, &self.scratch().join(&address))
    }

    /// Returns the same for this address, which may be that of an earlier pod, and working directory.
    #[must_use]
    pub fn pod_at(&self, plugin: &Path, address: &str, directory: &Path) -> PodBuilder {
        PodBuilder::new(plugin, directory)
            .set("local", "true")
            .set("ip", address)
            .set("public", address)
            .set("port", self.port)
            .set("zk", self.store.connect_string())
            .reached_at(address, self.port)
    }

    /// Starts pods of the cluster `default` concurrently, each set up by `complete`, and waits until they are configured.
    ///
    /// # Errors
    /// If they do not form in time.
    pub async fn start_cluster(&self, count: usize, complete: impl Fn(&Self) -> PodBuilder) -> Result<Vec<Pod>> {
        let pods = (0..count).map(|_| complete(self).start()).collect::<Result<Vec<Pod>>>()?;
        self.cluster("default").wait_formed(&pods.iter().collect::<Vec<_>>()).await?;
        Ok(pods)
    }

    /// Starts a proxy in front of ZooKeeper. Returns it with the value of `ochopod_zk` for pods behind it.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn proxy(&self) -> Result<(Proxy, String)> {
        let proxy = Proxy::zookeeper(self.zookeeper.address()).await?;
        let through = format!("{}{}", proxy.address(), self.store.chroot());
        Ok((proxy, through))
    }

    /// Returns the nodes of a cluster of the namespace `marathon`.
    #[must_use]
    pub fn cluster(&self, name: &str) -> ClusterNodes<'_> {
        ClusterNodes { env: self, root: format!("/ochopod/clusters/marathon.{name}") }
    }
}

/// The nodes of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterNodes<'a> {
    env: &'a TestEnv,
    root: String,
}

impl ClusterNodes<'_> {
    /// Returns the path of one of its nodes.
    #[must_use]
    pub fn path(&self, node: &str) -> String {
        format!("{}/{node}", self.root)
    }

    /// Returns the kit's session.
    #[must_use]
    pub fn store(&self) -> &ZkClient {
        &self.env.store
    }

    /// Returns the names of the registrations, sorted.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn registered(&self) -> Result<Vec<String>> {
        self.store().children(&self.path("pods")).await
    }

    /// Returns the sessions that own the registrations, by the names of these.
    ///
    /// # Errors
    /// If the server does not answer, or a registration disappears meanwhile.
    pub async fn sessions(&self) -> Result<BTreeMap<String, i64>> {
        let mut found = BTreeMap::new();
        for name in self.registered().await? {
            let owner = self.store().owner(&self.path(&format!("pods/{name}"))).await?;
            found.insert(name, owner);
        }
        Ok(found)
    }

    /// Returns the registrations by their uuids, as a view has them. Anything that is not a registration is skipped.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn registrations(&self) -> Result<serde_json::Map<String, Value>> {
        let mut found = serde_json::Map::new();
        for name in self.registered().await? {
            let payload = self.store().json(&self.path(&format!("pods/{name}"))).await;
            // A registration without its number is not finished.
            if let (Some((key, _)), Ok(payload)) = (name.rsplit_once('.'), payload)
                && payload["seq"].is_u64()
            {
                found.insert(key.to_owned(), payload);
            }
        }
        Ok(found)
    }

    /// Returns the names of the lock nodes, sorted by their numbers.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn contenders(&self) -> Result<Vec<String>> {
        let mut names = self.store().children(&self.path("coordinator")).await?;
        names.sort_by_key(|name| name.rsplit_once("__lock__").map(|(_, number)| number.to_owned()));
        Ok(names)
    }

    /// Returns the stored digest.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn hash(&self) -> Result<String> {
        self.store().text(&self.path("hash")).await
    }

    /// Returns the transaction of the last write of the digest: it changes with each configuration, even to the same value.
    ///
    /// # Errors
    /// If there is no digest.
    pub async fn hash_written(&self) -> Result<i64> {
        let found = self.store().find(&self.path("hash")).await?;
        Ok(found.context("no hash")?.1.mzxid)
    }

    /// Returns the pods of the last configuration, by uuid.
    ///
    /// # Errors
    /// If there is no snapshot.
    pub async fn snapshot(&self) -> Result<serde_json::Map<String, Value>> {
        match self.store().json(&self.path("snapshot")).await? {
            Value::Object(pods) => Ok(pods),
            other => bail!("invalid snapshot: expected an object, got {other}"),
        }
    }

    /// Acquires the lock, so that the test acts as leader. If called before any pod starts, no pod leads first.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn lead(&self) -> Result<FakeLeader> {
        FakeLeader::acquire(self.store(), &self.root).await
    }

    /// Adds a fake pod.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn fake_pod(&self) -> Result<FakePod> {
        FakePod::join(self.store(), &self.root, &self.env.address(), self.env.port).await
    }

    /// Adds a pod as the Python SDK makes it.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn python_pod(&self) -> Result<PythonPod> {
        PythonPod::join(self.store(), &self.root, &self.env.address(), self.env.port).await
    }

    /// Waits until exactly these pods are configured together: all run, one of them leads and has completed, and
    /// the snapshot holds all of them and no other pod. Returns the position of the leader.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_formed(&self, pods: &[&Pod]) -> Result<usize> {
        eventually("the pods form one cluster", DEFAULT_TIMEOUT * 2, async || self.is_formed(pods).await).await
    }

    async fn is_formed(&self, pods: &[&Pod]) -> Result<usize> {
        let mut keys = Vec::new();
        let mut leader = None;
        for (position, pod) in pods.iter().enumerate() {
            let info = pod.client().info().await?;
            ensure!(info["process"] == "running", "{} is {}", pod.address(), info["process"]);
            pod.has_reported_start(&info["pid"])?;
            if info["state"] == "leader" {
                ensure!(leader.replace(position).is_none(), "two pods lead");
            }
            keys.push(info["key"].as_str().unwrap_or_default().to_owned());
        }
        keys.sort();
        let configured: Vec<String> = self.snapshot().await?.keys().cloned().collect();
        ensure!(configured == keys, "configured pods are {configured:?}, expected {keys:?}");
        let hash = self.hash().await?;
        ensure!(!hash.is_empty() && !hash.starts_with("pending:"), "the hash is {hash:?}");
        leader.context("no pod leads")
    }
}
