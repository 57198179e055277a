//! What a specification says.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// Longest specification that an error repeats, in characters.
const SHOWN: usize = 80;

/// Which addresses are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Any of this family, but for loopback addresses.
    Any(Family),
    /// This one, which nobody looks for.
    Static(IpAddr),
    /// Those of an interface and this family.
    Named(String, Family),
    /// The one of an interface that comes after so many others of it.
    Indexed(String, usize),
    /// Those whose first bits, so many, are those of this one.
    Network(IpAddr, u8),
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// A text that is no specification of interfaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} specifies no interface: expected {expected}")]
pub struct SpecError {
    /// The text, cut where it is very long.
    pub text: String,
    /// What could stand there.
    pub expected: String,
}

impl Family {
    fn named(text: &str) -> Option<Self> {
        match text {
            "inet" => Some(Self::Inet),
            "inet6" => Some(Self::Inet6),
            _ => None,
        }
    }

    pub(super) fn has(self, address: IpAddr) -> bool {
        address.is_ipv6() == (self == Self::Inet6)
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let spec = if let Some(family) = Family::named(text) {
            Some(Self::Any(family))
        } else if let Some(address) = text.strip_prefix("static:") {
            address.parse().ok().map(|address: IpAddr| Self::Static(address.to_canonical()))
        } else if is_name(text) {
            Some(Self::Named(text.to_owned(), Family::Inet))
        } else {
            indexed(text).or_else(|| named(text)).or_else(|| network(text))
        };
        spec.ok_or_else(|| SpecError {
            text: text.chars().take(SHOWN).collect(),
            expected: match text.parse::<IpAddr>() {
                Ok(address) => format!("static:{address}"),
                Err(_) => "inet, inet6, static:IP, NAME, NAME[N], NAME:inet, NAME:inet6 or IP/BITS".to_owned(),
            },
        })
    }
}

/// `NAME[N]`.
fn indexed(text: &str) -> Option<Spec> {
    let (name, index) = text.strip_suffix(']')?.split_once('[')?;
    let index = digits(index)?.parse().ok()?;
    is_name(name).then(|| Spec::Indexed(name.to_owned(), index))
}

/// `NAME:inet` or `NAME:inet6`.
fn named(text: &str) -> Option<Spec> {
    let (name, family) = text.split_once(':')?;
    let family = Family::named(family)?;
    is_name(name).then(|| Spec::Named(name.to_owned(), family))
}

/// `IP/BITS`.
fn network(text: &str) -> Option<Spec> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, digits(bits)?.parse().ok()?);
    let (most, canonical) = (if address.is_ipv4() { 32 } else { 128 }, address.to_canonical());
    if bits > most {
        return None;
    }
    // A network in that part of IPv6 that IPv4 is mapped into is one of IPv4.
    match bits.checked_sub(96) {
        Some(bits) if canonical.is_ipv4() && address.is_ipv6() => Some(Spec::Network(canonical, bits)),
        _ => Some(Spec::Network(address, bits)),
    }
}

fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

fn is_name(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte);
    !text.is_empty() && text.bytes().all(of_name) && text.parse::<IpAddr>().is_err()
}

/// An address as one of IPv6.
pub(super) fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Whether an address is in a network of so many bits.
pub(super) fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differing = mapped(address).to_bits() ^ mapped(network).to_bits();
    let bits = if network.is_ipv4() { u32::from(bits) + 96 } else { bits.into() };
    address.is_ipv4() == network.is_ipv4() && differing.leading_zeros() >= bits
}
