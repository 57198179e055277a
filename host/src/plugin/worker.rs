//! One instance of a plugin and the task that owns it.
//!
//! Calls come through a queue and run one at a time, on the guests' threads. The caller's timer gives a call up, which ends
//! it wherever it waits, and at the next tick where it computes. Whatever does not end well takes the instance with it; the
//! next call builds a new one, under a budget.

use std::{
    mem,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{self, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};
use wasmtime::{Store, Trap};
use wasmtime_wasi::I32Exit;

use super::{
    Engine, PluginError,
    bindings::{Plugin as Exports, PluginPre},
    budget::Budget,
    sandbox::Sandbox,
    store::{State, store},
};
use crate::{status::Suspension, telemetry::Metrics};

/// Calls that may wait for an instance.
const QUEUE: usize = 16;

/// Limits are waited for in steps of this length.
const STEP: Duration = Duration::from_millis(250);

/// Time in which one of the threads for files and names has to be free.
const RESPONSE: Duration = Duration::from_secs(1);
const STUCK: &str = "its operations on files or names that never end use up the threads for these (does it open a pipe in \
                     a granted directory, or is a file system stuck?)";

type Job = Box<dyn for<'a> FnOnce(&'a mut Slot) -> BoxFuture<'a, ()> + Send>;

/// Everything that instances are made from.
#[derive(Clone)]
pub(super) struct Maker {
    pub(super) engine: Arc<Engine>,
    pub(super) code: PluginPre<State>,
    pub(super) sandbox: Sandbox,
    /// A directory that the guest sees as `/uploads`.
    pub(super) uploads: Option<PathBuf>,
    /// Files, sockets, streams and requests that an instance may hold at once.
    pub(super) resources: usize,
}

/// Handle on the task that owns one instance. The task ends with it.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    jobs: mpsc::Sender<Job>,
    gave_up: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    _task: AbortOnDropHandle<()>,
}

impl Worker {
    /// A worker for instances named `name` in the log and the metrics. The first instance is made by the first call.
    pub(super) fn start(name: &'static str, maker: Maker) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let engine = Arc::clone(&maker.engine);
        let gave_up = Arc::clone(&maker.sandbox.gave_up);
        let metrics = Arc::clone(&maker.sandbox.services.metrics);
        let budget = Budget::new(Instant::now());
        let mut slot = Slot { name, maker, live: None, running: false, budget, fault: None };
        let task = async move {
            while let Some(job) = queue.recv().await {
                job(&mut slot).await;
            }
        };
        Self { name, jobs, gave_up, metrics, _task: engine.spawn(task.instrument(Span::current())) }
    }

    /// Calls an export, to be over within `limit`, the time in the queue included. What costs an instance is counted.
    ///
    /// # Cancellation safety
    /// Dropping the future gives the call up: at once when it has not begun, else the instance is dropped with it.
    pub(super) async fn call<R, F>(&self, callback: &'static str, limit: Duration, export: F) -> Result<R, PluginError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a Exports, &'a mut Store<State>) -> BoxFuture<'a, wasmtime::Result<R>> + Send + 'static,
    {
        let deadline = Instant::now() + limit;
        let (mut reply, answer) = oneshot::channel();
        let overran = Arc::new(AtomicBool::new(false));
        let too_late = Arc::clone(&overran);
        let job: Job = Box::new(move |slot| {
            Box::pin(async move {
                tokio::select! {
                    biased;
                    () = reply.closed() => slot.given_up(too_late.load(Ordering::Relaxed).then_some(limit)),
                    outcome = slot.call(deadline, export) => {
                        _ = reply.send(outcome);
                    }
                }
            })
        });
        let answered = async {
            self.jobs.send(job).await.map_err(|_| PluginError::Cancelled)?;
            answer.await.unwrap_or(Err(PluginError::Cancelled))
        };
        let result = tokio::select! {
            biased;
            result = answered => result,
            // It is known before the answer is dropped, which ends the call.
            () = awake(limit).map(|()| overran.store(true, Ordering::Relaxed)) => {
                self.gave_up.store(true, Ordering::Relaxed);
                Err(PluginError::DeadlineExceeded(limit))
            }
        };
        let metrics = &self.metrics;
        match &result {
            Err(PluginError::Trapped(_) | PluginError::Exhausted(_)) => metrics.plugin_trapped(self.name, callback),
            Err(PluginError::DeadlineExceeded(_)) => metrics.plugin_overran(self.name, callback),
            _ => {}
        }
        result
    }
}

/// The place of an instance.
struct Slot {
    name: &'static str,
    maker: Maker,
    live: Option<Live>,
    /// Whether a call began and has not ended.
    running: bool,
    budget: Budget,
    /// How the last instance failed, if it did.
    fault: Option<PluginError>,
}

struct Live {
    store: Store<State>,
    exports: Exports,
}

