//! Unused ports.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{DEFAULT_TIMEOUT, Result};

/// Below the range of outgoing connections, so that none of them can use a port in the meantime.
const FIRST_PORT: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;

/// Returns a port that is free on 127.0.0.1 to 127.0.0.16. Each is returned once per process.
///
/// # Errors
/// If all are in use.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id().wrapping_mul(127) % u32::from(PORT_COUNT)).unwrap_or_default();
    (0..PORT_COUNT)
        .map(|_| FIRST_PORT + (NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(spread)) % PORT_COUNT)
        .find(|port| (1..=16).all(|host| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), *port)).is_ok()))
        .context("no free port")
}

/// Listens at an address of [`free_port`] whose listener was closed. A process that another test starts holds a copy of
/// the old listener until it executes its program, so the port may be in use for a moment.
///
/// # Errors
/// If another process uses it.
pub(crate) async fn listen_again(address: SocketAddr) -> Result<tokio::net::TcpListener> {
    let begin = Instant::now();
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if begin.elapsed() > DEFAULT_TIMEOUT => {
                return Err(error).context(format!("{address} is not free again"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
