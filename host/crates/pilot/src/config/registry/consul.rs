//! `consul`: an address or an object. Variables of the environment provide settings that are missing, and take precedence
//! for the token.

use ochopod_discovery::{ConsulAddress, RegistryConfig, Scheme, TlsFiles};
use ochopod_environment::Env;
use ochopod_json5::Value;

use super::{
    super::{
        field::{Field, Object},
        read::ReadContext,
        source::ConfigSource,
        value::{non_empty_text, one_of, parse_bool},
    },
    diagnostic,
    tls::tls,
};

const ADDRESS: &str = "127.0.0.1:8500";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const SCHEMES: [(&str, Scheme); 2] = [("http", Scheme::Http), ("https", Scheme::Https)];

pub(super) fn consul(mut field: Field<'_, '_>, context: &ReadContext<'_>) -> Option<ConsulAddress> {
    let env = ConsulEnv::read(&mut field, context.env);
    let token = env.token_variable(context.env);
    match field.value() {
        Value::Object(_) => field.object(|keys| {
            let consul = env.with_settings(keys);
            diagnostic::consul(keys, &(context.check)(&RegistryConfig::Consul(consul.clone())), token);
            Some(consul)
        }),
        _ => match field.as_text() {
            Some(address) => {
                let consul = env.with_address(address, None);
                diagnostic::consul_at(&mut field, &(context.check)(&RegistryConfig::Consul(consul.clone())), token);
                Some(consul)
            }
            None => field.error("invalid value, expected an address like \"consul:8500\" or an object"),
        },
    }
}

/// Settings from Consul's variables.
struct ConsulEnv {
    address: String,
    https: bool,
    token: Option<String>,
    tls: TlsFiles,
}

impl ConsulEnv {
    /// Reads the variables. Errors are recorded at the position of the field.
    fn read(field: &mut Field<'_, '_>, env: &Env) -> Self {
        let path = |name: &str| env.text(name).map(Into::into);
        Self {
            address: env.text("CONSUL_HTTP_ADDR").unwrap_or(ADDRESS).to_owned(),
            https: flag(field, env, "CONSUL_HTTP_SSL").unwrap_or(false),
            token: token_file(field, env).or_else(|| env.text("CONSUL_HTTP_TOKEN").map(str::to_owned)),
            tls: TlsFiles {
                ca: path("CONSUL_CACERT"),
                certificate: path("CONSUL_CLIENT_CERT"),
                key: path("CONSUL_CLIENT_KEY"),
                server_name: env.text("CONSUL_TLS_SERVER_NAME").map(str::to_owned),
                verify: flag(field, env, "CONSUL_HTTP_SSL_VERIFY").unwrap_or(true),
                ..TlsFiles::default()
            },
        }
    }

    /// Returns the variable that provides the token.
    fn token_variable(&self, env: &Env) -> Option<&'static str> {
        let file = env.text(TOKEN_FILE).map(|_| TOKEN_FILE);
        self.token.as_ref().map(|_| file.unwrap_or("CONSUL_HTTP_TOKEN"))
    }

    fn with_settings(mut self, keys: &mut Object<'_, '_>) -> ConsulAddress {
        let address = keys.optional("address", non_empty_text).unwrap_or_default();
        let scheme = keys.optional("scheme", |field| one_of(field, "a scheme", str::eq, &SCHEMES));
        if let (Some(scheme), Some(found)) = (scheme, split(&address).0)
            && scheme != found
        {
            keys.error(
                "scheme",
                format_args!("differs from the scheme of address {address:?}, expected only one of them"),
            );
        }
        let token = keys.optional("token", token);
        self.token = self.token.or(token);
        if let Some(tls) = keys.optional("tls", |field| tls(field, self.tls.clone())) {
            self.tls = tls;
        }
        let consul = self.with_address(&address, scheme);
        if consul.scheme == Scheme::Http && keys.has("tls") {
            keys.warning("tls", "ignored with scheme http, expected https");
        }
        consul
    }

    /// Returns the address. The scheme may be a setting or a part of the address.
    fn with_address(self, address: &str, scheme: Option<Scheme>) -> ConsulAddress {
        let (found, address) = split(if address.is_empty() { &self.address } else { address });
        let default = if self.https { Scheme::Https } else { Scheme::Http };
        ConsulAddress {
            address: address.to_owned(),
            scheme: scheme.or(found).unwrap_or(default),
            token: self.token,
            tls: self.tls,
        }
    }
}

/// Splits the scheme off an address, once.
fn split(address: &str) -> (Option<Scheme>, &str) {
    let schemes = [("https://", Scheme::Https), ("http://", Scheme::Http)];
    let found = schemes.into_iter().find_map(|(prefix, scheme)| Some((Some(scheme), address.strip_prefix(prefix)?)));
    found.unwrap_or((None, address))
}

/// Reads a token, which errors do not repeat.
fn token(field: Field<'_, '_>) -> Option<String> {
    match field.as_text() {
        Some(token) => Some(token.to_owned()).filter(|token| !token.is_empty()),
        None => field.error("invalid value (hidden), expected a string"),
    }
}

fn token_file(field: &mut Field<'_, '_>, env: &Env) -> Option<String> {
    let path = env.text(TOKEN_FILE)?;
    match ConfigSource::File(path.into()).read() {
        Ok(token) => Some(token.trim().to_owned()).filter(|token| !token.is_empty()),
        Err(error) => field.reborrow().error(format_args!("{TOKEN_FILE}: {error}")),
    }
}

fn flag(field: &mut Field<'_, '_>, env: &Env, name: &str) -> Option<bool> {
    let text = env.text(name)?;
    parse_bool(text)
        .or_else(|| field.reborrow().error(format_args!("{name}: invalid value {text:?}, expected true or false")))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn scheme_is_split_off_an_address_once() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../../../../tests/vectors/consul_address.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 8);
        for case in cases {
            let (scheme, address) = split(case["in"].as_str().unwrap());
            let scheme = if scheme == Some(Scheme::Https) { "https" } else { "http" };
            assert_eq!((address, scheme), (case["address"].as_str().unwrap(), case["scheme"].as_str().unwrap()));
        }
        assert_eq!(split("unix:///run/consul.sock"), (None, "unix:///run/consul.sock"));
    }
}
