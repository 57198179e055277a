//! Settings of access to `ZooKeeper`: credentials and certificates, which are in files.

use std::path::Path;

use ochopod_settings::{RawSetting, SettingsReader};
use ochopod_store::{ZooKeeperAddress, ZooKeeperTls};
use ochopod_tls::pem;

use super::parse;

/// Adds credentials and certificates to an address. Records those that are invalid, and leaves them out.
pub(super) fn with_access(reader: &mut SettingsReader<'_>, address: ZooKeeperAddress) -> ZooKeeperAddress {
    let world = reader.parsed("zk_read", "creator or world", |text| match text {
        "creator" => Some(false),
        "world" => Some(true),
        _ => None,
    });
    let address = if world == Some(true) { address.world_readable() } else { address };
    let address = credentials(reader, &address).unwrap_or(address);
    let address = strict(reader, address);
    certificates(reader, &address).unwrap_or(address)
}

fn credentials(reader: &mut SettingsReader<'_>, address: &ZooKeeperAddress) -> Option<ZooKeeperAddress> {
    let raw = reader.get("zk_credentials")?;
    if address.credentials().is_some() {
        reader.invalid(raw.name, &raw.text, "no value, because ochopod_zk contains credentials");
        return None;
    }
    let text = content(reader, &raw)?;
    let known = address.clone().with_credentials(text.trim_end_matches(['\r', '\n']));
    known.map_err(|_| reader.invalid(raw.name, &raw.text, "a file containing user:password")).ok()
}

/// Reads `zk_strict`. Without credentials nothing is protected from others, and strict pods would reject even nodes that
/// they created.
fn strict(reader: &mut SettingsReader<'_>, address: ZooKeeperAddress) -> ZooKeeperAddress {
    let Some(strict) = reader.parsed("zk_strict", "true or false", parse::boolean) else {
        return address;
    };
    let has_credentials = address.credentials().is_some() || reader.get("zk_credentials").is_some();
    if strict
        && !has_credentials
        && let Some(raw) = reader.get("zk_strict")
    {
        reader.invalid(raw.name, &raw.text, "credentials to be set as well (--zk-credentials, ochopod_zk)");
    }
    address.strict(strict)
}

fn certificates(reader: &mut SettingsReader<'_>, address: &ZooKeeperAddress) -> Option<ZooKeeperAddress> {
    let authorities = reader.get("zk_tls_ca");
    let certificate = reader.get("zk_tls_cert");
    let key = reader.get("zk_tls_key");
    for (raw, others) in [
        (&certificate, [("zk_tls_ca", &authorities), ("zk_tls_key", &key)]),
        (&key, [("zk_tls_ca", &authorities), ("zk_tls_cert", &certificate)]),
    ] {
        let Some(raw) = raw else { continue };
        for (name, _) in others.iter().filter(|(_, other)| other.is_none()) {
            reader.invalid(&*raw.name, &raw.text, format!("ochopod_{name} to be set as well"));
        }
    }
    let authorities = authorities?;
    let tls = ZooKeeperTls::new(content(reader, &authorities)?);
    let tls = tls.map_err(|error| reader.invalid(&*authorities.name, &authorities.text, error.to_string())).ok();
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let (chain, key) = (content(reader, &certificate), content(reader, &key));
            let tls = tls?.with_identity(chain?, key?);
            tls.map_err(|error| reader.invalid(certificate.name, &certificate.text, error.to_string())).ok()?
        }
        _ => tls?,
    };
    let secure = address.clone().with_tls(tls);
    secure.map_err(|error| reader.invalid(authorities.name, &authorities.text, error.to_string())).ok()
}

