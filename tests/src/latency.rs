//! How long answers take.

use std::time::{Duration, Instant};

use crate::Result;

/// A short pause between two questions, so that asking is no load by itself.
const PAUSE: Duration = Duration::from_millis(2);

/// Times of questions that were asked one after the other.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Asks so often.
    ///
    /// # Errors
    /// When a question fails.
    pub async fn of(questions: usize, mut ask: impl AsyncFnMut() -> Result) -> Result<Self> {
        let mut times = Vec::with_capacity(questions);
        for _ in 0..questions {
            let begin = Instant::now();
            ask().await?;
            times.push(begin.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        times.sort();
        Ok(Self(times))
    }

    /// The time that this many of a hundred did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}
