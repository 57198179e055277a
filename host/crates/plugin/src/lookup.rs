//! Name look-ups of guests: `wasi:sockets/ip-name-lookup`, restricted to granted names.
//!
//! The results come from the resolver of the rules, so a guest may use every address that it gets.

use std::{net::IpAddr, sync::Arc, vec};

use futures_util::FutureExt as _;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    WasiView as _,
    p2::{
        DynPollable, Network, Pollable,
        bindings::sockets::network::{ErrorCode, IpAddress},
        subscribe,
    },
};

use super::{policy::LookUpError, store::StoreData};

/// The interface as `wasmtime-wasi` names it.
const INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.2.12";

type LookUpResult = Result<vec::IntoIter<IpAddr>, ErrorCode>;

/// Look-up in flight, or its result.
enum Answers {
    Pending(AbortOnDropHandle<LookUpResult>),
    Ready(LookUpResult),
}

impl Answers {
    async fn wait(&mut self) {
        if let Self::Pending(look_up) = self {
            let result = look_up.await.unwrap_or(Err(ErrorCode::TemporaryResolverFailure));
            *self = Self::Ready(result);
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Answers {
    async fn ready(&mut self) {
        self.wait().await;
    }
}

/// Replaces the interface in a linker that has WASI already.
pub(super) fn add_to_linker(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.resource("resolve-address-stream", ResourceType::host::<Answers>(), |mut store, handle| {
        store.data_mut().ctx().table.delete(Resource::<Answers>::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap("resolve-addresses", |store, arguments| Ok((resolve(store, arguments)?,)))?;
    interface.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, StoreData>, (answers,): (Resource<Answers>,)| {
            Ok((next(store.data_mut().ctx().table.get_mut(&answers)?),))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, StoreData>, (answers,): (Resource<Answers>,)| {
            let pollable: Resource<DynPollable> = subscribe(store.data_mut().ctx().table, answers)?;
            Ok((pollable,))
        },
    )
}

/// Starts a look-up.
fn resolve(
    mut store: StoreContextMut<'_, StoreData>,
    (network, name): (Resource<Network>, String),
) -> wasmtime::Result<Result<Resource<Answers>, ErrorCode>> {
    let state = store.data_mut();
    let policy = Arc::clone(&state.sandbox.policy);
    let table = state.ctx().table;
    table.get(&network)?;
    let look_up = async move {
        let addresses = policy.look_up(&name).await.map_err(error_code)?;
        Ok(addresses.into_iter())
    };
    let look_up = tokio::spawn(look_up.in_current_span());
    Ok(Ok(table.push(Answers::Pending(AbortOnDropHandle::new(look_up)))?))
}

fn next(answers: &mut Answers) -> Result<Option<IpAddress>, ErrorCode> {
    if answers.wait().now_or_never().is_none() {
        return Err(ErrorCode::WouldBlock);
    }
    match answers {
        Answers::Pending(_) => Err(ErrorCode::WouldBlock),
        Answers::Ready(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
        Answers::Ready(Err(error)) => Err(*error),
    }
}

fn error_code(error: LookUpError) -> ErrorCode {
    match error {
        LookUpError::Denied => ErrorCode::AccessDenied,
        LookUpError::Invalid => ErrorCode::InvalidArgument,
        LookUpError::Unknown => ErrorCode::NameUnresolvable,
    }
}
