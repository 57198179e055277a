//! Where everything lives in the store. The first three and `snapshot` are the Python SDK's.

use super::Access;
use crate::cluster::{ClusterName, PodId};

/// Parent of all clusters; its children are `namespace.cluster`.
pub const CLUSTERS: &str = "/ochopod/clusters";

/// Parent of all services; its children are services, theirs the instances.
pub const SERVICES: &str = "/ochopod/services";

/// What the Python SDK's client library puts between the token and the number of a lock node.
const LOCK: &str = "__lock__";

/// Paths of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: String,
}

impl Layout {
    /// Paths of a cluster of ours.
    #[must_use]
    pub fn new(name: &ClusterName) -> Self {
        Self::of(&name.to_string())
    }

    /// Paths of a cluster by its whole name, as listed under [`CLUSTERS`].
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { root: format!("{CLUSTERS}/{name}") }
    }

    /// The cluster's own node.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Every persistent node that pods rely on, parents first. Their content is empty at first.
    #[must_use]
    pub fn parents(&self) -> [(String, Access); 6] {
        let above = CLUSTERS.rsplit_once('/').map_or(CLUSTERS, |(above, _)| above);
        [
            (above.to_owned(), Access::Open),
            (CLUSTERS.to_owned(), Access::Open),
            (self.root.clone(), Access::Cluster),
            (self.pods(), Access::Readable),
            (self.coordinator(), Access::Cluster),
            (self.hash(), Access::Cluster),
        ]
    }

    /// Parent of the registrations.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("{}/pods", self.root)
    }

    /// A registration, without the number that the store appends.
    #[must_use]
    pub fn registration(&self, id: &PodId) -> String {
        format!("{}/pods/{id}.", self.root)
    }

    /// Parent of the lock nodes.
    #[must_use]
    pub fn coordinator(&self) -> String {
        format!("{}/coordinator", self.root)
    }

    /// A lock node, without the number that the store appends.
    #[must_use]
    pub fn lock(&self, token: &str) -> String {
        format!("{}/coordinator/{token}{LOCK}", self.root)
    }

    /// Digest of the last successful configuration, or `pending:<generation>`.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{}/hash", self.root)
    }

    /// The pods of that configuration; ephemeral, the leader's.
    #[must_use]
    pub fn snapshot(&self) -> String {
        format!("{}/snapshot", self.root)
    }

    /// Pods and dependencies of that configuration; persistent.
    #[must_use]
    pub fn view(&self) -> String {
        format!("{}/view", self.root)
    }
}

/// A registration's name taken apart: the pod and the number that the store appended.
#[must_use]
pub fn parse_registration(name: &str) -> Option<(PodId, u64)> {
    let (id, number) = name.rsplit_once('.')?;
    if id.is_empty() {
        return None;
    }
    Some((PodId::from(id), number.parse().ok()?))
}

/// The number of a lock node (`<32 hex>__lock__<10 digits>`, as the Python SDK's client library names them), which
/// orders the contenders.
#[must_use]
pub fn lock_number(name: &str) -> Option<i64> {
    let (_, number) = name.rsplit_once(LOCK)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_systems_are_taken_apart() {
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
