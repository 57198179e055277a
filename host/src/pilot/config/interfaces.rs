//! `interfaces`: which address of this machine is advertised.

use std::net::IpAddr;

use super::{
    field::{Field, Object},
    json5::Value,
    read::Reading,
    value::text,
};

/// What ContainerPilot 2 takes when nothing is said.
const DEFAULT: &str = "eth0:inet";

/// The address of the first interface that matches. None after a mistake was noted.
pub(super) fn address(object: &mut Object<'_, '_>, reading: &Reading<'_>) -> Option<IpAddr> {
    let given = object.has("interfaces");
    let specs = object.optional("interfaces", specs);
    if given && specs.is_none() {
        return None;
    }
    let specs = specs.filter(|specs| !specs.is_empty());
    let default = specs.is_none();
    match (reading.resolve)(&specs.unwrap_or_else(|| vec![DEFAULT.to_owned()])) {
        Ok(address) => return Some(address),
        Err(error) if default => object.fail(
            "interfaces",
            format_args!(
                "names none, and the default, {DEFAULT:?}, gives no address: {error}; expected interfaces of this \
                 machine, or \"inet\" for whichever is not the loopback"
            ),
        ),
        Err(error) => object.fail("interfaces", format_args!("gives no address: {error}")),
    }
    None
}

fn specs(field: Field<'_, '_>) -> Option<Vec<String>> {
    match field.value() {
        Value::Text(_) => text(field).map(|spec| vec![spec]),
        _ => field.list("an interface, or a list of such", text),
    }
}
