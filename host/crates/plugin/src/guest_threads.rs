//! Threads that run guests, each with a runtime of its own.
//!
//! A runtime with several threads wakes a second one for each task that becomes ready, to look for more. Here a call
//! wakes one thread.

use std::{
    future::Future,
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

/// Number of threads. A computing guest yields at each tick, so two serve many.
const THREADS: usize = 2;
/// Maximum number of threads for the files and names that the guests of one thread wait for.
const BLOCKING_THREADS: usize = 8;

/// Handle of the threads. Dropping it ends them, once the guests that they run yield.
pub(super) struct GuestThreads {
    handles: [Handle; THREADS],
    next: AtomicUsize,
    _stop: DropGuard,
}

impl GuestThreads {
    pub(super) fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let stop_on_drop = stop.clone().drop_guard();
        let handles = [start(stop.clone())?, start(stop)?];
        Ok(Self { handles, next: AtomicUsize::new(0), _stop: stop_on_drop })
    }

    /// Runs a task on one of the threads until it ends or the result is dropped.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        let [even, odd] = &self.handles;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = if turn.is_multiple_of(2) { even } else { odd };
        AbortOnDropHandle::new(handle.spawn(task))
    }
}

fn start(stop: CancellationToken) -> io::Result<Handle> {
    let runtime = runtime()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("guest".to_owned()).spawn(move || {
        runtime.block_on(stop.cancelled());
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

fn runtime() -> io::Result<Runtime> {
    // Timers and new calls are polled between any two turns of computing guests.
    Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .event_interval(1)
        .global_queue_interval(1)
        .thread_name("guest")
        .enable_all()
        .build()
}
