//! Address of an ensemble, `zk://[user:password@]h1:p,h2:p[/chroot]` or plain `h1:p,h2:p[/chroot]`, with credentials and
//! certificates.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::tls::{ZooKeeperTls, server_name};

const DEFAULT_PORT: u16 = 2181;

/// Invalid address of an ensemble. No variant repeats credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZooKeeperAddressError {
    /// Another scheme than `zk`.
    #[error("unknown scheme {0:?}: expected zk://")]
    Scheme(String),
    /// The text before `@` is not `user:password`.
    #[error("invalid credentials before '@': expected user:password")]
    Credentials,
    /// Nothing between two commas, before the port, or at all.
    #[error("server {0} has no host: expected host:port")]
    EmptyHost(usize),
    /// Not a name, an IPv4 address or an IPv6 address in brackets.
    #[error("invalid host {0:?}: expected a name, an IPv4 address or an IPv6 address in brackets")]
    Host(String),
    /// Not a port.
    #[error("invalid port {port:?} of {host:?}: expected a number from 1 to 65535")]
    Port {
        /// Host of the server.
        host: String,
        /// Text in place of the port.
        port: String,
    },
    /// The chroot has empty or relative parts, or characters that nodes must not have.
    #[error("invalid chroot {0:?}: expected a path like /a/b")]
    Chroot(String),
    /// No certificate can match the host.
    #[error("invalid TLS host {0:?}: no certificate can match it")]
    TlsHost(String),
}

/// Servers of one ensemble, chroot, credentials and certificates.
///
/// `Display` and `Debug` never show credentials or certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperAddress {
    credentials: Option<String>,
    servers: Vec<(String, u16)>,
    chroot: Option<String>,
    world_readable: bool,
    strict: Option<bool>,
    tls: Option<ZooKeeperTls>,
}

impl ZooKeeperAddress {
    /// Returns the address of a server on this machine at the default port.
    #[must_use]
    pub fn local() -> Self {
        let servers = vec![(Ipv4Addr::LOCALHOST.to_string(), DEFAULT_PORT)];
        Self { credentials: None, servers, chroot: None, strict: None, world_readable: false, tls: None }
    }

    /// Sets the credentials, `user:password`. They protect the created nodes: see [`NodeAccess`](crate::znodes::NodeAccess).
    ///
    /// # Errors
    /// [`ZooKeeperAddressError::Credentials`] if the text has another form.
    pub fn with_credentials(self, text: &str) -> Result<Self, ZooKeeperAddressError> {
        Ok(Self { credentials: Some(checked_credentials(text)?), ..self })
    }

    /// Lets any client read the nodes that dependants read.
    #[must_use]
    pub fn world_readable(self) -> Self {
        Self { world_readable: true, ..self }
    }

    /// Sets whether nodes that others may change are rejected. The default is yes if there are credentials.
    #[must_use]
    pub fn strict(self, strict: bool) -> Self {
        Self { strict: Some(strict), ..self }
    }

    /// Requires TLS.
    ///
    /// # Errors
    /// [`ZooKeeperAddressError::TlsHost`] if a host cannot be verified.
    pub fn with_tls(self, tls: ZooKeeperTls) -> Result<Self, ZooKeeperAddressError> {
        match self.servers.iter().find(|(host, _)| server_name(host).is_none()) {
            Some((host, _)) => Err(ZooKeeperAddressError::TlsHost(host.clone())),
            None => Ok(Self { tls: Some(tls), ..self }),
        }
    }

    /// Returns whether any client may read the nodes that dependants read.
    #[must_use]
    pub fn is_world_readable(&self) -> bool {
        self.world_readable
    }

    /// Returns whether nodes that others may change are rejected. Without credentials, nodes cannot be protected.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.credentials.is_some() && self.strict.unwrap_or(true)
    }

    /// Returns the certificates, if TLS is required.
    #[must_use]
    pub fn tls(&self) -> Option<&ZooKeeperTls> {
        self.tls.as_ref()
    }

    /// Returns `user:password`, if set.
    #[must_use]
    pub fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    /// Returns host (IPv6 without brackets) and port of each server, at least one.
    #[must_use]
    pub fn servers(&self) -> &[(String, u16)] {
        &self.servers
    }

    /// Returns the node below which everything is, like `/a/b`; none for the root.
    #[must_use]
    pub fn chroot(&self) -> Option<&str> {
        self.chroot.as_deref()
    }

    /// Returns all servers as `h1:p,h2:p`.
    #[must_use]
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self
            .servers
            .iter()
            .map(|(host, port)| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
            .collect();
        hosts.join(",")
    }
}

impl fmt::Display for ZooKeeperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zk://{}{}", self.hosts(), self.chroot().unwrap_or_default())
    }
}

impl fmt::Debug for ZooKeeperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ZooKeeperAddress {
    type Err = ZooKeeperAddressError;

    fn from_str(text: &str) -> Result<Self, ZooKeeperAddressError> {
        // Any other text before "://" is not a scheme, but may be part of a password.
        let is_scheme = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let rest = match text.trim().split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            None => text.trim(),
            Some(("zk", rest)) => rest,
            Some((scheme, _)) => return Err(ZooKeeperAddressError::Scheme(scheme.to_owned())),
        };
        // The last '@' ends the credentials: a password may contain any character, a chroot no '@'.
        let (credentials, rest) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((credentials, rest)) => (Some(checked_credentials(credentials)?), rest),
        };
        let (servers, chroot) = match rest.find('/') {
            None => (rest, None),
            Some(slash) => {
                let (servers, chroot) = rest.split_at(slash);
                (servers, checked_chroot(chroot)?)
            }
        };
        let servers = servers.split(',').enumerate().map(|(i, server)| parse_server(i + 1, server.trim()));
        let servers = servers.collect::<Result<_, _>>()?;
        Ok(Self { credentials, servers, chroot, world_readable: false, strict: None, tls: None })
    }
}

