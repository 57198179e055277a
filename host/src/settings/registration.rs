//! What the pod registers about itself, but for its `seq`, and the variables that its sub-process gets.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use serde_json::{Map, Value};

use super::{
    Env, SettingError, parse, privileges,
    secret::{PREFIX, is_secret, is_secret_variable, without_credentials},
    source::Source,
};
use crate::cluster::DEAD;

/// Most bytes of a registration.
const LIMIT: usize = 4096;

/// What the settings table names.
const SETTINGS: [&str; 28] = [
    "cluster",
    "namespace",
    "port",
    "zk",
    "zk_credentials",
    "zk_read",
    "zk_tls_ca",
    "zk_tls_cert",
    "zk_tls_key",
    "session",
    "local",
    "ip",
    "public",
    "node",
    "listen",
    "start",
    "debug",
    "log_level",
    "log_format",
    "log",
    "application",
    "task",
    "exit_when_dead",
    "cache",
    "user",
    "group",
    "token_file",
    "config",
];

/// What the host writes into a registration, or into what the sub-process is told, on its own.
const OWNED: [&str; 6] = ["binding", "dependencies", "metrics", "ports", "seq", "status"];

/// Beginning of the plugin's overridden settings.
pub(super) const OVERRIDE: &str = "set_";

/// The operator's own settings: every other `ochopod_x`, secrets aside. Those that the host owns are refused.
fn own_settings(source: &mut Source<'_>) -> Map<String, Value> {
    let mut own = Map::new();
    for (variable, value) in source.env.iter() {
        let variable = variable.to_string_lossy();
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if is_secret(name) {
            if value.to_str().is_none() {
                source.errors.push(SettingError::secret(variable, "UTF-8"));
            }
            continue;
        }
        let Some(text) = value.to_str() else {
            let shown = value.to_string_lossy();
            source.bad(variable.clone(), if name == "zk" { without_credentials(&shown) } else { &shown }, "UTF-8");
            continue;
        };
        if SETTINGS.contains(&name) || name.starts_with(OVERRIDE) || name.starts_with(privileges::LIMIT) {
            continue;
        }
        if OWNED.contains(&name) {
            source.bad(variable, text, "another name: the host itself registers this one");
        } else if name.is_empty() {
            source.bad(variable, text, "a name after ochopod_");
        } else {
            own.insert(name.to_owned(), text.into());
        }
    }
    own
}

/// The port of the container that a variable maps: `PORT_<n>`. Other `PORT_*` variables are the platform's.
#[must_use]
pub fn mapped_port(variable: &str) -> Option<u16> {
    let name = variable.strip_prefix("PORT_")?;
    parse::port(name).filter(|port| *name == port.to_string())
}

/// Ports of the container and what they are reachable as.
pub(super) fn mapped_ports(source: &mut Source<'_>) -> BTreeMap<u16, u16> {
    let mut ports = BTreeMap::new();
    for (variable, value) in source.env.iter() {
        let variable = variable.to_string_lossy();
        let Some(inner) = mapped_port(&variable) else { continue };
        let text = value.to_string_lossy();
        match parse::port(&text) {
            Some(outer) => _ = ports.insert(inner, outer),
            None => source.bad(variable, &text, "a port from 1 to 65535"),
        }
    }
    ports
}

/// The registration: the operator's own settings and `texts`. Ports map text to numbers, everything else is text, as the
/// Python SDK registers it.
pub(super) fn compose<'t>(
    source: &mut Source<'_>,
    ports: &BTreeMap<u16, u16>,
    texts: impl Iterator<Item = (&'t str, &'t str)>,
) -> Map<String, Value> {
    let mut registration = own_settings(source);
    registration.extend(texts.map(|(name, text)| (name.to_owned(), text.into())));
    let ports = ports.iter().map(|(inner, outer)| (inner.to_string(), Value::from(*outer))).collect();
    registration.insert("ports".to_owned(), Value::Object(ports));
    let mut widest = registration.clone();
    widest.insert("seq".to_owned(), u64::MAX.into());
    widest.insert("status".to_owned(), DEAD.into());
    let size = Value::Object(widest).to_string().len();
    if size > LIMIT {
        let expected = format!("a registration of at most {LIMIT} bytes");
        source.bad("the sum of all ochopod_* and PORT_* variables", &format!("{size} bytes"), expected);
    }
    registration.insert("status".to_owned(), "".into());
    registration
}

/// The environment of the sub-process: the host's without the host's secrets, and the effective settings.
pub(super) fn child_environment(env: &Env, effective: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    let public = env.iter().filter(|(name, _)| !is_secret_variable(&name.to_string_lossy()));
    let mut child: BTreeMap<OsString, OsString> = public.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, text) in effective {
        child.insert(OsString::from(format!("{PREFIX}{name}")), OsStr::new(text).to_owned());
    }
    child
}
