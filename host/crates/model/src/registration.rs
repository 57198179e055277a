//! Registrations: JSON objects that the Python SDK also writes and reads.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    ADDRESS_REQUIREMENT, PeerHost, PodId,
    canonical::CanonicalObject,
    difference::{CAPABILITIES, COMPRESSED_BODIES, DIFFERENCES},
    digest::Fingerprint,
    json,
};

/// Key of a pod's role in views and snapshots. Registrations do not have it.
pub const ROLE: &str = "_role";

/// Returns whether the value of this key changes without a configuration: it is part of no digest.
fn is_transient(quoted_key: &str) -> bool {
    matches!(quoted_key.trim_matches('"'), "status" | ROLE)
}

/// The `status` of a dead pod.
pub const DEAD: &str = "dead";

/// Maximum depth of a registration. JSON that is twice as deep is not parsed, and views contain registrations.
const MAX_DEPTH: usize = 64;

/// Registered pods by identity, in the order that defines each pod's index.
pub type Pods = BTreeMap<PodId, Arc<Registration>>;

/// An invalid registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Not a JSON object.
    #[error("invalid registration: not a JSON object: {0}")]
    Parse(String),
    /// No non-negative integer `seq`.
    #[error("invalid registration: \"seq\" must be a non-negative integer")]
    Seq,
    /// Nested too deeply.
    #[error("invalid registration: nested deeper than {MAX_DEPTH} levels")]
    Deep,
}

/// A registration without a usable control address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerAddressError {
    /// `ip` is missing or not an address.
    #[error("its \"ip\" is {0:?}, expected {ADDRESS_REQUIREMENT}")]
    Ip(String),
    /// `port` is missing or not a port.
    #[error("its \"port\" is {0:?}, expected a number from 1 to 65535")]
    Port(String),
    /// The port is mapped to something that is not a port.
    #[error("its \"ports\" map the control port {0} to {1:?}, expected a number from 1 to 65535")]
    Mapping(u16, String),
}

/// Registration of one pod. Unknown keys are kept unchanged.
///
/// It is kept as JSON text: in a large cluster, each pod holds all registrations and reads few of their keys.
#[derive(Debug, Clone)]
pub struct Registration {
    seq: u64,
    object: CanonicalObject,
    /// All keys, parsed when text with escapes is first read.
    unescaped: OnceLock<Map<String, Value>>,
    lasting: OnceLock<Fingerprint>,
    content: OnceLock<Fingerprint>,
}

impl PartialEq for Registration {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Registration {
    /// Parses a payload.
    ///
    /// # Errors
    /// If it is not a JSON object with an integer `seq`, or nested too deeply for a view.
    pub fn parse(payload: &[u8]) -> Result<Self, RegistrationError> {
        Self::from_object(json::parse(payload).map_err(RegistrationError::Parse)?)
    }

    /// Validates a JSON object.
    ///
    /// # Errors
    /// If it has no integer `seq`, or is nested too deeply for a view.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, RegistrationError> {
        let parsed = serde_json::from_value(Value::Object(fields));
        Self::from_object(parsed.map_err(|error| RegistrationError::Parse(error.to_string()))?)
    }

    fn from_object(object: CanonicalObject) -> Result<Self, RegistrationError> {
        if object.depth() > MAX_DEPTH {
            return Err(RegistrationError::Deep);
        }
        let seq = object.get("seq").and_then(|seq| seq.parse().ok()).ok_or(RegistrationError::Seq)?;
        let (unescaped, lasting, content) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Ok(Self { seq, object, unescaped, lasting, content })
    }

    /// Returns the number of the pod, which never changes.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns its JSON, compact and with sorted keys.
    #[must_use]
    pub fn json(&self) -> &str {
        self.object.json().get()
    }

