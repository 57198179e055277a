//! Names of clusters and pods.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// An invalid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The namespace is not dot separated tokens of `[A-Za-z0-9_-]`.
    #[error("invalid namespace {0:?}: expected tokens of letters, digits, '_' and '-', separated by dots")]
    Namespace(String),
    /// The cluster is not one token of `[A-Za-z0-9_-]`.
    #[error("invalid cluster {0:?}: expected letters, digits, '_' and '-'")]
    Cluster(String),
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The full name of a cluster, `namespace.cluster`: the name of its node in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName {
    namespace: String,
    cluster: String,
}

impl ClusterName {
    /// Validates the two parts.
    ///
    /// # Errors
    /// If a part is invalid: tokens separated by dots for the namespace, one token for the cluster.
    pub fn new(namespace: &str, cluster: &str) -> Result<Self, NameError> {
        if !namespace.split('.').all(is_token) {
            return Err(NameError::Namespace(namespace.to_owned()));
        }
        if !is_token(cluster) {
            return Err(NameError::Cluster(cluster.to_owned()));
        }
        Ok(Self { namespace: namespace.to_owned(), cluster: cluster.to_owned() })
    }

    /// Returns the namespace: tokens separated by dots.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the name within the namespace: one token.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

/// Returns `marathon.default`, the default of the settings.
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

/// Maximum length of an identity in an error, in characters.
const MAX_EXCERPT_CHARS: usize = 80;

/// Identity of one pod, which never changes: a UUID, or any text for pods of other programs. Sorted as text. Clones share the
/// text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodId(Arc<str>);

impl PodId {
    /// Returns a new random identity.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// Returns the identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns its beginning, for an error.
    pub(crate) fn excerpt(&self) -> String {
        self.0.chars().take(MAX_EXCERPT_CHARS).collect()
    }
}

impl From<&str> for PodId {
    fn from(text: &str) -> Self {
        Self(text.into())
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
    fn cluster_name_is_displayed_as_its_node() {
        let name = ClusterName::new("my-app.staging", "web_1").unwrap();
        assert_eq!(name.to_string(), "my-app.staging.web_1");
    }

    #[test]
    fn invalid_name_is_rejected_with_its_invalid_part() {
        for bad in ["", ".", "a..b", "a/b", "a b", ".a", "é"] {
            assert_eq!(ClusterName::new(bad, "web"), Err(NameError::Namespace(bad.to_owned())));
        }
        for bad in ["", "a.b", "a/b", "*", "a b"] {
            assert_eq!(ClusterName::new("marathon", bad), Err(NameError::Cluster(bad.to_owned())));
        }
    }
}
