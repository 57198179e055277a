//! The actor of one coprocess.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Purpose, Runner, config::Coprocess, restart_backoff::RestartBackoff};

/// Report of a coprocess.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CoprocessReport {
    pub(super) state: CoprocessState,
    /// Number of starts.
    pub(super) starts: u64,
}

/// State of a coprocess.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum CoprocessState {
    #[default]
    Running,
    /// It exited and will be restarted.
    Waiting,
    /// It exited and will not be restarted.
    Ended,
}

/// Runs a coprocess, with its restarts, until stopped. It is then terminated and awaited, and killed after the `grace`.
pub(super) async fn coprocess(
    coprocess: Coprocess,
    runner: Runner,
    grace: watch::Receiver<Duration>,
    report: watch::Sender<CoprocessReport>,
    stop: CancellationToken,
) {
    let mut restarts = RestartBackoff::new(coprocess.restarts);
    let purpose = Purpose::Coprocess(coprocess.name);
    while !stop.is_cancelled() {
        report.send_modify(|report| {
            *report = CoprocessReport { state: CoprocessState::Running, starts: report.starts + 1 }
        });
        let begin = Instant::now();
        let outcome = runner.run_coprocess(&purpose, &coprocess.command, &grace, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        let next = restarts.next(begin.elapsed());
        let state = if next.is_some() { CoprocessState::Waiting } else { CoprocessState::Ended };
        report.send_modify(|report| report.state = state);
        let Some(wait) = next else {
            tracing::info!("{purpose}: {outcome}; not restarted");
            return;
        };
        runner.metrics().coprocess_restarted();
        if wait == Duration::ZERO {
            tracing::warn!("{purpose}: {outcome}; restarting");
        } else {
            tracing::warn!("{purpose}: {outcome}; restarting in {wait:.1?}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
}
