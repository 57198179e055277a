//! The view of a cluster that a configuration is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{PodId, Pods, Registration, json};

/// Pods and dependencies, which a leader posts, stores and digests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The cluster's own pods.
    pub pods: Pods,
    /// Pods of each dependency, by the name under which the model declared it.
    pub dependencies: BTreeMap<String, Pods>,
}

impl View {
    /// Returns whether the dependencies are the same, apart from the status and the role of their pods.
    #[must_use]
    pub fn has_same_dependencies(&self, other: &Self) -> bool {
        let same = |(a, b): (&Pods, &Pods)| {
            a.len() == b.len() && a.iter().zip(b).all(|((id, pod), (key, other))| id == key && pod.is_same(other))
        };
        self.dependencies.keys().eq(other.dependencies.keys())
            && self.dependencies.values().zip(other.dependencies.values()).all(same)
    }
}

/// An invalid posted view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Not the expected JSON.
    #[error("invalid view: {0}; expected key, pods, dependencies")]
    Parse(String),
    /// `key` is not among `pods`.
    #[error("invalid view: key {0:?} is not among the pods")]
    Key(String),
}

/// A view as one pod receives it: `{"key", "pods", "dependencies"}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PostedView {
    /// The pod it was sent to.
    pub key: PodId,
    /// Pods whose start was requested before, in the same configuration.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub started: BTreeSet<PodId>,
    /// The view, the same for every pod.
    #[serde(flatten)]
    pub view: Arc<View>,
}

/// The same without `flatten`, so that errors have a position.
#[derive(Deserialize)]
struct PostedViewBody {
    key: PodId,
    #[serde(default)]
    started: BTreeSet<PodId>,
    pods: Pods,
    dependencies: BTreeMap<String, Pods>,
}

impl PostedView {
    /// Returns the view as this pod receives it.
    #[must_use]
    pub fn new(key: PodId, view: Arc<View>) -> Self {
        Self { key, started: BTreeSet::new(), view }
    }

    /// Parses the body of a request.
    ///
    /// # Errors
    /// If it is not a view, or its key is not among its pods.
    pub fn parse(body: &[u8]) -> Result<Self, ViewError> {
        let PostedViewBody { key, started, pods, dependencies } = json::parse_object(body).map_err(ViewError::Parse)?;
        if !pods.contains_key(&key) {
            return Err(ViewError::Key(key.excerpt()));
        }
        Ok(Self { key, started, view: Arc::new(View { pods, dependencies }) })
    }

    /// Returns the registration of the receiver.
    #[must_use]
    pub fn own(&self) -> Option<&Registration> {
        self.view.pods.get(&self.key).map(AsRef::as_ref)
    }

    /// Returns the position of the receiver among the pods, sorted as text.
    #[must_use]
    pub fn index(&self) -> usize {
        self.view.pods.keys().position(|id| *id == self.key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_of_a_python_leader_has_the_position_of_its_receiver() {
        let body = br#"{"dependencies": {"db": {"x": {"seq": 0, "ip": "h"}}},
            "pods": {"b": {"seq": 0, "fake": "true"}, "a": {"seq": 3}}, "key": "b"}"#;
        let posted = PostedView::parse(body).unwrap();
        assert_eq!(posted.index(), 1);
        assert_eq!(posted.own().unwrap().seq(), 0);
        assert_eq!(posted.own().unwrap().text("fake"), "true");
        assert_eq!(posted.view.dependencies["db"].len(), 1);
    }

    #[test]
    fn invalid_view_is_rejected() {
        let list = r#"["a",[],{"a":{"seq":0}},{}]"#;
        for bad in
            ["", "{}", "[]", list, r#"{"key":"a","pods":{"a":{}},"dependencies":{}}"#, r#"{"key":"a","pods":{}}"#]
        {
            assert!(matches!(PostedView::parse(bad.as_bytes()), Err(ViewError::Parse(_))), "{bad}");
        }
        let absent = PostedView::parse(br#"{"key":"a","pods":{},"dependencies":{}}"#);
        assert_eq!(absent, Err(ViewError::Key("a".to_owned())));
    }
}
