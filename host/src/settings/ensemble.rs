//! What lets a pod into its `ZooKeeper`: credentials and certificates, which are in files.

use std::path::Path;

use super::{
    Flags, pem,
    source::{Given, Source},
};
use crate::coord::{Tls, ZooKeeperAddress};

/// The address with what lets the pod in. Notes what is wrong with that, and leaves it out.
pub(super) fn let_in(source: &mut Source<'_>, flags: &Flags, address: ZooKeeperAddress) -> ZooKeeperAddress {
    let world = source.parsed("zk_read", flags.zk_read.as_deref(), "creator or world", |text| match text {
        "creator" => Some(false),
        "world" => Some(true),
        _ => None,
    });
    let address = if world == Some(true) { address.world_readable() } else { address };
    let address = credentials(source, flags, &address).unwrap_or(address);
    certificates(source, flags, &address).unwrap_or(address)
}

fn credentials(source: &mut Source<'_>, flags: &Flags, address: &ZooKeeperAddress) -> Option<ZooKeeperAddress> {
    let given = source.given("zk_credentials", flags.zk_credentials.as_deref())?;
    if address.credentials().is_some() {
        source.bad(given.name, &given.text, "none besides the credentials in ochopod_zk");
        return None;
    }
    let text = content(source, &given)?;
    let known = address.clone().with_credentials(text.trim_end_matches(['\r', '\n']));
    known.map_err(|_| source.bad(given.name, &given.text, "a file that holds user:password")).ok()
}

fn certificates(source: &mut Source<'_>, flags: &Flags, address: &ZooKeeperAddress) -> Option<ZooKeeperAddress> {
    let authorities = source.given("zk_tls_ca", flags.zk_tls_ca.as_deref());
    let certificate = source.given("zk_tls_cert", flags.zk_tls_cert.as_deref());
    let key = source.given("zk_tls_key", flags.zk_tls_key.as_deref());
    for (given, others) in [
        (&certificate, [("zk_tls_ca", &authorities), ("zk_tls_key", &key)]),
        (&key, [("zk_tls_ca", &authorities), ("zk_tls_cert", &certificate)]),
    ] {
        let Some(given) = given else { continue };
        for (name, _) in others.iter().filter(|(_, other)| other.is_none()) {
            source.bad(&*given.name, &given.text, format!("ochopod_{name} besides it"));
        }
    }
    let authorities = authorities?;
    let tls = Tls::new(content(source, &authorities)?);
    let tls = tls.map_err(|error| source.bad(&*authorities.name, &authorities.text, error.to_string())).ok();
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let (chain, key) = (content(source, &certificate), content(source, &key));
            let tls = tls?.with_identity(chain?, key?);
            tls.map_err(|error| source.bad(certificate.name, &certificate.text, error.to_string())).ok()?
        }
        _ => tls?,
    };
    let secure = address.clone().with_tls(tls);
    secure.map_err(|error| source.bad(authorities.name, &authorities.text, error.to_string())).ok()
}

/// The text that the file holds.
fn content(source: &mut Source<'_>, given: &Given) -> Option<String> {
    let text = pem::text(Path::new(&given.text));
    text.map_err(|error| source.bad(&*given.name, &given.text, format!("a file that can be read ({error})"))).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

    use super::*;
    use crate::settings::Env;

    fn read(address: &str, variables: &[(&str, &Path)]) -> (ZooKeeperAddress, Vec<String>) {
        let env: Env = variables.iter().map(|(name, path)| (format!("ochopod_{name}"), *path)).collect();
        let mut source = Source::new(&env);
        let address = let_in(&mut source, &Flags::default(), address.parse().unwrap());
        (address, source.errors.iter().map(ToString::to_string).collect())
    }

    fn files(contents: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in contents {
            fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn credentials_come_from_a_file_or_the_address_but_not_both() {
        let files = files(&[("good", "me:pass:word\n"), ("bad", "hunter2\n")]);
        let [good, bad, none] = ["good", "bad", "none"].map(|name| files.path().join(name));
        let (address, errors) = read("h:1", &[("zk_credentials", &good)]);
        assert_eq!((address.credentials(), errors.as_slice()), (Some("me:pass:word"), [].as_slice()));
        for (address, file, expected) in [
            ("h:1", &bad, "expected a file that holds user:password"),
            ("h:1", &none, "expected a file that can be read (No such file"),
            ("h:1", &PathBuf::from("/dev/zero"), "expected a file that can be read (it is too large)"),
            ("zk://u:p@h:1", &good, "expected none besides the credentials in ochopod_zk"),
        ] {
            let (_, errors) = read(address, &[("zk_credentials", file)]);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with("ochopod_zk_credentials is ") && errors[0].contains(expected), "{errors:?}");
            assert!(!errors[0].contains("hunter2") && !errors[0].contains("word\""), "{errors:?}");
        }
    }

    #[test]
    fn certificates_are_judged_before_anything_runs() {
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
        let (authorities, identity) =
            ("certificates of authorities (there is none)", "a certificate and the key for it (");
        let lacking = ["ochopod_zk_tls_ca besides it", "ochopod_zk_tls_key besides it"];
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
        assert!(errors.concat().contains("no certificate can be for the host \"a..b\""), "{errors:?}");
    }
}
