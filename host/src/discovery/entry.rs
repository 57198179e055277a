//! What etcd and ZooKeeper keep of an instance: ContainerPilot's JSON, with the tags filled in.

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Instance, Registration, Sought, http::encoded};
use crate::cluster::json;

/// An instance as it is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    id: String,
    name: String,
    address: String,
    port: u16,
    /// None when there are none, as ContainerPilot has it, which never tells.
    tags: Option<Vec<String>>,
}

impl Entry {
    /// What is to be kept of an instance.
    pub(super) fn content(registration: &Registration) -> String {
        let Registration { id, name, address, port, tags, .. } = registration;
        let tags = Some(tags.clone()).filter(|tags| !tags.is_empty());
        let entry = Self { id: id.clone(), name: name.clone(), address: address.to_string(), port: *port, tags };
        // Of strings and a number: that does not fail.
        serde_json::to_string(&entry).unwrap_or_default()
    }

    /// Reads what is kept at `key`; none, and a line in the log, when it is no instance.
    pub(super) fn read(key: &str, content: &[u8]) -> Option<Self> {
        json::read(content).inspect_err(|error| debug!("skipping {key}, which is no instance: {error}")).ok()
    }

    /// Whether it is what is sought, by its tags.
    pub(super) fn has_tag(&self, sought: &Sought) -> bool {
        sought.tag.as_ref().is_none_or(|tag| self.tags.iter().flatten().any(|own| own == tag))
    }

    /// Whether it does not tell its tags.
    pub(super) fn tells_no_tags(&self) -> bool {
        self.tags.is_none()
    }
}

impl From<Entry> for Instance {
    fn from(Entry { id, address, port, .. }: Entry) -> Self {
        Self { id, address, port }
    }
}

/// A name as one segment of a key: whatever could mean something there is percent-encoded.
pub(super) fn segment(name: &str) -> String {
    match name {
        // Who walks a path takes them for steps.
        "." | ".." => name.replace('.', "%2E"),
        name => encoded(name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn registration(tags: &[&str]) -> Registration {
        Registration {
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

    fn sought(tag: Option<&str>) -> Sought {
        Sought { name: "app".to_owned(), tag: tag.map(str::to_owned) }
    }

    #[test]
    fn content_is_what_container_pilot_2_7_writes_with_the_tags_filled_in() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/discovery.json")).unwrap();
        let written = |tags: &[&str]| Entry::content(&registration(tags));
        let plain: serde_json::Value = serde_json::from_str(&written(&[])).unwrap();
        assert_eq!(plain, vectors["etcd"]["value_2_7"]);
        assert_eq!(
            written(&["a", "b"]),
            r#"{"id":"app-host","name":"app","address":"127.0.0.1","port":8080,"tags":["a","b"]}"#
        );
        let read = Entry::read("key", vectors["etcd"]["value_2_0"].to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), vectors["etcd"]["value_2_7"]);
    }

    #[test]
    fn tags_are_asked_for_one_at_a_time() {
        let entry = Entry::read("key", Entry::content(&registration(&["a", "b"])).as_bytes()).unwrap();
        assert!(
            entry.has_tag(&sought(None)) && entry.has_tag(&sought(Some("b"))) && !entry.has_tag(&sought(Some("c")))
        );
        let untagged = Entry::read("key", Entry::content(&registration(&[])).as_bytes()).unwrap();
        assert!(untagged.has_tag(&sought(None)) && !untagged.has_tag(&sought(Some("a"))) && untagged.tells_no_tags());
    }

    #[test]
    fn what_is_no_instance_is_skipped() {
        for garbage in ["", "x", "{}", "[]", r#"{"id":"a","name":"b","address":"c","port":65536}"#] {
            assert_eq!(Entry::read("key", garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn no_name_leaves_its_segment() {
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
