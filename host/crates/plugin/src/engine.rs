//! WebAssembly engine: one per process, shared by every plugin in it.

use std::{future::Future, io, sync::Arc};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::{
    Config, ModuleVersionStrategy,
    component::{HasSelf, Linker},
};

use super::{
    bindings,
    compiled::VERSION,
    epoch_ticker::{CallClock, EpochTicker},
    lookup, sockets,
    store::StoreData,
};

/// Number of threads that run guests. A computing guest yields at each tick, so two serve many. They share one queue:
/// a call never waits for a guest that computes on one of them while the other is idle.
const GUEST_THREADS: usize = 2;
/// Maximum number of threads for the files and names that guests wait for.
const BLOCKING_THREADS: usize = 16;

/// Error of starting the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not support this machine.
    #[error("this machine cannot run WebAssembly: {0}")]
    Wasm(String),
    /// The system refuses the threads.
    #[error("cannot start guest threads")]
    Threads(#[source] io::Error),
}

/// Runs guests on separate threads, so that a guest that computes indefinitely never delays the host.
pub struct Engine {
    wasm: wasmtime::Engine,
    ticker: EpochTicker,
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Engine {
    /// Starts an engine and its threads. It takes some megabytes, so a process starts one only if it has a plugin.
    ///
    /// # Errors
    /// If this machine cannot run WebAssembly, or the system refuses a thread.
    pub fn new() -> Result<Arc<Self>, EngineError> {
        let wasm = wasm().map_err(|error| EngineError::Wasm(format!("{error:#}")))?;
        let ticking = wasm.clone();
        let ticker = EpochTicker::start(move || ticking.increment_epoch()).map_err(EngineError::Threads)?;
        // Timers and new calls are polled between any two turns of computing guests.
        let runtime = Builder::new_multi_thread()
            .worker_threads(GUEST_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .event_interval(1)
            .global_queue_interval(1)
            .thread_name("guest")
            .enable_all()
            .build()
            .map_err(EngineError::Threads)?;
        Ok(Arc::new(Self { wasm, ticker, handle: runtime.handle().clone(), runtime: Some(runtime) }))
    }

    pub(super) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// Creates a linker with everything that plugins may import.
    pub(super) fn linker(&self) -> wasmtime::Result<Linker<StoreData>> {
        let mut linker = Linker::new(&self.wasm);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        linker.allow_shadowing(true);
        lookup::add_to_linker(&mut linker)?;
        sockets::add_to_linker(&mut linker)?;
        linker.allow_shadowing(false);
        bindings::Plugin::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |state| state)?;
        Ok(linker)
    }

    /// Returns the clock that interrupts a guest call once it was started.
    pub(super) fn call_clock(&self) -> CallClock {
        self.ticker.call()
    }

    /// Runs a task on the guests' threads until it ends or the result is dropped.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.handle.spawn(task))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Creates the wasmtime engine that compiles and runs plugins.
pub(super) fn wasm() -> wasmtime::Result<wasmtime::Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .generate_address_map(false)
        .native_unwind_info(false)
        .module_version(ModuleVersionStrategy::Custom(VERSION.to_owned()))?;
    wasmtime::Engine::new(&config)
}
