//! Messages of etcd's JSON gateway: bytes are in base64, 64-bit integers in strings, and zeros are left out.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::error_for_status;
use crate::RegistryError;

/// Most characters of the text of an unexpected response.
const MAX_TEXT_CHARS: usize = 400;

/// Bytes as JSON has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

/// A lease. None has the id 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeaseId(pub(super) i64);

#[derive(Serialize)]
pub(super) struct Authenticate<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

#[derive(Deserialize)]
pub(super) struct Login {
    pub(super) token: String,
}

#[derive(Serialize)]
pub(super) struct LeaseGrant {
    #[serde(rename = "TTL")]
    pub(super) ttl: u64,
}

#[derive(Serialize)]
pub(super) struct LeaseKeepAlive {
    #[serde(rename = "ID")]
    pub(super) id: LeaseId,
}

/// A lease as it was granted or kept alive.
#[derive(Debug, Deserialize)]
pub(super) struct Lease {
    #[serde(rename = "ID", default)]
    pub(super) id: LeaseId,
    /// Seconds that are left; 0 when it has expired.
    #[serde(rename = "TTL", default, deserialize_with = "int64")]
    pub(super) ttl: i64,
}

#[derive(Serialize)]
pub(super) struct Put {
    pub(super) key: Base64,
    pub(super) value: Base64,
    pub(super) lease: LeaseId,
}

#[derive(Serialize)]
pub(super) struct DeleteRange {
    pub(super) key: Base64,
}

/// A key, or all keys that start with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RangeRequest {
    key: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<Base64>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "int64")]
    pub(super) revision: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    pub(super) key: Base64,
    #[serde(default)]
    pub(super) value: Base64,
    #[serde(default)]
    pub(super) lease: LeaseId,
}

#[derive(Serialize)]
pub(super) struct Watch {
    create_request: WatchCreate,
}

#[derive(Serialize)]
struct WatchCreate {
    #[serde(flatten)]
    range: RangeRequest,
    #[serde(serialize_with = "as_text")]
    start_revision: i64,
}

/// A message of a watch.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WatchEvent {
    pub(super) header: Option<Header>,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default, deserialize_with = "int64")]
    pub(super) compact_revision: i64,
    #[serde(default)]
    pub(super) events: Vec<de::IgnoredAny>,
}

/// A message of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamMessage<T> {
    pub(super) result: T,
}

/// An error that the server reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GatewayError {
    /// A code of gRPC; none if the gateway did not respond.
    code: Option<i64>,
    status: StatusCode,
    pub(super) message: String,
}

impl RangeRequest {
    pub(super) fn key(key: &str) -> Self {
        Self { key: key.into(), range_end: None }
    }

    /// Returns the range of all keys that start with a prefix.
    pub(super) fn prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                break;
            }
        }
        // A zero byte stands for the end of all keys.
        let end = if end.is_empty() { vec![0] } else { end };
        Self { key: prefix.into(), range_end: Some(Base64(end)) }
    }
}

impl Watch {
    pub(super) fn new(range: RangeRequest, start_revision: i64) -> Self {
        Self { create_request: WatchCreate { range, start_revision } }
    }
}

impl WatchEvent {
    /// Returns the reason why the server ended the watch, if it did.
    pub(super) fn cancellation(&self) -> Option<GatewayError> {
        let error = || GatewayError { code: None, status: StatusCode::OK, message: self.cancel_reason.clone() };
        self.canceled.then(error)
    }
}

impl GatewayError {
    /// Reads the error in a response. None if there is none.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Option<Self> {
        let body_json = serde_json::from_slice::<Value>(body.trim_ascii()).ok();
        let is_error = |body: &&Value| !status.is_success() || body.get("error").is_some();
        if let Some(body) = body_json.as_ref().filter(is_error) {
            // Errors of streams are in an object of their own; older gateways name the message twice.
            let error = body.get("error").filter(|error| error.is_object()).unwrap_or(body);
            let text = |key| error.get(key).and_then(Value::as_str);
            let code = error.get("grpc_code").or_else(|| error.get("code")).and_then(Value::as_i64);
            if let Some(message) = text("message").or_else(|| text("error")) {
                return Some(Self { code, status, message: message.chars().take(MAX_TEXT_CHARS).collect() });
            }
        }
        let text = || String::from_utf8_lossy(body).trim().chars().take(MAX_TEXT_CHARS).collect();
        (!status.is_success()).then(|| Self { code: None, status, message: text() })
    }

    /// Returns whether the server does not know the client: the token has expired, is older than the last restart, or is
    /// missing since authentication was enabled.
    pub(super) fn is_login_required(&self) -> bool {
        const UNAUTHENTICATED: Option<i64> = Some(16);
        const TEXTS: [&str; 3] = ["invalid auth token", "user name is empty", "revision of auth store is old"];
        self.code == UNAUTHENTICATED || TEXTS.iter().any(|text| self.message.contains(text))
    }

    pub(super) fn is_authentication_disabled(&self) -> bool {
        self.message.contains("authentication is not enabled")
    }

    /// Distinguishes temporary errors from those that persist until something is changed.
    pub(super) fn into_registry_error(self, address: &str) -> RegistryError {
        let Self { code, status, message } = self;
        let Some(code) = code else {
            return error_for_status(status, address, &message, "is its JSON gateway enabled (--enable-grpc-gateway)?");
        };
        let message = format!("etcd at {address}: {message}");
        match code {
            // Cancelled, deadline exceeded, not found, aborted, unavailable. A lease that is not found has just
            // expired.
            1 | 4 | 5 | 10 | 14 => RegistryError::Unavailable(message),
            // OK, unknown, internal, data loss.
            0 | 2 | 13 | 15 => RegistryError::InvalidResponse(message),
            _ => RegistryError::Rejected(message),
        }
    }
}

