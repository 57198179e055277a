mod access;

use ochopod_model::ADDRESS_REQUIREMENT;
use ochopod_platform::Value as PlatformValue;
use serde_json::json;

use super::*;

struct Case {
    env: Env,
    flags: Flags,
    grants: GrantFlags,
    system: SystemInfo,
    found: LookUpResults,
}

impl Case {
    /// Returns an input with these variables, and with a store unless they set one.
    fn new(variables: &[(&str, &str)]) -> Self {
        let stored = variables.iter().any(|(name, _)| ["ochopod_zk", "ochopod_local"].contains(name));
        let store = (!stored).then_some(("ochopod_zk", "h:2181"));
        Self::bare(&store.into_iter().chain(variables.iter().copied()).collect::<Vec<_>>())
    }

    fn bare(variables: &[(&str, &str)]) -> Self {
        let system = SystemInfo {
            hostname: "box".into(),
            address: IpAddr::from([10, 0, 0, 9]),
            host: None,
            interfaces: [("eth0".to_owned(), IpAddr::from([10, 0, 0, 7]))].into_iter().collect(),
            container: false,
            init: false,
            user: 0,
            group: 0,
            memory: None,
        };
        let env = variables.iter().copied().collect();
        Self { env, flags: Flags::default(), grants: GrantFlags::default(), system, found: LookUpResults::default() }
    }

    fn input(&self) -> SettingsInput<'_> {
        let Self { env, flags, grants, system, found } = self;
        SettingsInput { env, flags, grants, system, found, instance_metadata: None }
    }

    fn settings(&self) -> Settings {
        Settings::read(self.input()).unwrap().0
    }

    fn errors(&self) -> Vec<String> {
        Settings::read(self.input()).unwrap_err().iter().map(ToString::to_string).collect()
    }
}

fn read(variables: &[(&str, &str)]) -> Settings {
    Case::new(variables).settings()
}

/// Returns the address of the store with its credentials.
fn store(variables: &[(&str, &str)]) -> String {
    let (_, zk) = Settings::read(Case::bare(variables).input()).unwrap();
    format!("{zk} {}", zk.credentials().unwrap_or("-"))
}

#[test]
fn store_is_the_only_required_setting() {
    let expected =
        "ochopod_zk (--zk): not set, expected zk://h1:p,h2:p[/chroot], or --local for the ZooKeeper of this machine";
    assert_eq!(Case::bare(&[]).errors(), [expected]);
    let settings = read(&[]);
    assert_eq!(settings.cluster.to_string(), "marathon.default");
    assert_eq!((settings.mapped_port, settings.listen), (8080, "0.0.0.0:8080".parse().unwrap()));
    assert_eq!(settings.session, Duration::from_secs(5));
    assert!(settings.start && !settings.exit_when_dead);
    assert_eq!((settings.log_level, settings.log_format), (LevelFilter::INFO, PodLogFormat::Text));
    assert_eq!((settings.log, settings.cache), (None, PathBuf::from("/var/cache/ochopod")));
    let expected = json!({
        "_capabilities": ["view-difference", "gzip"], "application": "", "binding": "generic", "cluster": "default", "debug": "false", "ip": "10.0.0.9",
        "local": "false", "namespace": "marathon", "node": "box", "port": "8080", "ports": {}, "public": "",
        "start": "true", "status": "", "task": "", "zk": "h:2181",
    });
    assert_eq!(Value::Object(settings.registration), expected);
}

