//! Connections with a time limit.
//!
//! Do not use [`TcpStream::connect_timeout`] of `std` in plugins: in the sandbox it sometimes returns `Ok` for a port
//! that refuses connections. [`connect`] replaces it and returns a [`TcpStream`] of `std`, whose other functions work,
//! time limits for reading and writing included.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// Connects to the first address that accepts, within `timeout` for all of them. The look-up of a name takes additional
/// time.
///
/// ```
/// use std::{io, net::TcpListener, time::Duration};
/// use ochopod_sdk::net;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = net::connect(listener.local_addr()?, Duration::from_secs(2))?;
/// stream.set_read_timeout(Some(Duration::from_secs(2)))?;
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Errors
/// The error of the last address: [`io::ErrorKind::ConnectionRefused`] when nothing listens there, [`io::ErrorKind::TimedOut`]
/// past the timeout, [`io::ErrorKind::PermissionDenied`] when it is not granted, see
/// [`Wants::connect`](crate::Wants::connect).
pub fn connect(address: impl ToSocketAddrs, timeout: Duration) -> io::Result<TcpStream> {
    let begin = Instant::now();
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "name has no address");
    for target in address.to_socket_addrs()? {
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not connected within {timeout:?}")));
        }
        match connect_to(&target, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn connect_to(target: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(target, timeout)?;
    // On wasip2 `std` looks for an error only where poll(2) reports one, which it never does there for a connection that
    // failed after its start. The socket has the error.
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(stream),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::ConnectionRefused.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn connect_uses_the_first_address_that_accepts_and_else_returns_the_last_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(connect(open, TIMEOUT).unwrap().peer_addr().unwrap(), open);
        assert_eq!(connect(&[refused, open][..], TIMEOUT).unwrap().peer_addr().unwrap(), open);
        let kind = |addresses: &[SocketAddr], timeout| connect(addresses, timeout).unwrap_err().kind();
        assert_eq!(kind(&[refused, refused], TIMEOUT), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(&[], TIMEOUT), io::ErrorKind::AddrNotAvailable);
        assert_eq!(kind(&[open], Duration::ZERO), io::ErrorKind::TimedOut);
        assert!(connect("not an address", TIMEOUT).is_err());
    }
}
