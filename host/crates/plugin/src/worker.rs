//! One instance of a plugin, and the task that owns it.
//!
//! Calls pass a queue and run one at a time, on the guests' threads. The caller's timer abandons a call at its
//! deadline. That ends it immediately where it waits, and at the next tick where it computes. A call that does not
//! succeed discards the instance. The next call builds another one, within a budget.

use std::{
    convert::Infallible,
    future, mem,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_model::status::Suspension;
use ochopod_telemetry::Metrics;
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
    budget::RebuildBudget,
    epoch_ticker::{CallClock, TICK_INTERVAL},
    sandbox::Sandbox,
    store::{StoreData, store},
};

/// Maximum number of calls that wait for an instance.
const QUEUE_LEN: usize = 16;

/// Length of the steps in which a deadline is waited for.
const DEADLINE_STEP: Duration = Duration::from_millis(250);

/// Time within which a thread for files and names must become free.
const FREE_THREAD_TIMEOUT: Duration = Duration::from_secs(1);
const THREADS_STUCK: &str = "no thread left for files and names: its operations on them never end (is a pipe in a granted \
                     directory, or a file system stuck?)";

type Job = Box<dyn for<'a> FnOnce(&'a mut InstanceSlot) -> BoxFuture<'a, ()> + Send>;

/// Builds instances: the code, the sandbox, and the limits.
#[derive(Clone)]
pub(super) struct InstanceFactory {
    pub(super) engine: Arc<Engine>,
    pub(super) code: PluginPre<StoreData>,
    pub(super) sandbox: Sandbox,
    /// Directory that the guest sees as `/uploads`.
    pub(super) uploads: Option<PathBuf>,
    /// Maximum number of files, sockets, streams and requests that an instance holds.
    pub(super) resources: usize,
}

/// Handle of the task that owns one instance. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    engine: Arc<Engine>,
    jobs: mpsc::Sender<Job>,
    abandoned_call: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    _task: AbortOnDropHandle<()>,
}

impl Worker {
    /// Starts a worker whose instances are called `name` in the log and the metrics. The first call builds the first
    /// instance.
    pub(super) fn start(name: &'static str, factory: InstanceFactory) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_LEN);
        let engine = Arc::clone(&factory.engine);
        let abandoned_call = Arc::clone(&factory.sandbox.abandoned_call);
        let metrics = Arc::clone(&factory.sandbox.services.metrics);
        let budget = RebuildBudget::new(Instant::now());
        let mut slot = InstanceSlot { name, factory, live: None, in_call: false, budget, last_error: None };
        let task = async move {
            while let Some(job) = queue.recv().await {
                job(&mut slot).await;
            }
        };
        let task = engine.spawn(task.instrument(Span::current()));
        Self { name, engine, jobs, abandoned_call, metrics, _task: task }
    }

    /// Calls an export. `limit` includes the time in the queue. Failures that discard an instance are counted.
    ///
    /// # Cancellation safety
    /// Dropping the future cancels the call. A call that has started discards its instance.
    pub(super) async fn call<R, F>(&self, callback: &'static str, limit: Duration, export: F) -> Result<R, PluginError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a Exports, &'a mut Store<StoreData>) -> BoxFuture<'a, wasmtime::Result<R>> + Send + 'static,
    {
        let deadline = Instant::now() + limit;
        let (mut reply, answer) = oneshot::channel();
        let clock = Arc::new(self.engine.call_clock());
        let clock_of_job = Arc::clone(&clock);
        let timed_out = Arc::new(AtomicBool::new(false));
        let timed_out_in_job = Arc::clone(&timed_out);
        let job: Job = Box::new(move |slot| {
            Box::pin(async move {
                tokio::select! {
                    biased;
                    () = reply.closed() => slot.abandon(timed_out_in_job.load(Ordering::Relaxed).then_some(limit)),
                    outcome = slot.call(deadline, export) => {
                        _ = reply.send(outcome);
                    }
                }
                drop(clock_of_job);
            })
        });
        let mut interrupt = InterruptOnDrop(Some(clock));
        let answered = async {
            self.jobs.send(job).await.map_err(|_| PluginError::Cancelled)?;
            answer.await.unwrap_or(Err(PluginError::Cancelled))
        };
        let result = tokio::select! {
            biased;
            result = answered => {
                interrupt.disarm();
                result
            }
            never = interrupt.after(TICK_INTERVAL) => match never {},
            // Set before the reply is dropped, which ends the call.
            () = sleep_while_running(limit).map(|()| timed_out.store(true, Ordering::Relaxed)) => {
                self.abandoned_call.store(true, Ordering::Relaxed);
                Err(PluginError::DeadlineExceeded(limit))
            }
        };
        let metrics = &self.metrics;
        match &result {
            Err(PluginError::Trapped(_) | PluginError::Exhausted(_)) => metrics.plugin_trapped(self.name, callback),
            Err(PluginError::DeadlineExceeded(_)) => metrics.plugin_timed_out(self.name, callback),
            _ => {}
        }
        result
    }
}

/// Starts the clock of a call when it is dropped: a call without a waiting caller is to end.
struct InterruptOnDrop(Option<Arc<CallClock>>);

impl InterruptOnDrop {
    /// Starts the clock after this time. Never returns.
    async fn after(&self, time: Duration) -> Infallible {
        sleep(time).await;
        if let Some(clock) = &self.0 {
            clock.start();
        }
        future::pending().await
    }

    /// Leaves the clock as it is: the call has ended.
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        if let Some(clock) = &self.0 {
            clock.start();
        }
    }
}

