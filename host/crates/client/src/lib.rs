//! Typed client of the control API.
//!
//! # Guarantees
//!
//! - Every request ends within its time limit, with a [`Reply`] or a [`ClientError`].
//! - Replies are read up to a limit, whatever the server sends.
//! - Connections are kept and reused. Dropping a request closes its connection and leaves the client usable.
//! - The token never leaves the process in a signed request. A signature is made for one request only.
//!
//! The client owns its connections and nothing else. It knows neither the store nor what a reply means to a rollout, and
//! never retries.
//!
//! | module | owns |
//! |---|---|
//! | `client` | [`Client`]: connections, time limits, the requests of the control API |
//! | `auth` | [`Auth`]: the `Authorization` header |
//! | `body` | [`RequestBody`]: bytes that several requests share |
//! | `reply` | [`Reply`], [`Readiness`]: replies, read as a whole |
//! | `error` | [`ClientError`] |

mod auth;
mod body;
mod client;
mod error;
mod reply;

pub use auth::Auth;
pub use body::RequestBody;
pub use client::{Client, ControlContent, ControlRequest};
pub use error::ClientError;
pub use reply::{Readiness, Reply};
