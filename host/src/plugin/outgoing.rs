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
        _ if !gate.has_network() => false,
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

/// The request, bound for an address that was checked. TLS needs the name (and proves it), so the gate admits few; else
/// the address replaces it, for a name may mean another address when it is looked up again. The `Host` header is set by
/// now.
async fn routed(gate: &Gate, mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let uri = request.uri();
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = gate.route(authority.host(), port, tls).await.ok_or(Error::HttpRequestDenied)?;
    if !tls {
        let mut parts = request.uri().clone().into_parts();
        let authority = Authority::try_from(address.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Error::HttpRequestUriInvalid)?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{plugin::Endpoint, settings::Grants};

    async fn send(closed: Vec<Endpoint>, uri: String) -> Result<Response<WasiBody>, Error> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let host = uri.split('/').nth(2).unwrap().to_owned();
        let request = Request::get(uri).header("host", host).body(body).unwrap();
        let mut outgoing = Outgoing(Arc::new(Gate::new(Grants::default(), closed)));
        let sent = Box::into_pin(outgoing.send_request(request, None, Box::new(std::future::pending())));
        sent.await.map(|(response, _)| response)
    }

    #[tokio::test]
    async fn a_request_to_a_name_reaches_the_address_that_was_checked_and_keeps_the_name() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let answer = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut head = vec![0; 1000];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&head[..length]).to_lowercase()
        };
        let (response, head) = tokio::join!(send(Vec::new(), format!("http://localhost:{port}/path?q=1")), answer);
        assert_eq!(response.unwrap().status(), 204);
        assert!(head.starts_with("get /path?q=1 http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: localhost:{port}\r\n")), "{head}");
    }

    #[tokio::test]
    async fn a_request_to_a_closed_or_ungranted_address_is_denied() {
        let closed = || vec![Endpoint { host: "127.0.0.1".to_owned(), port: 8080 }];
        for uri in [
            "http://127.0.0.1:8080/control/kill",
            "http://localhost:8080/",
            "http://[::1]:8080/",
            "http://[::ffff:127.0.0.1]:8080/",
            "http://0.0.0.0:8080/",
            "http://10.0.0.1/",
            "https://example.com/",
            "https://localhost/",
        ] {
            let denied = send(closed(), uri.to_owned()).await;
            assert!(matches!(denied, Err(Error::HttpRequestDenied)), "{uri}");
        }
    }
}
