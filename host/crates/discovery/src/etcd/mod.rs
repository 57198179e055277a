//! etcd: its v3 API, and its v2 keys as ContainerPilot wrote them.
//!
//! | module | content |
//! |---|---|
//! | [`Etcd`] | the v3 API, with leases |
//! | [`EtcdV2`] | the v2 keys |
//! | `server` | one server, through its JSON gateway |
//! | `gateway` | messages and errors of the gateway |
//! | `server_pool` | failover between several servers |

mod gateway;
mod server;
mod server_pool;
mod v2;
mod v3;

use std::time::Duration;

use hyper::{StatusCode, http::uri::Authority};
pub use v2::EtcdV2;
pub use v3::Etcd;

use super::{EtcdAddress, RegistryConfigError, RegistryError, endpoint, http_client::HttpClient};

/// Creates clients of the servers, at least one. Files are read now, connections made when needed.
fn clients(address: &EtcdAddress) -> Result<Vec<HttpClient>, RegistryConfigError> {
    let invalid = |url: &str| RegistryConfigError::Address {
        address: url.to_owned(),
        expected: "http://HOST:PORT or https://HOST:PORT",
    };
    if address.endpoints.is_empty() {
        return Err(invalid(""));
    }
    let client = |url: &String| {
        let (scheme, uri) = endpoint::parse(url).ok_or_else(|| invalid(url))?;
        HttpClient::new(scheme, uri.authority().map_or("", Authority::as_str), &address.tls)
    };
    address.endpoints.iter().map(client).collect()
}

/// Classifies a response that is not of etcd's API. `hint` names what may be disabled if the path does not exist.
fn error_for_status(status: StatusCode, address: &str, text: &str, hint: &str) -> RegistryError {
    let message = format!("etcd at {address} answered {status}: {text}");
    match status {
        StatusCode::NOT_FOUND => RegistryError::Rejected(format!("{message}; {hint}")),
        _ if status.is_server_error() => RegistryError::Unavailable(message),
        _ if status.is_client_error() => RegistryError::Rejected(message),
        _ => RegistryError::InvalidResponse(message),
    }
}

/// Converts a `ttl` to whole seconds, at least one.
fn seconds(ttl: Duration) -> u64 {
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_is_rounded_up_to_whole_seconds() {
        for (ttl, expected) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (10_000, 10)] {
            assert_eq!(seconds(Duration::from_millis(ttl)), expected);
        }
    }

    #[test]
    fn unexpected_status_is_classified_with_a_hint() {
        let error = |code| error_for_status(StatusCode::from_u16(code).unwrap(), "h:1", "text", "is it enabled?");
        let message = |status| format!("etcd at h:1 answered {status}: text");
        assert_eq!(error(500), RegistryError::Unavailable(message("500 Internal Server Error")));
        assert_eq!(error(401), RegistryError::Rejected(message("401 Unauthorized")));
        assert_eq!(error(302), RegistryError::InvalidResponse(message("302 Found")));
        assert_eq!(error(404), RegistryError::Rejected(message("404 Not Found") + "; is it enabled?"));
    }
}