    /// Returns all keys.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        // It is the text of an object.
        serde_json::from_str(self.json()).unwrap_or_default()
    }

    /// Returns whether it has a key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some()
    }

    /// Returns the text of a key; empty if it is missing or not a string.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        let Some(value) = self.object.get(key) else { return "" };
        let Some(text) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else { return "" };
        if !text.contains('\\') {
            return text;
        }
        let fields = self.unescaped.get_or_init(|| self.fields());
        fields.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the value of a key; null if it is missing.
    fn value(&self, key: &str) -> Value {
        self.object.get(key).and_then(|value| serde_json::from_str(value).ok()).unwrap_or_default()
    }

    /// Returns the full name of its cluster, empty where it names none.
    #[must_use]
    pub fn cluster(&self) -> String {
        format!("{}.{}", self.text("namespace"), self.text("cluster"))
    }

    /// Returns whether the pod is dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.text("status") == DEAD
    }

    /// Returns the same registration with another `status`.
    #[must_use]
    pub fn with_status(&self, status: &str) -> Self {
        self.with_transient(|fields| _ = fields.insert("status".to_owned(), Value::from(status)))
    }

    /// Returns the role that the pod published, empty if it has none.
    #[must_use]
    pub fn role(&self) -> &str {
        self.text(ROLE)
    }

    /// Returns the same registration with this role; an empty one removes it.
    #[must_use]
    pub fn with_role(&self, role: &str) -> Self {
        self.with_transient(|fields| {
            if role.is_empty() {
                fields.remove(ROLE);
            } else {
                fields.insert(ROLE.to_owned(), Value::from(role));
            }
        })
    }

    /// Returns the same registration after a change of what is part of no digest.
    fn with_transient(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let mut fields = self.fields();
        change(&mut fields);
        // A changed status or role leaves it a registration.
        let changed = Self::from_fields(fields).unwrap_or_else(|_| self.clone());
        Self { lasting: self.lasting.clone(), ..changed }
    }

    /// Returns the fingerprint of what changes with a configuration only: without status and role. Computed once.
    pub(crate) fn lasting(&self) -> &Fingerprint {
        self.lasting.get_or_init(|| {
            let lasting = self.object.runs_without(is_transient).join(",");
            Fingerprint::of(&format!("{{{lasting}}}"))
        })
    }

    /// Returns the fingerprint of all keys. Computed once.
    pub(crate) fn content(&self) -> &Fingerprint {
        self.content.get_or_init(|| Fingerprint::of(self.json()))
    }

    /// Returns whether both are the same, apart from what changes without a configuration: status and role.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.lasting() == other.lasting()
    }

    /// Returns whether the pod accepts differences between views.
    #[must_use]
    pub fn accepts_differences(&self) -> bool {
        self.has_capability(DIFFERENCES)
    }

    /// Returns whether the pod accepts request bodies compressed with gzip.
    #[must_use]
    pub fn accepts_compressed_bodies(&self) -> bool {
        self.has_capability(COMPRESSED_BODIES)
    }

    fn has_capability(&self, name: &str) -> bool {
        self.value(CAPABILITIES).as_array().is_some_and(|all| all.iter().any(|capability| capability == name))
    }

    /// Returns the mapped ports: container port to host port. Invalid entries are skipped.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u16, u16> {
        let Value::Object(ports) = self.value("ports") else { return BTreeMap::new() };
        ports.iter().filter_map(|(from, to)| Some((from.parse().ok()?, port(to)?))).collect()
    }

    /// Returns the control port in the container.
    ///
    /// # Errors
    /// If `port` is not a port.
    pub fn control_port(&self) -> Result<u16, PeerAddressError> {
        let value = self.value("port");
        port(&value).ok_or_else(|| PeerAddressError::Port(excerpt(&value)))
    }

    /// Returns the address of the pod's control API: `ip:ports[port]`, or `ip:port` if the port is not mapped.
    ///
    /// # Errors
    /// If `ip`, `port` or the mapped port is invalid.
    pub fn control_address(&self) -> Result<String, PeerAddressError> {
        let host = PeerHost::parse(self.text("ip")).ok_or_else(|| PeerAddressError::Ip(excerpt(&self.value("ip"))))?;
        let inner = self.control_port()?;
        let ports = self.value("ports");
        let outer = match ports.get(inner.to_string()) {
            None | Some(Value::Null) => inner,
            Some(outer) => port(outer).ok_or_else(|| PeerAddressError::Mapping(inner, excerpt(outer)))?,
        };
        Ok(host.with_port(outer))
    }
}

/// Reads a port, as a number or, as the Python SDK writes some, as text.
fn port(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(n) => u16::try_from(n.as_u64()?).ok()?,
        Value::String(s) if s.bytes().all(|b| b.is_ascii_digit()) => s.parse().ok()?,
        _ => return None,
    };
    (number != 0).then_some(number)
}

/// Returns a value for an error message, cut if it is long.
fn excerpt(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.chars().take(80).collect(),
        other => other.to_string().chars().take(80).collect(),
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {} at {}", self.seq, self.text("ip"))
    }
}

