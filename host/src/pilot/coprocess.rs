//! The actor of one coprocess.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Purpose, Runner, config::Coprocess, restarts::Restarts};

/// How a coprocess does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) state: State,
    /// How often it was started.
    pub(super) starts: u64,
}

/// Where a coprocess stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Running,
    /// It is going to be started again.
    Waiting,
    /// It is not.
    Ended,
}

/// Runs a coprocess, as often as it may be, until stopped: then it is asked to end, and waited for.
pub(super) async fn coprocess(
    coprocess: Coprocess,
    runner: Runner,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) {
    let mut restarts = Restarts::new(coprocess.restarts);
    let purpose = Purpose::Coprocess(coprocess.name);
    while !stop.is_cancelled() {
        progress.send_modify(|progress| *progress = Progress { state: State::Running, starts: progress.starts + 1 });
        let begin = Instant::now();
        let outcome = runner.run(&purpose, &coprocess.command, None, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        let next = restarts.next(begin.elapsed());
        let state = if next.is_some() { State::Waiting } else { State::Ended };
        progress.send_modify(|progress| progress.state = state);
        let Some(wait) = next else {
            tracing::info!("{purpose}: {outcome}; it is not started again");
            return;
        };
        runner.metrics().coprocess_restarted();
        if wait == Duration::ZERO {
            tracing::warn!("{purpose}: {outcome}; starting it again");
        } else {
            tracing::warn!("{purpose}: {outcome}; starting it again in {wait:.1?}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
}
