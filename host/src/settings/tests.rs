mod access;

use serde_json::json;

use super::*;

struct Case {
    env: Env,
    flags: Flags,
    grants: GrantFlags,
    machine: Machine,
}

impl Case {
    /// These variables, and a store unless they speak of one.
    fn new(variables: &[(&str, &str)]) -> Self {
        let stored = variables.iter().any(|(name, _)| ["ochopod_zk", "ochopod_local"].contains(name));
        let store = (!stored).then_some(("ochopod_zk", "h:2181"));
        Self::bare(&store.into_iter().chain(variables.iter().copied()).collect::<Vec<_>>())
    }

    fn bare(variables: &[(&str, &str)]) -> Self {
        let machine = Machine {
            hostname: "box".into(),
            address: IpAddr::from([10, 0, 0, 9]),
            host: None,
            init: false,
            user: 0,
            group: 0,
        };
        let env = variables.iter().copied().collect();
        Self { env, flags: Flags::default(), grants: GrantFlags::default(), machine }
    }

    fn given(&self) -> Given<'_> {
        Given { env: &self.env, flags: &self.flags, grants: &self.grants, machine: &self.machine }
    }

    fn settings(&self) -> Settings {
        Settings::read(self.given()).unwrap().0
    }

    fn errors(&self) -> Vec<String> {
        Settings::read(self.given()).unwrap_err().iter().map(ToString::to_string).collect()
    }
}

fn read(variables: &[(&str, &str)]) -> Settings {
    Case::new(variables).settings()
}

/// Where the store is, credentials included.
fn store(variables: &[(&str, &str)]) -> String {
    let (_, zk) = Settings::read(Case::bare(variables).given()).unwrap();
    format!("{zk} {}", zk.credentials().unwrap_or("-"))
}

#[test]
fn a_store_is_all_that_must_be_set() {
    let expected =
        "ochopod_zk (--zk) is not set, expected zk://h1:p,h2:p[/chroot], or --local for the ZooKeeper of this machine";
    assert_eq!(Case::bare(&[]).errors(), [expected]);
    let settings = read(&[]);
    assert_eq!(settings.cluster.to_string(), "marathon.default");
    assert_eq!((settings.mapped_port, settings.listen), (8080, "0.0.0.0:8080".parse().unwrap()));
    assert_eq!(settings.session, Duration::from_secs(5));
    assert!(settings.start && !settings.exit_when_dead);
    assert_eq!((settings.log_level, settings.log_format), (LevelFilter::INFO, Format::Text));
    assert_eq!((settings.log, settings.cache), (None, PathBuf::from("/var/cache/ochopod")));
    let expected = json!({
        "application": "", "binding": "generic", "cluster": "default", "debug": "false", "ip": "10.0.0.9",
        "local": "false", "namespace": "marathon", "node": "box", "port": "8080", "ports": {}, "public": "",
        "start": "true", "status": "", "task": "", "zk": "h:2181",
    });
    assert_eq!(Value::Object(settings.registration), expected);
}

#[test]
fn every_variable_sets_what_it_names() {
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
    assert_eq!((settings.log_level, settings.log_format), (LevelFilter::DEBUG, Format::Json));
    assert_eq!(settings.log, Some(LogFile { path: "/tmp/pod.log".into(), asked: true }));
    assert_eq!(settings.cache, PathBuf::from("/tmp/cache"));
    assert_eq!(settings.overrides, [Override::Damper(Duration::from_secs(5))]);
    let expected = json!({
        "application": "app", "binding": "generic", "cluster": "web", "debug": "true", "ip": "10.1.1.1",
        "local": "false", "namespace": "my-app.staging", "node": "i-1234", "port": "9000",
        "ports": {"80": 31001, "9000": 31000}, "public": "54.1.1.1", "rack": "r7", "start": "false", "status": "",
        "task": "task", "zk": "h1:2181,h2:2181/chroot",
    });
    assert_eq!(Value::Object(settings.registration), expected);
}

#[test]
fn a_flag_wins_over_its_variable_and_an_empty_variable_is_as_good_as_none() {
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
    case.flags.cluster = Some("db".to_owned());
    case.flags.set = ["full-shutdown=false", "check_every=3", "cwd="].map(str::to_owned).to_vec();
    let settings = case.settings();
    let (port, zk) = (&settings.registration["port"], &settings.registration["zk"]);
    assert_eq!((settings.cluster.cluster(), port, zk), ("db", &json!("8080"), &json!("127.0.0.1:2181")));
    let expected = [
        Override::CheckEvery(Duration::from_secs(3)),
        Override::Checks(2),
        Override::Cwd(None),
        Override::FullShutdown(false),
    ];
    assert_eq!(settings.overrides, expected);
}

