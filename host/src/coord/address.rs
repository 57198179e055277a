//! Where the ensemble is: `zk://[user:password@]h1:p,h2:p[/chroot]`, or plain `h1:p,h2:p[/chroot]`; and how a pod is let in.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use super::tls::{Tls, server_name};

const DEFAULT_PORT: u16 = 2181;

/// A text that is no address of an ensemble. No variant repeats credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme than `zk`.
    #[error("the scheme is {0:?}, expected zk://")]
    Scheme(String),
    /// What stands before `@` is no `user:password`.
    #[error("what stands before '@' is not user:password")]
    Credentials,
    /// Nothing between two commas, before the port, or at all.
    #[error("server {0} has no host, expected host:port")]
    EmptyHost(usize),
    /// Not a name, an IPv4 address or an IPv6 address in brackets.
    #[error("{0:?} is not a host name, an address or an IPv6 address in brackets")]
    Host(String),
    /// Not a port.
    #[error("the port of {host:?} is {port:?}, expected a number from 1 to 65535")]
    Port {
        /// The host that it belongs to.
        host: String,
        /// What stands there.
        port: String,
    },
    /// Empty or relative parts, or characters that no node may have.
    #[error("the chroot {0:?} is not a path like /a/b")]
    Chroot(String),
    /// A host that no certificate can be for.
    #[error("no certificate can be for the host {0:?}, which TLS needs")]
    Uncertified(String),
}

/// The servers of one ensemble, the chroot, and what lets a pod in: credentials and certificates.
///
/// `Display` and `Debug` never show credentials or certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperAddress {
    credentials: Option<String>,
    servers: Vec<(String, u16)>,
    chroot: Option<String>,
    world_readable: bool,
    tls: Option<Tls>,
}

impl ZooKeeperAddress {
    /// The same with other credentials, `user:password`. They protect what is created: see [`super::Access`].
    ///
    /// # Errors
    /// [`AddressError::Credentials`] when the text is something else.
    pub fn with_credentials(self, text: &str) -> Result<Self, AddressError> {
        Ok(Self { credentials: Some(checked_credentials(text)?), ..self })
    }

    /// The same; what dependants read is created such that everybody may, whatever their credentials.
    #[must_use]
    pub fn world_readable(self) -> Self {
        Self { world_readable: true, ..self }
    }

    /// The same, by TLS only.
    ///
    /// # Errors
    /// [`AddressError::Uncertified`] when a host cannot be verified.
    pub fn with_tls(self, tls: Tls) -> Result<Self, AddressError> {
        match self.servers.iter().find(|(host, _)| server_name(host).is_none()) {
            Some((host, _)) => Err(AddressError::Uncertified(host.clone())),
            None => Ok(Self { tls: Some(tls), ..self }),
        }
    }

    /// Whether everybody may read what dependants read.
    #[must_use]
    pub fn is_world_readable(&self) -> bool {
        self.world_readable
    }

    /// The certificates, when it is spoken with by TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// `user:password`, when given.
    #[must_use]
    pub fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    /// Host (IPv6 without brackets) and port of each server, at least one.
    #[must_use]
    pub fn servers(&self) -> &[(String, u16)] {
        &self.servers
    }

    /// The node under which everything lives, like `/a/b`; none for the root.
    #[must_use]
    pub fn chroot(&self) -> Option<&str> {
        self.chroot.as_deref()
    }

    /// All servers as `h1:p,h2:p`.
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
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // Anything else before "://" is no scheme, but may be a part of a password.
        let is_scheme = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let rest = match text.trim().split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            None => text.trim(),
            Some(("zk", rest)) => rest,
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
        };
        // The last '@' ends the credentials: a password may hold any character, a chroot no '@'.
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
        Ok(Self { credentials, servers, chroot, world_readable: false, tls: None })
    }
}

fn checked_credentials(text: &str) -> Result<String, AddressError> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(text.to_owned()),
        _ => Err(AddressError::Credentials),
    }
}

/// The chroot without meaning (`/`) is none.
fn checked_chroot(text: &str) -> Result<Option<String>, AddressError> {
    if text == "/" {
        return Ok(None);
    }
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    let bad = || AddressError::Chroot(text.to_owned());
    if text.strip_prefix('/').is_some_and(|parts| parts.split('/').all(part)) {
        Ok(Some(text.to_owned()))
    } else {
        Err(bad())
    }
}

fn parse_server(position: usize, text: &str) -> Result<(String, u16), AddressError> {
    let bad = || AddressError::Host(text.to_owned());
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
        return Err(AddressError::EmptyHost(position));
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if !text.starts_with('[') && (!host.bytes().all(named) || port.is_some_and(|p| p.contains(':'))) {
        return Err(bad());
    }
    let number = match port {
        None => Some(DEFAULT_PORT),
        Some(port) => port.parse().ok().filter(|number| *number != 0),
    };
    let wrong = || AddressError::Port { host: host.to_owned(), port: port.unwrap_or_default().to_owned() };
    Ok((host.to_owned(), number.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_shown_without_credentials() {
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
    fn credentials_may_come_from_elsewhere() {
        let address: ZooKeeperAddress = "h:1/a".parse().unwrap();
        let known = address.clone().with_credentials("me:a:b").unwrap();
        assert_eq!((known.credentials(), known.to_string().as_str()), (Some("me:a:b"), "zk://h:1/a"));
        for bad in ["", "me", "me:", ":b"] {
            assert_eq!(address.clone().with_credentials(bad), Err(AddressError::Credentials), "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_never_the_password() {
        let port = |host: &str, port: &str| AddressError::Port { host: host.to_owned(), port: port.to_owned() };
        let refused = [
            ("", AddressError::EmptyHost(1)),
            ("zk://", AddressError::EmptyHost(1)),
            ("h1:1,,h2:2", AddressError::EmptyHost(2)),
            ("h1:1,:2", AddressError::EmptyHost(2)),
            ("http://h:1", AddressError::Scheme("http".to_owned())),
            ("zk://user@h:1", AddressError::Credentials),
            ("zk://:pass@h:1", AddressError::Credentials),
            ("zk://user:@h:1", AddressError::Credentials),
            ("h:0", port("h", "0")),
            ("h:65536", port("h", "65536")),
            ("h:", port("h", "")),
            ("zk://u:secret@h:x/a", port("h", "x")),
            ("::1", AddressError::EmptyHost(1)),
            ("fe80::1:2181", AddressError::Host("fe80::1:2181".to_owned())),
            ("[::1", AddressError::Host("[::1".to_owned())),
            ("[::1]2181", AddressError::Host("[::1]2181".to_owned())),
            ("[h]:1", AddressError::Host("[h]:1".to_owned())),
            ("h h:1", AddressError::Host("h h:1".to_owned())),
            ("h:1/a//b", AddressError::Chroot("/a//b".to_owned())),
            ("h:1/a/", AddressError::Chroot("/a/".to_owned())),
            ("h:1/../a", AddressError::Chroot("/../a".to_owned())),
            ("user:secret://x@", AddressError::EmptyHost(1)),
        ];
        for (text, error) in refused {
            let got = text.parse::<ZooKeeperAddress>().unwrap_err();
            assert!(!got.to_string().contains("secret"));
            assert_eq!(got, error, "{text}");
        }
    }
}
