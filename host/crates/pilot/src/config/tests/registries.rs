//! Settings of registries, and sources of the configuration.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
};

use ochopod_discovery::{ConsulAddress, EtcdAddress, EtcdVersion, Fingerprint, RegistryConfig, Scheme, TlsFiles};

use super::*;

fn consul(text: &str, variables: &[(&str, &str)]) -> ConsulAddress {
    match read_with(&format!("{{consul: {text}}}"), variables) {
        Ok(Config { registry: RegistryConfig::Consul(consul), .. }) => consul,
        other => panic!("{text}: {other:?}"),
    }
}

fn errors(text: &str, variables: &[(&str, &str)]) -> String {
    read_with(text, variables).expect_err(text).to_string()
}

#[test]
fn exactly_one_registry_is_defined() {
    let none = "1:1: No discovery backend defined, expected one of consul, etcd and zookeeper";
    assert_eq!(errors("{}", &[]), none);
    assert_eq!(errors("{consul: null}", &[]), none);
    assert_eq!(
        errors("{consul: 'a:1', etcd: {endpoints: 'http://e:1'}, zookeeper: 'h'}", &[]),
        "1:1: More than one discovery backend defined, expected one: found consul at 1:10, etcd at 1:23, zookeeper at 1:61"
    );
    let own = RegistryConfig::ZooKeeper("own:2181".parse().unwrap());
    let env = Env::default();
    let context = ReadContext {
        env: &env,
        resolve: &resolve,
        plugin: true,
        default_registry: Some(own.clone()),
        check: &|_| Vec::new(),
        template: &|_| Ok(()),
    };
    assert_eq!(Config::read("{}", &context).unwrap().registry, own);
    assert!(matches!(Config::read("{consul: 'a:1'}", &context).unwrap().registry, RegistryConfig::Consul(_)));
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
            ..TlsFiles::default()
        },
    };
    assert_eq!(all, expected);
}

#[test]
fn consuls_variables_provide_missing_settings_and_the_token() {
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
    assert_eq!(wrong, "1:10: consul: CONSUL_HTTP_SSL: invalid value \"yes\", expected true or false");
}

