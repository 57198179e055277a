//! The data of one instance's store.

use std::{path::Path, sync::Arc, time::Instant};

use wasmtime::{Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{PluginError, limits::Limits, outgoing::Outgoing, output::Voice, sandbox::Sandbox};

/// Bytes that one host call may carry out of a guest.
const HOSTCALL: usize = 16 << 20;

/// Everything that belongs to one instance.
pub(super) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    table: ResourceTable,
    limits: Limits,
    pub(super) voice: Voice,
    pub(super) sandbox: Sandbox,
    /// When the present call has to be over, should the host not be stopped meanwhile.
    pub(super) deadline: Instant,
}

impl State {
    /// Ends a call: what was refused to it, and the end of its standard error.
    pub(super) fn end_of_call(&mut self) -> (Option<String>, String) {
        (self.limits.take_refused(), self.voice.end_of_call())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

/// A store for a new instance, which may hold so many files, sockets, streams and requests at once. Guest code in it yields
/// at each tick: a call that is given up ends there.
pub(super) fn store(
    engine: &wasmtime::Engine,
    sandbox: &Sandbox,
    uploads: Option<&Path>,
    resources: usize,
    deadline: Instant,
) -> Result<Store<State>, PluginError> {
    let voice = Voice::new(Arc::clone(&sandbox.flood));
    let mut table = ResourceTable::new();
    table.set_max_capacity(resources);
    let state = State {
        wasi: sandbox.wasi(&voice, uploads)?,
        http: WasiHttpCtx::new(),
        outgoing: Outgoing(sandbox.gate.clone()),
        table,
        limits: Limits::default(),
        voice,
        sandbox: sandbox.clone(),
        deadline,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(HOSTCALL);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))));
    Ok(store)
}
