//! Settings of the control API: token and certificates.

use std::path::{Path, PathBuf};

use ochopod_model::{TOKEN_REQUIREMENT, Token};
use ochopod_settings::{RawSetting, SettingsReader};
use ochopod_tls::{
    ControlSecurity, TlsIdentity,
    pem::{self, PemError},
    plain_client,
};

/// Reads token and certificates. Returns none only after an error was recorded.
pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<ControlSecurity> {
    let token = token(reader);
    let secrets = ["token_file", "zk_credentials", "zk_tls_key", "tls_key"].map(|name| reader.get(name));
    let (cert, ca) = (reader.get("tls_cert"), reader.get("tls_ca"));
    let exposed = secrets.iter().flatten().map(|raw| PathBuf::from(&raw.text));
    let exposed = exposed.filter(|path| pem::is_exposed(path)).collect();
    let [.., key] = secrets;
    let mutual = ca.is_some();
    let (server, client) = match (cert, key) {
        (Some(cert), Some(key)) => {
            let identity = identity(reader, &cert, &key);
            let ca = ca.map(|ca| load(reader, &ca, "PEM certificates", pem::certificates));
            let identity = identity?;
            let configured = match ca {
                Some(ca) => identity.configure(Some(&ca?)),
                None => identity.configure(None),
            };
            let (server, client) = record(reader, &cert, "a usable certificate chain", configured)?;
            (Some(server), client)
        }
        (None, None) => {
            if let Some(ca) = ca {
                reader.invalid(ca.name, &ca.text, "--tls-cert and --tls-key to be set as well");
            }
            (None, plain_client().map_err(|error| reader.missing("TLS", error.to_string())).ok()?)
        }
        (cert, _) => {
            let (name, other) = if cert.is_some() { ("tls_key", "cert") } else { ("tls_cert", "key") };
            let name = format!("ochopod_{name} (--{})", name.replace('_', "-"));
            reader.missing(&name, format!("a file, because --tls-{other} is set"));
            return None;
        }
    };
    Some(ControlSecurity { token, server, client, mutual, exposed })
}

/// Reads the token. No error contains it.
fn token(reader: &mut SettingsReader<'_>) -> Option<Token> {
    let (name, text) = match reader.get("token_file") {
        Some(file) => {
            let bytes = load(reader, &file, "a token", pem::content)?;
            let text = String::from_utf8(bytes).unwrap_or_default();
            let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
            (file.name, text.to_owned())
        }
        None => match reader.get("token") {
            Some(raw) => (raw.name, raw.text),
            None => return None,
        },
    };
    let token = Token::new(&text);
    if token.is_none() {
        reader.invalid_secret(name, TOKEN_REQUIREMENT);
    }
    token
}

/// Reads a file, or records the cause of the failure.
fn load<T>(
    reader: &mut SettingsReader<'_>,
    raw: &RawSetting,
    what: &str,
    read: impl FnOnce(&Path) -> Result<T, PemError>,
) -> Option<T> {
    let read = read(Path::new(&raw.text));
    record(reader, raw, &format!("a file with {what}"), read)
}

fn record<T>(
    reader: &mut SettingsReader<'_>,
    raw: &RawSetting,
    expected: &str,
    result: Result<T, PemError>,
) -> Option<T> {
    result.map_err(|error| reader.invalid(&*raw.name, &raw.text, format!("{expected} ({error})"))).ok()
}

/// Reads the certificates of the pod, or records the cause of the failure.
fn identity(reader: &mut SettingsReader<'_>, cert: &RawSetting, key: &RawSetting) -> Option<TlsIdentity> {
    let chain = load(reader, cert, "PEM certificates", pem::certificates);
    let key = load(reader, key, "a PEM private key, not encrypted", pem::private_key);
    Some(TlsIdentity { chain: chain?, key: key? })
}
