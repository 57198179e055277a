//! Sockets and HTTP requests of a guest, as the policy allows them.

use std::{net::SocketAddr, sync::Arc};

use http_body_util::BodyExt;
use hyper::{Request, Response, http::uri::Scheme};
use ochopod_loopback::is_loopback;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use super::{policy::SandboxPolicy, request};

/// Future of the I/O of a request or its connection.
pub(super) type IoFuture = Box<dyn Future<Output = Result<(), Error>> + Send>;
/// Future of a response.
type ResponseFuture = Box<dyn Future<Output = Result<(Response<WasiBody>, IoFuture), Error>> + Send>;

/// Returns whether a guest may use an address in this way.
///
/// Binding to port 0 of no address, or of a loopback address, precedes each connection and reaches nothing alone. Any
/// client may connect to a socket that was allowed to listen.
pub(super) async fn may_use(policy: &SandboxPolicy, address: SocketAddr, usage: SocketAddrUse) -> bool {
    match usage {
        _ if !policy.has_network() => false,
        SocketAddrUse::TcpAccept => true,
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind if address.port() == 0 && is_loopback(address.ip()) => true,
        _ => policy.allows(address).await,
    }
}

/// Sends requests to the addresses that the policy allows.
pub(super) struct OutgoingHttp(pub(super) Arc<SandboxPolicy>);

/// Bytes of a request body that a guest may write at a time. The host holds two such parts of each body.
const BODY_PART_BYTES: usize = 16 * 1024;

impl WasiHttpHooks for OutgoingHttp {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_PART_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: IoFuture,
    ) -> ResponseFuture {
        let policy = Arc::clone(&self.0);
        Box::new(async move {
            let uri = request.uri();
            let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
            let tls = uri.scheme() == Some(&Scheme::HTTPS);
            let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let address = policy.route(authority.host(), port, tls).await.ok_or(Error::HttpRequestDenied)?;
            if tls {
                // TLS needs the name, and verifies it; the name is looked up again.
                let (response, connection) = default_send_request(request, options).await?;
                return Ok((response.map(BodyExt::boxed_unsync), Box::new(connection) as IoFuture));
            }
            request::send(address, request, options).await
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use ochopod_loopback::GUEST_SOURCE;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{Endpoint, Grants, LoopbackPorts};

    async fn send(closed: Vec<Endpoint>, uri: String) -> Result<Response<WasiBody>, Error> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let host = uri.split('/').nth(2).unwrap().to_owned();
        let request = Request::get(uri).header("host", host).body(body).unwrap();
        let loopback = LoopbackPorts { declared: vec![None], ..LoopbackPorts::default() };
        let mut outgoing = OutgoingHttp(Arc::new(SandboxPolicy::new(Grants::default(), closed, loopback)));
        let sent = Box::into_pin(outgoing.send_request(request, None, Box::new(std::future::pending())));
        sent.await.map(|(response, _)| response)
    }

    #[tokio::test]
    async fn request_to_a_name_reaches_the_checked_address_and_keeps_the_name() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let answer = async {
            let (mut stream, client) = server.accept().await.unwrap();
            assert_eq!(client.ip(), GUEST_SOURCE, "it looks like an operator's");
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
    async fn request_to_a_blocked_or_ungranted_address_is_denied() {
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
