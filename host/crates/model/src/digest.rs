//! Digest of a configuration: content of the node `hash`, and the generation that leaders send to pods.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Pods, Registration, View, registration::is_transient};

/// Tag of the current algorithm. Another algorithm needs another tag, so that clusters reconfigure once.
const VERSION: &str = "1";
const PENDING: &str = "pending:";

/// Digest of one registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    sha256: [u8; 32],
    /// Bytes of its JSON.
    pub(crate) size: usize,
}

impl Fingerprint {
    /// Digests the JSON of a registration with sorted keys: SHA-256.
    pub(crate) fn of(fields: &Map<String, Value>, without_transient: bool) -> Self {
        let text = sorted(fields, without_transient);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(ring::digest::digest(&SHA256, text.as_bytes()).as_ref());
        Self { sha256, size: text.len() }
    }
}

/// Digest of a view, independent of key order and of any pod's `status` and role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Digests a view: SHA-256 over its pods, each by its identity and the SHA-256 of its JSON with sorted keys, without
    /// `status` and role.
    #[must_use]
    pub fn of(view: &View) -> Self {
        Self(format!("{VERSION}:{}", view_digest(view, Registration::lasting)))
    }

    /// Returns the digest as text, for a header or the store.
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

/// Digest of everything in a view, statuses and roles included: it tells which view a pod holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentDigest(String);

impl ContentDigest {
    /// Digests a view, as [`Digest::of`] does, with all keys.
    #[must_use]
    pub fn of(view: &View) -> Self {
        Self(view_digest(view, Registration::content))
    }

    /// Returns the digest as text, for a header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ContentDigest {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn view_digest(view: &View, fingerprint: fn(&Registration) -> &Fingerprint) -> String {
    let mut hasher = Context::new(&SHA256);
    digest_pods(&mut hasher, &view.pods, fingerprint);
    for (name, pods) in &view.dependencies {
        feed(&mut hasher, name);
        digest_pods(&mut hasher, pods, fingerprint);
    }
    hex(hasher.finish().as_ref())
}

fn digest_pods(hasher: &mut Context, pods: &Pods, fingerprint: fn(&Registration) -> &Fingerprint) {
    feed(hasher, &pods.len().to_string());
    for (id, pod) in pods {
        feed(hasher, id.as_str());
        hasher.update(&fingerprint(pod).sha256);
    }
}

fn feed(hasher: &mut Context, text: &str) {
    hasher.update(&text.len().to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Returns JSON text with sorted keys, independent of the order and map implementation of the object.
fn sorted(fields: &Map<String, Value>, without_transient: bool) -> String {
    let keys: BTreeMap<&String, &Value> =
        fields.iter().filter(|(key, _)| !(without_transient && is_transient(key))).collect();
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

/// State of the last configuration, the content of the node `hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredHash {
    /// Never configured, or by another program.
    Other(String),
    /// This view was configured.
    Done(Digest),
    /// A configuration of this generation started and is not known to have completed.
    Pending(Digest),
}

impl StoredHash {
    /// Parses the content of the node.
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

    /// Returns the content of the node.
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
    use crate::PostedView;

    fn view(pods: &str, dependencies: &str) -> View {
        let body = format!(r#"{{"key":"a","pods":{pods},"dependencies":{dependencies}}}"#);
        PostedView::parse(body.as_bytes()).unwrap().view.as_ref().clone()
    }

    #[test]
    fn digest_ignores_status_and_the_order_of_keys_only() {
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
    fn stored_hash_reads_back_and_differs_from_foreign_content() {
        let digest = Digest::of(&View::default());
        for stored in [StoredHash::Done(digest.clone()), StoredHash::Pending(digest)] {
            assert_eq!(StoredHash::parse(stored.content().as_bytes()), stored);
        }
        for foreign in ["", "f3:da:da:77", "\u{fffd}"] {
            assert_eq!(StoredHash::parse(foreign.as_bytes()), StoredHash::Other(foreign.to_owned()));
        }
    }
}