/// Place of at most one instance.
struct InstanceSlot {
    name: &'static str,
    factory: InstanceFactory,
    live: Option<LiveInstance>,
    /// Whether a call has started and not ended.
    in_call: bool,
    budget: RebuildBudget,
    /// Failure of the last instance, if it failed.
    last_error: Option<PluginError>,
}

struct LiveInstance {
    store: Store<StoreData>,
    exports: Exports,
}

impl InstanceSlot {
    /// Calls an export of the current instance, or of a new one.
    ///
    /// While the call runs, this future owns the instance. It puts the instance back only after success.
    async fn call<R, F>(&mut self, deadline: Instant, export: F) -> Result<R, PluginError>
    where
        F: for<'a> FnOnce(&'a Exports, &'a mut Store<StoreData>) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
        self.in_call = true;
        let result = self.run(deadline, export).await;
        self.in_call = false;
        result
    }

    async fn run<R, F>(&mut self, deadline: Instant, export: F) -> Result<R, PluginError>
    where
        F: for<'a> FnOnce(&'a Exports, &'a mut Store<StoreData>) -> BoxFuture<'a, wasmtime::Result<R>>,
    {
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
            Err(error) => Err(self.discard(&error, &mut live.store)),
        }
    }

    async fn build(&mut self, deadline: Instant) -> Result<LiveInstance, PluginError> {
        if let Some(last_error) = &self.last_error {
            self.budget.take_token(Instant::now()).map_err(|wait| self.suspend(wait, last_error))?;
            tracing::info!(instance = self.name, "plugin instance rebuilt");
            self.factory.sandbox.services.metrics.plugin_rebuilt(self.name);
            self.last_error = None;
        }
        let abandoned_call = &self.factory.sandbox.abandoned_call;
        if abandoned_call.swap(false, Ordering::Relaxed)
            && timeout(FREE_THREAD_TIMEOUT, spawn_blocking(|| ())).await.is_err()
        {
            abandoned_call.store(true, Ordering::Relaxed);
            return Err(PluginError::Unavailable(THREADS_STUCK.to_owned()));
        }
        let InstanceFactory { engine, code, sandbox, uploads, resources } = &self.factory;
        let mut store = store(engine.wasm(), sandbox, uploads.as_deref(), *resources, deadline)?;
        match code.instantiate_async(&mut store).await {
            Ok(exports) => Ok(LiveInstance { store, exports }),
            Err(error) => Err(self.discard(&error, &mut store)),
        }
    }

    /// Reports that no instance is built for this long.
    fn suspend(&self, wait: Duration, last_error: &PluginError) -> PluginError {
        let suspension = Suspension { until: Instant::now() + wait, last_error: last_error.to_string() };
        let first = self.factory.sandbox.services.report.send_if_modified(|report| {
            let known = report.suspended.insert(self.name, suspension);
            known.is_none_or(|known| known.until <= Instant::now())
        });
        let seconds = wait.as_secs_f64().ceil();
        let text = format!("suspended after repeated failures, retry in {seconds} s (last: {last_error})");
        if first {
            tracing::warn!(instance = self.name, reason = text, "plugin instance suspended");
        }
        PluginError::Unavailable(text)
    }

    fn discard(&mut self, error: &wasmtime::Error, store: &mut Store<StoreData>) -> PluginError {
        let (violation, recent_errors) = store.data_mut().end_of_call();
        let failure = classify(error, violation, &recent_errors);
        tracing::warn!(instance = self.name, error = %failure, "plugin instance discarded");
        tracing::debug!(instance = self.name, error = format!("{error:#}"), "cause of discarded plugin instance");
        self.last_error = Some(failure.clone());
        failure
    }

    /// Handles a caller that no longer waits. Only past its limit that counts as a failure of the guest.
    fn abandon(&mut self, timed_out: Option<Duration>) {
        if !mem::take(&mut self.in_call) {
            return;
        }
        self.factory.sandbox.abandoned_call.store(true, Ordering::Relaxed);
        if let Some(limit) = timed_out {
            let failure = PluginError::DeadlineExceeded(limit);
            tracing::warn!(instance = self.name, error = %failure, "plugin instance discarded");
            self.last_error = Some(failure);
        }
    }
}

/// Sleeps for this much of the time that the host runs. While the host is stopped (SIGSTOP, a frozen cgroup, a paused
/// machine) its guests do not run either, so such a pause counts as two steps at most.
async fn sleep_while_running(limit: Duration) {
    let mut left = limit;
    while !left.is_zero() {
        let step = left.min(DEADLINE_STEP);
        let begin = time::Instant::now();
        sleep(step).await;
        left = left.saturating_sub(begin.elapsed().min(2 * step));
    }
}

/// Maps an error of wasmtime to the failure of a call.
fn classify(error: &wasmtime::Error, violation: Option<String>, recent_errors: &str) -> PluginError {
    if let Some(violation) = violation {
        return PluginError::Exhausted(violation);
    }
    let text = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => match error.downcast_ref::<I32Exit>() {
            Some(exit) => format!("called exit({})", exit.0),
            None => format!("{:#}", error.root_cause()),
        },
    };
    PluginError::Trapped(if recent_errors.is_empty() { text } else { format!("{text}: {recent_errors}") })
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const STOPPED: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn deadline_does_not_pass_while_the_host_is_stopped() {
        let begin = time::Instant::now();
        sleep_while_running(Duration::from_millis(5100)).await;
        assert_eq!(begin.elapsed(), Duration::from_millis(5100));

        let begin = tokio::time::Instant::now();
        tokio::join!(sleep_while_running(Duration::from_secs(5)), advance(STOPPED));
        let ran = begin.elapsed().saturating_sub(STOPPED) + 2 * DEADLINE_STEP;
        assert!(ran >= Duration::from_secs(5), "it passed {ran:?} after the stop at most");
    }
}