#[test]
fn every_variable_sets_its_setting() {
    let variables = [
        ("ochopod_cluster", "web"),
        ("ochopod_namespace", "my-app.staging"),
        ("ochopod_port", "9000"),
        ("ochopod_zk", "zk://user:password@h1:2181,h2:2181/chroot"),
        ("ochopod_session", "2.5"),
        ("ochopod_ip", "10.1.1.1"),
        ("ochopod_public", "54.1.1.1"),
        ("ochopod_node", "i-1234"),
        ("ochopod_listen", "[::]:9999"),
        ("ochopod_start", "false"),
        ("ochopod_debug", "true"),
        ("ochopod_log_format", "json"),
        ("ochopod_log", "/tmp/pod.log"),
        ("ochopod_application", "app"),
        ("ochopod_task", "task"),
        ("ochopod_exit_when_dead", "true"),
        ("ochopod_stop_timeout", "9"),
        ("ochopod_leave_delay", "2.5"),
        ("ochopod_cache", "/tmp/cache"),
        ("ochopod_set_damper", "5"),
        ("PORT_9000", "31000"),
        ("PORT_80", "31001"),
        ("ochopod_rack", "r7"),
    ];
    let settings = read(&variables);
    assert_eq!(settings.cluster.to_string(), "my-app.staging.web");
    assert_eq!(settings.mapped_port, 31000);
    assert_eq!(store(&variables), "zk://h1:2181,h2:2181/chroot user:password");
    assert_eq!((settings.session, settings.listen), (Duration::from_millis(2500), "[::]:9999".parse().unwrap()));
    assert!(!settings.start && settings.exit_when_dead);
    assert_eq!(settings.stop_timeout(Duration::from_mins(1)), Duration::from_secs(9));
    assert_eq!(settings.leave_delay, Duration::from_millis(2500));
    assert_eq!((settings.log_level, settings.log_format), (LevelFilter::DEBUG, PodLogFormat::Json));
    assert_eq!(settings.log, Some(LogFile { path: "/tmp/pod.log".into(), explicit: true }));
    assert_eq!(settings.cache, PathBuf::from("/tmp/cache"));
    assert_eq!(settings.overrides, [SettingOverride::Damper(Duration::from_secs(5))]);
    let expected = json!({
        "_capabilities": ["view-difference", "gzip"], "application": "app", "binding": "generic", "cluster": "web", "debug": "true", "ip": "10.1.1.1",
        "local": "false", "namespace": "my-app.staging", "node": "i-1234", "port": "9000",
        "ports": {"80": 31001, "9000": 31000}, "public": "54.1.1.1", "rack": "r7", "start": "false", "status": "",
        "task": "task", "zk": "h1:2181,h2:2181/chroot",
    });
    assert_eq!(Value::Object(settings.registration), expected);
}

#[test]
fn flag_takes_precedence_over_its_variable_and_empty_variables_are_ignored() {
    let mut case = Case::new(&[
        ("ochopod_cluster", "web"),
        ("ochopod_port", ""),
        ("ochopod_local", "true"),
        ("ochopod_zk", ""),
        ("ochopod_set_full_shutdown", "true"),
        ("ochopod_set_check-every", "7"),
        ("ochopod_set_checks", "2"),
        ("ochopod_set_damper", ""),
    ]);
    case.flags = case.flags.with("cluster", "db");
    case.flags = ["full-shutdown=false", "check_every=3", "cwd="]
        .into_iter()
        .fold(case.flags, |flags, text| flags.with("set", text));
    let settings = case.settings();
    let (port, zk) = (&settings.registration["port"], &settings.registration["zk"]);
    assert_eq!((settings.cluster.cluster(), port, zk), ("db", &json!("8080"), &json!("127.0.0.1:2181")));
    let expected = [
        SettingOverride::CheckEvery(Duration::from_secs(3)),
        SettingOverride::Checks(2),
        SettingOverride::Cwd(None),
        SettingOverride::FullShutdown(false),
    ];
    assert_eq!(settings.overrides, expected);
}

#[test]
fn local_mode_uses_loopback_addresses() {
    let settings = read(&[("ochopod_local", "true"), ("PORT_8080", "9001"), ("ochopod_cluster", "web")]);
    assert_eq!(settings.listen, "127.0.0.1:9001".parse().unwrap());
    let text = |key: &str| settings.registration[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        ["ip", "public", "node", "binding", "zk"].map(text),
        ["127.0.0.1", "127.0.0.1", "local", "local", "127.0.0.1:2181"]
    );
    assert_eq!(
        read(&[("ochopod_local", "true"), ("ochopod_ip", "127.0.0.5")]).listen,
        "127.0.0.5:8080".parse().unwrap()
    );
    assert_eq!(store(&[("ochopod_local", "true")]), "zk://127.0.0.1:2181 -");
    assert_eq!(store(&[("ochopod_local", "true"), ("ochopod_zk", "h:1")]), "zk://h:1 -");
}

