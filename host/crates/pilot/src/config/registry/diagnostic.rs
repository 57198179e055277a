//! Errors of a registry's settings, recorded at the setting that each is about.

use ochopod_discovery::{Part, RegistryConfigError};

use super::super::field::{Field, Object};

/// An invalid part with the cause.
type PartError = (Part, RegistryConfigError);

/// Setting of a part: its keys from the outside in, and the variable that provides it if the configuration does not.
type Setting = (&'static [&'static str], Option<&'static str>);

/// Records errors of Consul's settings in an object. `token` is the variable that provides the token, if any.
pub(super) fn consul(keys: &mut Object<'_, '_>, errors: &[PartError], token: Option<&'static str>) {
    record(keys, errors, |part| match part {
        Part::Token if token.is_some() => (&[], token),
        part => (path(part), variable(part)),
    });
}

/// Records errors of Consul's settings where the value is only an address, which may be empty.
pub(super) fn consul_at(field: &mut Field<'_, '_>, errors: &[PartError], token: Option<&'static str>) {
    let has_address = field.as_text().is_some_and(|address| !address.is_empty());
    for (part, error) in errors {
        let text = describe(error);
        let variable = if *part == Part::Token { token } else { variable(*part) };
        match variable.filter(|_| !(*part == Part::Address && has_address)) {
            Some(variable) => field.add_error(format_args!("{variable}: {text}")),
            None => field.add_error(text),
        }
    }
}

/// Records errors of etcd's settings.
pub(super) fn etcd(keys: &mut Object<'_, '_>, errors: &[PartError]) {
    record(keys, errors, |part| match part {
        Part::Address => (&["endpoints"], None),
        part => (path(part), None),
    });
}

fn record(keys: &mut Object<'_, '_>, errors: &[PartError], setting: impl Fn(Part) -> Setting) {
    for (part, error) in errors {
        // A key without its counterpart was reported when the keys were read.
        if *part == Part::Pair && keys.has("tls") {
            continue;
        }
        let (path, variable) = setting(*part);
        keys.error_within(path, variable, &describe(error));
    }
}

/// Returns the text of an error, to follow the name of the setting.
fn describe(error: &RegistryConfigError) -> String {
    match error {
        RegistryConfigError::Address { address, expected } => format!("invalid value {address:?}, expected {expected}"),
        RegistryConfigError::File { path, reason, expected } => {
            format!("invalid value {:?} ({reason}), expected a file with {expected}", path.display().to_string())
        }
        RegistryConfigError::Tls(reason) => format!("unusable with TLS: {reason}"),
        RegistryConfigError::Token => "invalid value (hidden), expected printable ASCII".to_owned(),
        RegistryConfigError::Unsupported(_) => error.to_string(),
    }
}

fn path(part: Part) -> &'static [&'static str] {
    match part {
        Part::Address => &["address"],
        Part::Token => &["token"],
        Part::Credentials => &["credentials"],
        Part::ServerName => &["tls", "servername"],
        Part::Ca => &["tls", "cafile"],
        Part::Certificate => &["tls", "clientcert"],
        Part::Key => &["tls", "clientkey"],
        Part::Pair => &["tls"],
    }
}

/// Returns Consul's variable for a part.
fn variable(part: Part) -> Option<&'static str> {
    match part {
        Part::Address => Some("CONSUL_HTTP_ADDR"),
        Part::Token | Part::Credentials => None,
        Part::ServerName => Some("CONSUL_TLS_SERVER_NAME"),
        Part::Ca => Some("CONSUL_CACERT"),
        Part::Certificate => Some("CONSUL_CLIENT_CERT"),
        Part::Key => Some("CONSUL_CLIENT_KEY"),
        Part::Pair => Some("CONSUL_CLIENT_CERT together with CONSUL_CLIENT_KEY"),
    }
}
