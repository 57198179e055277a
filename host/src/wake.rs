//! Waiting for the time that a pure machine asks to be woken at.

use std::{future::pending, time::Instant};

/// Completes at this time, or never when there is none.
///
/// # Cancellation safety
/// Dropping the future loses nothing.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
