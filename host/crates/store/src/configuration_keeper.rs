//! The configuration in the store under one leadership: read once, written in order, and restored whenever other clients
//! change it.

use std::{collections::VecDeque, convert::Infallible, future::pending, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_timing::Backoff;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use super::{CoordError, LastConfiguration, Leadership, StoreWrite, WriteResult, leadership::Contents};

/// Bounds of the delays before contents are restored, which grow while another client keeps changing them.
const RESTORE_DELAY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));
/// Time without changes after which these delays are short again.
const RESTORE_RESET_AFTER: Duration = Duration::from_mins(1);
/// Delay after a failed read.
const READ_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Event of a [`ConfigurationKeeper`].
#[derive(Debug)]
pub enum ConfigurationEvent {
    /// The last configuration was read. Reported once.
    Read(LastConfiguration),
    /// The oldest submitted write that was not reported yet has ended.
    Written(WriteResult),
}

/// Reads the last configuration, commits the leader's writes one at a time, and restores what other clients change.
///
/// Dropping it stops all of that; the result of a write in flight is then unknown.
pub struct ConfigurationKeeper {
    leadership: Leadership,
    reading: Option<BoxFuture<'static, LastConfiguration>>,
    writes: VecDeque<StoreWrite>,
    writing: Option<(Contents, BoxFuture<'static, WriteResult>)>,
    restorer: Restorer,
}

impl ConfigurationKeeper {
    /// Creates a keeper of a leadership's cluster.
    #[must_use]
    pub fn new(leadership: Leadership) -> Self {
        let restorer = Restorer::new(leadership.clone());
        let reading = Some(read(leadership.clone()).boxed());
        Self { leadership, reading, writes: VecDeque::new(), writing: None, restorer }
    }

    /// Queues a write. Its result is reported by [`ConfigurationKeeper::next`].
    pub fn submit(&mut self, write: StoreWrite) {
        self.writes.push_back(write);
    }

    /// Waits for the next event, and restores contents meanwhile. Never returns once the session is lost and no write is
    /// queued.
    ///
    /// # Cancellation safety
    /// Continues where it stopped when it is called again.
    pub async fn next(&mut self) -> ConfigurationEvent {
        if self.writing.is_none()
            && let Some(write) = self.writes.pop_front()
        {
            match self.restorer.prepare(&write) {
                Ok(contents) => {
                    let (leadership, written) = (self.leadership.clone(), contents.clone());
                    self.writing = Some((contents, async move { leadership.put(&written).await }.boxed()));
                }
                Err(error) => return ConfigurationEvent::Written(WriteResult::Unknown(error.to_string())),
            }
        }
        tokio::select! {
            biased;
            result = finished(self.writing.as_mut().map(|(_, write)| write)) => {
                if let Some((contents, _)) = self.writing.take() {
                    self.restorer.written(contents, &result);
                }
                ConfigurationEvent::Written(result)
            }
            last = finished(self.reading.as_mut()) => {
                self.reading = None;
                self.restorer.found(last.contents.clone());
                ConfigurationEvent::Read(last)
            }
            never = self.restorer.run(), if self.writing.is_none() => match never {},
        }
    }
}

/// Waits for the future, if there is one; otherwise never returns.
async fn finished<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Reads the last configuration, retrying indefinitely. Never returns once the session is lost.
async fn read(leadership: Leadership) -> LastConfiguration {
    loop {
        match leadership.read_configuration().await {
            Ok(last) => return last,
            Err(CoordError::SessionLost) => return pending().await,
            Err(error) => {
                warn!(%error, "cannot read last configuration, retrying");
                time::sleep(READ_RETRY_DELAY).await;
            }
        }
    }
}

/// Known contents, and the work of restoring them.
struct Restorer {
    leadership: Leadership,
    record: Contents,
    /// Whether a configuration was found without a readable view.
    lacks_view: bool,
    delays: Backoff,
    last_change: Instant,
    running: Option<BoxFuture<'static, Step>>,
}

/// Result of one step.
enum Step {
    /// These contents were changed.
    Changed(Contents),
    Restored(WriteResult),
    Failed(CoordError),
}

impl Restorer {
    fn new(leadership: Leadership) -> Self {
        let delays = Backoff::new(RESTORE_DELAY.0, RESTORE_DELAY.1);
        let (record, last_change) = (Contents::default(), Instant::now());
        Self { leadership, record, lacks_view: false, delays, last_change, running: None }
    }

    /// Records the contents that were found at the start of the leadership.
    fn found(&mut self, contents: Contents) {
        self.lacks_view = contents.hash.is_some() && contents.view.is_none();
        self.record = contents;
        self.running = None;
    }

    /// Returns the contents that a write has to set. Nothing is restored until [`Restorer::written`].
    fn prepare(&mut self, write: &StoreWrite) -> Result<Contents, CoordError> {
        self.running = None;
        let contents = Contents::of(write)?;
        if self.lacks_view { contents.with_view(write) } else { Ok(contents) }
    }

    /// Records the contents of a write. They are unknown if its result is.
    fn written(&mut self, contents: Contents, result: &WriteResult) {
        let is_done = *result == WriteResult::Done;
        let Contents { snapshot, hash, view } = contents;
        self.lacks_view &= !(is_done && view.is_some());
        for (kept, written) in
            [(&mut self.record.snapshot, snapshot), (&mut self.record.hash, hash), (&mut self.record.view, view)]
        {
            if written.is_some() {
                *kept = written.filter(|_| is_done);
            }
        }
    }

    /// Watches and restores the known contents indefinitely.
    ///
    /// # Cancellation safety
    /// Continues where it stopped when it is called again.
    async fn run(&mut self) -> Infallible {
        loop {
            let running = self.running.take().unwrap_or_else(|| self.watch(Duration::ZERO));
            let step = self.running.insert(running).await;
            self.running = None;
            match step {
                Step::Changed(contents) => self.restore(contents),
                Step::Restored(WriteResult::Done) => info!("nodes restored"),
                Step::Restored(WriteResult::Unknown(error)) => warn!(error, "cannot restore nodes, retrying"),
                // The leadership has ended, which its membership reports.
                Step::Restored(WriteResult::Fenced) | Step::Failed(CoordError::SessionLost) => {
                    self.running = Some(pending().boxed());
                }
                Step::Failed(error) => {
                    debug!(%error, "cannot watch configuration, retrying");
                    self.running = Some(self.watch(READ_RETRY_DELAY));
                }
            }
        }
    }

    /// Watches the known contents, after a delay.
    fn watch(&self, delay: Duration) -> BoxFuture<'static, Step> {
        let (leadership, record) = (self.leadership.clone(), self.record.clone());
        let watching = async move {
            time::sleep(delay).await;
            leadership.changed(&record).await.map_or_else(Step::Failed, Step::Changed)
        };
        watching.boxed()
    }

    /// Starts to restore contents, after the delay that is due.
    fn restore(&mut self, contents: Contents) {
        let now = Instant::now();
        if now.duration_since(std::mem::replace(&mut self.last_change, now)) > RESTORE_RESET_AFTER {
            self.delays.reset();
        }
        let delay = self.delays.delay();
        let leadership = self.leadership.clone();
        let restoring = async move {
            time::sleep(delay).await;
            Step::Restored(leadership.put(&contents).await)
        };
        self.running = Some(restoring.boxed());
    }
}

#[cfg(test)]
mod tests;
