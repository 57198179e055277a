//! The actor of one backend: looks for its instances and runs its reaction when they changed.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Outcome, Purpose, Runner, config::Backend, memory::Memory};
use crate::{
    backoff::Backoff,
    discovery::{Discovery, DiscoveryError, Found, Mark, Sought},
    wake::done,
};

/// Waits before a place that failed is asked again: this, then twice this and so on, up to the poll.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long at least between two looks at a place that can be waited for: what changes in a hurry is seen at once.
const LULL: Duration = Duration::from_millis(10);

/// What watches a backend.
pub(super) struct Watcher {
    pub(super) backend: Backend,
    pub(super) place: Arc<dyn Discovery>,
    pub(super) runner: Runner,
    pub(super) maintenance: watch::Receiver<bool>,
    /// How many instances were found last, for people.
    pub(super) count: watch::Sender<usize>,
}

/// When to look, and for what.
enum Look {
    /// After this time.
    After(Duration),
    /// After this time, for another state than that.
    Since(Mark, Duration),
}

/// What a look brought, and how long the place took for that.
type Looked = (Result<Found, DiscoveryError>, Duration);

impl Watcher {
    /// Runs until it is stopped. A reaction that runs then is asked to end, and waited for; it is due again.
    pub(super) async fn run(self, mut memory: Memory, stop: CancellationToken) -> Memory {
        let mut maintenance = self.maintenance.clone();
        let mut paused = *maintenance.borrow_and_update();
        let mut trouble = Backoff::new(FIRST_WAIT.min(self.backend.poll), self.backend.poll);
        let mut looking = self.looking(paused, Look::After(self.backend.poll));
        let mut reacting: Option<BoxFuture<'_, Outcome>> = None;
        let mut lull = LULL;
        loop {
            if memory.due && reacting.is_none() && !paused && !stop.is_cancelled() {
                memory.due = false;
                reacting = Some(self.react(&stop).boxed());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = maintenance.changed() => {
                    paused = *maintenance.borrow_and_update();
                    looking = self.looking(paused, Look::After(self.backend.poll));
                }
                outcome = done(&mut reacting) => self.log(&outcome),
                looked = &mut looking => {
                    let next = self.take(looked, &mut memory, &mut trouble, &mut lull);
                    looking = self.looking(paused, next);
                }
            }
        }
        if reacting.is_some() {
            memory.due = !done(&mut reacting).await.is_well();
        }
        memory
    }

    fn looking(&self, paused: bool, look: Look) -> BoxFuture<'_, Looked> {
        if paused { pending().boxed() } else { self.look(look).boxed() }
    }

    async fn look(&self, look: Look) -> Looked {
        let (wait, since) = match look {
            Look::After(wait) => (wait, None),
            Look::Since(mark, lull) => (lull, Some(mark)),
        };
        sleep(wait).await;
        let begin = Instant::now();
        let sought = Sought { name: self.backend.name.clone(), tag: self.backend.tag.clone() };
        (self.place.instances(&sought, since, self.backend.poll).await, begin.elapsed())
    }

    /// Takes what a look brought. When to look again.
    fn take(&self, (found, took): Looked, memory: &mut Memory, trouble: &mut Backoff, lull: &mut Duration) -> Look {
        let (name, poll) = (&self.backend.name, self.backend.poll);
        match found {
            Ok(Found { instances, mark }) => {
                if trouble.attempts() > 0 {
                    tracing::info!("instances of {name} can be looked for again");
                    trouble.reset();
                }
                self.count.send_replace(instances.len());
                let has_changed = memory.found(instances);
                // A place that does not wait although it could is not to be asked without a pause.
                let is_hasty = !has_changed && took < poll / 2;
                *lull = if is_hasty { (*lull * 2).min(poll) } else { LULL };
                mark.map_or(Look::After(poll), |mark| Look::Since(mark, *lull))
            }
            Err(error) => {
                self.runner.metrics().discovery_failed();
                if trouble.attempts() == 0 {
                    tracing::warn!("cannot look for instances of {name}: {error}");
                }
                Look::After(trouble.delay())
            }
        }
    }

    async fn react(&self, stop: &CancellationToken) -> Outcome {
        let purpose = Purpose::OnChange(self.backend.name.clone());
        self.runner.run(&purpose, &self.backend.on_change, Some(self.backend.limit), stop).await
    }

    /// How the reaction ended is of no account, but people should know.
    fn log(&self, outcome: &Outcome) {
        if !outcome.is_well() {
            tracing::warn!("{}.onChange: {outcome}", self.backend.name);
        }
    }
}
