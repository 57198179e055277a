//! etcd: by its v3 API, and by the v2 keys as ContainerPilot has them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`Etcd`] | the v3 API, with leases |
//! | [`EtcdV2`] | the v2 keys |
//! | `server` | one server, by the v3 API |
//! | `servers` | which of several is asked |

mod server;
mod servers;
mod v2;
mod v3;

pub use v2::EtcdV2;
pub use v3::Etcd;

use std::time::Duration;

use hyper::Uri;

use super::{EtcdAddress, OpenError, Scheme};

/// The URLs of the servers, at least one, and how each is spoken to.
fn endpoints(address: &EtcdAddress) -> Result<Vec<(Scheme, Uri)>, OpenError> {
    let misformed =
        |url: &str| OpenError::Address { address: url.to_owned(), expected: "http://HOST:PORT or https://HOST:PORT" };
    if address.endpoints.is_empty() {
        return Err(misformed(""));
    }
    address.endpoints.iter().map(|url| endpoint(url).ok_or_else(|| misformed(url))).collect()
}

fn endpoint(url: &str) -> Option<(Scheme, Uri)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = match uri.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let host_and_port_only =
        matches!(uri.path(), "" | "/") && uri.query().is_none() && !uri.authority()?.as_str().contains('@');
    host_and_port_only.then_some((scheme, uri))
}

/// The `ttl` as etcd takes it: whole seconds, at least one.
fn seconds(ttl: Duration) -> u64 {
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_hosts() {
        for good in ["http://h:2379", "https://[::1]:2379/", "http://10.0.0.1"] {
            assert!(endpoint(good).is_some(), "{good}");
        }
        for bad in
            ["", "h", "h:2379", "ftp://h", "http://", "http://u:p@h:1", "http://h:1/path", "http://h/?q", "unix:///x"]
        {
            assert!(endpoint(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_ttl_is_rounded_up() {
        for (ttl, expected) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (10_000, 10)] {
            assert_eq!(seconds(Duration::from_millis(ttl)), expected);
        }
    }
}
