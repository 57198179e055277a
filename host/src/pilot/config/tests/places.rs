//! Where services are registered, and where the configuration itself is.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
};

use super::*;
use crate::discovery::{ConsulAddress, EtcdAddress, EtcdVersion, Place, Scheme, TlsFiles};

fn consul(text: &str, variables: &[(&str, &str)]) -> ConsulAddress {
    match read_with(&format!("{{consul: {text}}}"), variables) {
        Ok(Config { place: Place::Consul(consul), .. }) => consul,
        other => panic!("{text}: {other:?}"),
    }
}

fn errors(text: &str, variables: &[(&str, &str)]) -> String {
    read_with(text, variables).expect_err(text).to_string()
}

#[test]
fn exactly_one_place_is_named() {
    let none = "1:1: No discovery backend defined, expected one of consul, etcd and zookeeper";
    assert_eq!(errors("{}", &[]), none);
    assert_eq!(errors("{consul: null}", &[]), none);
    assert_eq!(
        errors("{consul: 'a:1', etcd: {endpoints: 'http://e:1'}, zookeeper: 'h'}", &[]),
        "1:1: More than one discovery backend defined, expected one: there are consul at 1:10 and etcd at 1:23 and zookeeper at 1:61"
    );
    let own = Place::ZooKeeper("own:2181".parse().unwrap());
    let env = Env::default();
    let reading = Reading { env: &env, resolve: &resolve, plugin: true, default_place: Some(own.clone()) };
    assert_eq!(Config::read("{}", &reading).unwrap().place, own);
    assert!(matches!(Config::read("{consul: 'a:1'}", &reading).unwrap().place, Place::Consul(_)));
}

#[test]
fn consul_is_an_address_or_an_object() {
    let plain = consul("'consul:8500'", &[]);
    let expected = ConsulAddress {
        address: "consul:8500".to_owned(),
        scheme: Scheme::Http,
        token: None,
        tls: TlsFiles::default(),
    };
    assert_eq!(plain, expected);
    assert_eq!(consul("{address: 'consul:8500'}", &[]), expected);
    assert_eq!(consul("'https://consul:8501'", &[]).scheme, Scheme::Https);
    assert_eq!(consul("'unix:///run/consul.sock'", &[]).address, "unix:///run/consul.sock");
    let tls = "{cafile: '/ca', clientcert: '/cert', clientkey: '/key', servername: 'name', verify: false}";
    let all = consul(&format!("{{address: 'consul:8501', scheme: 'https', token: 'secret', tls: {tls}}}"), &[]);
    let expected = ConsulAddress {
        address: "consul:8501".to_owned(),
        scheme: Scheme::Https,
        token: Some("secret".to_owned()),
        tls: TlsFiles {
            ca: Some("/ca".into()),
            certificate: Some("/cert".into()),
            key: Some("/key".into()),
            server_name: Some("name".to_owned()),
            verify: false,
        },
    };
    assert_eq!(all, expected);
}

#[test]
fn consuls_variables_say_what_the_configuration_leaves_out_and_which_token_counts() {
    let nowhere = consul("''", &[]);
    assert_eq!((&*nowhere.address, nowhere.scheme), ("127.0.0.1:8500", Scheme::Http));
    let around = [
        ("CONSUL_HTTP_ADDR", "https://around:8501"),
        ("CONSUL_HTTP_TOKEN", "hunter2"),
        ("CONSUL_CACERT", "/ca"),
        ("CONSUL_CLIENT_CERT", "/cert"),
        ("CONSUL_CLIENT_KEY", "/key"),
        ("CONSUL_TLS_SERVER_NAME", "name"),
        ("CONSUL_HTTP_SSL_VERIFY", "false"),
    ];
    let empty = consul("{}", &around);
    assert_eq!(
        (&*empty.address, empty.scheme, empty.token.as_deref()),
        ("around:8501", Scheme::Https, Some("hunter2"))
    );
    assert_eq!(
        (empty.tls.ca, empty.tls.server_name, empty.tls.verify),
        (Some("/ca".into()), Some("name".to_owned()), false)
    );
    let said = consul("{address: 'http://a:1', token: 'mine', tls: {cafile: '/other', verify: true}}", &around);
    assert_eq!((&*said.address, said.scheme, said.token.as_deref()), ("a:1", Scheme::Http, Some("hunter2")));
    assert_eq!((said.tls.ca, said.tls.key, said.tls.verify), (Some("/other".into()), Some("/key".into()), true));

    let secure = [("CONSUL_HTTP_SSL", "true")];
    assert_eq!(consul("'a:1'", &secure).scheme, Scheme::Https);
    assert_eq!(consul("'http://a:1'", &secure).scheme, Scheme::Http);
    let wrong = errors("{consul: 'a:1'}", &[("CONSUL_HTTP_SSL", "yes")]);
    assert_eq!(wrong, "1:10: consul needs CONSUL_HTTP_SSL, which is \"yes\", expected true or false");
}

