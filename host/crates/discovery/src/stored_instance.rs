//! Entry of an instance in etcd and ZooKeeper: ContainerPilot's JSON, with the tags filled in.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ochopod_model::json;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{RegistryError, ServiceQuery, ServiceRegistration, candidate::Candidate, http_client::encoded};

/// An instance as etcd and ZooKeeper store it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredInstance {
    id: String,
    name: String,
    address: String,
    port: u16,
    /// None without tags, as ContainerPilot writes it, which leaves them out always.
    tags: Option<Vec<String>>,
}

impl StoredInstance {
    /// Returns the entry of an instance.
    pub(super) fn content(registration: &ServiceRegistration) -> String {
        let ServiceRegistration { id, name, address, port, tags, .. } = registration;
        let tags = Some(tags.clone()).filter(|tags| !tags.is_empty());
        let entry = Self { id: id.clone(), name: name.clone(), address: address.to_string(), port: *port, tags };
        // Strings and a number: that does not fail.
        serde_json::to_string(&entry).unwrap_or_default()
    }

    /// Reads the entry at `key`. None, with a line in the log, if it is not an instance.
    pub(super) fn read(key: &str, content: &[u8]) -> Option<Self> {
        json::parse(content).inspect_err(|error| debug!(key, error, "registry entry skipped")).ok()
    }

    /// Returns whether it is another instance than this one, under its id.
    pub(super) fn is_another(&self, registration: &ServiceRegistration) -> bool {
        let ServiceRegistration { address, port, .. } = registration;
        (self.address.as_str(), self.port) != (address.to_string().as_str(), *port)
    }

    /// Returns the error that this id, registered by this process before, now belongs to that instance.
    pub(super) fn taken(&self, registration: &ServiceRegistration) -> RegistryError {
        let (id, Self { address, port, .. }) = (&registration.id, self);
        RegistryError::Taken(format!(
            "another process registers {id}, at {}:{port}; expected hosts to have different names",
            address.escape_debug()
        ))
    }

    /// Returns whether it has the tag of the query.
    pub(super) fn has_tag(&self, query: &ServiceQuery) -> bool {
        query.tag.as_ref().is_none_or(|tag| self.tags.iter().flatten().any(|own| own == tag))
    }

    /// Returns whether it leaves its tags out.
    pub(super) fn has_no_tags(&self) -> bool {
        self.tags.is_none()
    }
}

/// Ids registered by a client.
#[derive(Debug, Default)]
pub(super) struct OwnIds(Mutex<BTreeSet<String>>);

impl OwnIds {
    pub(super) fn insert(&self, id: &str) {
        self.lock().insert(id.to_owned());
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.lock().contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<StoredInstance> for Candidate {
    fn from(StoredInstance { id, address, port, .. }: StoredInstance) -> Self {
        Self { id, address, port: port.into() }
    }
}

/// Percent-encodes a name as one segment of a key.
pub(super) fn segment(name: &str) -> String {
    match name {
        // They have a meaning in paths.
        "." | ".." => name.replace('.', "%2E"),
        name => encoded(name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn registration(tags: &[&str]) -> ServiceRegistration {
        ServiceRegistration {
            id: "app-host".to_owned(),
            name: "app".to_owned(),
            address: [127, 0, 0, 1].into(),
            port: 8080,
            tags: tags.iter().map(ToString::to_string).collect(),
            ttl: Duration::from_secs(10),
            enable_tag_override: false,
            deregister_critical_service_after: None,
        }
    }

    fn query(tag: Option<&str>) -> ServiceQuery {
        ServiceQuery { name: "app".to_owned(), tag: tag.map(str::to_owned) }
    }

    #[test]
    fn content_equals_container_pilot_2_7_with_tags_filled_in() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/discovery.json")).unwrap();
        let written = |tags: &[&str]| StoredInstance::content(&registration(tags));
        let plain: serde_json::Value = serde_json::from_str(&written(&[])).unwrap();
        assert_eq!(plain, vectors["etcd"]["value_2_7"]);
        assert_eq!(
            written(&["a", "b"]),
            r#"{"id":"app-host","name":"app","address":"127.0.0.1","port":8080,"tags":["a","b"]}"#
        );
        let read = StoredInstance::read("key", vectors["etcd"]["value_2_0"].to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), vectors["etcd"]["value_2_7"]);
    }

    #[test]
    fn query_matches_one_tag() {
        let entry =
            StoredInstance::read("key", StoredInstance::content(&registration(&["a", "b"])).as_bytes()).unwrap();
        assert!(entry.has_tag(&query(None)) && entry.has_tag(&query(Some("b"))) && !entry.has_tag(&query(Some("c"))));
        let untagged = StoredInstance::read("key", StoredInstance::content(&registration(&[])).as_bytes()).unwrap();
        assert!(untagged.has_tag(&query(None)) && !untagged.has_tag(&query(Some("a"))) && untagged.has_no_tags());
    }

    #[test]
    fn invalid_entries_are_skipped() {
        for garbage in ["", "x", "{}", "[]", r#"{"id":"a","name":"b","address":"c","port":65536}"#] {
            assert_eq!(StoredInstance::read("key", garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn names_stay_within_their_segment() {
        let cases = [
            ("app-1_x.y~z", "app-1_x.y~z"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("é \0", "%C3%A9%20%00"),
        ];
        for (name, expected) in cases {
            assert_eq!(segment(name), expected);
        }
    }
}
