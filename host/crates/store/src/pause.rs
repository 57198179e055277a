//! Pause of the configurations of a cluster, as the JSON object in `paused`.

use ochopod_model::status::{MAX_REASON_BYTES, single_line};
use serde_json::{Map, Value, json};

/// Reason of a pause that cannot be read.
const UNREADABLE: &str = "unreadable pause node";

/// Maximum size of a pause that is read: larger ones were written by another program.
const MAX_PAUSE_BYTES: usize = 4096;

/// Pause of the configurations of a cluster. It is part of no digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Client that paused the cluster; empty if unknown.
    pub by: String,
    /// Time of the pause in seconds since 1970; 0 if unknown.
    pub since: u64,
    /// Reason in one line.
    pub reason: String,
}

impl Pause {
    /// Parses the content of the node. Anything but such an object is a pause too: the node alone stops configurations.
    pub(crate) fn parse(data: &[u8]) -> Self {
        let unreadable = || Self { by: String::new(), since: 0, reason: UNREADABLE.to_owned() };
        Self::parse_object(data).unwrap_or_else(unreadable)
    }

    fn parse_object(data: &[u8]) -> Option<Self> {
        if data.len() > MAX_PAUSE_BYTES {
            return None;
        }
        let fields: Map<String, Value> = serde_json::from_slice(data).ok()?;
        let text = |key| Some(single_line(fields.get(key)?.as_str()?, MAX_REASON_BYTES));
        Some(Self { by: text("by")?, since: fields.get("since")?.as_u64()?, reason: text("reason")? })
    }

    /// Returns the content of the node.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let Self { by, since, reason } = self;
        json!({"by": by, "reason": reason, "since": since}).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_reads_back_as_it_was_written_and_any_other_node_pauses_too() {
        let pause = Pause { by: "10.0.0.7".to_owned(), since: 1_800_000_000, reason: "a \"move\"".to_owned() };
        assert_eq!(Pause::parse(&pause.to_json()), pause);
        let lines = br#"{"by": "", "since": 5, "reason": "two\nlines", "more": 1}"#;
        assert_eq!(Pause::parse(lines), Pause { by: String::new(), since: 5, reason: "two lines".to_owned() });
        let large = format!(r#"{{"by": "{}", "since": 5, "reason": "x"}}"#, "x".repeat(MAX_PAUSE_BYTES));
        for other in [
            "",
            "now",
            "[]",
            "{}",
            r#"{"by": "x", "reason": "y"}"#,
            r#"{"by": "x", "since": -1, "reason": "y"}"#,
            &large,
        ] {
            assert_eq!(Pause::parse(other.as_bytes()).reason, UNREADABLE, "{other:.40}");
        }
    }
}
