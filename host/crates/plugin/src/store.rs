//! Store of one instance.

use std::{path::Path, sync::Arc, time::Instant};

use ochopod_init::LimitedSignals;
use ochopod_model::PostedView;
use wasmtime::{Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{PluginError, guest_log::GuestLog, limits::InstanceLimits, outgoing::OutgoingHttp, sandbox::Sandbox};

/// Maximum number of bytes that one host call copies out of a guest.
const MAX_HOSTCALL_BYTES: usize = 16 << 20;

/// Maximum size of one list of HTTP headers, of which a guest may hold as many as other resources.
const MAX_FIELDS_BYTES: usize = 16 * 1024;

/// Data of one instance.
pub(super) struct StoreData {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: OutgoingHttp,
    /// Signals to the sub-process; none where there is none.
    pub(super) signals: Option<LimitedSignals>,
    table: ResourceTable,
    limits: InstanceLimits,
    pub(super) log: GuestLog,
    pub(super) sandbox: Sandbox,
    /// View that the current call borrows, if any.
    pub(super) view: Option<PostedView>,
    /// Deadline of the current call, unless the host is stopped meanwhile.
    pub(super) deadline: Instant,
}

impl StoreData {
    /// Ends a call, and takes its view back. Returns its limit violation and its recent errors.
    pub(super) fn end_of_call(&mut self) -> (Option<String>, String) {
        self.view = None;
        (self.limits.take_violation(), self.log.end_of_call())
    }
}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for StoreData {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

/// Creates the store of a new instance, which holds at most `resources` files, sockets, streams and requests. Guest code in
/// it yields at each tick, where a cancelled call ends.
pub(super) fn store(
    engine: &wasmtime::Engine,
    sandbox: &Sandbox,
    uploads: Option<&Path>,
    resources: usize,
    deadline: Instant,
) -> Result<Store<StoreData>, PluginError> {
    let log = GuestLog::new(Arc::clone(&sandbox.rate_limit));
    let mut table = ResourceTable::new();
    table.set_max_capacity(resources);
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(MAX_FIELDS_BYTES);
    let state = StoreData {
        wasi: sandbox.wasi(&log, uploads)?,
        http,
        signals: sandbox.services.init.clone().map(LimitedSignals::new),
        outgoing: OutgoingHttp(sandbox.policy.clone()),
        table,
        limits: InstanceLimits::new(Arc::clone(&sandbox.memory)),
        log,
        sandbox: sandbox.clone(),
        view: None,
        deadline,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(MAX_HOSTCALL_BYTES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))));
    Ok(store)
}
