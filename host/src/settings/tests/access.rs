//! Token and certificates.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

const TOKEN: &str = "correct-horse-battery";

/// Writes a file that only its owner may read, and returns its path.
fn file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn token_file_takes_precedence_over_the_token_variable() {
    let scratch = tempfile::tempdir().unwrap();
    let other = "another-horse-battery";
    for (content, text) in [(format!("{TOKEN}\n"), TOKEN), (TOKEN.to_owned(), TOKEN), (format!("{TOKEN}\r\n"), TOKEN)] {
        let path = file(scratch.path(), "token", &content);
        let mut case = Case::new(&[("ochopod_token", other)]);
        assert!(case.settings().access.token.unwrap().matches(other));
        case.flags = case.flags.with("token_file", path.clone());
        assert!(case.settings().access.token.unwrap().matches(text), "{content:?}");
        let variables = [("ochopod_token_file", &*path), ("ochopod_token", other)];
        assert!(read(&variables).access.token.unwrap().matches(text));
    }
    assert!(read(&[("ochopod_token", "")]).access.token.is_none());
}

#[test]
fn invalid_token_is_named_without_its_value() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = scratch.path().join("none");
    for bad in ["hunter2", "hunter2 hunter2 hunter2", "hunter2\nhunter2hunter2", "hunter2hunter2\u{e9}\u{e9}", "\n"] {
        let path = file(scratch.path(), "token", bad);
        let expected = ": invalid value \"(hidden)\", expected at least 16 visible ASCII characters";
        let errors = Case::new(&[("ochopod_token_file", &path)]).errors();
        assert_eq!(errors, [format!("ochopod_token_file{expected}")]);
        assert_eq!(Case::new(&[("ochopod_token", bad)]).errors(), [format!("ochopod_token{expected}")]);
    }
    let mut case = Case::new(&[]);
    case.flags = case.flags.with("token_file", missing.to_str().unwrap().to_owned());
    let errors = case.errors();
    assert!(errors[0].starts_with("--token-file: ") && errors[0].contains("No such file"), "{errors:?}");
}

#[test]
fn certificates_and_key_are_validated_together() {
    let scratch = tempfile::tempdir().unwrap();
    let make = || generate_simple_self_signed(vec!["ochopod".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = make();
    let cert = file(scratch.path(), "cert", &cert.pem());
    let key = file(scratch.path(), "key", &signing_key.serialize_pem());
    let other = file(scratch.path(), "other", &make().signing_key.serialize_pem());
    let garbage = file(scratch.path(), "garbage", "-----BEGIN CERTIFICATE-----\nhunter2\n");
    let empty = file(scratch.path(), "empty", "");

    let access = read(&[("ochopod_tls_cert", &cert), ("ochopod_tls_key", &key)]).access;
    assert!(access.server.is_some() && !access.mutual && access.exposed.is_empty());
    let access = read(&[("ochopod_tls_cert", &cert), ("ochopod_tls_key", &key), ("ochopod_tls_ca", &cert)]).access;
    assert!(access.server.is_some() && access.mutual);
    assert!(read(&[]).access.server.is_none());

    let cases = [
        (vec![("cert", &cert)], "ochopod_tls_key (--tls-key): not set"),
        (vec![("key", &key)], "ochopod_tls_cert (--tls-cert): not set"),
        (vec![("ca", &cert)], "expected --tls-cert and --tls-key to be set as well"),
        (vec![("cert", &cert), ("key", &other)], "expected a usable certificate chain (keys may not be consistent"),
        (vec![("cert", &garbage), ("key", &key)], "expected a file with PEM certificates ("),
        (vec![("cert", &empty), ("key", &key)], "expected a file with PEM certificates (no PEM block found)"),
        (vec![("cert", &cert), ("key", &empty)], "expected a file with a PEM private key, not encrypted ("),
        (vec![("cert", &cert), ("key", &key), ("ca", &empty)], "expected a file with PEM certificates ("),
    ];
    for (files, expected) in cases {
        let files: Vec<_> = files.iter().map(|(name, path)| (format!("ochopod_tls_{name}"), path.as_str())).collect();
        let errors = Case::new(&files.iter().map(|(name, path)| (name.as_str(), *path)).collect::<Vec<_>>()).errors();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:?}");
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
    }
}

#[test]
fn world_readable_secrets_and_missing_authentication_are_warned_of() {
    let scratch = tempfile::tempdir().unwrap();
    let path = file(scratch.path(), "token", TOKEN);
    let warnings = |variables: &[(&str, &str)]| read(variables).security_warnings();
    assert_eq!(warnings(&[]), [SecurityWarning::NoAuthentication("0.0.0.0:8080".parse().unwrap())]);
    assert_eq!(warnings(&[("ochopod_local", "true")]), [], "loopback");
    assert_eq!(warnings(&[("ochopod_token_file", &path)]), []);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let credentials = file(scratch.path(), "credentials", "me:hunter2");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).unwrap();
    for (variables, path) in [
        (vec![("ochopod_token_file", &*path)], &path),
        (vec![("ochopod_token", TOKEN), ("ochopod_zk_credentials", &*credentials)], &credentials),
    ] {
        assert_eq!(warnings(&variables), [SecurityWarning::ReadableSecret(path.into())]);
    }
}
