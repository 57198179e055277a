//! The view of a cluster that a configuration is made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PodId, Pods, Registration, json};

/// Longest key that an error repeats, in characters.
const LONGEST_KEY: usize = 80;

/// Pods and dependencies: what a leader posts, stores and digests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The cluster's own pods.
    pub pods: Pods,
    /// Pods of each dependency, by the name under which the model declared it.
    pub dependencies: BTreeMap<String, Pods>,
}

/// A posted view that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Not the expected JSON.
    #[error("the body is not a view (key, pods, dependencies): {0}")]
    Parse(String),
    /// `key` is not among `pods`.
    #[error("the view's key {0:?} is not among its pods")]
    Key(String),
}

/// A view as one pod receives it: `{"key", "pods", "dependencies"}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PostedView {
    /// The pod it was sent to.
    pub key: PodId,
    /// The view, the same for every pod.
    #[serde(flatten)]
    pub view: View,
}

/// The same, flat: errors have their places.
#[derive(Deserialize)]
struct Body {
    key: PodId,
    pods: Pods,
    dependencies: BTreeMap<String, Pods>,
}

impl PostedView {
    /// Reads a request's body.
    ///
    /// # Errors
    /// When it is not a view, or its key is not among its pods.
    pub fn parse(body: &[u8]) -> Result<Self, ViewError> {
        let Body { key, pods, dependencies } = json::read(body).map_err(ViewError::Parse)?;
        if !pods.contains_key(&key) {
            return Err(ViewError::Key(key.as_str().chars().take(LONGEST_KEY).collect()));
        }
        Ok(Self { key, view: View { pods, dependencies } })
    }

    /// The receiver's own registration.
    #[must_use]
    pub fn own(&self) -> Option<&Registration> {
        self.view.pods.get(&self.key).map(AsRef::as_ref)
    }

    /// Position of the receiver among the pods, sorted as text.
    #[must_use]
    pub fn index(&self) -> usize {
        self.view.pods.keys().position(|id| *id == self.key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_of_a_python_leader_is_read_and_the_receiver_knows_its_place() {
        let body = br#"{"dependencies": {"db": {"x": {"seq": 0, "ip": "h"}}},
            "pods": {"b": {"seq": 0, "fake": "true"}, "a": {"seq": 3}}, "key": "b"}"#;
        let posted = PostedView::parse(body).unwrap();
        assert_eq!(posted.index(), 1);
        assert_eq!(posted.own().unwrap().seq(), 0);
        assert_eq!(posted.own().unwrap().text("fake"), "true");
        assert_eq!(posted.view.dependencies["db"].len(), 1);
    }

    #[test]
    fn what_is_no_view_is_refused_with_what_was_expected() {
        for bad in ["", "{}", "[]", r#"{"key":"a","pods":{"a":{}},"dependencies":{}}"#, r#"{"key":"a","pods":{}}"#] {
            assert!(matches!(PostedView::parse(bad.as_bytes()), Err(ViewError::Parse(_))), "{bad}");
        }
        let absent = PostedView::parse(br#"{"key":"a","pods":{},"dependencies":{}}"#);
        assert_eq!(absent, Err(ViewError::Key("a".to_owned())));
    }
}
