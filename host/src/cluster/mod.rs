//! The vocabulary of a cluster: names, registrations, views, digests and the JSON of the control API.
//!
//! Pure: no runtime, no IO. Every other module speaks in these terms.

mod dependency;
mod digest;
pub(crate) mod json;
mod name;
mod registration;
mod token;
mod view;
pub mod wire;

pub use dependency::{Dependency, DependencyError};
pub use digest::{Digest, Stored};
pub use name::{ClusterName, NameError, PodId};
pub use registration::{AddressError, DEAD, Pods, Registration, RegistrationError};
pub use token::{Signed, TOKEN_FORM, Token, body_digest};
pub use view::{PostedView, View, ViewError};
