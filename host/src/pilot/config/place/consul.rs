//! `consul`: an address, or an object of what there is to say; the environment says what is left out there, and has its way
//! with the token.

use super::{
    super::{
        field::{Field, Object},
        json5::Value,
        source::Source,
        value::{one_of, some_text, truth},
    },
    tls::tls,
};
use crate::{
    discovery::{ConsulAddress, Scheme, TlsFiles},
    settings::Env,
};

const ADDRESS: &str = "127.0.0.1:8500";
const SCHEMES: [(&str, Scheme); 2] = [("http", Scheme::Http), ("https", Scheme::Https)];

pub(super) fn consul(mut field: Field<'_, '_>, env: &Env) -> Option<ConsulAddress> {
    let surroundings = Surroundings::read(&mut field, env);
    match field.value() {
        Value::Object(_) => field.object(|keys| Some(surroundings.besides(keys))),
        _ => match field.as_text() {
            Some(address) => Some(surroundings.reached_at(address, None)),
            None => field.fail("is neither a text like \"consul:8500\" nor an object, expected one of them"),
        },
    }
}

/// What Consul's own variables say.
struct Surroundings {
    address: String,
    https: bool,
    token: Option<String>,
    tls: TlsFiles,
}

impl Surroundings {
    /// What is wrong with a variable is noted where the field is.
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
            },
        }
    }

    fn besides(mut self, keys: &mut Object<'_, '_>) -> ConsulAddress {
        let address = keys.optional("address", some_text).unwrap_or_default();
        let scheme = keys.optional("scheme", |field| one_of(field, "a scheme", str::eq, &SCHEMES));
        if let (Some(scheme), Some(within)) = (scheme, split(&address).0)
            && scheme != within
        {
            keys.fail("scheme", format_args!("is not that of the address {address:?}, expected one of them only"));
        }
        let token = keys.optional("token", token);
        self.token = self.token.or(token);
        if let Some(tls) = keys.optional("tls", |field| tls(field, self.tls.clone())) {
            self.tls = tls;
        }
        let consul = self.reached_at(&address, scheme);
        if consul.scheme == Scheme::Http && keys.has("tls") {
            keys.remark("tls", "is not used with the scheme http, expected https");
        }
        consul
    }

    /// The scheme may be said apart, or within the address.
    fn reached_at(self, address: &str, scheme: Option<Scheme>) -> ConsulAddress {
        let (within, address) = split(if address.is_empty() { &self.address } else { address });
        let otherwise = if self.https { Scheme::Https } else { Scheme::Http };
        ConsulAddress {
            address: address.to_owned(),
            scheme: scheme.or(within).unwrap_or(otherwise),
            token: self.token,
            tls: self.tls,
        }
    }
}

/// What stands before the address, taken off once.
fn split(address: &str) -> (Option<Scheme>, &str) {
    let schemes = [("https://", Scheme::Https), ("http://", Scheme::Http)];
    let found = schemes.into_iter().find_map(|(prefix, scheme)| Some((Some(scheme), address.strip_prefix(prefix)?)));
    found.unwrap_or((None, address))
}

/// A token, which no mistake tells.
fn token(field: Field<'_, '_>) -> Option<String> {
    match field.as_text() {
        Some(token) => Some(token.to_owned()).filter(|token| !token.is_empty()),
        None => field.fail("is (hidden), expected a text"),
    }
}

fn token_file(field: &mut Field<'_, '_>, env: &Env) -> Option<String> {
    let path = env.text("CONSUL_HTTP_TOKEN_FILE")?;
    match Source::File(path.into()).read() {
        Ok(token) => Some(token.trim().to_owned()).filter(|token| !token.is_empty()),
        Err(error) => field.again().fail(format_args!("needs the file that CONSUL_HTTP_TOKEN_FILE names: {error}")),
    }
}

fn flag(field: &mut Field<'_, '_>, env: &Env, name: &str) -> Option<bool> {
    let text = env.text(name)?;
    truth(text).or_else(|| field.again().fail(format_args!("needs {name}, which is {text:?}, expected true or false")))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_scheme_is_taken_off_an_address_once() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../../../tests/vectors/consul_address.json")).unwrap();
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
