//! Digest of a configuration: content of the node `hash`, and the generation that leaders send to pods. [`ContentDigest`]
//! identifies the view that a pod holds.

use std::fmt::{self, Write as _};

use ring::digest::SHA256;
use serde::{Deserialize, Serialize};

use super::{Pods, Registration, View};

/// Tag of the current algorithm. Another algorithm needs another tag, so that clusters reconfigure once.
const VERSION: &str = "1";
const PENDING: &str = "pending:";
/// Bytes of a pod with an identity of 36 characters.
const USUAL_POD_BYTES: usize = 8 + 36 + 32;

/// Digest of one registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Digests text: SHA-256.
    pub(crate) fn of(text: &str) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(ring::digest::digest(&SHA256, text.as_bytes()).as_ref());
        Self(sha256)
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

/// Digest of everything in a view, statuses and roles included: it identifies the view that a pod holds.
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
    // Digesting all of it together is much faster than piece by piece.
    let mut text = Vec::with_capacity(view.pods.len() * USUAL_POD_BYTES);
    write_pods(&mut text, &view.pods, fingerprint);
    for (name, pods) in &view.dependencies {
        write(&mut text, name);
        write_pods(&mut text, pods, fingerprint);
    }
    hex(ring::digest::digest(&SHA256, &text).as_ref())
}

fn write_pods(text: &mut Vec<u8>, pods: &Pods, fingerprint: fn(&Registration) -> &Fingerprint) {
    write(text, &pods.len().to_string());
    for (id, pod) in pods {
        write(text, id.as_str());
        text.extend_from_slice(&fingerprint(pod).0);
    }
}

fn write(text: &mut Vec<u8>, part: &str) {
    text.extend_from_slice(&part.len().to_le_bytes());
    text.extend_from_slice(part.as_bytes());
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
    fn digest_of_a_view_is_the_same_in_all_versions() {
        let pods = r#"{"a":{"seq":1,"ip":"h","ports":{"3":2.50,"1":4},"x\"y":["é",{"b":1,"a":[1e3,-0.0,18446744073709551615]}],
            "status":"dead","_role":"p"}}"#;
        let view = view(pods, r#"{"db":{"x":{"status":"","seq":1},"y":{"seq":2,"a":"\u0000\u001f/\\"}}}"#);
        let expected = "1:1c45a62070399b7f0c10c089bfbbd30f83d1a9c1b7de215d3fe5d211380efe14";
        assert_eq!(Digest::of(&view).as_str(), expected);
        let expected = "3ac47c94765e6c49b94005df65a9991b6024874698287c2ed2496bfc12cd409b";
        assert_eq!(ContentDigest::of(&view).as_str(), expected);
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
