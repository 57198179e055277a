//! Syntax of interface specifications.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// Most characters of a specification that an error repeats.
const MAX_SHOWN: usize = 80;

/// Specification of an address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceSpec {
    /// Any of this family, except loopback addresses.
    Any(AddressFamily),
    /// This one, whether the host has it or not.
    Static(IpAddr),
    /// Those of an interface and this family.
    Named(String, AddressFamily),
    /// The one at this index among those of an interface.
    Indexed(String, usize),
    /// Those in this network of so many bits.
    Network(IpAddr, u8),
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// A text that is not an interface specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid interface {text:?}: expected {expected}")]
pub struct InterfaceSpecError {
    /// The text, cut where it is very long.
    pub text: String,
    /// Expected forms.
    pub expected: String,
}

impl AddressFamily {
    fn from_name(text: &str) -> Option<Self> {
        match text {
            "inet" => Some(Self::Inet),
            "inet6" => Some(Self::Inet6),
            _ => None,
        }
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == (self == Self::Inet6)
    }
}

impl FromStr for InterfaceSpec {
    type Err = InterfaceSpecError;

    fn from_str(text: &str) -> Result<Self, InterfaceSpecError> {
        let spec = if let Some(family) = AddressFamily::from_name(text) {
            Some(Self::Any(family))
        } else if let Some(address) = text.strip_prefix("static:") {
            address.parse().ok().map(|address: IpAddr| Self::Static(address.to_canonical()))
        } else if is_name(text) {
            Some(Self::Named(text.to_owned(), AddressFamily::Inet))
        } else {
            indexed(text).or_else(|| named(text)).or_else(|| network(text))
        };
        spec.ok_or_else(|| InterfaceSpecError {
            text: text.chars().take(MAX_SHOWN).collect(),
            expected: match text.parse::<IpAddr>() {
                Ok(address) => format!("static:{address}"),
                Err(_) => "inet, inet6, static:IP, NAME, NAME[N], NAME:inet, NAME:inet6 or IP/BITS".to_owned(),
            },
        })
    }
}

/// Parses `NAME[N]`.
fn indexed(text: &str) -> Option<InterfaceSpec> {
    let (name, index) = text.strip_suffix(']')?.split_once('[')?;
    let index = digits(index)?.parse().ok()?;
    is_name(name).then(|| InterfaceSpec::Indexed(name.to_owned(), index))
}

/// Parses `NAME:inet` or `NAME:inet6`.
fn named(text: &str) -> Option<InterfaceSpec> {
    let (name, family) = text.split_once(':')?;
    let family = AddressFamily::from_name(family)?;
    is_name(name).then(|| InterfaceSpec::Named(name.to_owned(), family))
}

/// Parses `IP/BITS`.
fn network(text: &str) -> Option<InterfaceSpec> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, digits(bits)?.parse().ok()?);
    let (max_bits, canonical) = (if address.is_ipv4() { 32 } else { 128 }, address.to_canonical());
    if bits > max_bits {
        return None;
    }
    // A network within the IPv4-mapped part of IPv6 is an IPv4 network.
    match bits.checked_sub(96) {
        Some(bits) if canonical.is_ipv4() && address.is_ipv6() => Some(InterfaceSpec::Network(canonical, bits)),
        _ => Some(InterfaceSpec::Network(address, bits)),
    }
}

fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

fn is_name(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte);
    !text.is_empty() && text.bytes().all(of_name) && text.parse::<IpAddr>().is_err()
}

/// Maps an address into IPv6.
pub(super) fn to_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Returns whether an address is in a network of so many bits.
pub(super) fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differing = to_ipv6(address).to_bits() ^ to_ipv6(network).to_bits();
    let bits = if network.is_ipv4() { u32::from(bits) + 96 } else { bits.into() };
    address.is_ipv4() == network.is_ipv4() && differing.leading_zeros() >= bits
}
