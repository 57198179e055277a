//! Client of ZooKeeper, which reads and writes as a foreign pod would.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use zookeeper_client::{Acl, Acls, Client, CreateMode, Error, Stat};

use crate::Result;

const SESSION: Duration = Duration::from_mins(1);
const DEADLINE: Duration = Duration::from_mins(1);

/// Lifetime of a node of the kit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeLifetime {
    /// Until it is deleted.
    Always,
    /// Until the store that made it is dropped.
    Session,
    /// The same, with a number appended.
    SessionNumbered,
}

/// A session of the kit's, within a chroot. It outlives outages of a minute.
#[derive(Debug, Clone)]
pub struct ZkClient {
    client: Client,
    connect: String,
}

impl ZkClient {
    /// Connects to `address`, makes the chroot (`/name`) where it is missing, and stays in it.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn connect(address: &str, chroot: &str) -> Result<Self> {
        let client = Client::connector()
            .with_session_timeout(SESSION)
            .connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        client.mkdir(chroot, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
        let client = client.chroot(chroot.to_owned()).ok().with_context(|| format!("invalid chroot {chroot}"))?;
        Ok(Self { client, connect: format!("{address}{chroot}") })
    }

    /// Opens another session with the same chroot.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn another(&self) -> Result<Self> {
        Ok(Self {
            client: Client::connector().with_session_timeout(SESSION).connect(&self.connect).await?,
            connect: self.connect.clone(),
        })
    }

    /// Returns the value of `ochopod_zk` for a pod.
    #[must_use]
    pub fn connect_string(&self) -> &str {
        &self.connect
    }

    /// Returns the node below which all is: `/name`.
    #[must_use]
    pub fn chroot(&self) -> &str {
        self.connect.find('/').and_then(|slash| self.connect.get(slash..)).unwrap_or_default()
    }

    /// Returns the client, for what the store does not offer.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a node's content and what ZooKeeper knows of it.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn find(&self, path: &str) -> Result<Option<(Vec<u8>, Stat)>> {
        match timed(path, self.client.get_data(path)).await? {
            Ok(found) => Ok(Some(found)),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
        }
    }

    /// Returns a node's content as text; empty when it does not exist.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(self.find(path).await?.map(|(data, _)| String::from_utf8_lossy(&data).into_owned()).unwrap_or_default())
    }

    /// Returns a node's content as JSON.
    ///
    /// # Errors
    /// If it does not exist or is not JSON.
    pub async fn json(&self, path: &str) -> Result<Value> {
        let (data, _) = self.find(path).await?.with_context(|| format!("{path} does not exist"))?;
        serde_json::from_slice(&data)
            .with_context(|| format!("{path} holds {:?}, which is not JSON", String::from_utf8_lossy(&data)))
    }

    /// Names of a node's children, sorted; none when it does not exist.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn children(&self, path: &str) -> Result<Vec<String>> {
        match timed(path, self.client.list_children(path)).await? {
            Ok(mut names) => {
                names.sort();
                Ok(names)
            }
            Err(Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot list {path}")),
        }
    }

    /// Creates a node, its parents included, and returns its path.
    ///
    /// # Errors
    /// If it exists.
    pub async fn create(&self, path: &str, data: &[u8], kept: NodeLifetime) -> Result<String> {
        let anyone = Acls::anyone_all();
        let persistent = CreateMode::Persistent.with_acls(anyone);
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            timed(path, self.client.mkdir(parent, &persistent)).await??;
        }
        let mode = match kept {
            NodeLifetime::Always => CreateMode::Persistent,
            NodeLifetime::Session => CreateMode::Ephemeral,
            NodeLifetime::SessionNumbered => CreateMode::EphemeralSequential,
        };
        let options = mode.with_acls(anyone);
        let created = timed(path, self.client.create(path, data, &options)).await?;
        let (_, sequence) = created.with_context(|| format!("cannot create {path}"))?;
        Ok(if kept == NodeLifetime::SessionNumbered { format!("{path}{sequence}") } else { path.to_owned() })
    }

    /// Makes a node that only this user may use.
    ///
    /// # Errors
    /// If it exists.
    pub async fn create_for(&self, user: &str, password: &str, path: &str) -> Result {
        self.create(path, b"", NodeLifetime::Always).await?;
        self.authenticate(&format!("{user}:{password}")).await?;
        timed(path, self.client.set_acl(path, &Acls::creator_all(), None)).await??;
        Ok(())
    }

    /// Is also the user with these credentials (`user:password`) from now on.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn authenticate(&self, credentials: &str) -> Result {
        timed("/", self.client.auth("digest", credentials.as_bytes())).await??;
        Ok(())
    }

    /// Returns a node's access list: who (`digest:user`, `world:anyone`) and what.
    ///
    /// # Errors
    /// If it does not exist, or may not be seen.
    pub async fn access(&self, path: &str) -> Result<Vec<String>> {
        let (list, _) = timed(path, self.client.get_acl(path)).await?.with_context(|| format!("the list of {path}"))?;
        let shown = list.iter().map(|acl| {
            let user = acl.id().split(':').next().unwrap_or_default();
            format!("{}:{user} {}", acl.scheme(), acl.permission())
        });
        Ok(shown.collect())
    }

    /// Replaces a node's access list.
    ///
    /// # Errors
    /// If that is not allowed.
    pub async fn set_access(&self, path: &str, list: &[Acl]) -> Result {
        let set = timed(path, self.client.set_acl(path, &Acls::new(list), None)).await?;
        set.with_context(|| format!("cannot set the list of {path}"))?;
        Ok(())
    }

    /// Replaces a node's content.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn set(&self, path: &str, data: &[u8]) -> Result {
        timed(path, self.client.set_data(path, data, None)).await?.with_context(|| format!("cannot set {path}"))?;
        Ok(())
    }

    /// Deletes a node.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn delete(&self, path: &str) -> Result {
        timed(path, self.client.delete(path, None)).await?.with_context(|| format!("cannot delete {path}"))
    }

    /// Returns the session that owns an ephemeral node.
    ///
    /// # Errors
    /// If it does not exist or is not ephemeral.
    pub async fn owner(&self, path: &str) -> Result<i64> {
        let (_, stat) = self.find(path).await?.with_context(|| format!("{path} does not exist"))?;
        ensure!(stat.ephemeral_owner != 0, "{path} is not ephemeral");
        Ok(stat.ephemeral_owner)
    }
}

async fn timed<T>(path: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(DEADLINE, call).await.with_context(|| format!("ZooKeeper did not answer for {path}"))
}
