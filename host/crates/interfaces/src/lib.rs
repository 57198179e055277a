//! Selects an address of this host by ContainerPilot's interface specifications.
//!
//! # Guarantees
//! [`resolve`] is pure: the same specifications and [`InterfaceTable`] result in the same address. Only
//! [`InterfaceTable::read`] queries the system. No state is kept. This crate does not know what the address is used
//! for.
//!
//! | module | content |
//! |---|---|
//! | [`InterfaceTable`], [`resolve`] | addresses of this host, and the selected one |
//! | `spec` | [`InterfaceSpec`]: syntax of specifications |
//!
//! # Specifications
//!
//! | form | selects the first address |
//! |---|---|
//! | `inet`, `inet6` | of this family, of any interface; not loopback |
//! | `static:IP` | this one, whether the host has it or not |
//! | `NAME`, `NAME:inet`, `NAME:inet6` | of this interface and family, by default `inet` |
//! | `NAME[N]` | of this interface after N others of any family |
//! | `IP/BITS` | in this network, of any interface |
//!
//! A name consists of ASCII letters, digits, `_`, `.`, `-` and `@`, and is not an IP address. (ContainerPilot accepts
//! no name with `.`, `-` or `@`.) The order is that of the [`InterfaceTable`].

mod spec;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
pub use spec::{AddressFamily, InterfaceSpec, InterfaceSpecError};
use spec::{is_in, to_ipv6};

/// Specification if none is given.
const DEFAULT: &str = "eth0:inet";

/// Addresses of a host with their interfaces, sorted by the interface's name and then by the address. IPv4 addresses
/// are sorted as mapped into IPv6.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceTable(Vec<(String, IpAddr)>);

/// Cause of a missing address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// The system does not list its addresses.
    #[error("cannot list the addresses of this host: {0}")]
    List(String),
    /// Some specifications are invalid.
    #[error("{}", joined(.0, "; "))]
    Specs(Vec<InterfaceSpecError>),
    /// No specification matches.
    #[error("no interface matches {}: this host has {table}", joined(.specs, ", "))]
    NoMatch {
        /// The specifications.
        specs: Vec<String>,
        /// The addresses of the host.
        table: InterfaceTable,
    },
}

/// Returns the address that the first matching specification selects. No specifications mean `eth0:inet`.
///
/// # Errors
/// If some specifications are invalid, with all of these; or when none of them matches.
pub fn resolve(specs: &[String], table: &InterfaceTable) -> Result<IpAddr, InterfaceError> {
    let default = [DEFAULT.to_owned()];
    let specs = if specs.is_empty() { &default } else { specs };
    let (mut parsed, mut bad) = (Vec::new(), Vec::new());
    for spec in specs {
        match spec.parse::<InterfaceSpec>() {
            Ok(spec) => parsed.push(spec),
            Err(error) => bad.push(error),
        }
    }
    if !bad.is_empty() {
        return Err(InterfaceError::Specs(bad));
    }
    let found = parsed.iter().find_map(|spec| table.first(spec));
    found.ok_or_else(|| InterfaceError::NoMatch { specs: specs.to_vec(), table: table.clone() })
}

impl InterfaceTable {
    /// Reads the addresses that this host has now. Interfaces without an IP address are left out.
    ///
    /// # Errors
    /// If the system does not list them.
    pub fn read() -> Result<Self, InterfaceError> {
        let interfaces = getifaddrs().map_err(|error| InterfaceError::List(error.desc().to_owned()))?;
        let known = interfaces.filter_map(|interface| {
            // A second address may have a label, eth0:1; its interface is eth0.
            let name = interface.interface_name.split(':').next()?;
            Some((name.to_owned(), ip(&interface.address?)?))
        });
        Ok(known.collect())
    }

    /// Returns whether this host has the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(_, own)| *own == address.to_canonical())
    }

    /// Returns whether this host has an IPv6 address that is neither of loopback nor of one link only.
    #[must_use]
    pub fn has_routable_ipv6(&self) -> bool {
        let mut addresses = self.0.iter().map(|(_, address)| address);
        addresses.any(|address| matches!(address, IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unicast_link_local()))
    }

    fn first(&self, spec: &InterfaceSpec) -> Option<IpAddr> {
        let mut all = self.0.iter();
        let found = match spec {
            InterfaceSpec::Any(family) => all.find(|(_, address)| family.contains(*address) && !address.is_loopback()),
            InterfaceSpec::Static(address) => return Some(*address),
            InterfaceSpec::Named(name, family) => {
                all.find(|(known, address)| known == name && family.contains(*address))
            }
            InterfaceSpec::Indexed(name, index) => all.filter(|(known, _)| known == name).nth(*index),
            InterfaceSpec::Network(network, bits) => all.find(|(_, address)| is_in(*address, *network, *bits)),
        };
        found.map(|(_, address)| *address)
    }
}

impl FromIterator<(String, IpAddr)> for InterfaceTable {
    fn from_iter<I: IntoIterator<Item = (String, IpAddr)>>(addresses: I) -> Self {
        let canonical = addresses.into_iter().map(|(name, address)| (name, address.to_canonical()));
        let mut addresses: Vec<_> = canonical.collect();
        addresses.sort_by(|(name, address), (other, theirs)| {
            name.cmp(other).then_with(|| to_ipv6(*address).cmp(&to_ipv6(*theirs)))
        });
        Self(addresses)
    }
}

impl fmt::Display for InterfaceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (position, (name, address)) in self.0.iter().enumerate() {
            let before = if position == 0 { "" } else { ", " };
            write!(f, "{before}{name} {address}")?;
        }
        Ok(())
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let inet = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    inet.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn joined<T: fmt::Display>(parts: &[T], between: &str) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}