impl Slot {
    /// Calls an export of the present instance, or of a new one.
    ///
    /// While the call runs the instance belongs to this future alone: it is put back only when the call ended well.
    async fn call<R, F>(&mut self, deadline: Instant, export: F) -> Result<R, PluginError>
    where
        F: for<'a> FnOnce(&'a Exports, &'a mut Store<State>) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
        self.running = true;
        let result = self.run(deadline, export).await;
        self.running = false;
        result
    }

    async fn run<R, F>(&mut self, deadline: Instant, export: F) -> Result<R, PluginError>
    where
        F: for<'a> FnOnce(&'a Exports, &'a mut Store<State>) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
        let engine = Arc::clone(&self.maker.engine);
        let _tick = engine.tick();
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.build(deadline).await?,
        };
        live.store.data_mut().deadline = deadline;
        live.store.set_epoch_deadline(1);
        match export(&live.exports, &mut live.store).await {
            Ok(result) => {
                live.store.data_mut().end_of_call();
                self.live = Some(live);
                Ok(result)
            }
            Err(error) => Err(self.failed(&error, &mut live.store)),
        }
    }

    async fn build(&mut self, deadline: Instant) -> Result<Live, PluginError> {
        if let Some(fault) = &self.fault {
            self.budget.spend(Instant::now()).map_err(|wait| self.suspend(wait, fault))?;
            tracing::info!("the plugin's {} instance is started anew", self.name);
            self.maker.sandbox.services.metrics.plugin_rebuilt(self.name);
            self.fault = None;
        }
        let gave_up = &self.maker.sandbox.gave_up;
        if gave_up.swap(false, Ordering::Relaxed) && timeout(RESPONSE, spawn_blocking(|| ())).await.is_err() {
            gave_up.store(true, Ordering::Relaxed);
            return Err(PluginError::Unavailable(STUCK.to_owned()));
        }
        let Maker { engine, code, sandbox, uploads, resources } = &self.maker;
        let mut store = store(engine.wasm(), sandbox, uploads.as_deref(), *resources, deadline)?;
        match code.instantiate_async(&mut store).await {
            Ok(exports) => Ok(Live { store, exports }),
            Err(error) => Err(self.failed(&error, &mut store)),
        }
    }

    /// There is no rebuild for so long: tells everybody.
    fn suspend(&self, wait: Duration, fault: &PluginError) -> PluginError {
        let suspension = Suspension { until: Instant::now() + wait, fault: fault.to_string() };
        let first = self.maker.sandbox.services.report.send_if_modified(|report| {
            let known = report.0.insert(self.name, suspension);
            known.is_none_or(|known| known.until <= Instant::now())
        });
        let seconds = wait.as_secs_f64().ceil();
        let text = format!("it failed too often and is started again in {seconds} s at the earliest (last: {fault})");
        if first {
            tracing::warn!("the plugin's {} is not available: {text}", self.name);
        }
        PluginError::Unavailable(text)
    }

    fn failed(&mut self, error: &wasmtime::Error, store: &mut Store<State>) -> PluginError {
        let (refused, last_words) = store.data_mut().end_of_call();
        let failure = classify(error, refused, &last_words);
        tracing::warn!("the plugin's {} instance is dropped: {failure}", self.name);
        tracing::debug!("{error:?}");
        self.fault = Some(failure.clone());
        failure
    }

    /// The caller waits no more. Past the limit that is the guest's fault; before, nobody's.
    fn given_up(&mut self, overran: Option<Duration>) {
        if !mem::take(&mut self.running) {
            return;
        }
        self.maker.sandbox.gave_up.store(true, Ordering::Relaxed);
        if let Some(limit) = overran {
            let failure = PluginError::DeadlineExceeded(limit);
            tracing::warn!("the plugin's {} instance is dropped: {failure}", self.name);
            self.fault = Some(failure);
        }
    }
}

/// Waits for this long of the time that the host runs. While it is stopped (SIGSTOP, a frozen cgroup, a paused machine) its
/// guests cannot do their work either: whatever that takes counts as two steps at most.
async fn awake(limit: Duration) {
    let mut left = limit;
    while !left.is_zero() {
        let step = left.min(STEP);
        let begin = time::Instant::now();
        sleep(step).await;
        left = left.saturating_sub(begin.elapsed().min(2 * step));
    }
}

/// What an error of wasmtime's means.
fn classify(error: &wasmtime::Error, refused: Option<String>, last_words: &str) -> PluginError {
    if let Some(refused) = refused {
        return PluginError::Exhausted(refused);
    }
    let text = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => match error.downcast_ref::<I32Exit>() {
            Some(exit) => format!("it called exit({})", exit.0),
            None => format!("{:#}", error.root_cause()),
        },
    };
    PluginError::Trapped(if last_words.is_empty() { text } else { format!("{text}: {last_words}") })
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const STOPPED: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_limit_does_not_pass_while_the_host_is_stopped() {
        let begin = time::Instant::now();
        awake(Duration::from_millis(5100)).await;
        assert_eq!(begin.elapsed(), Duration::from_millis(5100));

        let begin = tokio::time::Instant::now();
        tokio::join!(awake(Duration::from_secs(5)), advance(STOPPED));
        let ran = begin.elapsed().saturating_sub(STOPPED) + 2 * STEP;
        assert!(ran >= Duration::from_secs(5), "it passed {ran:?} after the stop at most");
    }
}
