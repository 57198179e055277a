//! Who may ask the pod for what, and how its leader shows that it may ask others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use super::{
    Flags, SettingError,
    peer_name::PeerVerifier,
    pem::{self, PemError},
    source::{Given, Source},
};
use crate::cluster::{TOKEN_FORM, Token};

/// The token and the certificates of a pod. All pods of a cluster have the same token, and either all or none speak TLS.
#[derive(Clone)]
pub struct Access {
    /// The token.
    pub token: Option<Token>,
    /// How the control server speaks TLS, if it does.
    pub server: Option<Arc<ServerConfig>>,
    /// How a leader speaks TLS with its peers, if the control servers do.
    pub client: Arc<ClientConfig>,
    /// Whether clients need a certificate.
    pub mutual: bool,
    /// Files with secrets that others may read.
    pub exposed: Vec<PathBuf>,
}

impl Access {
    /// No token, no certificates.
    #[cfg(test)]
    pub(crate) fn open() -> Self {
        let env = super::Env::default();
        Self::read(&mut Source::new(&env), &Flags::default()).unwrap()
    }

    /// None only after an error was noted.
    pub(super) fn read(source: &mut Source<'_>, flags: &Flags) -> Option<Self> {
        let token = token(source, flags);
        let mut file = |name: &str, flag: &Option<String>| source.given(name, flag.as_deref());
        let secrets = [
            file("token_file", &flags.token_file),
            file("zk_credentials", &flags.zk_credentials),
            file("zk_tls_key", &flags.zk_tls_key),
            file("tls_key", &flags.tls_key),
        ];
        let (cert, ca) = (file("tls_cert", &flags.tls_cert), file("tls_ca", &flags.tls_ca));
        let exposed = secrets.iter().flatten().map(|given| PathBuf::from(&given.text));
        let exposed = exposed.filter(|path| pem::is_exposed(path)).collect();
        let [.., key] = secrets;
        let mutual = ca.is_some();
        let (server, client) = match (cert, key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::read(source, &cert, &key);
                let ca = ca.map(|ca| load(source, &ca, "PEM certificates", pem::certificates));
                let identity = identity?;
                let configured = match ca {
                    Some(ca) => identity.configure(Some(&ca?)),
                    None => identity.configure(None),
                };
                let (server, client) = noted(source, &cert, "certificates that can be used", configured)?;
                (Some(server), client)
            }
            (None, None) => {
                if let Some(ca) = ca {
                    source.bad(ca.name, &ca.text, "none without --tls-cert and --tls-key");
                }
                (None, plain().map_err(|error| source.missing("TLS", error.to_string())).ok()?)
            }
            (cert, _) => {
                let (name, other) = if cert.is_some() { ("tls_key", "cert") } else { ("tls_cert", "key") };
                let name = format!("ochopod_{name} (--{})", name.replace('_', "-"));
                source.missing(&name, format!("a file, for there is a --tls-{other}"));
                return None;
            }
        };
        Some(Self { token, server, client, mutual, exposed })
    }
}

/// The token. Its text is in no error.
fn token(source: &mut Source<'_>, flags: &Flags) -> Option<Token> {
    let (name, text) = match source.given("token_file", flags.token_file.as_deref()) {
        Some(file) => {
            let bytes = load(source, &file, "a token", pem::content)?;
            let text = String::from_utf8(bytes).unwrap_or_default();
            let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
            (file.name, text.to_owned())
        }
        None => match source.given("token", None) {
            Some(given) => (given.name, given.text),
            None => return None,
        },
    };
    let token = Token::new(&text);
    if token.is_none() {
        source.errors.push(SettingError::secret(name, TOKEN_FORM));
    }
    token
}

/// What a file has, or a note of why it cannot be used.
fn load<T>(
    source: &mut Source<'_>,
    given: &Given,
    what: &str,
    read: impl FnOnce(&Path) -> Result<T, PemError>,
) -> Option<T> {
    let read = read(Path::new(&given.text));
    noted(source, given, &format!("a file with {what}"), read)
}

fn noted<T>(source: &mut Source<'_>, given: &Given, expected: &str, result: Result<T, PemError>) -> Option<T> {
    result.map_err(|error| source.bad(&*given.name, &given.text, format!("{expected} ({error})"))).ok()
}

/// What a pod shows to others.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn read(source: &mut Source<'_>, cert: &Given, key: &Given) -> Option<Self> {
        let chain = load(source, cert, "PEM certificates", pem::certificates);
        let key = load(source, key, "a PEM private key, not encrypted", pem::private_key);
        Some(Self { chain: chain?, key: key? })
    }

    /// Without a CA, a leader trusts what is in the pods' own certificate file: the certificate itself when it is
    /// self-signed and all pods have it, else those that signed it.
    fn configure(
        &self,
        ca: Option<&[CertificateDer<'static>]>,
    ) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), PemError> {
        let trusted = Arc::new(pem::roots(ca.unwrap_or(&self.chain))?);
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let server = match ca {
            Some(_) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&trusted), provider()).build();
                server.with_client_cert_verifier(verifier.map_err(|error| PemError::Malformed(error.to_string()))?)
            }
            None => server.with_no_client_auth(),
        };
        let server = server.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let client = client
            .dangerous()
            .with_custom_certificate_verifier(PeerVerifier::new(trusted, provider())?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        Ok((Arc::new(server), Arc::new(client)))
    }
}

/// Trusts nobody: for those who do not speak TLS.
fn plain() -> Result<Arc<ClientConfig>, rustls::Error> {
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(client.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
