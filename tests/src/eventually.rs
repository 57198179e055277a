//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Result;

/// Time limit for a condition that should hold within moments. Generous: several pods and servers share few cores.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Retries until it succeeds, and returns the result.
///
/// # Errors
/// If it did not succeed within the limit: `what` was awaited, and the last error.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        let last = match tokio::time::timeout(limit, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => bail!("{what}: an attempt timed out after {limit:?}"),
        };
        if begin.elapsed() > limit {
            return Err(last).context(format!("{what}: not within {limit:?}"));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Repeats it for a duration, and fails at the first failure.
///
/// # Errors
/// `what` should have held, and the error of the attempt.
pub async fn consistently(
    what: &str,
    duration: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<()>,
) -> Result {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        let passed = begin.elapsed();
        attempt().await.with_context(|| format!("{what}: no longer after {passed:?}"))?;
        tokio::time::sleep(POLL_INTERVAL * 5).await;
    }
    Ok(())
}
