//! TLS of a pod: certificates and keys from PEM files, and the configurations of its server and of its leader's client.
//!
//! Guarantees: files are read once and bounded, and no error repeats their content.
//!
//! State: none. Must not know: the settings that name the files, and connections.
//!
//! | module | content |
//! |---|---|
//! | `access` | [`ControlSecurity`]: token and certificates of a pod |
//! | `identity` | [`TlsIdentity`]: certificate chain and key, TLS configurations |
//! | `peer_name` | verification of the certificates of peers |
//! | [`pem`] | files with secrets, certificates and keys |

mod access;
mod identity;
mod peer_name;
pub mod pem;

pub use access::ControlSecurity;
pub use identity::{TlsIdentity, plain_client};
