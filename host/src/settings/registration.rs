//! The registration of the pod, except its `seq`, and the environment of its sub-process.

use std::{collections::BTreeMap, ffi::OsString};

use ochopod_environment::{
    Env, PREFIX, is_passable, is_platform_secret, is_secret, is_sub_process_secret, mapped_port, public_environment,
    sub_process_secret_names, sub_process_secrets, without_credentials, without_url_credentials,
};
use ochopod_model::{CAPABILITIES, COMPRESSED_BODIES, DEAD, DIFFERENCES, ROLE, port};
use ochopod_platform::Platform;
use ochopod_settings::{SettingsReader, is_setting};
use serde_json::{Map, Value};

/// Maximum size of a registration.
const MAX_REGISTRATION_BYTES: usize = 4096;

/// Keys that the host writes into a registration, or into the variable `ochopod` of the sub-process.
const RESERVED: [&str; 7] = [CAPABILITIES, ROLE, "dependencies", "metrics", "ports", "seq", "status"];

/// Reads the operator's own settings: every other `ochopod_x`, except secrets. Reserved names are rejected.
fn own_settings(reader: &mut SettingsReader<'_>) -> Map<String, Value> {
    let mut own = Map::new();
    for (variable, value) in reader.env.iter() {
        let variable = variable.to_string_lossy();
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if is_secret(name) {
            if value.to_str().is_none() && !is_sub_process_secret(&variable) {
                reader.invalid_secret(variable, "UTF-8");
            }
            continue;
        }
        let Some(text) = value.to_str() else {
            let shown = value.to_string_lossy();
            reader.invalid(variable.clone(), if name == "zk" { without_credentials(&shown) } else { &shown }, "UTF-8");
            continue;
        };
        if is_setting(name) {
            continue;
        }
        if RESERVED.contains(&name) {
            reader.invalid(variable, text, "another name: this key is reserved by the host");
        } else if name.is_empty() {
            reader.invalid(variable, text, "a name after ochopod_");
        } else {
            own.insert(name.to_owned(), text.into());
        }
    }
    own
}

/// Reads the ports of the container and the ports that they are mapped to: `PORT_<n>`, and what the platform reports.
pub(super) fn mapped_ports(reader: &mut SettingsReader<'_>, platform: &Platform) -> BTreeMap<u16, u16> {
    let mut ports = platform.values.ports.clone();
    for (variable, value) in reader.env.iter() {
        let variable = variable.to_string_lossy();
        let Some(inner) = variable.strip_prefix(&*platform.prefix).and_then(mapped_port) else { continue };
        let text = value.to_string_lossy();
        match port(&text) {
            Some(outer) => _ = ports.insert(inner, outer),
            None => reader.invalid(variable, &text, "a port from 1 to 65535"),
        }
    }
    ports
}

/// Rejects secrets of the sub-process whose names are reserved.
pub(super) fn check_sub_process_secrets(reader: &mut SettingsReader<'_>) {
    let names = sub_process_secret_names(reader.env);
    let reserved: Vec<String> = names.filter(|name| !is_passable(name)).map(str::to_owned).collect();
    for name in reserved {
        let expected = "a name after ochopod_secret_, other than PATH, LD_*, ochopod and ochopod_*";
        reader.invalid_secret(format!("ochopod_secret_{name}"), expected);
    }
}

/// Builds the registration: the operator's own settings and `texts`. Ports map text to numbers, everything else is text,
/// as in the Python SDK.
pub(super) fn build<'t>(
    reader: &mut SettingsReader<'_>,
    ports: &BTreeMap<u16, u16>,
    texts: impl Iterator<Item = (&'t str, &'t str)>,
) -> Map<String, Value> {
    check_sub_process_secrets(reader);
    let mut registration = own_settings(reader);
    registration.extend(texts.map(|(name, text)| (name.to_owned(), text.into())));
    for value in registration.values_mut() {
        if let Value::String(text) = value {
            *text = without_url_credentials(text);
        }
    }
    registration.insert(CAPABILITIES.to_owned(), [DIFFERENCES, COMPRESSED_BODIES].into_iter().collect());
    let ports = ports.iter().map(|(inner, outer)| (inner.to_string(), Value::from(*outer))).collect();
    registration.insert("ports".to_owned(), Value::Object(ports));
    let mut largest = registration.clone();
    largest.insert("seq".to_owned(), u64::MAX.into());
    largest.insert("status".to_owned(), DEAD.into());
    let size = Value::Object(largest).to_string().len();
    if size > MAX_REGISTRATION_BYTES {
        let expected = format!("a registration of at most {MAX_REGISTRATION_BYTES} bytes");
        reader.invalid("total size of all ochopod_* and PORT_* variables", &format!("{size} bytes"), expected);
    }
    registration.insert("status".to_owned(), "".into());
    registration
}

/// Returns the secrets of the sub-process: those of the operator, and credentials that the platform gives to its container.
/// Programs in the container expect the latter.
pub(super) fn child_secrets(env: &Env) -> BTreeMap<OsString, OsString> {
    let platform = env.iter().filter(|(name, _)| is_platform_secret(&name.to_string_lossy()));
    let mut secrets: BTreeMap<OsString, OsString> =
        platform.map(|(name, value)| (name.clone(), value.clone())).collect();
    secrets.extend(sub_process_secrets(env.iter()));
    secrets
}

/// Returns the environment of the sub-process: the host's without its secrets and those of the platform, and the effective
/// settings.
pub(super) fn child_environment(env: &Env, effective: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    let variables = env.iter().filter(|(name, _)| !is_platform_secret(&name.to_string_lossy()));
    let mut child = public_environment(variables.map(|(name, value)| (name.clone(), value.clone())));
    for (name, text) in effective {
        child.insert(OsString::from(format!("{PREFIX}{name}")), without_url_credentials(text).into());
    }
    child
}