#[test]
fn unusable_address_is_rejected_from_settings_and_platform() {
    for bad in ["10.0.0.1:80", "fe80::1%eth0", "0.0.0.0", "224.0.0.1", "127.1", "a..b", "[h]", "http://h"] {
        for name in ["ochopod_ip", "ochopod_public"] {
            let errors = Case::new(&[(name, bad)]).errors();
            assert_eq!(errors, [format!("{name}: invalid value {bad:?}, expected {ADDRESS_REQUIREMENT}")]);
        }
    }
    let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("POD_IP", "10.2.0.1/24"), ("HOST_IP", "h:1")];
    let errors = Case::new(&kubernetes).errors();
    let found = |name: &str, value: &str| {
        format!("{name} (detected by the binding kubernetes): invalid value {value:?}, expected {ADDRESS_REQUIREMENT}")
    };
    assert_eq!(errors, [found("ochopod_ip", "10.2.0.1/24"), found("ochopod_public", "h:1")]);
    let given = [&kubernetes[..], &[("ochopod_ip", "[fd00::1]"), ("ochopod_public", "web.example")]].concat();
    let settings = read(&given);
    assert_eq!(
        (&settings.registration["ip"], &settings.registration["public"]),
        (&json!("fd00::1"), &json!("web.example"))
    );
    assert_eq!(settings.environment[&OsString::from("ochopod_ip")], "fd00::1");
}

#[test]
fn an_unreachable_registered_address_is_reported() {
    let unreachable = |variables: &[(&str, &str)]| {
        let mut case = Case::bare(variables);
        case.system.address = IpAddr::from([127, 0, 0, 1]);
        let (settings, zk) = Settings::read(case.input()).unwrap();
        settings.unreachable_ip(&zk).map(str::to_owned)
    };
    assert_eq!(unreachable(&[("ochopod_zk", "zk1:2181,zk2:2181")]).as_deref(), Some("127.0.0.1"));
    for zk in ["127.0.0.1:2181", "localhost", "[::1]:2181"] {
        assert_eq!(unreachable(&[("ochopod_zk", zk)]), None, "{zk} is on this machine");
    }
    assert_eq!(unreachable(&[("ochopod_zk", "zk1:2181"), ("ochopod_ip", "10.0.0.1")]), None);
    assert_eq!(unreachable(&[("ochopod_zk", "zk1:2181"), ("ochopod_local", "true")]), None);
}

#[test]
fn pods_of_up_have_separate_addresses_and_no_store_by_default() {
    let (shared, zk) = Settings::read_for_up(Case::bare(&[]).input()).unwrap();
    assert_eq!((&shared.registration["local"], zk), (&json!("true"), None));
    let (_, zk) = Settings::read_for_up(Case::bare(&[("ochopod_zk", "h:1")]).input()).unwrap();
    assert_eq!(zk.unwrap().to_string(), "zk://h:1");
    let pod = shared.with_address(IpAddr::from([127, 0, 0, 3]));
    assert_eq!(pod.listen, "127.0.0.3:8080".parse().unwrap());
    assert_eq!((&pod.registration["ip"], &pod.registration["public"]), (&json!("127.0.0.3"), &json!("127.0.0.3")));
    for variable in ["ochopod_ip", "ochopod_public"] {
        assert_eq!(pod.environment[&OsString::from(variable)], "127.0.0.3");
    }
    assert_eq!(pod.environment.len(), shared.environment.len());
}

#[test]
fn settings_that_pods_of_up_cannot_share_are_rejected() {
    let mut case = Case::bare(&[("ochopod_ip", "10.0.0.1"), ("ochopod_local", "false")]);
    case.flags = case.flags.with("public", "54.0.0.1");
    case.flags = case.flags.with("listen", "0.0.0.0:80");
    let errors = Settings::read_for_up(case.input()).unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let own = "expected no value with up, which assigns each pod an address";
    let expected = [
        format!("ochopod_ip: invalid value \"10.0.0.1\", {own}"),
        format!("--public: invalid value \"54.0.0.1\", {own}"),
        format!("--listen: invalid value \"0.0.0.0:80\", {own}"),
        "ochopod_local: invalid value \"false\", expected true or unset with up, which runs all pods on this machine"
            .to_owned(),
    ];
    assert_eq!(errors, expected);
    assert!(Settings::read_for_up(Case::bare(&[("ochopod_local", "true")]).input()).is_ok());
    let bad = Settings::read_for_up(Case::bare(&[("ochopod_local", "yes")]).input()).unwrap_err();
    assert_eq!(bad.len(), 1, "{bad:?}");
}

#[test]
fn invalid_store_is_reported_without_its_password() {
    for (zk, reason) in [
        ("zk://user:hunter2@h:x", r#"ochopod_zk: invalid value "h:x", expected zk://"#),
        ("http://h:1", "unknown scheme"),
        ("h:1,,", "server 2 has no host"),
    ] {
        let errors = Case::bare(&[("ochopod_zk", zk), ("ochopod_start", "1")]).errors();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors.iter().any(|error| error.contains(reason)), "{errors:?}");
        assert!(!errors.concat().contains("hunter2"), "{errors:?}");
    }
}

