//! Meaning of complete configurations.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn complete_configuration_is_read() {
    let config = config(
        "
  preStart: 'a  b', preStop: ['c', 1.50, true, ''], postStop: 'd',
  stopTimeout: '3',
  logging: {level: 'debug'},
  services: [{
    name: 'web', port: '80', poll: 0x0A, ttl: 3e1, health: 'check it', timeout: '1.5s', interfaces: 'eth0', tags: ['a', 5],
    consul: {enableTagOverride: 'true', deregisterCriticalServiceAfter: '40m'},
  }],
  backends: [{name: 'db', tag: 'main', poll: 7, onChange: 'reload', timeout: 2}, {name: 'db', tag: '', poll: 1, onChange: 'x'}],
  tasks: [{name: 'clean', command: 'rm -r x', frequency: '100ms', timeout: ''}, {command: ['a', 'b'], frequency: 5, timeout: 1}],
  coprocesses: [{command: 'side car', restarts: 'unlimited'}, {name: 'x', command: 'y'}],
  telemetry: {
    port: 9000, interfaces: 'inet', tags: ['t'],
    sensors: [{namespace: 'a', subsystem: '', name: 'b', help: 'h', type: 'summary', poll: 2, check: 's', timeout: '1s'}],
  },",
    );
    assert_eq!(line(config.pre_start.as_ref().unwrap()), "a||b");
    assert_eq!(line(config.pre_stop.as_ref().unwrap()), "c|1.50|true|");
    assert_eq!(line(config.post_stop.as_ref().unwrap()), "d");
    assert_eq!(config.stop_timeout, Some(3 * SECOND));
    assert_eq!(config.logging.level, LogLevel::Debug);
    let command = |program: &str, arguments: &[&str]| CommandLine {
        program: program.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
    };
    let service = Service {
        name: "web".to_owned(),
        address: ETH0,
        port: 80,
        poll: 10 * SECOND,
        ttl: 30 * SECOND,
        health: HealthCheck::Command(command("check", &["it"])),
        limit: 3 * SECOND / 2,
        tags: vec!["a".to_owned(), "5".to_owned()],
        enable_tag_override: true,
        deregister_critical_service_after: Some("40m".to_owned()),
    };
    assert_eq!(config.services, [service]);
    let backend = |tag: Option<&str>, poll, on_change: &str, limit| Backend {
        name: "db".to_owned(),
        tag: tag.map(str::to_owned),
        poll: poll * SECOND,
        on_change: command(on_change, &[]),
        limit: limit * SECOND,
        template: None,
    };
    assert_eq!(config.backends, [backend(Some("main"), 7, "reload", 2), backend(None, 1, "x", 1)]);
    let clean = Task {
        name: "clean".to_owned(),
        command: command("rm", &["-r", "x"]),
        frequency: SECOND / 10,
        limit: SECOND / 10,
    };
    let other = Task { name: "a b".to_owned(), command: command("a", &["b"]), frequency: 5 * SECOND, limit: SECOND };
    assert_eq!(config.tasks, [clean, other]);
    let coprocess = |name: &str, command, restarts| Coprocess { name: name.to_owned(), command, restarts };
    let side = coprocess("side car", command("side", &["car"]), RestartLimit::Unlimited);
    assert_eq!(config.coprocesses, [side, coprocess("x", command("y", &[]), RestartLimit::AtMost(0))]);
    let sensor = Sensor {
        metric: "a_b".to_owned(),
        help: "h".to_owned(),
        kind: SensorKind::Summary,
        poll: 2 * SECOND,
        check: command("s", &[]),
        limit: SECOND,
    };
    let telemetry = Telemetry { address: ETH0, port: 9000, tags: vec!["t".to_owned()], sensors: vec![sensor] };
    assert_eq!(config.telemetry, Some(telemetry));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn null_counts_as_missing() {
    let config = config(
        "preStop: null, stopTimeout: null, logging: null, tasks: null, telemetry: null, etcd: null,
         services: [{name: 'ab', port: 1, poll: 1, ttl: 2, health: null, tags: null, interfaces: null, timeout: null}]",
    );
    assert_eq!((config.pre_stop, config.stop_timeout, config.telemetry), (None, Some(5 * SECOND), None));
    assert_eq!((&config.services[0].health, config.services[0].limit), (&HealthCheck::Always, SECOND));
    let errors = errors("services: [{name: null, port: 1, poll: 1, ttl: 2}]");
    assert_eq!(errors, ["services[0].name: invalid value null, expected a name: a string that is not empty"]);
}

