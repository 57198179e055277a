//! Addresses of pods: one validator for settings, registrations and leaders.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Requirement of an address, for errors.
pub const ADDRESS_REQUIREMENT: &str = "the IP address of one machine, without port or zone, or a host name";

/// Maximum length of a host name.
const MAX_NAME_BYTES: usize = 253;
/// Maximum length of a part of a host name.
const MAX_LABEL_BYTES: usize = 63;

/// Host of a pod, without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerHost {
    /// An IP address of one machine.
    Ip(IpAddr),
    /// A host name.
    Name(String),
}

impl PeerHost {
    /// Parses an address, with or without the brackets of IPv6. None if it does not meet the [requirement](ADDRESS_REQUIREMENT).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip = match bracketed {
            Some(inner) => Some(IpAddr::V6(inner.parse().ok()?)),
            None => text.parse().ok(),
        };
        match ip {
            Some(ip) => is_one_machine(ip).then_some(Self::Ip(ip)),
            None => is_host_name(text).then(|| Self::Name(text.to_owned())),
        }
    }

    /// Returns `host:port`, as in a URL.
    #[must_use]
    pub fn with_port(&self, port: u16) -> String {
        match self {
            Self::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            Self::Ip(ip) => format!("{ip}:{port}"),
            Self::Name(name) => format!("{name}:{port}"),
        }
    }
}

impl fmt::Display for PeerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Returns whether the address can be that of one machine for other machines. A link-local address of IPv6 needs a zone, which has
/// no meaning on another machine.
fn is_one_machine(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [network, ..] = ip.octets();
            network != 0 && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST
        }
        IpAddr::V6(ip) => ip != Ipv6Addr::UNSPECIFIED && !ip.is_multicast() && !ip.is_unicast_link_local(),
    }
}

/// Returns whether resolvers treat this as a name: they treat a last part that is a number as an address (`127.1`, `0x7f000001`).
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        let fits = !label.is_empty() && label.len() <= MAX_LABEL_BYTES;
        fits && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(allowed)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label) && !is_number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_and_names_are_displayed_without_brackets() {
        let cases = [
            ("10.0.0.1", "10.0.0.1", "10.0.0.1:80"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1:80"),
            ("::1", "::1", "[::1]:80"),
            ("[fd00::1]", "fd00::1", "[fd00::1]:80"),
            ("fd00:0:0::01", "fd00::1", "[fd00::1]:80"),
            ("agent-7", "agent-7", "agent-7:80"),
            ("web_1.mesos.", "web_1.mesos.", "web_1.mesos.:80"),
            ("3com.example", "3com.example", "3com.example:80"),
        ];
        for (text, shown, with_port) in cases {
            let host = PeerHost::parse(text).unwrap();
            assert_eq!((host.to_string().as_str(), host.with_port(80).as_str()), (shown, with_port), "{text}");
        }
    }

    #[test]
    fn unusable_address_is_rejected() {
        let names =
            ["", ".", "a..b", ".a", "-a", "a-", "a b", "a/b", "user@h", "h\r\nX: y", "ä", "[h]", "[", "h]", "a,b"];
        let numbers = ["1", "127.1", "10.0.0", "10.0.0.256", "10.0.0.1.", "0x7f000001", "a.0X", "1.2.3.4.5"];
        let ports = ["10.0.0.1:80", "h:80", "[::1]:80", ":80"];
        let zones = ["fe80::1%eth0", "10.0.0.1%eth0", "[fe80::1%2]", "fe80::1"];
        let many = ["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.1.1", "::", "[::]", "ff02::1"];
        let mapped = ["::ffff:0.0.0.0", "::ffff:224.0.0.1", "[10.0.0.1]"];
        let long = ["x".repeat(64), format!("{}x", "x.".repeat(127))];
        let bad = names.iter().chain(&numbers).chain(&ports).chain(&zones).chain(&many).chain(&mapped);
        for bad in bad.copied().chain(long.iter().map(String::as_str)) {
            assert_eq!(PeerHost::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parsed_address_makes_a_url_with_that_host_and_port(text in "[a-f0-9.:\\[\\]%_@/x-]{0,24}") {
            if let Some(host) = PeerHost::parse(&text) {
                let uri: hyper::Uri = format!("http://{}/", host.with_port(80)).parse().unwrap();
                prop_assert_eq!(uri.port_u16(), Some(80));
                prop_assert_eq!(PeerHost::parse(uri.host().unwrap()), Some(host));
            }
        }
    }
}
