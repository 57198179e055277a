//! Loopback connections: detection of control ports in this network namespace, and of connections of guests.
//!
//! Every control server announces itself by an abstract socket, which the kernel removes with the process. Guests of any
//! ochopod in the same network namespace are then denied its port. Independently, connections of guests to IPv4 loopback
//! addresses come from [`GUEST_SOURCE`], which control servers do not accept as a local operator.
//!
//! The announcements in the kernel are the only state. This crate knows neither the rules of guests nor the control API.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddress, UnixDatagram},
    },
};

/// Address from which guests connect to IPv4 loopback addresses.
pub const GUEST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 1);

/// Sockets of this network namespace.
const SOCKETS: &str = "/proc/self/net/unix";
/// Prefix of the name of an announcement; the kernel shows an abstract name after a `@`.
const PREFIX: &str = "ochopod-control/";
/// Maximum number of attempts to announce an address.
const MAX_ATTEMPTS: usize = 8;

/// Returns whether a connection from this address comes from a guest: 127.255.0.0/16 is reserved for guests.
#[must_use]
pub fn is_guest_source(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.octets().starts_with(&[127, 255]))
}

/// Returns whether packets to this address stay in this network namespace on the loopback interface. The unspecified
/// address is included: a connection to it is one to loopback.
#[must_use]
pub fn is_loopback(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// Returns whether this name always means loopback (RFC 6761).
#[must_use]
pub fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Announcement of a control port, until it is dropped.
#[derive(Debug)]
pub struct Announcement {
    _socket: UnixDatagram,
}

impl Announcement {
    /// Announces the control server at this address. The name is unique, so that no other process can prevent it.
    ///
    /// # Errors
    /// If no abstract socket can be bound.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..MAX_ATTEMPTS {
            let name = format!("{PREFIX}{address}/{:016x}", fastrand::u64(..));
            match UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(name)?) {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Returns the addresses of all announced control servers in this network namespace.
///
/// # Errors
/// If the kernel does not list its sockets.
pub fn announced() -> io::Result<Vec<SocketAddr>> {
    // Names are bytes, of any encoding.
    let sockets = fs::read(SOCKETS)?;
    Ok(parse(&String::from_utf8_lossy(&sockets)))
}

/// Returns whether a server that listens at `server` answers at this address of the same network namespace.
#[must_use]
pub fn covers(server: SocketAddr, address: SocketAddr) -> bool {
    let (server_ip, ip) = (server.ip().to_canonical(), address.ip().to_canonical());
    server.port() == address.port() && (server_ip.is_unspecified() || ip.is_unspecified() || server_ip == ip)
}

fn parse(sockets: &str) -> Vec<SocketAddr> {
    let names = sockets.lines().filter_map(|line| line.split_once(" @")?.1.strip_prefix(PREFIX));
    names.filter_map(|name| name.split_once('/')?.0.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_is_visible_until_it_is_dropped() {
        let address: SocketAddr = "127.0.0.77:4711".parse().unwrap();
        let (one, other) = (Announcement::new(address).unwrap(), Announcement::new(address).unwrap());
        drop(one);
        assert!(announced().unwrap().contains(&address), "another server at the same address is no longer announced");
        drop(other);
        assert!(!announced().unwrap().contains(&address));
    }

    #[test]
    fn announcements_are_distinguished_from_other_sockets() {
        let sockets = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 12 @ochopod-control/0.0.0.0:8080/00ff\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 13 @ochopod-control/[::1]:8081/00ff\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 14 @ochopod-control/nonsense/00ff\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 15 /run/ochopod-control/0.0.0.0:1/x\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 16\n";
        let expected: Vec<SocketAddr> = ["0.0.0.0:8080", "[::1]:8081"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(parse(sockets), expected);
    }

    #[test]
    fn server_covers_its_address_and_with_a_wildcard_all() {
        let covers = |server: &str, address: &str| covers(server.parse().unwrap(), address.parse().unwrap());
        for (server, address, expected) in [
            ("127.0.0.2:8080", "127.0.0.2:8080", true),
            ("127.0.0.2:8080", "127.0.0.3:8080", false),
            ("127.0.0.2:8080", "127.0.0.2:8081", false),
            ("127.0.0.2:8080", "0.0.0.0:8080", true),
            ("0.0.0.0:8080", "127.9.9.9:8080", true),
            ("0.0.0.0:8080", "10.0.0.1:8080", true),
            ("[::]:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:8080", "[::1]:8080", false),
        ] {
            assert_eq!(covers(server, address), expected, "{server} {address}");
        }
    }

    #[test]
    fn only_the_reserved_addresses_are_a_guests() {
        for (ip, expected) in [
            ("127.255.255.1", true),
            ("127.255.0.9", true),
            ("::ffff:127.255.255.1", true),
            ("127.0.0.1", false),
            ("127.0.255.255", false),
            ("::1", false),
            ("10.255.0.1", false),
        ] {
            assert_eq!(is_guest_source(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn names_of_loopback_are_known_without_a_look_up() {
        for (name, expected) in
            [("localhost", true), ("LocalHost.", true), ("db.localhost", true), ("localhost.example.com", false)]
        {
            assert_eq!(is_localhost(name), expected, "{name}");
        }
    }
}
