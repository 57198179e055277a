//! What the operator grants to a plugin beyond its sandbox.

use std::path::PathBuf;

/// A directory that the guest sees (`--dir HOST::GUEST[:ro]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGrant {
    /// Path on the host.
    pub host: PathBuf,
    /// Path under which the guest sees it.
    pub guest: String,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// An address that the guest may reach (`--net`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkGrant {
    /// The pods of the present view (`--net peers`).
    Peers,
    /// `HOST:PORT`, or `HOST:*` when there is no port.
    Address {
        /// An IP address or a name.
        host: String,
        /// The port; any when none.
        port: Option<u16>,
    },
}

/// All grants. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Directories (`--dir`).
    pub directories: Vec<DirectoryGrant>,
    /// Environment variables (`--env`).
    pub environment: Vec<String>,
    /// Addresses (`--net`).
    pub network: Vec<NetworkGrant>,
    /// Programs for the `exec` import (`--run`).
    pub programs: Vec<String>,
    /// The only programs that a sub-process may be (`--exec`); any when none.
    pub exec: Option<Vec<String>>,
}