#[test]
fn marathon_app_id_names_the_cluster_and_only_numbered_ports_count() {
    let settings = read(&[
        ("MARATHON_APP_ID", "/shop/web"),
        ("MESOS_TASK_ID", "web.1"),
        ("HOST", "agent-7"),
        ("PORT_8080", "31000"),
        ("PORT_BASE", "31000"),
        ("PORT_HTTP", "x"),
        ("PORT_", "1"),
        ("PORT_080", "1"),
        ("PORT0", "31000"),
    ]);
    assert_eq!(settings.cluster.to_string(), "marathon.shop-web");
    let keys = ["application", "task", "node", "ip", "binding", "ports"].map(|key| settings.registration[key].clone());
    let expected = [json!("shop/web"), json!("web.1"), json!("agent-7"), json!("agent-7"), json!("marathon")];
    assert_eq!(keys[..5], expected);
    assert_eq!(keys[5], json!({"8080": 31000}));
}

#[test]
fn all_invalid_settings_are_reported_with_name_value_and_expectation() {
    let mut case = Case::new(&[
        ("ochopod_cluster", "a.b"),
        ("ochopod_namespace", "a..b"),
        ("ochopod_port", "http"),
        ("ochopod_session", "-1"),
        ("ochopod_local", "yes"),
        ("ochopod_ip", "a/b"),
        ("ochopod_public", "a b"),
        ("ochopod_listen", "localhost"),
        ("ochopod_start", "1"),
        ("ochopod_log_level", "loud"),
        ("ochopod_log_format", "xml"),
        ("ochopod_exit_when_dead", "maybe"),
        ("ochopod_stop_timeout", "0"),
        ("ochopod_leave_delay", "-1"),
        ("ochopod_seq", "7"),
        ("ochopod_ports", "{}"),
        ("ochopod__capabilities", "x"),
        ("ochopod__role", "leader"),
        ("ochopod_", "x"),
        ("ochopod_set_damper", "soon"),
        ("ochopod_set_db_password", "hunter2"),
        ("ochopod_set_depends_on", "db,a["),
        ("PORT_9000", "abc"),
        ("PORT_9001", "0"),
    ]);
    case.flags = case.flags.with("debug", "2");
    case.flags = ["damper", "=5", "probe-every=0", "dampener=5"]
        .into_iter()
        .fold(case.flags, |flags, text| flags.with("set", text));
    case.grants.dir = vec!["/srv".to_owned()];
    case.flags = case.flags.with("zk", "zk://user:hunter2@h:2181");
    let mut errors = case.errors();
    errors.sort();
    let names = "one of the settings batch, check_every, checks, cwd, damper, depends_on, full_shutdown, grace, \
        on_change, pipe_subprocess, probe_every, ready_within, sequential, soft, strict, tolerate";
    let mut expected = [
        r#"--debug: invalid value "2", expected true or false"#,
        r#"--dir: invalid value "/srv", expected HOST::GUEST or HOST::GUEST:ro"#,
        &format!(r#"--set dampener: invalid value "5", expected {names}"#),
        r#"--set: invalid value "=5", expected NAME=VALUE"#,
        r#"--set: invalid value "damper", expected NAME=VALUE"#,
        r#"--set probe-every: invalid value "0", expected seconds from 0.01 to 1000000000"#,
        r#"--zk: invalid value "h:2181", expected no credentials on the command line: use the variable ochopod_zk or --zk-credentials"#,
        r#"PORT_9000: invalid value "abc", expected a port from 1 to 65535"#,
        r#"PORT_9001: invalid value "0", expected a port from 1 to 65535"#,
        r#"ochopod_: invalid value "x", expected a name after ochopod_"#,
        r#"ochopod_cluster: invalid value "a.b", expected letters, digits, '_' and '-'"#,
        r#"ochopod_exit_when_dead: invalid value "maybe", expected true or false"#,
        &format!(r#"ochopod_ip: invalid value "a/b", expected {ADDRESS_REQUIREMENT}"#),
        r#"ochopod_listen: invalid value "localhost", expected ADDRESS:PORT with an IP address"#,
        r#"ochopod_local: invalid value "yes", expected true or false"#,
        r#"ochopod_log_format: invalid value "xml", expected text or json"#,
        r#"ochopod_log_level: invalid value "loud", expected error, warning, info, debug or trace"#,
        r#"ochopod_namespace: invalid value "a..b", expected dot separated tokens of letters, digits, '_' and '-'"#,
        r#"ochopod_port: invalid value "http", expected a port from 1 to 65535"#,
        r#"ochopod_ports: invalid value "{}", expected another name: this key is reserved by the host"#,
        &format!(r#"ochopod_public: invalid value "a b", expected {ADDRESS_REQUIREMENT}"#),
        r#"ochopod__capabilities: invalid value "x", expected another name: this key is reserved by the host"#,
        r#"ochopod__role: invalid value "leader", expected another name: this key is reserved by the host"#,
        r#"ochopod_seq: invalid value "7", expected another name: this key is reserved by the host"#,
        r#"ochopod_session: invalid value "-1", expected seconds, above 0 and at most 3600"#,
        r#"ochopod_set_damper: invalid value "soon", expected a number of seconds"#,
        &format!(r#"ochopod_set_db_password: invalid value "", expected {names}"#),
        r#"ochopod_set_depends_on: invalid value "db,a[", expected names and globs, separated by commas (invalid dependency "a[": expected a name or a glob: Pattern syntax error near position 10: invalid range pattern)"#,
        r#"ochopod_start: invalid value "1", expected true or false"#,
        r#"ochopod_stop_timeout: invalid value "0", expected seconds, above 0 and at most 86400"#,
        r#"ochopod_leave_delay: invalid value "-1", expected seconds, at most 86400"#,
    ];
    expected.sort_unstable();
    assert_eq!(errors, expected);
}

#[test]
fn dead_pods_exit_by_default_where_the_platform_restarts_them() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    for (variables, expected) in [
        (&[][..], false),
        (&[("MARATHON_APP_ID", "/web")], false),
        (&[kubernetes], true),
        (&[kubernetes, ("ochopod_exit_when_dead", "false")], false),
        (&[kubernetes, ("ochopod_local", "true")], false),
    ] {
        assert_eq!(read(variables).exit_when_dead, expected, "{variables:?}");
    }
}

#[test]
fn binding_overrides_detection_and_every_value_names_its_source() {
    let variables = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("POD_IP", "10.2.0.1"), ("ochopod_node", "rack-7")];
    let sources = |extra: &[(&str, &str)]| {
        let platform = read(&[&variables, extra].concat()).platform;
        let sources: Vec<String> = platform.sources.iter().map(|(name, source)| format!("{name}: {source}")).collect();
        (platform.binding, sources.join(", "))
    };
    let detected = "ip: POD_IP, node: ochopod_node, task: host name, zk: ochopod_zk";
    assert_eq!(sources(&[]), ("kubernetes".to_owned(), detected.to_owned()));
    assert_eq!(sources(&[("ochopod_binding", "auto")]).0, "kubernetes");
    let generic = "ip: address of this host, node: ochopod_node, zk: ochopod_zk";
    assert_eq!(sources(&[("ochopod_binding", "generic")]), ("generic".to_owned(), generic.to_owned()));
    let interface = "ip: interface eth9, 10.0.0.0/8, node: ochopod_node, zk: ochopod_zk";
    let given = [("ochopod_binding", "docker"), ("ochopod_interface", "eth9, 10.0.0.0/8")];
    assert_eq!(sources(&given), ("docker".to_owned(), interface.to_owned()));
    let settings = read(&[&variables[..], &given].concat());
    let text = |key: &str| settings.registered(key).to_owned();
    assert_eq!(["binding", "ip", "node"].map(text), ["docker", "10.0.0.7", "rack-7"]);
    let local = read(&[("ochopod_binding", "local")]);
    assert_eq!((local.registered("local"), local.registered("ip")), ("true", "127.0.0.1"));
    assert_eq!(local.platform.sources["ip"], "local mode");
}

#[test]
fn both_families_are_listened_at_where_ipv6_is_registered_or_reachable() {
    let listen = |case: &Case| case.settings().listen.to_string();
    let mut case = Case::new(&[]);
    assert_eq!(listen(&case), "0.0.0.0:8080");
    case.system.interfaces = [("eth0".to_owned(), "fd00::7".parse().unwrap())].into_iter().collect();
    assert_eq!(listen(&case), "[::]:8080");
    let registered = Case::new(&[("ochopod_ip", "[2001:db8::1]")]);
    assert_eq!(listen(&registered), "[::]:8080");
    assert_eq!(registered.settings().registered("ip"), "2001:db8::1");
    case.system.address = "fd00::7".parse().unwrap();
    assert_eq!(case.settings().registered("ip"), "fd00::7");
    assert_eq!(listen(&Case::new(&[("ochopod_local", "true"), ("ochopod_ip", "::1")])), "[::1]:8080");
}

#[test]
fn invalid_binding_prefix_and_interface_are_rejected() {
    let all = "local, marathon, marathon-ec2, kubernetes, nomad, ecs, docker, generic";
    for (variables, expected) in [
        (&[("ochopod_binding", "mesos")][..], format!(r#"ochopod_binding: invalid value "mesos", expected auto, {all}"#)),
        (
            &[("ochopod_binding", "nomad"), ("ochopod_local", "true")],
            r#"ochopod_binding: invalid value "nomad", expected local or auto in local mode"#.to_owned(),
        ),
        (
            &[("ochopod_binding", "local"), ("ochopod_local", "false"), ("ochopod_zk", "h:1")],
            r#"ochopod_binding: invalid value "local", expected another value with local=false"#.to_owned(),
        ),
        (
            &[("ochopod_env_vars_prefix", "A=B")],
            r#"ochopod_env_vars_prefix: invalid value "A=B", expected letters, digits and '_'"#.to_owned(),
        ),
        (
            &[("ochopod_interface", "eth9")],
            r#"ochopod_interface: invalid value "eth9", expected an interface of this host (no interface matches eth9: this host has eth0 10.0.0.7)"#
                .to_owned(),
        ),
    ] {
        assert_eq!(Case::new(variables).errors(), [expected]);
    }
}

#[test]
fn store_of_the_platform_is_used_only_if_none_is_set() {
    let mut case = Case::bare(&[("MARATHON_APP_ID", "/web")]);
    case.found.store = Some(PlatformValue::new("zk://10.0.0.1:2181", "/etc/mesos/zk"));
    let (settings, zk) = Settings::read(case.input()).unwrap();
    assert_eq!((zk.to_string(), &*settings.platform.sources["zk"]), ("zk://10.0.0.1:2181".to_owned(), "/etc/mesos/zk"));
    case.env = Env::from_iter([("ochopod_zk", "h:1")]);
    let (settings, zk) = Settings::read(case.input()).unwrap();
    assert_eq!((zk.to_string(), &*settings.platform.sources["zk"]), ("zk://h:1".to_owned(), "ochopod_zk"));
}

#[test]
fn ports_of_the_platform_are_overridden_by_numbered_variables() {
    let nomad = [
        ("NOMAD_ALLOC_ID", "4f1b"),
        ("NOMAD_PORT_a", "8080"),
        ("NOMAD_HOST_PORT_a", "25001"),
        ("NOMAD_PORT_b", "9000"),
        ("NOMAD_HOST_PORT_b", "25002"),
        ("PORT_9000", "31000"),
    ];
    let settings = read(&nomad);
    assert_eq!(
        (settings.mapped_port, &settings.registration["ports"]),
        (25001, &json!({"8080": 25001, "9000": 31000}))
    );
    assert!(settings.exit_when_dead);
}

#[test]
fn credentials_of_the_platform_are_secrets_of_the_sub_process() {
    let settings = read(&[("VAULT_TOKEN", "hunter2"), ("AWS_REGION", "eu"), ("ochopod_secret_VAULT_TOKEN", "own")]);
    let (token, region) = (OsString::from("VAULT_TOKEN"), OsString::from("AWS_REGION"));
    assert!(!settings.environment.contains_key(&token) && settings.environment.contains_key(&region));
    assert_eq!(settings.secrets[&token], "own", "the operator's own takes precedence");
    assert_eq!(settings.withheld.platform, ["VAULT_TOKEN"]);
    let mut case = Case::new(&[]);
    case.grants.env = vec!["VAULT_TOKEN".to_owned()];
    let expected =
        r#"--env: invalid value "VAULT_TOKEN", expected a variable name that is not a secret of host or platform"#;
    assert_eq!(case.errors(), [expected]);
}

#[test]
fn stop_timeout_is_grace_and_margin_limited_by_the_kill_delay_unless_set() {
    let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    for (variables, grace, expected) in [
        (&[][..], 60, 70),
        (&[], 0, 10),
        (&[("ochopod_leave_delay", "0")], 60, 70),
        (&[("ochopod_leave_delay", "20")], 60, 90),
        (&[kubernetes, ("ochopod_leave_delay", "5")], 5, 20),
        (&[kubernetes], 60, 29),
        (&[kubernetes], 5, 15),
        (&[("NOMAD_ALLOC_ID", "4f1b")], 60, 4),
        (&[kubernetes, ("ochopod_stop_timeout", "110")], 60, 110),
    ] {
        let settings = read(variables);
        let timeout = settings.stop_timeout(Duration::from_secs(grace));
        assert_eq!(timeout, Duration::from_secs(expected), "{variables:?}, grace {grace}");
        assert!(settings.registration.get("stop_timeout").is_none());
    }
}

#[test]
fn invalid_marathon_app_id_and_named_local_address_are_rejected() {
    let marathon = Case::new(&[("MARATHON_APP_ID", "/web.v2")]).errors();
    assert_eq!(marathon, [r#"MARATHON_APP_ID: invalid value "web.v2", expected letters, digits, '_' and '-'"#]);
    let local = Case::new(&[("ochopod_local", "true"), ("ochopod_ip", "pod")]).errors();
    assert_eq!(local.len(), 1, "{local:?}");
    let listening = [("ochopod_local", "true"), ("ochopod_ip", "pod"), ("ochopod_listen", "127.0.0.1:80")];
    assert_eq!(read(&listening).listen, "127.0.0.1:80".parse().unwrap());
}

#[test]
fn no_secret_reaches_registration_sub_process_or_debug_text() {
    let settings = read(&[
        ("ochopod_token", "hunter2-hunter2-hunter2"),
        ("ochopod_tls_anything", "hunter2"),
        ("ochopod_db_password", "hunter2"),
        ("ochopod_api_key", "hunter2"),
        ("ochopod_db_dsn", "hunter2"),
        ("ochopod_PASSWD", "hunter2"),
        ("ochopod_api_key_2", "hunter2"),
        ("ochopod_private_key_pem", "hunter2"),
        ("ochopod_secret_db", "hunter2"),
        ("ochopod_db_url", "postgres://me:hunter2@db/shop"),
        ("ochopod_node", "ftp://me:hunter2@box"),
        ("ochopod_author", "me"),
        ("ochopod_zk", "zk://user:hunter2@h:2181"),
        ("MYSQL_ROOT_PASSWORD", "the sub-process's own"),
        ("DB_URL", "postgres://me:its-own@db"),
    ]);
    let shown = format!(
        "{:?} {:?} {:?} {:?} {settings:?}",
        settings.registration, settings.environment, settings.access.token, settings.withheld
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    let text = |key: &str| settings.registration[key].as_str().unwrap_or_default();
    assert_eq!((text("db_url"), text("node"), text("author")), ("postgres://db/shop", "ftp://box", "me"));
    assert_eq!(settings.environment[&OsString::from("ochopod_db_url")], "postgres://db/shop");
    assert_eq!(settings.environment[&OsString::from("DB_URL")], "postgres://me:its-own@db");
    assert_eq!(settings.secrets, [("db".into(), "hunter2".into())].into());
    assert_eq!((settings.withheld.names.len(), settings.withheld.urls.len()), (9, 3));
    assert!(settings.environment.contains_key(&OsString::from("MYSQL_ROOT_PASSWORD")));
    assert_eq!(settings.environment[&OsString::from("ochopod_zk")], "h:2181");
}

#[test]
fn sub_process_environment_has_the_effective_settings() {
    let mut case = Case::new(&[("ochopod_cluster", "web"), ("FOO", "1"), ("PORT_9001", "9001")]);
    case.flags = case.flags.with("port", "9001");
    let expected = [
        ("FOO", "1"),
        ("PORT_9001", "9001"),
        ("ochopod_application", ""),
        ("ochopod_cluster", "web"),
        ("ochopod_debug", "false"),
        ("ochopod_ip", "10.0.0.9"),
        ("ochopod_local", "false"),
        ("ochopod_namespace", "marathon"),
        ("ochopod_node", "box"),
        ("ochopod_port", "9001"),
        ("ochopod_public", ""),
        ("ochopod_start", "true"),
        ("ochopod_task", ""),
        ("ochopod_zk", "h:2181"),
    ];
    let environment: Vec<_> = case.settings().environment.into_iter().collect();
    assert_eq!(environment, expected.map(|(name, text)| (name.into(), text.into())));
}

#[test]
fn oversized_registration_is_rejected() {
    let errors = Case::new(&[("ochopod_blob", &"x".repeat(4096))]).errors();
    assert!(errors.len() == 1 && errors[0].ends_with("expected a registration of at most 4096 bytes"), "{errors:?}");
    assert_eq!(read(&[("ochopod_blob", &"x".repeat(3500))]).registration["blob"].as_str().unwrap().len(), 3500);
}

#[test]
fn non_utf8_values_are_rejected_or_passed_through() {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = OsString::from_vec(vec![0xff]);
    let mut case = Case::new(&[]);
    let zk = || ("ochopod_zk", OsString::from("h:2181"));
    case.env = Env::from_iter([zk(), ("ochopod_port", bytes.clone()), ("ochopod_x", bytes.clone())]);
    assert_eq!(
        case.errors(),
        [
            "ochopod_port: invalid value \"\u{fffd}\", expected UTF-8",
            "ochopod_x: invalid value \"\u{fffd}\", expected UTF-8"
        ]
    );
    let secret = OsString::from_vec(b"zk://user:hunter2\xff@h:2181".to_vec());
    case.env = Env::from_iter([("ochopod_zk", secret)]);
    assert_eq!(case.errors().last().unwrap(), "ochopod_zk: invalid value \"h:2181\", expected UTF-8");
    case.env = Env::from_iter([zk(), ("ochopod_token", bytes.clone())]);
    assert_eq!(case.errors(), ["ochopod_token: invalid value \"(hidden)\", expected UTF-8"]);
    case.env = Env::from_iter([zk(), ("ochopod_secret_x", bytes.clone())]);
    assert_eq!(case.settings().secrets[&OsString::from("x")], bytes);
    case.env = Env::from_iter([zk(), ("ochopod_secret_LD_PRELOAD", "evil.so".into())]);
    assert_eq!(
        case.errors(),
        [
            r#"ochopod_secret_LD_PRELOAD: invalid value "(hidden)", expected a name after ochopod_secret_, other than PATH, LD_*, ochopod and ochopod_*"#
        ]
    );
    case.env = Env::from_iter([zk(), ("ochopod_port", "http://me:hunter2@h".into())]);
    assert_eq!(case.errors(), [r#"ochopod_port: invalid value "http://h", expected a port from 1 to 65535"#]);
    case.env = Env::from_iter([zk(), ("OTHER", bytes.clone())]);
    assert_eq!(case.settings().environment[&OsString::from("OTHER")], bytes);
}

#[test]
fn pid_1_logs_to_a_file_and_cache_follows_xdg() {
    let mut case = Case::new(&[("XDG_CACHE_HOME", "/home/me/.cache")]);
    case.system.init = true;
    let settings = case.settings();
    assert_eq!(settings.log, Some(LogFile { path: "/var/log/ochopod.log".into(), explicit: false }));
    assert_eq!(settings.cache, PathBuf::from("/home/me/.cache/ochopod"));
}

#[test]
fn plugin_memory_defaults_to_at_most_a_quarter_of_the_container() {
    let memory = |limit: Option<u64>, variables: &[(&str, &str)]| {
        let mut case = Case::new(variables);
        case.system.memory = limit;
        case.settings().plugin_memory
    };
    assert_eq!(memory(None, &[]), 256 << 20);
    assert_eq!(memory(Some(8 << 30), &[]), 256 << 20);
    assert_eq!(memory(Some(128 << 20), &[]), 32 << 20);
    assert_eq!(memory(Some(1 << 20), &[]), 1 << 20);
    assert_eq!(memory(Some(128 << 20), &[("ochopod_plugin_memory", "64MiB")]), 64 << 20);
    let errors = Case::new(&[("ochopod_plugin_memory", "1000")]).errors();
    assert_eq!(errors, [r#"ochopod_plugin_memory: invalid value "1000", expected a size from 1MiB, such as 256MiB"#]);
}

#[test]
fn reserved_secrets_of_the_sub_process_are_reported_without_values() {
    let env: Env = ["PATH", "LD_PRELOAD", "ochopod", "ochopod_ip", "", "DB_PASSWORD"]
        .map(|name| (format!("ochopod_secret_{name}"), "hunter2"))
        .into_iter()
        .collect();
    let flags = Flags::default();
    let mut reader = SettingsReader::new(&env, &flags);
    registration::check_sub_process_secrets(&mut reader);
    assert_eq!(reader.errors.len(), 5, "{:?}", reader.errors);
    assert!(reader.errors.iter().all(|error| error.value.as_deref() == Some("(hidden)")));
}