fn checked_credentials(text: &str) -> Result<String, ZooKeeperAddressError> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(text.to_owned()),
        _ => Err(ZooKeeperAddressError::Credentials),
    }
}

/// Returns none for the root, `/`.
fn checked_chroot(text: &str) -> Result<Option<String>, ZooKeeperAddressError> {
    if text == "/" {
        return Ok(None);
    }
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    let bad = || ZooKeeperAddressError::Chroot(text.to_owned());
    if text.strip_prefix('/').is_some_and(|parts| parts.split('/').all(part)) {
        Ok(Some(text.to_owned()))
    } else {
        Err(bad())
    }
}

fn parse_server(position: usize, text: &str) -> Result<(String, u16), ZooKeeperAddressError> {
    let bad = || ZooKeeperAddressError::Host(text.to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad)?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(bad)?) };
            host.parse::<Ipv6Addr>().map_err(|_| bad())?;
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(ZooKeeperAddressError::EmptyHost(position));
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if !text.starts_with('[') && (!host.bytes().all(named) || port.is_some_and(|p| p.contains(':'))) {
        return Err(bad());
    }
    let number = match port {
        None => Some(DEFAULT_PORT),
        Some(port) => port.parse().ok().filter(|number| *number != 0),
    };
    let wrong = || ZooKeeperAddressError::Port { host: host.to_owned(), port: port.unwrap_or_default().to_owned() };
    Ok((host.to_owned(), number.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_parsed_and_displayed_without_credentials() {
        let accepted = [
            ("h1:1,h2:2", "zk://h1:1,h2:2"),
            (" h ", "zk://h:2181"),
            ("zk://10.0.0.1:2181/", "zk://10.0.0.1:2181"),
            ("zk://h1:1, h2/a/b", "zk://h1:1,h2:2181/a/b"),
            ("zk://me:se/c,r@e:t@h1:1/a", "zk://h1:1/a"),
            ("zk://[::1]:2182,[fe80::2]/x", "zk://[::1]:2182,[fe80::2]:2181/x"),
        ];
        for (text, shown) in accepted {
            let address: ZooKeeperAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), shown);
        }
        let address: ZooKeeperAddress = "zk://me:se/c,r@e:t@h1:1/a".parse().unwrap();
        assert_eq!(address.credentials(), Some("me:se/c,r@e:t"));
        assert_eq!(address.chroot(), Some("/a"));
    }

    #[test]
    fn credentials_can_be_set_separately() {
        let address: ZooKeeperAddress = "h:1/a".parse().unwrap();
        let known = address.clone().with_credentials("me:a:b").unwrap();
        assert_eq!((known.credentials(), known.to_string().as_str()), (Some("me:a:b"), "zk://h:1/a"));
        for bad in ["", "me", "me:", ":b"] {
            assert_eq!(address.clone().with_credentials(bad), Err(ZooKeeperAddressError::Credentials), "{bad:?}");
        }
    }

    #[test]
    fn errors_name_the_cause_and_never_the_password() {
        let port =
            |host: &str, port: &str| ZooKeeperAddressError::Port { host: host.to_owned(), port: port.to_owned() };
        let refused = [
            ("", ZooKeeperAddressError::EmptyHost(1)),
            ("zk://", ZooKeeperAddressError::EmptyHost(1)),
            ("h1:1,,h2:2", ZooKeeperAddressError::EmptyHost(2)),
            ("h1:1,:2", ZooKeeperAddressError::EmptyHost(2)),
            ("http://h:1", ZooKeeperAddressError::Scheme("http".to_owned())),
            ("zk://user@h:1", ZooKeeperAddressError::Credentials),
            ("zk://:pass@h:1", ZooKeeperAddressError::Credentials),
            ("zk://user:@h:1", ZooKeeperAddressError::Credentials),
            ("h:0", port("h", "0")),
            ("h:65536", port("h", "65536")),
            ("h:", port("h", "")),
            ("zk://u:secret@h:x/a", port("h", "x")),
            ("::1", ZooKeeperAddressError::EmptyHost(1)),
            ("fe80::1:2181", ZooKeeperAddressError::Host("fe80::1:2181".to_owned())),
            ("[::1", ZooKeeperAddressError::Host("[::1".to_owned())),
            ("[::1]2181", ZooKeeperAddressError::Host("[::1]2181".to_owned())),
            ("[h]:1", ZooKeeperAddressError::Host("[h]:1".to_owned())),
            ("h h:1", ZooKeeperAddressError::Host("h h:1".to_owned())),
            ("h:1/a//b", ZooKeeperAddressError::Chroot("/a//b".to_owned())),
            ("h:1/a/", ZooKeeperAddressError::Chroot("/a/".to_owned())),
            ("h:1/../a", ZooKeeperAddressError::Chroot("/../a".to_owned())),
            ("user:secret://x@", ZooKeeperAddressError::EmptyHost(1)),
        ];
        for (text, error) in refused {
            let got = text.parse::<ZooKeeperAddress>().unwrap_err();
            assert!(!got.to_string().contains("secret"));
            assert_eq!(got, error, "{text}");
        }
    }
}
