//! The token and the certificates.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

const TOKEN: &str = "correct-horse-battery";

/// Writes a file that only its owner may read, and gives its path.
fn file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_token_comes_from_a_file_or_from_a_variable_and_the_file_wins() {
    let scratch = tempfile::tempdir().unwrap();
    let other = "another-horse-battery";
    for (content, text) in [(format!("{TOKEN}\n"), TOKEN), (TOKEN.to_owned(), TOKEN), (format!("{TOKEN}\r\n"), TOKEN)] {
        let path = file(scratch.path(), "token", &content);
        let mut case = Case::new(&[("ochopod_token", other)]);
        assert!(case.settings().access.token.unwrap().is(other));
        case.flags.token_file = Some(path.clone());
        assert!(case.settings().access.token.unwrap().is(text), "{content:?}");
        let variables = [("ochopod_token_file", &*path), ("ochopod_token", other)];
        assert!(read(&variables).access.token.unwrap().is(text));
    }
    assert!(read(&[("ochopod_token", "")]).access.token.is_none());
}

#[test]
fn a_bad_token_is_named_but_not_shown() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = scratch.path().join("none");
    for bad in ["hunter2", "hunter2 hunter2 hunter2", "hunter2\nhunter2hunter2", "hunter2hunter2\u{e9}\u{e9}", "\n"] {
        let path = file(scratch.path(), "token", bad);
        let expected = "is \"(hidden)\", expected at least 16 visible ASCII characters";
        let errors = Case::new(&[("ochopod_token_file", &path)]).errors();
        assert_eq!(errors, [format!("ochopod_token_file {expected}")]);
        assert_eq!(Case::new(&[("ochopod_token", bad)]).errors(), [format!("ochopod_token {expected}")]);
    }
    let mut case = Case::new(&[]);
    case.flags.token_file = Some(missing.to_str().unwrap().to_owned());
    let errors = case.errors();
    assert!(errors[0].starts_with("--token-file is ") && errors[0].contains("No such file"), "{errors:?}");
}

#[test]
fn certificates_and_key_belong_together_and_each_that_is_wrong_is_named() {
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
        (vec![("cert", &cert)], "ochopod_tls_key (--tls-key) is not set"),
        (vec![("key", &key)], "ochopod_tls_cert (--tls-cert) is not set"),
        (vec![("ca", &cert)], "expected none without --tls-cert and --tls-key"),
        (vec![("cert", &cert), ("key", &other)], "expected certificates that can be used (keys may not be consistent"),
        (vec![("cert", &garbage), ("key", &key)], "expected a file with PEM certificates ("),
        (vec![("cert", &empty), ("key", &key)], "expected a file with PEM certificates (there is none in it)"),
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
fn what_others_may_read_and_who_may_reach_an_open_pod_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let path = file(scratch.path(), "token", TOKEN);
    let told = |variables: &[(&str, &str)]| read(variables).exposures();
    assert!(told(&[]).iter().any(|told| told.starts_with("ANYBODY who reaches 0.0.0.0:8080")));
    assert!(told(&[("ochopod_local", "true")]).is_empty(), "loopback");
    assert!(told(&[("ochopod_token_file", &path)]).is_empty());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let credentials = file(scratch.path(), "credentials", "me:hunter2");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).unwrap();
    for (variables, path) in [
        (vec![("ochopod_token_file", &*path)], &path),
        (vec![("ochopod_token", TOKEN), ("ochopod_zk_credentials", &*credentials)], &credentials),
    ] {
        let told = told(&variables);
        assert!(told.len() == 1 && told[0].contains(path) && told[0].contains("chmod o-r"), "{told:?}");
    }
}
