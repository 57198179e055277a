//! Outgoing TCP connections of guests, with a distinct source address on loopback.
//!
//! WASI's `start-connect` leaves the source address to the system, which takes 127.0.0.1, like a client of the
//! operator. The replacement binds the socket first.

use std::net::SocketAddr;

use ochopod_loopback::{GUEST_SOURCE, is_guest_source};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    p2::{
        Network, SocketError, TcpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpSocketAddress},
            tcp::HostTcpSocket as _,
        },
    },
    sockets::{WasiSocketsCtxView, WasiSocketsView as _},
};

use super::store::StoreData;

/// The interface as `wasmtime-wasi` names it.
const INTERFACE: &str = "wasi:sockets/tcp@0.2.12";
const START_CONNECT: &str = "[method]tcp-socket.start-connect";

type Arguments = (Resource<TcpSocket>, Resource<Network>, IpSocketAddress);

/// Replaces `start-connect` in a linker that has WASI already.
pub(super) fn add_to_linker(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap_async(START_CONNECT, |mut store, arguments: Arguments| {
        Box::new(async move {
            let started = start_connect(store.data_mut().sockets(), arguments).await;
            // Errors that the guest did not cause end it.
            Ok((started.map_or_else(|error| error.downcast().map(Err), |()| Ok(Ok(())))?,))
        })
    })
}

async fn start_connect(mut sockets: WasiSocketsCtxView<'_>, arguments: Arguments) -> Result<(), SocketError> {
    let (socket, network, remote) = arguments;
    let (handle, address) = (socket.rep(), SocketAddr::from(remote));
    if address.is_ipv4() && address.ip().is_loopback() {
        // An error means that the socket is not bound yet.
        match sockets.local_address(Resource::new_borrow(handle)).map(SocketAddr::from) {
            Ok(local) if is_guest_source(local.ip()) => {}
            Ok(_) => return Err(ErrorCode::AccessDenied.into()),
            Err(_) => {
                let source = SocketAddr::from((GUEST_SOURCE, 0)).into();
                let network = Resource::new_borrow(network.rep());
                sockets.start_bind(Resource::new_borrow(handle), network, source).await?;
                sockets.finish_bind(Resource::new_borrow(handle))?;
            }
        }
    }
    sockets.start_connect(socket, network, remote)
}
