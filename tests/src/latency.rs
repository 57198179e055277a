//! Latencies of requests.

use std::time::{Duration, Instant};

use crate::Result;

/// Pause between two requests, so that the requests themselves cause no load.
const REQUEST_INTERVAL: Duration = Duration::from_millis(2);

/// Times of consecutive requests.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Sends this number of requests.
    ///
    /// # Errors
    /// If a request fails.
    pub async fn of(questions: usize, mut request: impl AsyncFnMut() -> Result) -> Result<Self> {
        let mut times = Vec::with_capacity(questions);
        for _ in 0..questions {
            let begin = Instant::now();
            request().await?;
            times.push(begin.elapsed());
            tokio::time::sleep(REQUEST_INTERVAL).await;
        }
        times.sort();
        Ok(Self(times))
    }

    /// Returns the time that this percentage did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}