impl From<&str> for Base64 {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BASE64_STANDARD.encode(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_text(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for LeaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        int64(deserializer).map(Self)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn as_text<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Int64 {
        Text(String),
        Number(i64),
    }
    match Int64::deserialize(deserializer)? {
        Int64::Text(text) => text.parse().map_err(de::Error::custom),
        Int64::Number(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(status: u16, body: &str) -> Option<RegistryError> {
        let status = StatusCode::from_u16(status).unwrap();
        GatewayError::read(status, body.as_bytes()).map(|error| error.into_registry_error("h:1"))
    }

    #[test]
    fn requests_are_in_base64_with_integers_as_strings() {
        let watch = serde_json::to_value(Watch::new(RangeRequest::prefix("/a/"), 7)).unwrap();
        assert_eq!(watch, json!({"create_request": {"key": "L2Ev", "range_end": "L2Ew", "start_revision": "7"}}));
        let put = Put { key: "k".into(), value: "v".into(), lease: LeaseId(i64::MAX) };
        let put = serde_json::to_value(put).unwrap();
        assert_eq!(put, json!({"key": "aw==", "value": "dg==", "lease": "9223372036854775807"}));
        assert_eq!(serde_json::to_value(RangeRequest::key("k")).unwrap(), json!({"key": "aw=="}));
        assert_eq!(RangeRequest::prefix("").range_end, Some(Base64(vec![0])));
    }

    #[test]
    fn responses_are_read_with_zeros_left_out() {
        let range: Range = serde_json::from_str(
            r#"{"header":{"revision":"12"},"kvs":[{"key":"aw==","value":"dg==","lease":"5"},{"key":"aw=="}],"count":"2"}"#,
        )
        .unwrap();
        assert_eq!((range.header.revision, range.kvs.len()), (12, 2));
        assert_eq!((&range.kvs[0].value.0[..], range.kvs[0].lease), (&b"v"[..], LeaseId(5)));
        assert_eq!((&range.kvs[1].value.0[..], range.kvs[1].lease), (&b""[..], LeaseId(0)));
        let lease: StreamMessage<Lease> = serde_json::from_str(r#"{"result":{"header":{},"ID":"7"}}"#).unwrap();
        assert_eq!((lease.result.id, lease.result.ttl), (LeaseId(7), 0));
        let watch =
            r#"{"result":{"header":{"revision":"3"},"canceled":true,"compact_revision":"2","cancel_reason":"x"}}"#;
        let watch: StreamMessage<WatchEvent> = serde_json::from_str(watch).unwrap();
        assert_eq!(watch.result.compact_revision, 2);
        assert_eq!(watch.result.cancellation().unwrap().message, "x");
    }

    #[test]
    fn temporary_errors_differ_from_permanent_ones() {
        let message = || "etcd at h:1: text".to_owned();
        for code in [4, 5, 14] {
            let body = json!({"error": "text", "message": "text", "code": code}).to_string();
            assert_eq!(error(503, &body), Some(RegistryError::Unavailable(message())));
        }
        for code in [3, 7, 8, 16] {
            let body = json!({"error": {"grpc_code": code, "http_code": 400, "message": "text"}}).to_string();
            assert_eq!(error(200, &body), Some(RegistryError::Rejected(message())));
        }
        let newer = json!({"code": 2, "message": "text", "details": []}).to_string();
        assert_eq!(error(500, &newer), Some(RegistryError::InvalidResponse(message())));
        assert_eq!(error(200, r#"{"header":{}}"#), None);
        assert_eq!(error(200, ""), None);
    }

    #[test]
    fn errors_about_other_servers_name_the_remedy() {
        let missing = error(404, "404 page not found\n");
        assert!(matches!(missing, Some(RegistryError::Rejected(text)) if text.contains("--enable-grpc-gateway")));
        assert!(matches!(error(502, "<html>"), Some(RegistryError::Unavailable(_))));
        assert!(matches!(error(302, ""), Some(RegistryError::InvalidResponse(_))));
        assert!(matches!(
            error(400, "Client sent an HTTP request to an HTTPS server."),
            Some(RegistryError::Rejected(_))
        ));
    }

    #[test]
    fn unknown_users_and_tokens_are_recognised() {
        let read = |body: &str| GatewayError::read(StatusCode::UNAUTHORIZED, body.as_bytes()).unwrap();
        assert!(read(r#"{"error":"etcdserver: invalid auth token","code":16}"#).is_login_required());
        assert!(read(r#"{"error":"etcdserver: user name is empty","code":3}"#).is_login_required());
        assert!(!read(r#"{"error":"etcdserver: permission denied","code":7}"#).is_login_required());
        assert!(read(r#"{"error":"etcdserver: authentication is not enabled","code":9}"#).is_authentication_disabled());
    }
}
