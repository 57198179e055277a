use std::collections::BTreeMap;

use crate::{Error, Result, bail};

/// One pod as it registered itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Random identity, given once and kept for the pod's life.
    pub key: String,
    /// Monotonic number, given once per pod and never reused within a cluster. Not necessarily consecutive.
    pub seq: u64,
    /// Address that the other pods use.
    pub ip: String,
    /// Address reachable from outside, or empty.
    pub public: String,
    /// The machine below, as the binding names it.
    pub node: String,
    /// Identifier of the application in the platform above, or empty.
    pub application: String,
    /// Identifier of this very pod in the platform above, or empty.
    pub task: String,
    /// `dead` for a pod that has ended for good (seen by `can_configure` only), else empty.
    pub status: String,
    /// Control port as the container knows it.
    pub port: u16,
    /// Remapped ports: container port to the port it is reachable as. Empty where nothing is remapped.
    pub ports: BTreeMap<u16, u16>,
    /// Every other key of the registration: text as it is, any other JSON value as its JSON text.
    pub settings: BTreeMap<String, String>,
}

impl Pod {
    /// Whether the pod has ended for good.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.status == "dead"
    }

    /// The port under which a port of the container is reachable: itself where nothing is remapped.
    ///
    /// # Errors
    /// When the pod remaps ports, but not this one.
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

    /// `ip:port` under which a port of the container is reachable from the other pods, or from outside when `public`.
    ///
    /// # Errors
    /// When the pod does not expose it, or has no such address.
    pub fn address(&self, port: u16, public: bool) -> Result<String> {
        let (kind, ip) = if public { ("public ", &self.public) } else { ("", &self.ip) };
        if ip.is_empty() {
            bail!("pod seq {} has no {kind}address", self.seq);
        }
        let port = self.reachable(port)?;
        Ok(if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
    }
}

/// The pods of one dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The name under which the model declared it.
    pub name: String,
    /// In the order of their keys. Empty while none is configured.
    pub pods: Vec<Pod>,
}

/// A full, consistent view of the cluster: the same for every pod but for `key`, `index` and `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Namespace of the cluster.
    pub namespace: String,
    /// Name of the cluster within its namespace.
    pub name: String,
    /// The pod that this view was sent to.
    pub key: String,
    /// Position of that pod among all, from 0. It changes as pods come and go.
    pub index: usize,
    /// `seq` of that pod. It never changes.
    pub seq: u64,
    /// Number of pods.
    pub size: usize,
    /// In the order of their keys.
    pub pods: Vec<Pod>,
    /// One entry per declared dependency, in the order of their names.
    pub dependencies: Vec<Dependency>,
}

impl Cluster {
    /// The pod that this view was sent to.
    ///
    /// # Errors
    /// When the view does not have it; no host sends such a view.
    pub fn me(&self) -> Result<&Pod> {
        let own = self.pods.iter().find(|pod| pod.key == self.key);
        own.ok_or_else(|| Error::new(format!("the view has no pod {}", self.key)))
    }

    /// The pods in the order of their `seq`: the oldest comes first, and every pod agrees on the order.
    #[must_use]
    pub fn by_seq(&self) -> Vec<&Pod> {
        sorted(&self.pods)
    }

    /// The pods of a dependency, by the name under which the model declared it.
    ///
    /// # Errors
    /// When the model declares no such dependency.
    pub fn dependency(&self, name: &str) -> Result<&Dependency> {
        let declared = self.dependencies.iter().find(|dependency| dependency.name == name);
        declared.ok_or_else(|| Error::new(format!("the model does not depend on {name:?}: add it to `depends_on`")))
    }

    /// A connection string for a dependency: `ip:port,ip:port…` in the order of `seq`, each port as it is reachable.
    /// Empty while none of its pods is registered.
    ///
    /// # Errors
    /// When the model declares no such dependency, or one of its pods does not expose the port.
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
        cluster([pod(0)]).dependency("kafka", pods).seen_by(0)
    }

    #[test]
    fn grep_gives_addresses_in_seq_order_with_remapped_ports() {
        let first = Pod { key: "z".into(), ip: "10.0.0.1".into(), public: "54.1.1.1".into(), ..pod(1) };
        let second = Pod { key: "a".into(), ip: "10.0.0.2".into(), ports: [(9092, 31000)].into(), ..pod(2) };
        let view = kafka([second, first]);
        assert_eq!(view.grep("kafka", 9092, false).unwrap(), "10.0.0.1:9092,10.0.0.2:31000");
    }

    #[test]
    fn grep_gives_nothing_while_no_pod_of_the_dependency_is_registered() {
        assert_eq!(kafka([]).grep("kafka", 9092, false).unwrap(), "");
    }

    #[test]
    fn grep_refuses_what_was_not_declared_or_is_not_exposed_and_says_which() {
        let remaps = Pod { ports: [(8080, 31000), (9093, 31001)].into(), ..pod(3) };
        let cases = [
            (kafka([]), "zookeeper", false, "the model does not depend on \"zookeeper\": add it to `depends_on`"),
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
