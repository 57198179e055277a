//! Names of clusters and pods.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that does not follow its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The namespace is not dot separated tokens of `[A-Za-z0-9_-]`.
    #[error("namespace {0:?} is not dot separated tokens of letters, digits, '_' and '-'")]
    Namespace(String),
    /// The cluster is not one token of `[A-Za-z0-9_-]`.
    #[error("cluster {0:?} is not made of letters, digits, '_' and '-'")]
    Cluster(String),
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The full name of a cluster, `namespace.cluster`: the node under which it lives in the ensemble.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName {
    namespace: String,
    cluster: String,
}

impl ClusterName {
    /// Checks and joins the two parts.
    ///
    /// # Errors
    /// When a part does not follow its grammar: dot separated tokens for the namespace, one token for the cluster.
    pub fn new(namespace: &str, cluster: &str) -> Result<Self, NameError> {
        if !namespace.split('.').all(is_token) {
            return Err(NameError::Namespace(namespace.to_owned()));
        }
        if !is_token(cluster) {
            return Err(NameError::Cluster(cluster.to_owned()));
        }
        Ok(Self { namespace: namespace.to_owned(), cluster: cluster.to_owned() })
    }

    /// The namespace: dot separated tokens.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace: one token.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

/// `marathon.default`, as the settings default to.
impl Default for ClusterName {
    fn default() -> Self {
        Self { namespace: "marathon".to_owned(), cluster: "default".to_owned() }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.cluster)
    }
}

/// Identity of one pod for its whole life: a UUID for pods of ours, any text from elsewhere. Sorted as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodId(String);

impl PodId {
    /// A new random identity.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// The identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PodId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_name_is_shown_as_its_node() {
        let name = ClusterName::new("my-app.staging", "web_1").unwrap();
        assert_eq!(name.to_string(), "my-app.staging.web_1");
    }

    #[test]
    fn names_outside_the_grammar_are_refused_with_the_part_that_is_wrong() {
        for bad in ["", ".", "a..b", "a/b", "a b", ".a", "é"] {
            assert_eq!(ClusterName::new(bad, "web"), Err(NameError::Namespace(bad.to_owned())));
        }
        for bad in ["", "a.b", "a/b", "*", "a b"] {
            assert_eq!(ClusterName::new("marathon", bad), Err(NameError::Cluster(bad.to_owned())));
        }
    }
}
