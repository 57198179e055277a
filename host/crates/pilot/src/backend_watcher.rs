//! The actor of one backend: queries its instances and runs `onChange` when they change.

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_discovery::{ChangeIndex, QueryResult, Registry, RegistryError, ServiceQuery};
use ochopod_template::environment;
use ochopod_timing::{Backoff, next_completed};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Purpose, RunOutcome, Runner,
    change::{Change, Endpoint},
    config::Backend,
    known_instances::KnownInstances,
    metrics::RunResult,
    render::{RenderError, render},
    runner::ProgramInput,
};

/// Delay before the first retry of a query that failed. It doubles up to the poll interval.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(250);
/// Minimum delay between two blocking queries.
const MIN_QUERY_INTERVAL: Duration = Duration::from_millis(10);

/// Watches a backend.
pub(super) struct BackendWatcher {
    pub(super) backend: Backend,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) runner: Runner,
    pub(super) maintenance: watch::Receiver<bool>,
    /// Changes at each reload that leaves the backend as it is.
    pub(super) reloads: watch::Receiver<()>,
    /// Number of instances found last, for `GET /status`.
    pub(super) count: watch::Sender<usize>,
}

/// Delay and kind of the next query.
enum NextQuery {
    /// After this time.
    After(Duration),
    /// After this time, for a change since that state.
    Since(ChangeIndex, Duration),
}

/// Result of a query, and how long it took.
type QueryOutcome = (Result<QueryResult, RegistryError>, Duration);

/// Result of a reaction, and the endpoints that it was given.
struct Reaction {
    end: ReactionEnd,
    reported: BTreeSet<Endpoint>,
}

enum ReactionEnd {
    /// `onChange` ran.
    Ran(RunOutcome),
    /// The file was not rendered: `onChange` did not run.
    NotRendered(RenderError),
    /// The watcher was stopped before `onChange` ran.
    Stopped,
}

impl BackendWatcher {
    /// Runs until stopped. A reaction in progress is then terminated and awaited; it is pending again.
    pub(super) async fn run(self, mut known: KnownInstances, stop: CancellationToken) -> KnownInstances {
        let mut maintenance = self.maintenance.clone();
        let mut paused = *maintenance.borrow_and_update();
        let (mut reloads, mut reloaded) = (self.reloads.clone(), true);
        let mut backoff = Backoff::new(MIN_RETRY_DELAY.min(self.backend.poll), self.backend.poll);
        let mut querying = self.querying(paused, NextQuery::After(self.backend.poll));
        let mut running: Option<BoxFuture<'_, Reaction>> = None;
        let mut interval = MIN_QUERY_INTERVAL;
        loop {
            // A reaction in progress may have read its template before the reload.
            if running.is_none() && std::mem::take(&mut reloaded) {
                known.succeed(&self.backend);
            }
            if known.change_pending && running.is_none() && !paused && !stop.is_cancelled() {
                known.change_pending = false;
                running = Some(self.run_on_change(known.change(&self.backend), &stop).boxed());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = maintenance.changed() => {
                    paused = *maintenance.borrow_and_update();
                    querying = self.querying(paused, NextQuery::After(self.backend.poll));
                }
                Ok(()) = reloads.changed() => reloaded = true,
                reaction = next_completed(&mut running) => {
                    self.log(&reaction.end);
                    self.settle(reaction, &mut known);
                }
                outcome = &mut querying => {
                    let next = self.on_queried(outcome, &mut known, &mut backoff, &mut interval);
                    querying = self.querying(paused, next);
                }
            }
        }
        if running.is_some() {
            // It was terminated, so its exit code does not count.
            next_completed(&mut running).await;
            known.change_pending = true;
        }
        known
    }

