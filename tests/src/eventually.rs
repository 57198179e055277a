//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Result;

/// How long a condition may take that should hold within moments. Generous: several pods and servers share few cores.
pub const SOON: Duration = Duration::from_secs(15);

const PAUSE: Duration = Duration::from_millis(10);

/// Tries until it works, and gives what came of it.
///
/// # Errors
/// When it did not work within the limit: with `what` was waited for and why the last attempt failed.
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
            Err(_) => bail!("{what}: an attempt did not end within {limit:?}"),
        };
        if begin.elapsed() > limit {
            return Err(last).context(format!("{what}: not within {limit:?}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tries for all of a duration, and fails as soon as it does not work.
///
/// # Errors
/// With `what` should have held, and how the attempt failed.
pub async fn steadily(what: &str, duration: Duration, mut attempt: impl AsyncFnMut() -> anyhow::Result<()>) -> Result {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        let passed = begin.elapsed();
        attempt().await.with_context(|| format!("{what}: no more after {passed:?}"))?;
        tokio::time::sleep(PAUSE * 5).await;
    }
    Ok(())
}