#[test]
fn token_file_takes_precedence() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let variables = [("CONSUL_HTTP_TOKEN", "other"), ("CONSUL_HTTP_TOKEN_FILE", path.to_str().unwrap())];
    let missing = errors("{consul: 'a:1'}", &variables);
    assert!(missing.starts_with("1:10: consul: CONSUL_HTTP_TOKEN_FILE: no such file"), "{missing}");
    fs::write(&path, "hunter2\n").unwrap();
    let found = consul("{token: 'mine'}", &variables);
    assert_eq!(found.token.as_deref(), Some("hunter2"));
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn errors_of_a_registry_do_not_repeat_secrets() {
    let cases = [
        ("{consul: 5.5, x: [}", "expected a value, found '}'"),
        ("{consul: []}", "1:10: consul: invalid value, expected an address like \"consul:8500\" or an object"),
        ("{consul: {token: ['hunter2']}}", "1:18: consul.token: invalid value (hidden), expected a string"),
        ("{consul: {scheme: 'ftp'}}", "1:19: consul.scheme: invalid value 'ftp', expected a scheme: http, https"),
        (
            "{consul: {address: 'http://a:1', scheme: 'https'}}",
            "1:42: consul.scheme: differs from the scheme of address \"http://a:1\"",
        ),
        ("{consul: {tls: {clientcert: 'x'}}}", "1:16: consul.tls.clientkey: missing, expected the key of clientcert"),
        (
            "{consul: {tls: {verify: 'maybe'}}}",
            "1:25: consul.tls.verify: invalid value 'maybe', expected true or false",
        ),
        ("{etcd: {}}", "1:8: etcd.endpoints: missing, expected a URL like \"http://etcd:2379\", or a list of URLs"),
        ("{etcd: {endpoints: []}}", "1:20: etcd.endpoints: invalid value [], expected a URL"),
        (
            "{etcd: {endpoints: ['http://a:1', 'etcd:4001', 5]}}",
            "1:35: etcd.endpoints[1]: invalid value 'etcd:4001', expected a URL",
        ),
        (
            "{etcd: {endpoints: 'http://me:hunter2@a:1'}}",
            "1:20: etcd.endpoints: credentials in the URL, expected a URL",
        ),
        (
            "{etcd: {endpoints: 'http://a:1', version: 4}}",
            "1:43: etcd.version: invalid value 4, expected a version: 2, 3",
        ),
        (
            "{zookeeper: 'zk://me:hunter2@h:x'}",
            "1:13: zookeeper: invalid address (invalid port \"x\" of \"h\": expected a number",
        ),
        ("{zookeeper: ['zk://me:hunter2@h']}", "1:13: zookeeper: invalid address, expected a text like \"zk://h1:2181"),
    ];
    for (text, expected) in cases {
        let error = errors(text, &[]);
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let warnings = read("{consul: {address: 'a:1', tls: {verify: false}}}").unwrap().warnings;
    assert_eq!(warnings, ["1:32: consul.tls: ignored with scheme http, expected https"]);
}

/// Returns the errors of a configuration whose registry is checked with its files.
fn registry_errors(text: &str, variables: &[(&str, &str)]) -> String {
    let env = variables.iter().copied().collect();
    let check = RegistryConfig::errors;
    let context = ReadContext {
        env: &env,
        resolve: &resolve,
        plugin: false,
        default_registry: None,
        check: &check,
        template: &|_| Ok(()),
    };
    Config::read(text, &context).expect_err(text).to_string()
}

#[test]
fn unusable_settings_of_a_registry_are_reported_at_their_positions() {
    let expected = "expected HOST:PORT or unix://PATH";
    for (text, expected_start) in [
        ("{consul: ':8500'}", format!("1:10: consul: invalid value \":8500\", {expected}")),
        ("{consul: 'consul:99999'}", format!("1:10: consul: invalid value \"consul:99999\", {expected}")),
        ("{consul: 'ftp://consul:1'}", format!("1:10: consul: invalid value \"ftp://consul:1\", {expected}")),
        ("{consul: 'unix://run/x'}", format!("1:10: consul: invalid value \"unix://run/x\", {expected}")),
        ("{consul: 'me:hunter2@consul:1'}", format!("1:10: consul: invalid value \"(with an @)\", {expected}")),
        ("{\n consul: {\n  address: ':8500'}}", format!("3:12: consul.address: invalid value \":8500\", {expected}")),
        ("{consul: {token: 'hunter2\\n'}}", "1:18: consul.token: invalid value (hidden), expected printable ASCII".to_owned()),
        (
            "{consul: {scheme: 'https', tls: {servername: 'a b', verify: false}}}",
            "1:46: consul.tls.servername: invalid value \"a b\", expected the name of a server".to_owned(),
        ),
        (
            "{consul: {address: 'a:1', scheme: 'https', tls: {\n cafile: '/no/ca',\n clientcert: '/no/cert',\n clientkey: '/no/key'}}}",
            "2:10: consul.tls.cafile: invalid value \"/no/ca\" (No such file or directory (os error 2)), expected a file with PEM \
             certificates\n3:14: consul.tls.clientcert: invalid value \"/no/cert\" (No such file or directory (os error 2)), expected a \
             file with PEM certificates\n4:13: consul.tls.clientkey: invalid value \"/no/key\" (No such file or directory (os error 2)), \
             expected a file with a PEM private key, not encrypted"
                .to_owned(),
        ),
        (
            "{consul: {address: ':1', scheme: 'https', tls: {cafile: '/no/ca'}}, services: 5}",
            format!(
                "1:20: consul.address: invalid value \":1\", {expected}\n1:57: consul.tls.cafile: invalid value \"/no/ca\" (No such file or \
                 directory (os error 2)), expected a file with PEM certificates\n1:79: services: invalid value 5, expected a list of \
                 objects"
            ),
        ),
        ("{etcd: {endpoints: 'http://:2379'}}", "1:20: etcd.endpoints: invalid value 'http://:2379', expected a URL like".to_owned()),
        ("{etcd: {endpoints: 'http://e:1/path'}}", "1:20: etcd.endpoints: invalid value 'http://e:1/path', expected".to_owned()),
        ("{etcd: {endpoints: 'http://e:99999'}}", "1:20: etcd.endpoints: invalid value 'http://e:99999', expected".to_owned()),
        (
            "{etcd: {endpoints: 'https://e:1', tls: {cafile: '/no/ca'}}}",
            "1:49: etcd.tls.cafile: invalid value \"/no/ca\" (No such file or directory (os error 2)), expected".to_owned(),
        ),
        (
            "{etcd: {endpoints: 'http://e:1', credentials: '/no/user'}}",
            "1:47: etcd.credentials: invalid value \"/no/user\" (No such file or directory (os error 2)), expected a file with one line, \
             user:password"
                .to_owned(),
        ),
    ] {
        let error = registry_errors(text, &[]);
        assert!(error.starts_with(&expected_start), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn errors_of_consuls_variables_name_them() {
    for (text, variables, start) in [
        (
            "{consul: ''}",
            &[("CONSUL_HTTP_ADDR", ":8500")][..],
            "1:10: consul: CONSUL_HTTP_ADDR: invalid value \":8500\", ",
        ),
        ("{consul: {}}", &[("CONSUL_HTTP_ADDR", ":8500")], "1:10: consul: CONSUL_HTTP_ADDR: invalid value \":8500\", "),
        (
            "{consul: 'a:1'}",
            &[("CONSUL_HTTP_TOKEN", "hunter2\n")],
            "1:10: consul: CONSUL_HTTP_TOKEN: invalid value (hidden)",
        ),
        (
            "{consul: 'https://a:1'}",
            &[("CONSUL_CACERT", "/no/ca")],
            "1:10: consul: CONSUL_CACERT: invalid value \"/no/ca\" (",
        ),
        (
            "{consul: {scheme: 'https', tls: {verify: true}}}",
            &[("CONSUL_CACERT", "/no/ca")],
            "1:33: consul.tls: CONSUL_CACERT: invalid value \"/no/ca\" (",
        ),
    ] {
        let error = registry_errors(text, variables);
        assert!(error.starts_with(start) && !error.contains("hunter2"), "{text}: {error}");
    }
    // Unused settings are not checked.
    let env = [("CONSUL_CACERT", "/no/ca")].into_iter().collect();
    let check = RegistryConfig::errors;
    let context = ReadContext {
        env: &env,
        resolve: &resolve,
        plugin: false,
        default_registry: None,
        check: &check,
        template: &|_| Ok(()),
    };
    assert!(Config::read("{consul: 'a:1'}", &context).is_ok());
}

#[test]
fn names_that_differ_only_in_case_are_rejected_for_consul() {
    let service = |name: &str| format!("{{name: '{name}', port: 1, poll: 1, ttl: 2}}");
    let backend = |name: &str, tag: &str| format!("{{name: '{name}', poll: 1, onChange: 'x', tag: '{tag}'}}");
    let parts = [
        (
            format!("services: [{}, {}]", service("web"), service("Web")),
            "services[1].name: \"Web\" differs from services[0].name at 1:43 only in case, which Consul ignores; \
             expected another name",
        ),
        (
            format!("telemetry: {{}}, services: [{}]", service("ContainerPilot")),
            "services[0].name: \"ContainerPilot\" differs from telemetry at 1:36 only in case",
        ),
        (
            format!("backends: [{}, {}]", backend("db", "blue"), backend("DB", "Blue")),
            "backends[1].name: \"DB\" with the same tag differs from backends[0].name at 1:43 only in case",
        ),
    ];
    for (rest, expected) in parts {
        let error = errors(&format!("{{consul: 'consul:8500', {rest}}}"), &[]);
        assert!(error.contains(expected), "{rest}: {error}");
        for registry in ["etcd: {endpoints: 'http://e:1'}", "zookeeper: 'h'"] {
            read(&format!("{{{registry}, {rest}}}")).unwrap_or_else(|error| panic!("{rest}: {error}"));
        }
    }
}

#[test]
fn etcd_and_zookeeper_have_their_own_keys() {
    let registry = |text: &str| read(text).unwrap_or_else(|error| panic!("{text}: {error}")).registry;
    let etcd = |endpoints: &[&str], prefix: &str, version| {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        RegistryConfig::Etcd(EtcdAddress {
            endpoints,
            prefix: prefix.to_owned(),
            version,
            tls: TlsFiles::default(),
            credentials: None,
            credentials_fingerprint: Fingerprint::default(),
        })
    };
    let one = etcd(&["http://etcd:4001"], "/containerpilot", EtcdVersion::V3);
    assert_eq!(registry("{etcd: {endpoints: 'http://etcd:4001/'}}"), one);
    assert_eq!(registry("{etcd: {endpoints: ['http://etcd:4001'], prefix: '', version: 3}}"), one);
    let RegistryConfig::Etcd(user) = registry("{etcd: {endpoints: 'http://etcd:4001', credentials: '/etc/user'}}")
    else {
        panic!()
    };
    assert_eq!(user.credentials, Some("/etc/user".into()));
    let two = etcd(&["https://[::1]:1", "http://b"], "/own", EtcdVersion::V2);
    assert_eq!(registry("{etcd: {endpoints: ['https://[::1]:1', 'http://b'], prefix: '/own/', version: '2'}}"), two);
    let RegistryConfig::ZooKeeper(zookeeper) = registry("{zookeeper: 'zk://me:hunter2@h1:1,h2/a'}") else { panic!() };
    assert_eq!(
        (zookeeper.to_string(), zookeeper.credentials()),
        ("zk://h1:1,h2:2181/a".to_owned(), Some("me:hunter2"))
    );
    for (strict, expected) in [("", true), (", strict: true", true), (", strict: false", false)] {
        let text = format!("{{zookeeper: {{address: 'zk://me:hunter2@h1:1,h2/a'{strict}}}}}");
        let RegistryConfig::ZooKeeper(zookeeper) = registry(&text) else { panic!() };
        assert_eq!((zookeeper.to_string(), zookeeper.is_strict()), ("zk://h1:1,h2:2181/a".to_owned(), expected));
    }
    let error = errors("{zookeeper: {address: 'zk://me:hunter2@h:x', strict: 5}}", &[]);
    assert!(
        error.contains("1:23: zookeeper.address: invalid address") && error.contains("zookeeper.strict"),
        "{error}"
    );
}

#[test]
fn source_is_a_file_or_the_text_itself() {
    let env: Env = [("CONTAINERPILOT", "file:///from/env")].into_iter().collect();
    let file = |path: &str| ConfigSource::File(path.into());
    let text = |text: &str| ConfigSource::Text(text.to_owned());
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
        assert_eq!(ConfigSource::find(flag, &env).unwrap(), expected, "{flag:?}");
    }
    for (flag, env) in [(None, &Env::default()), (Some(""), &env), (Some(" \n"), &env)] {
        let error = ConfigSource::find(flag, env).unwrap_err().to_string();
        assert!(error.starts_with("-config flag is required, or $CONTAINERPILOT"), "{error}");
    }
    let env: Env = [(OsString::from("CONTAINERPILOT"), OsStr::from_bytes(b"{}\xff"))].into_iter().collect();
    let error = ConfigSource::find(None, &env).unwrap_err().to_string();
    assert_eq!(error, "$CONTAINERPILOT: invalid UTF-8 at byte 2");
}

#[test]
fn file_is_read_again_each_time_and_rejected_if_it_cannot_be_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pilot.json5");
    let source = ConfigSource::File(path.clone());
    let error = |source: &ConfigSource| source.read().unwrap_err().to_string();
    assert_eq!(error(&source), format!("no such file: {}", path.display()));
    for content in ["{}", "{consul: 'a:1'}"] {
        fs::write(&path, content).unwrap();
        assert_eq!(source.read().unwrap(), content);
    }
    fs::write(&path, b"{}\n\xfe").unwrap();
    assert_eq!(error(&source), format!("{}: invalid UTF-8 at byte 3", path.display()));
    fs::write(&path, " ".repeat(1 << 20)).unwrap();
    assert_eq!(source.read().unwrap().len(), 1 << 20);
    fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert_eq!(error(&source), format!("{}: file too large, limit is 1048576 bytes", path.display()));
    let error = error(&ConfigSource::File(directory.path().to_owned()));
    assert!(error.starts_with(&format!("cannot read {}: ", directory.path().display())), "{error}");
}
