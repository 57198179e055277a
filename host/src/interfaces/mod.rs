//! Which address of this machine is meant: specifications of interfaces, as ContainerPilot has them.
//!
//! | form | the first address |
//! |---|---|
//! | `inet`, `inet6` | of this family, of any interface; loopback addresses do not count |
//! | `static:IP` | this very one, whether the machine has it or not |
//! | `NAME`, `NAME:inet`, `NAME:inet6` | of this interface and family; that is `inet` where none is named |
//! | `NAME[N]` | of this interface after N others, whatever their family |
//! | `IP/BITS` | in this network, of any interface |
//!
//! A name is made of ASCII letters, digits, `_`, `.`, `-` and `@`, and is no IP address. (ContainerPilot takes no name with
//! `.`, `-` or `@` in it.) First is what stands first in the [`Table`].

mod spec;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

pub use spec::{Family, Spec, SpecError};
use spec::{is_in, mapped};

/// What is meant where nothing is said.
const DEFAULT: &str = "eth0:inet";

/// The addresses of a machine with their interfaces, sorted by the interface's name and then by the address. An IPv4 address
/// is sorted as if it were mapped into IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(Vec<(String, IpAddr)>);

/// Why no address was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// The system does not tell which addresses there are.
    #[error("the addresses of this machine cannot be listed: {0}")]
    List(String),
    /// Some specifications are none: these.
    #[error("{}", joined(.0, "; "))]
    Specs(Vec<SpecError>),
    /// The machine has no address that is meant.
    #[error("none of {} leads to an address of this machine: it has {table}", joined(.specs, ", "))]
    NoMatch {
        /// What was looked for.
        specs: Vec<String>,
        /// What is there.
        table: Table,
    },
}

/// The address that the first of the specifications leads to that leads to any; none of them means `eth0:inet`.
///
/// # Errors
/// When some are no specifications, with all of these; or when none of them leads to an address.
pub fn resolve(specs: &[String], table: &Table) -> Result<IpAddr, InterfaceError> {
    let default = [DEFAULT.to_owned()];
    let specs = if specs.is_empty() { &default } else { specs };
    let (mut parsed, mut bad) = (Vec::new(), Vec::new());
    for spec in specs {
        match spec.parse::<Spec>() {
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

impl Table {
    /// What this machine has now. What has no IP address is left out.
    ///
    /// # Errors
    /// When the system lists nothing at all.
    pub fn read() -> Result<Self, InterfaceError> {
        let interfaces = getifaddrs().map_err(|error| InterfaceError::List(error.desc().to_owned()))?;
        let known = interfaces.filter_map(|interface| {
            // A second address may have a name of its own, eth0:1; the interface of that is eth0.
            let name = interface.interface_name.split(':').next()?;
            Some((name.to_owned(), ip(&interface.address?)?))
        });
        Ok(known.collect())
    }

    fn first(&self, spec: &Spec) -> Option<IpAddr> {
        let mut all = self.0.iter();
        let found = match spec {
            Spec::Any(family) => all.find(|(_, address)| family.has(*address) && !address.is_loopback()),
            Spec::Static(address) => return Some(*address),
            Spec::Named(name, family) => all.find(|(known, address)| known == name && family.has(*address)),
            Spec::Indexed(name, index) => all.filter(|(known, _)| known == name).nth(*index),
            Spec::Network(network, bits) => all.find(|(_, address)| is_in(*address, *network, *bits)),
        };
        found.map(|(_, address)| *address)
    }
}

impl FromIterator<(String, IpAddr)> for Table {
    fn from_iter<I: IntoIterator<Item = (String, IpAddr)>>(addresses: I) -> Self {
        let canonical = addresses.into_iter().map(|(name, address)| (name, address.to_canonical()));
        let mut addresses: Vec<_> = canonical.collect();
        addresses.sort_by(|(name, address), (other, theirs)| {
            name.cmp(other).then_with(|| mapped(*address).cmp(&mapped(*theirs)))
        });
        Self(addresses)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (place, (name, address)) in self.0.iter().enumerate() {
            let before = if place == 0 { "" } else { ", " };
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
