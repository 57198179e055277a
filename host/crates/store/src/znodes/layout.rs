//! Paths and names of all nodes. Clusters, `pods`, `coordinator`, `hash` and `snapshot` are shared with the Python SDK.

use ochopod_model::{ClusterName, PodId};

use super::NodeAccess;

/// Parent of all clusters; its children are `namespace.cluster`.
pub const CLUSTERS: &str = "/ochopod/clusters";

/// Parent of all services; its children are services, theirs the instances.
pub const SERVICES: &str = "/ochopod/services";

/// Infix between the token and the number of a lock node, as in the client library of the Python SDK.
const LOCK_INFIX: &str = "__lock__";

/// Paths of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: String,
}

impl Layout {
    /// Returns the paths of a cluster.
    #[must_use]
    pub fn new(name: &ClusterName) -> Self {
        Self::of(&name.to_string())
    }

    /// Returns the paths of a cluster by its whole name, as listed under [`CLUSTERS`].
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { root: format!("{CLUSTERS}/{name}") }
    }

    /// Returns the node of the cluster.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Returns every persistent node that pods rely on, parents first. They are created empty.
    #[must_use]
    pub fn parents(&self) -> [(String, NodeAccess); 7] {
        let above = CLUSTERS.rsplit_once('/').map_or(CLUSTERS, |(above, _)| above);
        [
            (above.to_owned(), NodeAccess::Open),
            (CLUSTERS.to_owned(), NodeAccess::Open),
            (self.root.clone(), NodeAccess::Cluster),
            (self.pods(), NodeAccess::Readable),
            (self.coordinator(), NodeAccess::Cluster),
            (self.states(), NodeAccess::Cluster),
            (self.hash(), NodeAccess::Cluster),
        ]
    }

    /// Returns the parent of the registrations.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("{}/pods", self.root)
    }

    /// Returns the path of a registration, without the number that the store appends.
    #[must_use]
    pub fn registration(&self, id: &PodId) -> String {
        format!("{}/pods/{id}.", self.root)
    }

    /// Returns the parent of the lock nodes.
    #[must_use]
    pub fn coordinator(&self) -> String {
        format!("{}/coordinator", self.root)
    }

    /// Returns the path of a lock node, without the number that the store appends.
    #[must_use]
    pub fn lock(&self, token: &str) -> String {
        format!("{}/coordinator/{token}{LOCK_INFIX}", self.root)
    }

    /// Returns the node with the digest of the last successful configuration, or `pending:<generation>`.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{}/hash", self.root)
    }

    /// Returns the node with the pods of that configuration; ephemeral, owned by the leader.
    #[must_use]
    pub fn snapshot(&self) -> String {
        format!("{}/snapshot", self.root)
    }

    /// Returns the parent of the states of the pods.
    #[must_use]
    pub fn states(&self) -> String {
        format!("{}/states", self.root)
    }

    /// Returns the node with the state of a pod; ephemeral.
    #[must_use]
    pub fn state(&self, id: &PodId) -> String {
        format!("{}/states/{id}", self.root)
    }

    /// Returns the node with pods and dependencies of that configuration; persistent.
    #[must_use]
    pub fn view(&self) -> String {
        format!("{}/view", self.root)
    }

    /// Returns the node that exists while configurations are paused; persistent.
    #[must_use]
    pub fn paused(&self) -> String {
        format!("{}/paused", self.root)
    }
}

/// Parses the name of a registration: the pod and the number that the store appended.
#[must_use]
pub fn parse_registration(name: &str) -> Option<(PodId, u64)> {
    let (id, number) = name.rsplit_once('.')?;
    if id.is_empty() {
        return None;
    }
    Some((PodId::from(id), number.parse().ok()?))
}

/// Parses the number of a lock node (`<32 hex>__lock__<10 digits>`, as in the client library of the Python SDK), which
/// orders the contenders.
#[must_use]
pub fn lock_number(name: &str) -> Option<i64> {
    let (_, number) = name.rsplit_once(LOCK_INFIX)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_registrations_and_lock_nodes_are_parsed() {
        let id = "8ce92aca-2b79-4403-87c5-5c9303d5a01a";
        assert_eq!(parse_registration(&format!("{id}.0000000012")), Some((PodId::from(id), 12)));
        assert_eq!(parse_registration("a.b.0000000003"), Some((PodId::from("a.b"), 3)));
        for bad in ["", "abc", ".0000000001", "abc.", "abc.x"] {
            assert_eq!(parse_registration(bad), None, "{bad}");
        }
        assert_eq!(lock_number("75465ddf72b5435e8944927d3fdc95a8__lock__0000000002"), Some(2));
        assert_eq!(lock_number("something else"), None);
    }
}
