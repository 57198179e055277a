//! Sockets and HTTP requests of a guest, as the gate admits them.

use std::{net::SocketAddr, sync::Arc};

use http_body_util::BodyExt;
use hyper::{
    Request, Response, Uri,
    http::uri::{Authority, Scheme},
};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use super::gate::Gate;

/// How a request, or its connection, ends.
type Ended = Box<dyn Future<Output = Result<(), Error>> + Send>;
/// What becomes of a request.
type Sent = Box<dyn Future<Output = Result<(Response<WasiBody>, Ended), Error>> + Send>;

/// Whether a guest may use an address in this way.
///
/// Binding to no address and no port is what the system does before each connection, and reaches nothing by itself.
/// Whoever connects to a socket that was allowed to listen is welcome.
pub(super) async fn may_use(gate: &Gate, address: SocketAddr, usage: SocketAddrUse) -> bool {
    match usage {
        SocketAddrUse::TcpAccept => true,
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind if address.ip().is_unspecified() && address.port() == 0 => true,
        _ => gate.admits(address).await,
    }
}

/// Sends requests to the addresses that the gate admits.
pub(super) struct Outgoing(pub(super) Arc<Gate>);

impl WasiHttpHooks for Outgoing {
    fn send_request(&mut self, request: Request<WasiBody>, options: Option<RequestOptions>, _: Ended) -> Sent {
        let gate = Arc::clone(&self.0);
        Box::new(async move {
            let request = routed(&gate, request).await?;
            let (response, connection) = default_send_request(request, options).await?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(connection) as Ended))
        })
    }
}

/// The request, bound for an address that was checked. TLS needs the name (and proves it); else the address replaces it,
/// for a name may mean another address when it is looked up again. The `Host` header is set by now.
async fn routed(gate: &Gate, mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let uri = request.uri();
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = gate.route(authority.host(), port).await.ok_or(Error::HttpRequestDenied)?;
    if !tls {
        let mut parts = request.uri().clone().into_parts();
        let authority = Authority::try_from(address.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Error::HttpRequestUriInvalid)?;
    }
    Ok(request)
}
