//! What a pod registers about itself, as the JSON object that the Python SDK also writes and reads.

use std::{collections::BTreeMap, fmt, net::Ipv6Addr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{PodId, json};

/// The `status` of a pod that has ended for good.
pub const DEAD: &str = "dead";

/// How deep a registration may be. JSON that is twice as deep is not read, and views have the registrations within them.
const DEEPEST: usize = 64;

/// Registered pods by identity, in the order that defines each pod's index.
pub type Pods = BTreeMap<PodId, Arc<Registration>>;

/// A payload that is no registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Not a JSON object.
    #[error("the registration is not a JSON object: {0}")]
    Parse(String),
    /// No non-negative integer `seq`.
    #[error("the registration has no \"seq\" that is a non-negative integer")]
    Seq,
    /// Arrays and objects within each other beyond what can be passed on.
    #[error("the registration is deeper than {DEEPEST} arrays or objects within each other")]
    Deep,
}

/// A registration that does not say where its control port is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `ip` is missing or no address.
    #[error("its \"ip\" is {0:?}, expected an address")]
    Ip(String),
    /// `port` is missing or no port.
    #[error("its \"port\" is {0:?}, expected a number from 1 to 65535")]
    Port(String),
}

/// One pod's registration. Unknown keys are kept as they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    seq: u64,
    fields: Map<String, Value>,
}

impl Registration {
    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not a JSON object with an integer `seq`, or is so deep that no view could hold it.
    pub fn parse(payload: &[u8]) -> Result<Self, RegistrationError> {
        Self::from_fields(json::read(payload).map_err(RegistrationError::Parse)?)
    }

    /// Takes a JSON object.
    ///
    /// # Errors
    /// When it has no integer `seq`, or is so deep that no view could hold it.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, RegistrationError> {
        if fields.values().any(|value| depth(value) > DEEPEST) {
            return Err(RegistrationError::Deep);
        }
        let seq = fields.get("seq").and_then(Value::as_u64).ok_or(RegistrationError::Seq)?;
        Ok(Self { seq, fields })
    }

    /// The number given once to this pod.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// All keys.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// A key's text; empty when it is absent or no string.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.fields.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whole name of its cluster, as far as it says.
    #[must_use]
    pub fn cluster(&self) -> String {
        format!("{}.{}", self.text("namespace"), self.text("cluster"))
    }

    /// Whether the pod has ended for good.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.text("status") == DEAD
    }

    /// The same registration with another `status`.
    #[must_use]
    pub fn with_status(&self, status: &str) -> Self {
        let mut next = self.clone();
        next.fields.insert("status".to_owned(), Value::from(status));
        next
    }

    /// The remapped ports: container port to the port it is reachable as. Entries that are no port are left out.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u16, u16> {
        let Some(Value::Object(ports)) = self.fields.get("ports") else { return BTreeMap::new() };
        ports.iter().filter_map(|(from, to)| Some((from.parse().ok()?, port(to)?))).collect()
    }

    /// The control port as the container knows it.
    ///
    /// # Errors
    /// When `port` is no port.
    pub fn control_port(&self) -> Result<u16, AddressError> {
        let value = self.fields.get("port").unwrap_or(&Value::Null);
        port(value).ok_or_else(|| AddressError::Port(shown(value)))
    }

    /// Where the pod's control API is reached: `ip:ports[port]`, or `port` itself where it is not remapped.
    ///
    /// # Errors
    /// When `ip` or `port` cannot be used.
    pub fn control_address(&self) -> Result<String, AddressError> {
        let ip = self.text("ip");
        let named = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
        let host = match bare.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{bare}]"),
            Err(_) if !ip.is_empty() && ip.bytes().all(named) => ip.to_owned(),
            Err(_) => return Err(AddressError::Ip(shown(self.fields.get("ip").unwrap_or(&Value::Null)))),
        };
        let port = self.control_port()?;
        let port = self.ports().get(&port).copied().unwrap_or(port);
        Ok(format!("{host}:{port}"))
    }
}

/// How many arrays and objects are within each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A port as a number or, as the Python SDK writes some, as text.
fn port(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(n) => u16::try_from(n.as_u64()?).ok()?,
        Value::String(s) => s.parse().ok()?,
        _ => return None,
    };
    (number != 0).then_some(number)
}

/// A value for an error message, cut where a peer sent something huge.
fn shown(value: &Value) -> String {
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
        self.fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Registration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_fields(Map::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Registration {
        Registration::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_registration_of_the_python_sdk_is_understood_and_kept_whole() {
        let text = r#"{"debug":"true","fwk":"marathon (debug)","ip":"127.0.0.1","port":"9003",
            "ports":{"8080":8080,"9003":31003},"seq":7,"status":"","public":"127.0.0.1"}"#;
        let pod = parsed(text);
        assert_eq!(pod.seq(), 7);
        assert_eq!(pod.control_address().unwrap(), "127.0.0.1:31003");
        assert_eq!(serde_json::to_value(&pod).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_port_that_is_not_remapped_is_reached_as_it_is() {
        assert_eq!(parsed(r#"{"seq":1,"ip":"10.0.0.1","port":"8080"}"#).control_address().unwrap(), "10.0.0.1:8080");
        assert_eq!(
            parsed(r#"{"seq":1,"ip":"::1","port":8080,"ports":{"8080":1}}"#).control_address().unwrap(),
            "[::1]:1"
        );
    }

    #[test]
    fn what_is_no_registration_is_refused() {
        for bad in ["", "[]", "7", "{", "\"seq\""] {
            assert!(matches!(Registration::parse(bad.as_bytes()), Err(RegistrationError::Parse(_))), "{bad}");
        }
        for bad in ["{}", r#"{"seq":"1"}"#, r#"{"seq":-1}"#, r#"{"seq":1.5}"#] {
            assert_eq!(Registration::parse(bad.as_bytes()), Err(RegistrationError::Seq), "{bad}");
        }
        let nested = |depth: usize| format!(r#"{{"seq":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(Registration::parse(nested(DEEPEST).as_bytes()).is_ok());
        assert_eq!(Registration::parse(nested(DEEPEST + 1).as_bytes()), Err(RegistrationError::Deep));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_named() {
        let missing = parsed(r#"{"seq":1,"ip":"10.0.0.1"}"#).control_address().unwrap_err();
        assert_eq!(missing, AddressError::Port(String::new()));
        for bad in ["", "a/b@c", r"a\r\nb", "[", "[h]", "a:b", "::1]", "fe80::1%eth0"] {
            let pod = parsed(&format!(r#"{{"seq":1,"port":"1","ip":"{bad}"}}"#));
            assert!(matches!(pod.control_address(), Err(AddressError::Ip(_))), "{bad}");
        }
        for bad in ["0", "65536", "http", "-1"] {
            let pod = parsed(&format!(r#"{{"seq":1,"ip":"h","port":"{bad}"}}"#));
            assert_eq!(pod.control_address(), Err(AddressError::Port(bad.to_owned())));
        }
    }
}
