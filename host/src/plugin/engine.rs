//! The engine: one per process, shared by every plugin in it.

use std::{future::Future, io, sync::Arc};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::{Config, ModuleVersionStrategy, component::HasSelf, component::Linker};

use super::{
    artefact::VERSION,
    bindings,
    store::State,
    ticker::{Call, Ticker},
};

/// Threads that run guests. A guest that computes yields at each tick, so two serve many.
const THREADS: usize = 2;
/// Threads for the files and names that guests wait for.
const BLOCKING_THREADS: usize = 16;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime cannot run here.
    #[error("this machine cannot run WebAssembly: {0}")]
    Wasm(String),
    /// No threads.
    #[error("cannot start the threads of the guests")]
    Threads(#[source] io::Error),
}

/// Compiles and runs guests, on threads of their own: one that computes for ever never delays a duty of the host.
pub struct Engine {
    wasm: wasmtime::Engine,
    ticker: Ticker,
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Engine {
    /// An engine with its threads. Costs some megabytes: make one per process, and none without a plugin.
    ///
    /// # Errors
    /// When the machine cannot run it.
    pub fn new() -> Result<Arc<Self>, EngineError> {
        let wasm = wasm().map_err(|error| EngineError::Wasm(format!("{error:#}")))?;
        let ticking = wasm.clone();
        let ticker = Ticker::start(move || ticking.increment_epoch()).map_err(EngineError::Threads)?;
        // Timers and new calls are looked at between any two turns of computing guests.
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
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

    /// Everything that plugins may import.
    pub(super) fn linker(&self) -> wasmtime::Result<Linker<State>> {
        let mut linker = Linker::new(&self.wasm);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        bindings::Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        Ok(linker)
    }

    /// Keeps the clock ticking that interrupts guests.
    pub(super) fn tick(&self) -> Call {
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

/// wasmtime as plugins are compiled for it and run by it.
pub(super) fn wasm() -> wasmtime::Result<wasmtime::Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .generate_address_map(false)
        .native_unwind_info(false)
        .module_version(ModuleVersionStrategy::Custom(VERSION.to_owned()))?;
    wasmtime::Engine::new(&config)
}