#[test]
fn on_start_is_accepted_unless_pre_start_is_set() {
    let old = config("onStart: 'old'");
    assert_eq!(line(old.pre_start.as_ref().unwrap()), "old");
    assert_eq!(old.warnings, ["1:34: onStart: former name of preStart"]);
    let both = config("onStart: 'old', preStart: 'new'");
    assert_eq!(line(both.pre_start.as_ref().unwrap()), "new");
    assert_eq!(both.warnings, ["1:34: onStart: ignored, preStart is set"]);
}

#[test]
fn stop_timeout_is_seconds_or_none() {
    let cases = [("0", Some(5)), ("1", Some(1)), ("'60'", Some(60)), ("-1", None), ("'-1'", None)];
    for (given, expected) in cases {
        let config = config(&format!("stopTimeout: {given}"));
        assert_eq!(config.stop_timeout, expected.map(Duration::from_secs), "{given}");
    }
}

#[test]
fn sanity_check_is_a_health_check_of_pods_only() {
    let text = "{consul: 'a:1', services: [{name: 'ab', port: 1, poll: 1, ttl: 2, health: 'sanity-check'}]}";
    let env = Env::default();
    let health = |plugin| {
        let config = Config::read(
            text,
            &ReadContext {
                env: &env,
                resolve: &resolve,
                plugin,
                default_registry: None,
                check: &|_| Vec::new(),
                template: &|_| Ok(()),
            },
        )
        .unwrap();
        config.services[0].health.clone()
    };
    let command = CommandLine { program: "sanity-check".to_owned(), arguments: Vec::new() };
    assert_eq!([health(true), health(false)], [HealthCheck::SanityCheck, HealthCheck::Command(command)]);
}

#[test]
fn telemetry_is_advertised_as_a_service() {
    let service = config("telemetry: {tags: ['a']}").telemetry.unwrap().service();
    assert_eq!((&*service.name, service.address, service.port), ("containerpilot", ETH0, 9090));
    assert_eq!((service.poll, service.ttl, service.health), (5 * SECOND, 15 * SECOND, HealthCheck::Always));
    assert_eq!(service.tags, ["a"]);
}

/// Tokens of configurations in random order.
fn tokens() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "true",
        "-1",
        "1.5",
        "30",
        "''",
        "'x'",
        "'1s'",
        "'0'",
        "\n",
        "consul:",
        "etcd:",
        "zookeeper:",
        "endpoints:",
        "services: [{",
        "backends: [{",
        "tasks: [{",
        "coprocesses: [{",
        "telemetry: {",
        "sensors: [{",
        "name:",
        "port:",
        "poll:",
        "ttl:",
        "health:",
        "timeout:",
        "interfaces:",
        "tags:",
        "logging: {",
        "level:",
        "'\\u0000'",
        "onChange:",
        "command:",
        "frequency:",
        "restarts:",
        "tls: {",
        "verify:",
        "é",
        "}]",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn errors_of_any_text_are_within_it_and_in_its_order(
        text in prop_oneof![tokens(), tokens().prop_map(|text| format!("{{{text}}}")), any::<String>()],
    ) {
        if let Err(error) = read(&text) {
            prop_assert!(!error.errors.is_empty());
            prop_assert!(error.errors.is_sorted_by_key(|error| error.at));
            for error in error.errors {
                let line = text.split('\n').nth(error.at.line - 1);
                let member = |line: &str| (1..=line.chars().count() + 1).contains(&error.at.column);
                prop_assert!(line.is_some_and(member), "{}", error);
            }
        }
    }
}
