//! The vocabulary of a cluster: names, registrations, views, digests, and the requests and replies of the control API.
//!
//! Guarantees: what is parsed is valid, and is written as it is read; nothing secret is displayed. There is no state, runtime or
//! I/O here, and no knowledge of how pods, stores and leaders work.
//!
//! | module | content |
//! |---|---|
//! | `name` | names of clusters and identities of pods |
//! | `registration`, `address`, `number` | registrations, and the addresses, ports and times in them and in settings |
//! | `canonical` | JSON objects as text with sorted keys |
//! | `dependency` | dependencies of a model |
//! | `view`, `digest` | the view of a configuration and its digests |
//! | `difference` | differences between views, and the views that a pod holds |
//! | `cluster_view` | the view as a plugin reads it: order, index, addresses, `grep` |
//! | [`status`] | reports of the actors of a pod, published states |
//! | [`reply`] | replies of the control API |
//! | [`wire`], `token` | headers and signatures of requests |
//! | [`json`] | parsing of JSON |

mod address;
mod canonical;
mod cluster_view;
mod dependency;
mod difference;
mod digest;
pub mod json;
mod name;
mod number;
mod registration;
pub mod reply;
pub mod status;
mod token;
mod view;
pub mod wire;

pub use address::{ADDRESS_REQUIREMENT, PeerHost};
pub use cluster_view::{ClusterView, PodView, QueryError};
pub use dependency::{Dependency, DependencyError};
pub use difference::{CAPABILITIES, COMPRESSED_BODIES, DIFFERENCES, DifferenceError, HeldViews, ViewDifference};
pub use digest::{ContentDigest, Digest, StoredHash};
pub use name::{ClusterName, NameError, PodId};
pub use number::{port, seconds};
pub use registration::{DEAD, PeerAddressError, Pods, ROLE, Registration, RegistrationError};
pub use token::{SignedRequest, TOKEN_REQUIREMENT, Token, body_digest};
pub use view::{PostedView, View, ViewError};
