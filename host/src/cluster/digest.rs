//! The digest of a configuration: what `hash` holds, and the generation that pods are told.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{Pods, View};

/// Tag of the present way of digesting. Another way would need another tag, so that clusters reconfigure once.
const VERSION: &str = "1";
const PENDING: &str = "pending:";

/// Digest of a view, independent of key order and of any pod's `status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Digests a view: SHA-256 over its JSON with sorted keys, pods without their `status`.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let mut hasher = Sha256::new();
        let mut feed = |text: &str| {
            hasher.update(text.len().to_le_bytes());
            hasher.update(text);
        };
        feed_pods(&view.pods, &mut feed);
        for (name, pods) in &view.dependencies {
            feed(name);
            feed_pods(pods, &mut feed);
        }
        Self(format!("{VERSION}:{}", hex(&hasher.finalize())))
    }

    /// The digest as text, for a header or the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Digest {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn feed_pods(pods: &Pods, feed: &mut impl FnMut(&str)) {
    feed(&pods.len().to_string());
    for (id, pod) in pods {
        feed(id.as_str());
        feed(&sorted(pod.fields(), true));
    }
}

/// JSON text with sorted keys, whatever order or map implementation the object came with.
fn sorted(fields: &Map<String, Value>, without_status: bool) -> String {
    let keys: BTreeMap<&String, &Value> =
        fields.iter().filter(|(key, _)| !(without_status && key.as_str() == "status")).collect();
    let entries: Vec<String> = keys
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Object(inner) => sorted(inner, false),
                other => other.to_string(),
            };
            format!("{}:{value}", Value::from(key.as_str()))
        })
        .collect();
    format!("{{{}}}", entries.join(","))
}

/// What the `hash` node says about the last configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Nothing was ever configured, or it was by something else.
    Other(String),
    /// This view was configured.
    Done(Digest),
    /// A configuration of this generation began and is not known to have ended.
    Pending(Digest),
}

impl Stored {
    /// Reads the node's content.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let text = String::from_utf8_lossy(content);
        let ours = |t: &str| t.strip_prefix(VERSION).is_some_and(|rest| rest.starts_with(':'));
        match text.strip_prefix(PENDING) {
            Some(generation) => Self::Pending(Digest(generation.to_owned())),
            None if ours(&text) => Self::Done(Digest(text.into_owned())),
            None => Self::Other(text.into_owned()),
        }
    }

    /// The node's content.
    #[must_use]
    pub fn content(&self) -> String {
        match self {
            Self::Other(text) => text.clone(),
            Self::Done(digest) => digest.0.clone(),
            Self::Pending(generation) => format!("{PENDING}{generation}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PostedView;

    fn view(pods: &str, dependencies: &str) -> View {
        let body = format!(r#"{{"key":"a","pods":{pods},"dependencies":{dependencies}}}"#);
        PostedView::parse(body.as_bytes()).unwrap().view
    }

    #[test]
    fn the_digest_ignores_status_and_the_order_of_keys_but_nothing_else() {
        let base = Digest::of(&view(r#"{"a":{"seq":1,"ip":"h","ports":{"1":2,"3":4}}}"#, "{}"));
        assert_eq!(base, Digest::of(&view(r#"{"a":{"ports":{"3":4,"1":2},"status":"dead","ip":"h","seq":1}}"#, "{}")));
        let others = [
            view(r#"{"a":{"seq":1,"ip":"h","ports":{"1":2,"3":5}}}"#, "{}"),
            view(r#"{"a":{"seq":2,"ip":"h","ports":{"1":2,"3":4}}}"#, "{}"),
            view(r#"{"a":{"seq":1,"ip":"h","ports":{"1":2,"3":4}},"b":{"seq":2}}"#, "{}"),
            view(r#"{"a":{"seq":1,"ip":"h","ports":{"1":2,"3":4}}}"#, r#"{"db":{}}"#),
            view(r#"{"a":{"seq":1,"ip":"h","ports":{"1":2,"3":4}}}"#, r#"{"db":{"x":{"seq":1}}}"#),
        ];
        for other in &others {
            assert_ne!(base, Digest::of(other), "{other:?}");
        }
    }

    #[test]
    fn the_stored_hash_survives_a_round_trip_and_foreign_content_is_told_apart() {
        let digest = Digest::of(&View::default());
        for stored in [Stored::Done(digest.clone()), Stored::Pending(digest)] {
            assert_eq!(Stored::parse(stored.content().as_bytes()), stored);
        }
        for foreign in ["", "f3:da:da:77", "\u{fffd}"] {
            assert_eq!(Stored::parse(foreign.as_bytes()), Stored::Other(foreign.to_owned()));
        }
    }
}
