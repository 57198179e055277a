use std::{collections::BTreeMap, vec};

use crate::{Error, Result, bail, bindings::ochopod::pod::types};

#[cfg(not(target_family = "wasm"))]
pub(crate) mod native;
#[cfg(not(target_family = "wasm"))]
use native::View;

/// The view that the host lends to a callback.
#[cfg(target_family = "wasm")]
pub(crate) type View<'a> = &'a types::Cluster;

/// Number of pods that are read at a time while all are visited.
const PAGE: usize = 256;

/// Registration of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Random identity, kept for the lifetime of the pod.
    pub key: String,
    /// Monotonic number, assigned once per pod and never reused within a cluster. Not necessarily consecutive.
    pub seq: u64,
    /// Address that other pods connect to.
    pub ip: String,
    /// Address reachable from outside, or empty.
    pub public: String,
    /// Underlying machine, as named by the platform.
    pub node: String,
    /// Identifier of the application on the platform, or empty.
    pub application: String,
    /// Identifier of this pod on the platform, or empty.
    pub task: String,
    /// `dead` for a finished pod (passed to `can_configure` only), else empty.
    pub status: String,
    /// Role that the pod published last (see [`Lifecycle::role`](crate::Lifecycle::role)), or empty.
    pub role: String,
    /// In `configure` and `ready`: whether the leader requested the start of this pod before that of the pod that the view is
    /// for, in the same configuration. False everywhere else, and for pods of the same batch.
    pub started: bool,
    /// Control port in the container.
    pub port: u16,
    /// Remapped ports: container port to the port reachable from other pods. Empty if no port is remapped.
    pub ports: BTreeMap<u16, u16>,
    /// Every other key of the registration: text unchanged, any other JSON value as its JSON text.
    pub settings: BTreeMap<String, String>,
}

impl Pod {
    /// Returns whether the pod is finished.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.status == "dead"
    }

    /// Returns the port under which a port of the container is reachable: the same port if no port is remapped.
    ///
    /// # Errors
    /// If the pod remaps ports, but not this one.
    pub fn reachable(&self, port: u16) -> Result<u16> {
        match self.ports.get(&port) {
            Some(remapped) => Ok(*remapped),
            None if self.ports.is_empty() => Ok(port),
            None => {
                let known: Vec<_> = self.ports.keys().map(u16::to_string).collect();
                bail!("pod seq {} at {} does not expose port {port}, only {}", self.seq, self.ip, known.join(", "))
            }
        }
    }

    /// Returns `ip:port` under which a port of the container is reachable from the other pods, or from outside if
    /// `public`.
    ///
    /// # Errors
    /// If the pod does not expose the port, or has no such address.
    pub fn address(&self, port: u16, public: bool) -> Result<String> {
        let (kind, ip) = if public { ("public ", &self.public) } else { ("", &self.ip) };
        if ip.is_empty() {
            bail!("pod seq {} has no {kind}address", self.seq);
        }
        let port = self.reachable(port)?;
        Ok(if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
    }
}

/// Complete, consistent view of the cluster, which the host keeps: the same for every pod except `key`, `index`, `seq`, `me`
/// and [`Pod::started`]. A callback borrows it and cannot keep it.
///
/// Only what is read is copied: a callback that reads nothing costs the same at any size. Columns ([`keys`](Self::keys),
/// [`roles`](Self::roles), [`addresses`](Self::addresses)) and [`grep`](Self::grep) copy one text per pod, and lists copy each
/// pod with all of its texts.
///
/// ```
/// use ochopod_sdk::{Cluster, Pod, testing};
///
/// fn peers(cluster: &Cluster) -> ochopod_sdk::Result<String> {
///     let me = cluster.me()?;
///     let others = cluster.iter().filter(|pod| pod.key != me.key);
///     let addresses: Vec<_> = others.map(|pod| pod.address(80, false)).collect::<ochopod_sdk::Result<_>>()?;
///     Ok(format!("{} of {}: {}", cluster.index() + 1, cluster.size(), addresses.join(" ")))
/// }
///
/// let cluster = testing::cluster([testing::pod(0), testing::pod(1)]).view_of(1);
/// assert_eq!(peers(&cluster)?, "2 of 2: 127.0.0.2:80");
/// # Ok::<(), ochopod_sdk::Error>(())
/// ```
#[derive(Debug)]
pub struct Cluster<'a>(pub(crate) View<'a>);

