//! The listener of the control port.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens at an address. `[::]` also accepts IPv4, whatever the default of the system is.
///
/// # Errors
/// If the address cannot be bound.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn unspecified_ipv6_address_accepts_both_families() {
        let Ok(listener) = listen("[::]:0".parse().unwrap()) else { return };
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            // A system may have the family without an address.
            let Ok(client) = TcpStream::connect((host, port)).await else {
                assert_eq!(host, "::1");
                continue;
            };
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_canonical(), client.local_addr().unwrap().ip());
        }
    }

    #[tokio::test]
    async fn ipv4_address_accepts_ipv4_only() {
        let listener = listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        assert!(TcpStream::connect(("::1", port)).await.is_err());
    }
}
