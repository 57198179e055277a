//! URLs of etcd servers.

use hyper::Uri;

use super::Scheme;

/// Returns whether this is the URL of a server, as in [`EtcdAddress::endpoints`](crate::EtcdAddress::endpoints).
#[must_use]
pub fn is_endpoint(url: &str) -> bool {
    parse(url).is_some()
}

pub(super) fn parse(url: &str) -> Option<(Scheme, Uri)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = match uri.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let authority = uri.authority()?.as_str();
    let host_and_port_only = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.contains('@');
    let rest = authority.strip_prefix(uri.host().filter(|host| !host.is_empty())?)?;
    let is_port = rest.is_empty() || uri.port_u16().is_some_and(|port| port > 0);
    (host_and_port_only && is_port).then_some((scheme, uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_http_urls_without_path() {
        for good in ["http://h:2379", "https://[::1]:2379/", "http://10.0.0.1"] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "h",
            "h:2379",
            "ftp://h",
            "http://",
            "http://u:p@h:1",
            "http://h:1/path",
            "http://h/?q",
            "unix:///x",
            "http://:2379",
            "http://h:0",
            "http://h:65536",
            "http://h:",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