impl Serialize for Registration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Registration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_object(CanonicalObject::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Registration {
        Registration::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn registration_of_the_python_sdk_is_kept_unchanged() {
        let text = r#"{"debug":"true","fwk":"marathon (debug)","ip":"127.0.0.1","port":"9003",
            "ports":{"8080":8080,"9003":31003},"seq":7,"status":"","public":"127.0.0.1"}"#;
        let pod = parsed(text);
        assert_eq!(pod.seq(), 7);
        assert_eq!(pod.control_address().unwrap(), "127.0.0.1:31003");
        assert_eq!(serde_json::to_value(&pod).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn text_is_read_with_and_without_escapes() {
        let pod = parsed(r#"{"seq":1,"a":"x\"y\u00e9","b":"\u0041b","c":["x"],"d":""}"#);
        let text = ["a", "b", "c", "d", "e"].map(|key| pod.text(key));
        assert_eq!(text, ["x\"yé", "Ab", "", "", ""]);
        assert!(pod.has("d") && !pod.has("e"));
    }

    #[test]
    fn status_and_role_are_part_of_the_content_only() {
        let pod = parsed(r#"{"seq":1,"_role":"x","a":"b","status":"s","zz":1}"#);
        let other = pod.with_role("").with_status("dead");
        assert_eq!(
            (other.role(), other.is_dead(), other.json()),
            ("", true, r#"{"a":"b","seq":1,"status":"dead","zz":1}"#)
        );
        assert!(pod.is_same(&other) && pod.content() != other.content());
        assert_eq!(*pod.lasting(), Fingerprint::of(r#"{"a":"b","seq":1,"zz":1}"#));
        assert_eq!(*parsed(r#"{"seq":1}"#).lasting(), Fingerprint::of(r#"{"seq":1}"#));
    }

    #[test]
    fn port_that_is_not_mapped_is_used_unchanged() {
        assert_eq!(parsed(r#"{"seq":1,"ip":"10.0.0.1","port":"8080"}"#).control_address().unwrap(), "10.0.0.1:8080");
        assert_eq!(
            parsed(r#"{"seq":1,"ip":"::1","port":8080,"ports":{"8080":1}}"#).control_address().unwrap(),
            "[::1]:1"
        );
    }

    #[test]
    fn invalid_registration_is_rejected() {
        for bad in ["", "[]", "7", "{", "\"seq\""] {
            assert!(matches!(Registration::parse(bad.as_bytes()), Err(RegistrationError::Parse(_))), "{bad}");
        }
        for bad in ["{}", r#"{"seq":"1"}"#, r#"{"seq":-1}"#, r#"{"seq":1.5}"#] {
            assert_eq!(Registration::parse(bad.as_bytes()), Err(RegistrationError::Seq), "{bad}");
        }
        let nested = |depth: usize| format!(r#"{{"seq":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(Registration::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(Registration::parse(nested(MAX_DEPTH + 1).as_bytes()), Err(RegistrationError::Deep));
    }

    #[test]
    fn unusable_address_is_named() {
        let missing = parsed(r#"{"seq":1,"ip":"10.0.0.1"}"#).control_address().unwrap_err();
        assert_eq!(missing, PeerAddressError::Port(String::new()));
        for bad in ["", "a/b@c", r"a\r\nb", "[", "[h]", "a:b", "::1]", "fe80::1%eth0"] {
            let pod = parsed(&format!(r#"{{"seq":1,"port":"1","ip":"{bad}"}}"#));
            assert!(matches!(pod.control_address(), Err(PeerAddressError::Ip(_))), "{bad}");
        }
        for bad in ["10.0.0.1:80", "0.0.0.0", "127.1", "ff02::1", "a..b"] {
            let error = parsed(&format!(r#"{{"seq":1,"port":"1","ip":"{bad}"}}"#)).control_address().unwrap_err();
            assert_eq!(error.to_string(), format!("its \"ip\" is {bad:?}, expected {ADDRESS_REQUIREMENT}"));
        }
        for bad in ["0", "65536", "http", "-1", "+80", ""] {
            let pod = parsed(&format!(r#"{{"seq":1,"ip":"h","port":"{bad}"}}"#));
            assert_eq!(pod.control_address(), Err(PeerAddressError::Port(bad.to_owned())));
            let pod = parsed(&format!(r#"{{"seq":1,"ip":"h","port":"80","ports":{{"80":"{bad}","90":1}}}}"#));
            assert_eq!(pod.control_address(), Err(PeerAddressError::Mapping(80, bad.to_owned())));
        }
    }
}
