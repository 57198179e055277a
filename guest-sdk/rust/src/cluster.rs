use std::collections::BTreeMap;

use crate::{Error, Result, bail};

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

/// Pods of one dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Name that the model declared.
    pub name: String,
    /// Pods of the last complete configuration of that cluster, sorted by key. Empty if the cluster was never
    /// configured, or if none of these pods has been registered for twice the session timeout.
    pub pods: Vec<Pod>,
}

/// Complete, consistent view of the cluster: identical for every pod except `key`, `index` and `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Namespace of the cluster.
    pub namespace: String,
    /// Name of the cluster within its namespace.
    pub name: String,
    /// Pod that this view was sent to.
    pub key: String,
    /// Position of that pod among all, from 0. Changes as pods join and leave.
    pub index: usize,
    /// `seq` of that pod. Never changes.
    pub seq: u64,
    /// Number of pods.
    pub size: usize,
    /// Sorted by key.
    pub pods: Vec<Pod>,
    /// One entry per declared dependency, sorted by name.
    pub dependencies: Vec<Dependency>,
}

impl Cluster {
    /// Returns the pod that this view was sent to.
    ///
    /// # Errors
    /// If the view does not contain the pod; no host sends such a view.
    pub fn me(&self) -> Result<&Pod> {
        let own = self.pods.iter().find(|pod| pod.key == self.key);
        own.ok_or_else(|| Error::new(format!("unknown pod {} in the view", self.key)))
    }

    /// Returns the pods sorted by `seq`, oldest first: the order is the same on every pod.
    #[must_use]
    pub fn by_seq(&self) -> Vec<&Pod> {
        sorted(&self.pods)
    }

    /// Returns the pods of a dependency, by the name that the model declared.
    ///
    /// # Errors
    /// If the model declares no such dependency.
    pub fn dependency(&self, name: &str) -> Result<&Dependency> {
        let declared = self.dependencies.iter().find(|dependency| dependency.name == name);
        declared.ok_or_else(|| Error::new(format!("undeclared dependency {name:?}: add it to `depends_on`")))
    }

    /// Returns a connection string for a dependency: `ip:port,ip:port…` in the order of `seq`, with reachable ports.
    /// Empty if the dependency was never configured, or has been away for twice the session timeout. Before that the
    /// leader starts no configuration, so an empty result in `can_configure` means that the dependency does not exist.
    ///
    /// # Errors
    /// If the model declares no such dependency, or one of its pods does not expose the port.
    pub fn grep(&self, dependency: &str, port: u16, public: bool) -> Result<String> {
        let pods = sorted(&self.dependency(dependency)?.pods);
        let addresses: Vec<_> = pods.iter().map(|pod| pod.address(port, public)).collect::<Result<_>>()?;
        Ok(addresses.join(","))
    }
}

fn sorted(pods: &[Pod]) -> Vec<&Pod> {
    let mut sorted: Vec<_> = pods.iter().collect();
    sorted.sort_by_key(|pod| pod.seq);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, pod};

    fn kafka(pods: impl IntoIterator<Item = Pod>) -> Cluster {
        cluster([pod(0)]).dependency("kafka", pods).view_of(0)
    }

    #[test]
    fn grep_returns_addresses_in_seq_order_with_remapped_ports() {
        let first = Pod { key: "z".into(), ip: "10.0.0.1".into(), public: "54.1.1.1".into(), ..pod(1) };
        let second = Pod { key: "a".into(), ip: "10.0.0.2".into(), ports: [(9092, 31000)].into(), ..pod(2) };
        let view = kafka([second, first]);
        assert_eq!(view.grep("kafka", 9092, false).unwrap(), "10.0.0.1:9092,10.0.0.2:31000");
    }

    #[test]
    fn grep_returns_nothing_while_no_pod_of_the_dependency_is_registered() {
        assert_eq!(kafka([]).grep("kafka", 9092, false).unwrap(), "");
    }

    #[test]
    fn grep_rejects_undeclared_dependencies_and_unexposed_ports_by_name() {
        let remaps = Pod { ports: [(8080, 31000), (9093, 31001)].into(), ..pod(3) };
        let cases = [
            (kafka([]), "zookeeper", false, "undeclared dependency \"zookeeper\": add it to `depends_on`"),
            (kafka([remaps]), "kafka", false, "pod seq 3 at 127.0.0.5 does not expose port 9092, only 8080, 9093"),
            (kafka([Pod { public: String::new(), ..pod(3) }]), "kafka", true, "pod seq 3 has no public address"),
        ];
        for (view, dependency, public, expected) in cases {
            assert_eq!(view.grep(dependency, 9092, public).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        let pod = Pod { ip: "fd00::1".into(), ..pod(1) };
        assert_eq!(pod.address(80, false).unwrap(), "[fd00::1]:80");
    }
}
