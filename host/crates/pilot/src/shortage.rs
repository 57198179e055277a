//! Retries of starts that fail because the machine lacks a resource.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use ochopod_init::SpawnError;
use ochopod_timing::{Backoff, sleep_until};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Delays between attempts: up to this, then up to twice this, and so on.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Starts a program, and retries while the machine lacks a resource, until `stop` is cancelled or the `deadline` passes.
///
/// # Errors
/// Returns the last error: any other than a lack of resources, or that once `stop` is cancelled or the deadline has passed.
pub(super) async fn retried<T, F>(
    what: impl Display,
    deadline: Option<Instant>,
    stop: &CancellationToken,
    mut start: impl FnMut() -> F,
) -> Result<T, SpawnError>
where
    F: Future<Output = Result<T, SpawnError>>,
{
    let mut backoff = Backoff::new(MIN_DELAY, MAX_DELAY);
    loop {
        let error = match start().await {
            Err(error) if error.is_transient() => error,
            other => return other,
        };
        let (first, delay) = (backoff.attempts() == 0, backoff.delay());
        if first {
            tracing::warn!("{what}: {error}; lack of resources, retrying");
        }
        tokio::select! {
            () = sleep(delay) => {}
            () = sleep_until(deadline) => return Err(error),
            () = stop.cancelled() => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready, io};

    use nix::errno::Errno;

    use super::*;

    fn error(errno: Errno) -> SpawnError {
        SpawnError::Fork { program: "x".to_owned(), cause: io::Error::from(errno).into() }
    }

    #[tokio::test(start_paused = true)]
    async fn start_is_retried_while_resources_lack() {
        let attempts = Cell::new(0);
        let start = || {
            attempts.set(attempts.get() + 1);
            ready(if attempts.get() < 5 { Err(error(Errno::EAGAIN)) } else { Ok(7) })
        };
        let stop = CancellationToken::new();
        assert_eq!(retried("x", None, &stop, start).await.unwrap(), 7);
        assert_eq!(attempts.get(), 5);
        let failed = || {
            attempts.set(attempts.get() + 1);
            ready(Err::<(), _>(error(Errno::ENOENT)))
        };
        assert!(retried("x", None, &stop, failed).await.is_err());
        assert_eq!(attempts.get(), 6, "another failure is final");
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_ends_retries_with_the_last_error() {
        let begin = tokio::time::Instant::now();
        let deadline = (begin + Duration::from_secs(1)).into_std();
        let lacking = || ready(Err::<(), _>(error(Errno::EAGAIN)));
        let last = retried("x", Some(deadline), &CancellationToken::new(), lacking).await.unwrap_err();
        assert!(last.is_transient() && last.to_string().contains("EAGAIN"), "{last}");
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn stop_ends_retries() {
        let stop = CancellationToken::new();
        let lacking = || {
            stop.cancel();
            ready(Err::<(), _>(error(Errno::ENOMEM)))
        };
        assert!(retried("x", None, &stop, lacking).await.unwrap_err().is_transient());
    }
}
