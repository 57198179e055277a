//! WebAssembly engine: one per process, shared by every plugin in it.

use std::{future::Future, io, sync::Arc};

use tokio_util::task::AbortOnDropHandle;
use wasmtime::{
    Config, ModuleVersionStrategy,
    component::{HasSelf, Linker},
};

use super::{
    bindings,
    compiled::VERSION,
    epoch_ticker::{CallClock, EpochTicker},
    guest_threads::GuestThreads,
    lookup, sockets,
    store::StoreData,
};

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
    threads: GuestThreads,
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
        let threads = GuestThreads::start().map_err(EngineError::Threads)?;
        Ok(Arc::new(Self { wasm, ticker, threads }))
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
        self.threads.spawn(task)
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