impl Cluster<'_> {
    /// Returns the namespace of the cluster.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.0.namespace()
    }

    /// Returns the name of the cluster within its namespace.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Returns the key of the pod that this view was sent to.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.key()
    }

    /// Returns the position of that pod among all, from 0. Changes as pods join and leave. 0 where [`me`](Self::me) fails.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.index() as usize
    }

    /// Returns `seq` of that pod, which never changes. 0 where [`me`](Self::me) fails.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.0.seq()
    }

    /// Returns the number of pods.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size() as usize
    }

    /// Returns the pod that this view was sent to.
    ///
    /// # Errors
    /// In `probe` and `reconcile` of a leader whose own pod is not part of the configuration, for example because it is
    /// cordoned.
    pub fn me(&self) -> Result<Pod> {
        let own = self.0.me().map(Into::into);
        own.ok_or_else(|| Error::new(format!("unknown pod {} in the view", self.key())))
    }

    /// Returns the pod with this key, if the view has it.
    #[must_use]
    pub fn pod(&self, key: &str) -> Option<Pod> {
        self.0.pod(key).map(Into::into)
    }

    /// Returns the pod with the lowest `seq`, which is the same for every pod; none if the view is empty.
    #[must_use]
    pub fn oldest(&self) -> Option<Pod> {
        self.0.oldest().map(Into::into)
    }

    /// Returns all pods, sorted by key. [`iter`](Self::iter) needs less memory.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        converted(self.0.pods())
    }

    /// Returns up to `count` pods from position `start`, sorted by key.
    #[must_use]
    pub fn range(&self, start: usize, count: usize) -> Vec<Pod> {
        let [start, count] = [start, count].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        converted(self.0.range(start, count))
    }

    /// Returns an iterator over all pods, sorted by key, which reads some at a time.
    #[must_use]
    pub fn iter(&self) -> Pods<'_> {
        Pods { cluster: self, next: 0, page: Vec::new().into_iter() }
    }

    /// Returns all pods sorted by `seq`, oldest first: the order is the same on every pod. For the first alone,
    /// [`oldest`](Self::oldest) is cheaper.
    #[must_use]
    pub fn by_seq(&self) -> Vec<Pod> {
        let mut pods = self.pods();
        pods.sort_by_key(|pod| pod.seq);
        pods
    }

    /// Returns the key of each pod, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.0.keys()
    }

    /// Returns the role of each pod, in the order of [`keys`](Self::keys). Empty where it has none.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        self.0.roles()
    }

    /// Returns the address of each pod, in the order of [`keys`](Self::keys): see [`Pod::address`].
    ///
    /// # Errors
    /// If a pod does not expose the port, or has no such address.
    pub fn addresses(&self, port: u16, public: bool) -> Result<Vec<String>> {
        self.0.addresses(port, public).map_err(Error::new)
    }

    /// Returns the names of the dependencies, as the model declared them, sorted.
    #[must_use]
    pub fn dependencies(&self) -> Vec<String> {
        self.0.dependencies()
    }

    /// Returns the pods of a dependency, sorted by key, by the name that the model declared. They are the pods of the last
    /// complete configuration of that cluster. Empty if the cluster was never configured, or if none of these pods has been
    /// registered for twice the session timeout.
    ///
    /// # Errors
    /// If the model declares no such dependency.
    pub fn dependency(&self, name: &str) -> Result<Vec<Pod>> {
        self.0.dependency(name).map(converted).ok_or_else(|| undeclared(name))
    }

    /// Returns the number of pods of a dependency.
    ///
    /// # Errors
    /// If the model declares no such dependency.
    pub fn dependency_size(&self, name: &str) -> Result<usize> {
        self.0.dependency_size(name).map(|size| size as usize).ok_or_else(|| undeclared(name))
    }

    /// Returns a connection string for a dependency: `ip:port,ip:port…` in the order of `seq`, with reachable ports.
    /// Empty if the dependency was never configured, or has been away for twice the session timeout. Before that the
    /// leader starts no configuration, so an empty result in `can_configure` means that the dependency does not exist.
    ///
    /// # Errors
    /// If the model declares no such dependency, or one of its pods does not expose the port.
    pub fn grep(&self, dependency: &str, port: u16, public: bool) -> Result<String> {
        self.0.grep(dependency, port, public).map_err(Error::new)
    }
}

impl<'c> IntoIterator for &'c Cluster<'_> {
    type Item = Pod;
    type IntoIter = Pods<'c>;

    fn into_iter(self) -> Pods<'c> {
        self.iter()
    }
}

/// Iterator over the pods of a view: see [`Cluster::iter`].
#[derive(Debug)]
pub struct Pods<'c> {
    cluster: &'c Cluster<'c>,
    next: usize,
    page: vec::IntoIter<Pod>,
}

impl Iterator for Pods<'_> {
    type Item = Pod;

    fn next(&mut self) -> Option<Pod> {
        if self.page.len() == 0 {
            self.page = self.cluster.range(self.next, PAGE).into_iter();
            self.next += self.page.len();
        }
        self.page.next()
    }
}

fn converted(pods: Vec<types::Pod>) -> Vec<Pod> {
    pods.into_iter().map(Into::into).collect()
}

fn undeclared(name: &str) -> Error {
    Error::new(format!("undeclared dependency {name:?}: add it to `depends_on`"))
}

#[cfg(test)]
mod tests;