/// Reads the text of a file.
fn content(reader: &mut SettingsReader<'_>, raw: &RawSetting) -> Option<String> {
    let text = pem::text(Path::new(&raw.text));
    text.map_err(|error| reader.invalid(&*raw.name, &raw.text, format!("a readable file ({error})"))).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use ochopod_environment::Env;
    use ochopod_settings::Flags;
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

    use super::*;

    fn read(address: &str, variables: &[(&str, &Path)]) -> (ZooKeeperAddress, Vec<String>) {
        let env: Env = variables.iter().map(|(name, path)| (format!("ochopod_{name}"), *path)).collect();
        let flags = Flags::default();
        let mut reader = SettingsReader::new(&env, &flags);
        let address = with_access(&mut reader, address.parse().unwrap());
        (address, reader.errors.iter().map(ToString::to_string).collect())
    }

    fn files(contents: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in contents {
            fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn credentials_are_in_a_file_or_in_the_address_but_not_both() {
        let files = files(&[("good", "me:pass:word\n"), ("bad", "hunter2\n")]);
        let [good, bad, none] = ["good", "bad", "none"].map(|name| files.path().join(name));
        let (address, errors) = read("h:1", &[("zk_credentials", &good)]);
        assert_eq!((address.credentials(), errors.as_slice()), (Some("me:pass:word"), [].as_slice()));
        for (address, file, expected) in [
            ("h:1", &bad, "expected a file containing user:password"),
            ("h:1", &none, "expected a readable file (No such file"),
            ("h:1", &PathBuf::from("/dev/zero"), "expected a readable file (not a regular file but a device)"),
            ("zk://u:p@h:1", &good, "expected no value, because ochopod_zk contains credentials"),
        ] {
            let (_, errors) = read(address, &[("zk_credentials", file)]);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with("ochopod_zk_credentials: ") && errors[0].contains(expected), "{errors:?}");
            assert!(!errors[0].contains("hunter2") && !errors[0].contains("word\""), "{errors:?}");
        }
    }

    #[test]
    fn access_lists_are_strict_with_credentials_by_default() {
        let (yes, no) = (Path::new("true"), Path::new("false"));
        for (address, variables, expected, errors) in [
            ("h:1", &[][..], false, 0),
            ("h:1", &[("zk_strict", no)], false, 0),
            ("h:1", &[("zk_strict", yes)], false, 1),
            ("zk://u:p@h:1", &[], true, 0),
            ("zk://u:p@h:1", &[("zk_strict", yes)], true, 0),
            ("zk://u:p@h:1", &[("zk_strict", no)], false, 0),
            ("zk://u:p@h:1", &[("zk_strict", Path::new("maybe"))], true, 1),
            ("h:1", &[("zk_strict", yes), ("zk_credentials", Path::new("/nowhere"))], false, 1),
        ] {
            let (read, found) = read(address, variables);
            assert_eq!((read.is_strict(), found.len()), (expected, errors), "{address} {variables:?}: {found:?}");
        }
        let (_, errors) = read("h:1", &[("zk_strict", yes)]);
        assert_eq!(
            errors,
            [
                "ochopod_zk_strict: invalid value \"true\", expected credentials to be set as well (--zk-credentials, ochopod_zk)"
            ]
        );
    }

    #[test]
    fn certificates_are_validated_at_start() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["pod".to_owned()]).unwrap();
        let (cert, key, other) =
            (cert.pem(), signing_key.serialize_pem(), KeyPair::generate().unwrap().serialize_pem());
        let files = files(&[("cert", &cert), ("key", &key), ("other", &other), ("garbage", "hunter2")]);
        let [cert, key, other, garbage] = ["cert", "key", "other", "garbage"].map(|name| files.path().join(name));
        let whole = |key| vec![("zk_tls_ca", &*cert), ("zk_tls_cert", &*cert), ("zk_tls_key", key)];
        for good in [vec![("zk_tls_ca", &*cert)], whole(&key)] {
            let (address, errors) = read("h:1", &good);
            assert!(address.tls().is_some() && errors.is_empty(), "{errors:?}");
        }
        let (authorities, identity) = ("PEM CA certificates (no certificate found)", "PEM certificate and its key (");
        let lacking = ["ochopod_zk_tls_ca to be set as well", "ochopod_zk_tls_key to be set as well"];
        for (variables, expected) in [
            (vec![("zk_tls_ca", &*garbage)], &[authorities][..]),
            (vec![("zk_tls_ca", &*key)], &[authorities]),
            (whole(&other), &[identity]),
            (whole(&garbage), &[identity]),
            (vec![("zk_tls_cert", &*cert)], &lacking),
        ] {
            let (address, errors) = read("h:1", &variables);
            assert_eq!(errors.len(), expected.len(), "{errors:?}");
            for (error, expected) in errors.iter().zip(expected) {
                assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
            }
            assert!(address.tls().is_none());
        }
        let (_, errors) = read("a..b:1", &[("zk_tls_ca", &cert)]);
        assert!(errors.concat().contains("invalid TLS host \"a..b\": no certificate can match it"), "{errors:?}");
    }
}
