//! Ports that nobody uses.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::Context;

use crate::Result;

/// Below the range that the system gives to outgoing connections, so that none of them can take a port meanwhile.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port that is free on 127.0.0.1 to 127.0.0.16, and is given once per process.
///
/// # Errors
/// When all are taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id().wrapping_mul(127) % u32::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .map(|_| FIRST + (NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(spread)) % COUNT)
        .find(|port| (1..=16).all(|host| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), *port)).is_ok()))
        .context("no free port")
}