#[test]
fn local_mode_is_all_on_this_machine() {
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
fn a_pod_that_others_cannot_reach_by_what_it_registers_is_told() {
    let misled = |variables: &[(&str, &str)]| {
        let mut case = Case::bare(variables);
        case.machine.address = IpAddr::from([127, 0, 0, 1]);
        let (settings, zk) = Settings::read(case.given()).unwrap();
        settings.misleading_ip(&zk).map(str::to_owned)
    };
    assert_eq!(misled(&[("ochopod_zk", "zk1:2181,zk2:2181")]).as_deref(), Some("127.0.0.1"));
    for zk in ["127.0.0.1:2181", "localhost", "[::1]:2181"] {
        assert_eq!(misled(&[("ochopod_zk", zk)]), None, "{zk} is on this machine");
    }
    assert_eq!(misled(&[("ochopod_zk", "zk1:2181"), ("ochopod_ip", "10.0.0.1")]), None);
    assert_eq!(misled(&[("ochopod_zk", "zk1:2181"), ("ochopod_local", "true")]), None);
}

#[test]
fn pods_of_one_process_have_an_address_each_and_no_store_unless_it_is_given() {
    let (shared, zk) = Settings::read_shared(Case::bare(&[]).given()).unwrap();
    assert_eq!((&shared.registration["local"], zk), (&json!("true"), None));
    let (_, zk) = Settings::read_shared(Case::bare(&[("ochopod_zk", "h:1")]).given()).unwrap();
    assert_eq!(zk.unwrap().to_string(), "zk://h:1");
    let pod = shared.at(IpAddr::from([127, 0, 0, 3]));
    assert_eq!(pod.listen, "127.0.0.3:8080".parse().unwrap());
    assert_eq!((&pod.registration["ip"], &pod.registration["public"]), (&json!("127.0.0.3"), &json!("127.0.0.3")));
    for variable in ["ochopod_ip", "ochopod_public"] {
        assert_eq!(pod.environment[&OsString::from(variable)], "127.0.0.3");
    }
    assert_eq!(pod.environment.len(), shared.environment.len());
}

#[test]
fn what_pods_of_one_process_cannot_have_is_refused() {
    let mut case = Case::bare(&[("ochopod_ip", "10.0.0.1"), ("ochopod_local", "false")]);
    case.flags.public = Some("54.0.0.1".to_owned());
    case.flags.listen = Some("0.0.0.0:80".to_owned());
    let errors = Settings::read_shared(case.given()).unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let own = "expected none with up: each of its pods has an address of its own";
    let expected = [
        format!("ochopod_ip is \"10.0.0.1\", {own}"),
        format!("--public is \"54.0.0.1\", {own}"),
        format!("--listen is \"0.0.0.0:80\", {own}"),
        "ochopod_local is \"false\", expected true or none with up: all its pods are on this machine".to_owned(),
    ];
    assert_eq!(errors, expected);
    assert!(Settings::read_shared(Case::bare(&[("ochopod_local", "true")]).given()).is_ok());
    let bad = Settings::read_shared(Case::bare(&[("ochopod_local", "yes")]).given()).unwrap_err();
    assert_eq!(bad.len(), 1, "{bad:?}");
}

#[test]
fn a_store_that_makes_no_sense_is_a_bad_setting_that_shows_no_password() {
    for (zk, reason) in [
        ("zk://user:hunter2@h:x", r#"ochopod_zk is "h:x", expected zk://"#),
        ("http://h:1", "the scheme is"),
        ("h:1,,", "server 2 has no host"),
    ] {
        let errors = Case::bare(&[("ochopod_zk", zk), ("ochopod_start", "1")]).errors();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors.iter().any(|error| error.contains(reason)), "{errors:?}");
        assert!(!errors.concat().contains("hunter2"), "{errors:?}");
    }
}

#[test]
fn marathon_names_the_cluster_and_only_numbered_ports_count() {
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
fn everything_that_is_wrong_is_reported_at_once_with_name_value_and_what_was_expected() {
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
        ("ochopod_seq", "7"),
        ("ochopod_ports", "{}"),
        ("ochopod_", "x"),
        ("ochopod_set_damper", "soon"),
        ("ochopod_set_db_password", "hunter2"),
        ("ochopod_set_depends_on", "db,a["),
        ("PORT_9000", "abc"),
        ("PORT_9001", "0"),
    ]);
    case.flags.debug = Some("2".to_owned());
    case.flags.set = ["damper", "=5", "probe-every=0", "dampener=5"].map(str::to_owned).to_vec();
    case.grants.dir = vec!["/srv".to_owned()];
    case.flags.zk = Some("zk://user:hunter2@h:2181".to_owned());
    let mut errors = case.errors();
    errors.sort();
    let names = "one of the settings check_every, checks, cwd, damper, depends_on, full_shutdown, grace, \
        pipe_subprocess, probe_every, sequential, soft, strict";
    let expected = [
        r#"--debug is "2", expected true or false"#,
        r#"--dir is "/srv", expected HOST::GUEST or HOST::GUEST:ro"#,
        &format!(r#"--set dampener is "5", expected {names}"#),
        r#"--set is "=5", expected NAME=VALUE"#,
        r#"--set is "damper", expected NAME=VALUE"#,
        r#"--set probe-every is "0", expected seconds from 0.01 to 1000000000"#,
        r#"--zk is "h:2181", expected no credentials on the command line, but in the variable ochopod_zk"#,
        r#"PORT_9000 is "abc", expected a port from 1 to 65535"#,
        r#"PORT_9001 is "0", expected a port from 1 to 65535"#,
        r#"ochopod_ is "x", expected a name after ochopod_"#,
        r#"ochopod_cluster is "a.b", expected letters, digits, '_' and '-'"#,
        r#"ochopod_exit_when_dead is "maybe", expected true or false"#,
        r#"ochopod_ip is "a/b", expected an address or a host name"#,
        r#"ochopod_listen is "localhost", expected ADDRESS:PORT with an IP address"#,
        r#"ochopod_local is "yes", expected true or false"#,
        r#"ochopod_log_format is "xml", expected text or json"#,
        r#"ochopod_log_level is "loud", expected error, warning, info, debug or trace"#,
        r#"ochopod_namespace is "a..b", expected dot separated tokens of letters, digits, '_' and '-'"#,
        r#"ochopod_port is "http", expected a port from 1 to 65535"#,
        r#"ochopod_ports is "{}", expected another name: the host itself registers this one"#,
        r#"ochopod_public is "a b", expected an address or a host name"#,
        r#"ochopod_seq is "7", expected another name: the host itself registers this one"#,
        r#"ochopod_session is "-1", expected seconds, above 0 and at most 3600"#,
        r#"ochopod_set_damper is "soon", expected a number of seconds"#,
        &format!(r#"ochopod_set_db_password is "", expected {names}"#),
        r#"ochopod_set_depends_on is "db,a[", expected names and globs, separated by commas (dependency "a[" is not a name and not a glob: Pattern syntax error near position 10: invalid range pattern)"#,
        r#"ochopod_start is "1", expected true or false"#,
    ];
    assert_eq!(errors, expected);
}

#[test]
fn a_name_taken_from_marathon_or_a_named_local_address_can_be_wrong_too() {
    let marathon = Case::new(&[("MARATHON_APP_ID", "/web.v2")]).errors();
    assert_eq!(marathon, [r#"MARATHON_APP_ID is "web.v2", expected letters, digits, '_' and '-'"#]);
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
        ("ochopod_zk", "zk://user:hunter2@h:2181"),
        ("MYSQL_ROOT_PASSWORD", "the sub-process's own"),
    ]);
    let shown =
        format!("{:?} {:?} {:?} {settings:?}", settings.registration, settings.environment, settings.access.token);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(settings.environment.contains_key(&OsString::from("MYSQL_ROOT_PASSWORD")));
    assert_eq!(settings.environment[&OsString::from("ochopod_zk")], "h:2181");
}

#[test]
fn the_sub_process_gets_the_effective_settings_and_where_the_pod_is() {
    let mut case = Case::new(&[("ochopod_cluster", "web"), ("FOO", "1"), ("PORT_9001", "9001")]);
    case.flags.port = Some("9001".to_owned());
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
fn a_registration_that_peers_could_not_read_is_refused() {
    let errors = Case::new(&[("ochopod_blob", &"x".repeat(4096))]).errors();
    assert!(errors.len() == 1 && errors[0].ends_with("expected a registration of at most 4096 bytes"), "{errors:?}");
    assert_eq!(read(&[("ochopod_blob", &"x".repeat(3500))]).registration["blob"].as_str().unwrap().len(), 3500);
}

#[test]
fn what_is_not_text_is_refused_or_passed_through() {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = OsString::from_vec(vec![0xff]);
    let mut case = Case::new(&[]);
    let zk = || ("ochopod_zk", OsString::from("h:2181"));
    case.env = Env::from_iter([zk(), ("ochopod_port", bytes.clone()), ("ochopod_x", bytes.clone())]);
    assert_eq!(
        case.errors(),
        ["ochopod_port is \"\u{fffd}\", expected UTF-8", "ochopod_x is \"\u{fffd}\", expected UTF-8"]
    );
    let secret = OsString::from_vec(b"zk://user:hunter2\xff@h:2181".to_vec());
    case.env = Env::from_iter([("ochopod_zk", secret)]);
    assert_eq!(case.errors().last().unwrap(), "ochopod_zk is \"h:2181\", expected UTF-8");
    case.env = Env::from_iter([zk(), ("ochopod_token", bytes.clone())]);
    assert_eq!(case.errors(), ["ochopod_token is \"(hidden)\", expected UTF-8"]);
    case.env = Env::from_iter([zk(), ("OTHER", bytes.clone())]);
    assert_eq!(case.settings().environment[&OsString::from("OTHER")], bytes);
}

#[test]
fn an_init_logs_to_a_file_and_the_cache_follows_the_desktop_convention() {
    let mut case = Case::new(&[("XDG_CACHE_HOME", "/home/me/.cache")]);
    case.machine.init = true;
    let settings = case.settings();
    assert_eq!(settings.log, Some(LogFile { path: "/var/log/ochopod.log".into(), asked: false }));
    assert_eq!(settings.cache, PathBuf::from("/home/me/.cache/ochopod"));
}
