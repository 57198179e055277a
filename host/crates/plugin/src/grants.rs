//! Permissions that the operator grants to a plugin.

use std::path::PathBuf;

use ochopod_model::port as parse_port;

/// Host text for the pod's own loopback addresses.
const LOOPBACK: &str = "loopback";

/// A directory that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGrant {
    /// The host's path.
    pub host: PathBuf,
    /// The path under which the guest sees it.
    pub guest: String,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// Addresses that the guest may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkGrant {
    /// The pods of the current view.
    Peers,
    /// A port of the container on the pod's own loopback addresses, and the port it is mapped to. A plugin that
    /// declares it in its wants needs no flag.
    Loopback {
        /// The port; any when none.
        port: Option<u16>,
    },
    /// One host.
    Address {
        /// Its name or IP address, without brackets.
        host: String,
        /// Its port; any when none.
        port: Option<u16>,
    },
}

impl NetworkGrant {
    /// Parses the value of `--net`: `peers`, `ADDRESS:PORT` or `ADDRESS:*`, with brackets around an IPv6 address, or
    /// `loopback:PORT`. Returns none for any other text.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        address(text)
    }
}

/// All grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Directories.
    pub directories: Vec<DirectoryGrant>,
    /// Names of environment variables, never those of secrets.
    pub environment: Vec<String>,
    /// Networks.
    pub network: Vec<NetworkGrant>,
    /// Programs for the `exec` import.
    pub programs: Vec<String>,
    /// The only programs that the sub-process may be; any command when none.
    pub exec: Option<Vec<String>>,
}

fn address(text: &str) -> Option<NetworkGrant> {
    if text == "peers" {
        return Some(NetworkGrant::Peers);
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%".contains(&b)) {
        return None;
    }
    let port = if port == "*" { None } else { Some(parse_port(port)?) };
    if host == LOOPBACK {
        return Some(NetworkGrant::Loopback { port });
    }
    Some(NetworkGrant::Address { host: host.to_owned(), port })
}
