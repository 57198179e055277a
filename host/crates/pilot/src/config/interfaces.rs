//! `interfaces`: the address of this host that is advertised.

use std::net::IpAddr;

use ochopod_json5::Value;

use super::{
    field::{Field, Object},
    read::ReadContext,
    value::text,
};

/// Default of ContainerPilot 2.
const DEFAULT: &str = "eth0:inet";

/// Returns the address of the first interface that matches. `None` after an error was recorded.
pub(super) fn address(object: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Option<IpAddr> {
    let given = object.has("interfaces");
    let specs = object.optional("interfaces", specs);
    if given && specs.is_none() {
        return None;
    }
    let specs = specs.filter(|specs| !specs.is_empty());
    let default = specs.is_none();
    match (context.resolve)(&specs.unwrap_or_else(|| vec![DEFAULT.to_owned()])) {
        Ok(address) => return Some(address),
        Err(error) if default => object.error(
            "interfaces",
            format_args!(
                "not set, and the default {DEFAULT:?} has no address: {error}; expected an interface of this host, or \
                 \"inet\" for the first non-loopback address"
            ),
        ),
        Err(error) => object.error("interfaces", format_args!("no address: {error}")),
    }
    None
}

fn specs(field: Field<'_, '_>) -> Option<Vec<String>> {
    match field.value() {
        Value::Text(_) => text(field).map(|spec| vec![spec]),
        _ => field.list("an interface or a list of interfaces", text),
    }
}
