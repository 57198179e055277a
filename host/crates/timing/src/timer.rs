//! Timers and optional futures for actors.

use std::{future::pending, time::Instant};

use futures_util::future::BoxFuture;

/// Completes at this time, or never if there is none.
///
/// # Cancellation safety
/// Dropping the future loses nothing.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Completes with the result of the future, which is removed then; never if there is none.
///
/// # Cancellation safety
/// Dropping the future loses nothing.
pub async fn next_completed<T>(in_flight: &mut Option<BoxFuture<'_, T>>) -> T {
    let Some(future) = in_flight else { return pending().await };
    let result = future.await;
    *in_flight = None;
    result
}