    fn querying(&self, paused: bool, next: NextQuery) -> BoxFuture<'_, QueryOutcome> {
        if paused { pending().boxed() } else { self.query(next).boxed() }
    }

    async fn query(&self, next: NextQuery) -> QueryOutcome {
        let (wait, since) = match next {
            NextQuery::After(wait) => (wait, None),
            NextQuery::Since(index, interval) => (interval, Some(index)),
        };
        sleep(wait).await;
        let begin = Instant::now();
        let query = ServiceQuery { name: self.backend.name.clone(), tag: self.backend.tag.clone() };
        (self.registry.instances(&query, since, self.backend.poll).await, begin.elapsed())
    }

    /// Handles the result of a query. Returns the next one.
    fn on_queried(
        &self,
        (result, took): QueryOutcome,
        known: &mut KnownInstances,
        backoff: &mut Backoff,
        interval: &mut Duration,
    ) -> NextQuery {
        let (name, poll) = (&self.backend.name, self.backend.poll);
        match result {
            Ok(QueryResult { instances, index }) => {
                if backoff.attempts() > 0 {
                    tracing::info!("backend {name} reachable again");
                    backoff.reset();
                }
                self.count.send_replace(instances.len());
                let has_changed = known.update(instances);
                // A registry that does not block must not be queried without a pause.
                let returned_early = !has_changed && took < poll / 2;
                *interval = if returned_early { (*interval * 2).min(poll) } else { MIN_QUERY_INTERVAL };
                index.map_or(NextQuery::After(poll), |index| NextQuery::Since(index, *interval))
            }
            Err(error) => {
                self.runner.metrics().discovery_failed();
                if backoff.attempts() == 0 {
                    tracing::warn!("cannot query backend {name}: {error}");
                }
                NextQuery::After(backoff.delay())
            }
        }
    }

    /// Renders the file, if there is one, and then runs `onChange`.
    async fn run_on_change(&self, change: Change, stop: &CancellationToken) -> Reaction {
        let end = match self.render(&change, stop).await {
            Some(end) => end,
            None => ReactionEnd::Ran(self.on_change(&change, stop).await),
        };
        Reaction { end, reported: change.endpoints() }
    }

    /// Renders the file of the backend. None on success.
    async fn render(&self, change: &Change, stop: &CancellationToken) -> Option<ReactionEnd> {
        let template = self.backend.template.clone()?;
        let variables = environment(&self.runner.environment().snapshot());
        let rendered = tokio::select! {
            biased;
            rendered = render(template, change.data(), variables) => rendered,
            () = stop.cancelled() => return Some(ReactionEnd::Stopped),
        };
        rendered.err().map(ReactionEnd::NotRendered)
    }

    async fn on_change(&self, change: &Change, stop: &CancellationToken) -> RunOutcome {
        let purpose = Purpose::OnChange(self.backend.name.clone());
        let (variables, omitted) = change.variables();
        if !omitted.is_empty() {
            tracing::warn!(
                "{purpose}: {} left unset, too long for a variable; standard input has all",
                omitted.join(", ")
            );
        }
        let input = ProgramInput { variables, input: Some(change.json()) };
        self.runner.run_with(&purpose, &self.backend.on_change, Some(self.backend.limit), input, stop).await
    }

    fn settle(&self, Reaction { end, reported }: Reaction, known: &mut KnownInstances) {
        match end {
            ReactionEnd::Ran(outcome) => {
                known.rendered(self.backend.template.clone());
                if outcome.is_success() {
                    known.reacted(reported);
                }
            }
            ReactionEnd::NotRendered(_) | ReactionEnd::Stopped => known.rendered(None),
        }
    }

    /// Logs a failed reaction.
    fn log(&self, end: &ReactionEnd) {
        let name = &self.backend.name;
        match end {
            ReactionEnd::Ran(outcome) if !outcome.is_success() => tracing::warn!("{name}.onChange: {outcome}"),
            ReactionEnd::NotRendered(error) => {
                self.runner.metrics().on_change(name, RunResult::Failed);
                tracing::error!(
                    "{name}.template: {error}; onChange not run, next attempt at the next change or reload"
                );
            }
            ReactionEnd::Ran(_) | ReactionEnd::Stopped => {}
        }
    }
}
