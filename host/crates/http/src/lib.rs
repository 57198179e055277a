//! The HTTP/1.1 server that the control API and the telemetry endpoint share.
//!
//! Guarantees: a new connection is always accepted. If all connections are taken, one without a request in progress is closed
//! for it. A client that disconnects while its request waits is detected. Bodies of replies can be streamed.
//!
//! The server owns the connections. It does not know which requests exist and which clients may send them.
//!
//! | module | content |
//! |---|---|
//! | `server` | accepts connections, serves HTTP/1.1 on each |
//! | `connections` | limits of connections, and which one is closed for a new one |
//! | `disconnect` | detects clients that disconnect |
//! | `reply` | complete and streamed replies |

mod connections;
mod disconnect;
mod reply;
mod server;

pub use connections::{ConnectionInfo, max_connections};
pub use reply::{BodyError, JSON, PROMETHEUS, Reply, ReplyBody, allowed, body, stream};
pub use server::{accept, serve_http1};