#[test]
fn a_token_may_be_in_a_file_which_wins() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let variables = [("CONSUL_HTTP_TOKEN", "other"), ("CONSUL_HTTP_TOKEN_FILE", path.to_str().unwrap())];
    let missing = errors("{consul: 'a:1'}", &variables);
    assert!(
        missing.starts_with("1:10: consul needs the file that CONSUL_HTTP_TOKEN_FILE names: no such file"),
        "{missing}"
    );
    fs::write(&path, "hunter2\n").unwrap();
    let found = consul("{token: 'mine'}", &variables);
    assert_eq!(found.token.as_deref(), Some("hunter2"));
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_place_is_told_without_its_secrets() {
    let cases = [
        ("{consul: 5.5, x: [}", "expected a value, found '}'"),
        ("{consul: []}", "1:10: consul is neither a text like \"consul:8500\" nor an object, expected one of them"),
        ("{consul: {token: ['hunter2']}}", "1:18: consul.token is (hidden), expected a text"),
        ("{consul: {scheme: 'ftp'}}", "1:19: consul.scheme is 'ftp', expected a scheme: http, https"),
        (
            "{consul: {address: 'http://a:1', scheme: 'https'}}",
            "1:42: consul.scheme is not that of the address \"http://a:1\"",
        ),
        ("{consul: {tls: {clientcert: 'x'}}}", "1:16: consul.tls.clientkey is missing, expected the key of clientcert"),
        ("{consul: {tls: {verify: 'maybe'}}}", "1:25: consul.tls.verify is 'maybe', expected true or false"),
        ("{etcd: {}}", "1:8: etcd.endpoints is missing, expected a URL like \"http://etcd:2379\", or a list of such"),
        ("{etcd: {endpoints: []}}", "1:20: etcd.endpoints is [], expected a URL"),
        (
            "{etcd: {endpoints: ['http://a:1', 'etcd:4001', 5]}}",
            "1:35: etcd.endpoints[1] is 'etcd:4001', expected a URL",
        ),
        ("{etcd: {endpoints: 'http://me:hunter2@a:1'}}", "1:20: etcd.endpoints has credentials in it, expected a URL"),
        ("{etcd: {endpoints: 'http://a:1', version: 4}}", "1:43: etcd.version is 4, expected a version: 2, 3"),
        (
            "{zookeeper: 'zk://me:hunter2@h:x'}",
            "1:13: zookeeper is no address (the port of \"h\" is \"x\", expected a number",
        ),
        ("{zookeeper: ['zk://me:hunter2@h']}", "1:13: zookeeper is no address, expected a text like \"zk://h1:2181"),
    ];
    for (text, expected) in cases {
        let error = errors(text, &[]);
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let remarks = read("{consul: {address: 'a:1', tls: {verify: false}}}").unwrap().remarks;
    assert_eq!(remarks, ["1:32: consul.tls is not used with the scheme http, expected https"]);
}

#[test]
fn etcd_and_zookeeper_have_their_own_keys() {
    let place = |text: &str| read(text).unwrap_or_else(|error| panic!("{text}: {error}")).place;
    let etcd = |endpoints: &[&str], prefix: &str, version| {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        Place::Etcd(EtcdAddress { endpoints, prefix: prefix.to_owned(), version, tls: TlsFiles::default() })
    };
    let one = etcd(&["http://etcd:4001"], "/containerpilot", EtcdVersion::V3);
    assert_eq!(place("{etcd: {endpoints: 'http://etcd:4001/'}}"), one);
    assert_eq!(place("{etcd: {endpoints: ['http://etcd:4001'], prefix: '', version: 3}}"), one);
    let two = etcd(&["https://[::1]:1", "http://b"], "/own", EtcdVersion::V2);
    assert_eq!(place("{etcd: {endpoints: ['https://[::1]:1', 'http://b'], prefix: '/own/', version: '2'}}"), two);
    let Place::ZooKeeper(zookeeper) = place("{zookeeper: 'zk://me:hunter2@h1:1,h2/a'}") else { panic!() };
    assert_eq!(
        (zookeeper.to_string(), zookeeper.credentials()),
        ("zk://h1:1,h2:2181/a".to_owned(), Some("me:hunter2"))
    );
}

#[test]
fn a_configuration_is_a_file_or_the_text_itself() {
    let env: Env = [("CONTAINERPILOT", "file:///from/env")].into_iter().collect();
    let file = |path: &str| Source::File(path.into());
    let text = |text: &str| Source::Text(text.to_owned());
    let cases = [
        (None, file("/from/env")),
        (Some("file:///etc/a b.json5"), file("/etc/a b.json5")),
        (Some("file://relative"), file("relative")),
        (Some("/etc/pilot.json5"), file("/etc/pilot.json5")),
        (Some("//etc/pilot.json5"), file("//etc/pilot.json5")),
        (Some("pilot.json5"), file("pilot.json5")),
        (Some(" {consul: 'a:1'}"), text(" {consul: 'a:1'}")),
        (Some("{{ if .A }}{}{{ end }}"), text("{{ if .A }}{}{{ end }}")),
        (Some("// what it is\n{}"), text("// what it is\n{}")),
        (Some("/* what it is */ {}"), text("/* what it is */ {}")),
        (Some("<>"), text("<>")),
    ];
    for (flag, expected) in cases {
        assert_eq!(Source::find(flag, &env).unwrap(), expected, "{flag:?}");
    }
    for (flag, env) in [(None, &Env::default()), (Some(""), &env), (Some(" \n"), &env)] {
        let error = Source::find(flag, env).unwrap_err().to_string();
        assert!(error.starts_with("-config flag is required, or $CONTAINERPILOT"), "{error}");
    }
    let env: Env = [(OsString::from("CONTAINERPILOT"), OsStr::from_bytes(b"{}\xff"))].into_iter().collect();
    let error = Source::find(None, &env).unwrap_err().to_string();
    assert_eq!(error, "$CONTAINERPILOT is not UTF-8 from byte 2 on");
}

#[test]
fn a_file_is_read_anew_each_time_and_refused_when_it_cannot_be_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pilot.json5");
    let source = Source::File(path.clone());
    let refused = |source: &Source| source.read().unwrap_err().to_string();
    assert_eq!(refused(&source), format!("no such file: {}", path.display()));
    for content in ["{}", "{consul: 'a:1'}"] {
        fs::write(&path, content).unwrap();
        assert_eq!(source.read().unwrap(), content);
    }
    fs::write(&path, b"{}\n\xfe").unwrap();
    assert_eq!(refused(&source), format!("{} is not UTF-8 from byte 3 on", path.display()));
    fs::write(&path, " ".repeat(1 << 20)).unwrap();
    assert_eq!(source.read().unwrap().len(), 1 << 20);
    fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert_eq!(refused(&source), format!("{} has more than 1048576 bytes", path.display()));
    let error = refused(&Source::File(directory.path().to_owned()));
    assert!(error.starts_with(&format!("cannot read {}: ", directory.path().display())), "{error}");
}
