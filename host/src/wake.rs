//! What actors wait for: the time that a pure machine asks to be woken at, and what is under way, if anything is.

use std::{future::pending, time::Instant};

use futures_util::future::BoxFuture;

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

/// Completes with what is under way, which is nothing after that; never when nothing is.
///
/// # Cancellation safety
/// Dropping the future loses nothing.
pub(crate) async fn done<T>(doing: &mut Option<BoxFuture<'_, T>>) -> T {
    let Some(under_way) = doing else { return pending().await };
    let result = under_way.await;
    *doing = None;
    result
}
