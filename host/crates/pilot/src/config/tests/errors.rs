//! Errors: all of them with positions and expected values.

use super::*;

#[test]
fn syntax_errors_do_not_repeat_lines_that_may_contain_secrets() {
    let error = read("{\n  consul: {address: 'a:1', token: 'hunter2'},,\n}").unwrap_err().to_string();
    assert!(
        error.contains("2:46") && error.contains("(hidden: may contain a secret)") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn all_errors_are_reported_together_in_the_order_of_the_text() {
    let text = "{
  consul: 'consul:8500',
  stopTimeout: 'soon',
  services: [
    {name: 'web', port: 70000, poll: 10, ttl: -1, tags: 'a'},
    {name: 'web', port: 80, poll: 1.5, ttl: 30, health: [], interfaces: ['eth9']},
    'db',
  ],
  backends: {},
  tasks: [{command: ['x', null, {a: 1}], frequency: '1d'}],
  coprocesses: [{command: 'x', restarts: 'often'}],
  telemetry: {port: 0, sensors: [{name: '1x', help: '', type: 'Gauge', check: 'x'}]},
}";
    let expected = "\
3:16: stopTimeout: invalid value 'soon', expected a whole number of seconds, 0 for the default of 5, or a negative number to kill immediately
5:25: services[0].port: invalid value 70000, expected a port from 1 to 65535
5:47: services[0].ttl: invalid value -1, expected a whole number of seconds, at least 1
5:57: services[0].tags: invalid value 'a', expected a list of strings
6:12: services[1].name: duplicate \"web\", first used by services[0].name at 5:12
6:35: services[1].poll: invalid value 1.5, expected a whole number of seconds, at least 1
6:57: services[1].health: invalid value [] (zero-length argument), expected a command: a string or a list of words
6:73: services[1].interfaces: no address: no interface matches [\"eth9\"], there is eth0 10.2.0.1
7:5: services[2]: invalid value 'db', expected an object
9:13: backends: invalid value {}, expected a list of objects
10:27: tasks[0].command[1]: invalid value null, expected a word
10:33: tasks[0].command[2]: invalid value {a: 1}, expected a word
10:53: tasks[0].frequency: invalid value '1d' (unknown unit d in duration), expected an interval: seconds or a duration like \"1m30s\", at least 1ms
11:42: coprocesses[0].restarts: invalid value 'often', expected a whole number, \"unlimited\" or \"never\"
12:21: telemetry.port: invalid value 0, expected a port from 1 to 65535
12:34: telemetry.sensors[0].poll: missing, expected a whole number of seconds, at least 1
12:41: telemetry.sensors[0].name: invalid metric name \"1x\" (namespace, subsystem and name), expected letters, digits, '_' and ':', no digit first
12:53: telemetry.sensors[0].help: invalid value '', expected a description of the metric
12:63: telemetry.sensors[0].type: invalid value 'Gauge', expected a sensor type: counter, gauge, histogram, summary";
    assert_eq!(read(text).unwrap_err().to_string(), expected);
}

#[test]
fn syntax_error_has_an_excerpt_with_a_caret() {
    let error = read("{\n    \"test\": ,\n    \"test2\": \"hello\"\n}").unwrap_err();
    let expected = "\
2:13: expected a value, found ',': is a template variable unset?
  1 | {
  2 |     \"test\": ,
    |             ^";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn unknown_keys_are_rejected_by_name_at_every_level() {
    let known = "(known keys: ";
    let cases = [
        ("Consul: 'x'", "Consul: unknown key, did you mean consul? (known keys: consul, etcd, zookeeper, logging, "),
        ("loging: {}", "loging: unknown key, did you mean logging?"),
        (
            "logging: {Level: 'info'}",
            "logging.Level: unknown key, did you mean level? (known keys: level, format, output)",
        ),
        (
            "services: [{zzz: 1, name: 'ab', port: 1, poll: 1, ttl: 2}]",
            "services[0].zzz: unknown key (known keys: name, ",
        ),
        (
            "services: [{name: 'ab', port: 1, poll: 1, ttl: 2, consul: {enableTagOveride: true}}]",
            "services[0].consul.enableTagOveride: unknown key, did you mean enableTagOverride?",
        ),
        (
            "backends: [{name: 'ab', poll: 1, onchange: 'x', onChange: 'x'}]",
            "backends[0].onchange: unknown key, did you mean onChange?",
        ),
        ("tasks: [{command: 'x', frequency: 1, interval: 1}]", "tasks[0].interval: unknown key (known keys: "),
        ("coprocesses: [{command: 'x', restart: 1}]", "coprocesses[0].restart: unknown key, did you mean restarts?"),
        ("telemetry: {sensor: []}", "telemetry.sensor: unknown key, did you mean sensors?"),
        (
            "telemetry: {sensors: [{name: 'a', help: 'b', type: 'gauge', poll: 1, check: 'x', helptext: 'y'}]}",
            "telemetry.sensors[0].helptext: unknown key, did you mean help?",
        ),
    ];
    for (rest, expected) in cases {
        let errors = errors(rest);
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{rest}: {errors:?}");
        assert!(errors[0].contains(known), "{rest}: {errors:?}");
    }
    let error = read("{consul: {adress: 'x', tls: {verify: 1, cafil: 'x'}}}").unwrap_err().to_string();
    assert!(error.contains("1:11: consul.adress: unknown key, did you mean address?"), "{error}");
    assert!(error.contains("1:41: consul.tls.cafil: unknown key, did you mean cafile?"), "{error}");
}

#[test]
fn duplicates_are_rejected_with_both_positions() {
    let service = |name: &str| format!("{{name: '{name}', port: 1, poll: 1, ttl: 2}}");
    let sensor = |parts: &str| format!("{{{parts}, help: 'h', type: 'gauge', poll: 1, check: 'x'}}");
    let cases = [
        ("stopTimeout: 1, stopTimeout: 2".to_owned(), "stopTimeout: duplicate key, first defined at 1:25".to_owned()),
        (
            format!("telemetry: {{}}, services: [{}]", service("containerpilot")),
            "services[0].name: duplicate \"containerpilot\", first used by telemetry at 1:36".to_owned(),
        ),
        (
            "backends: [{name: 'a', poll: 1, onChange: 'x', tag: 't'}, {name: 'a', poll: 1, onChange: 'x', tag: 't'}]"
                .to_owned(),
            "backends[1].name: duplicate \"a\" with the same tag, first used by backends[0].name at 1:43".to_owned(),
        ),
        (
            format!(
                "telemetry: {{sensors: [{}, {}]}}",
                sensor("namespace: 'a', name: 'b_c'"),
                sensor("subsystem: 'a_b', name: 'c'")
            ),
            "telemetry.sensors[1].name: duplicate \"a_b_c\", first used by telemetry.sensors[0].name at 1:70"
                .to_owned(),
        ),
    ];
    for (rest, expected) in cases {
        assert_eq!(errors(&rest), [expected]);
    }
    let fine = "backends: [{name: 'a', poll: 1, onChange: 'x', tag: 't'}, {name: 'a', poll: 1, onChange: 'x'}]";
    assert_eq!(config(fine).backends.len(), 2);
    assert_eq!(config(&format!("services: [{}]", service("containerpilot"))).services.len(), 1);
}

#[test]
fn error_of_the_default_interface_names_the_setting() {
    let env = Env::default();
    let resolve = |specs: &[String]| Err(format!("none of {specs:?} is among enp3s0 10.0.0.7"));
    let context = ReadContext {
        env: &env,
        resolve: &resolve,
        plugin: false,
        default_registry: None,
        check: &|_| Vec::new(),
        template: &|_| Ok(()),
    };
    let text = "{consul: 'a:1', services: [\n{name: 'ab', port: 1, poll: 1, ttl: 2}]}";
    let expected = "2:1: services[0].interfaces: not set, and the default \"eth0:inet\" has no address: none of \
                    [\"eth0:inet\"] is among enp3s0 10.0.0.7; expected an interface of this host, or \"inet\" for the \
                    first non-loopback address";
    assert_eq!(Config::read(text, &context).unwrap_err().to_string(), expected);
    let wrong = text.replace("ttl: 2", "ttl: 2, interfaces: 5");
    assert_eq!(
        Config::read(&wrong, &context).unwrap_err().to_string(),
        "2:52: services[0].interfaces: invalid value 5, expected an interface or a list of interfaces"
    );
}

#[test]
fn at_most_a_thousand_errors_are_reported() {
    assert_eq!(errors(&format!("services: [{}]", "5,".repeat(5000))).len(), 1000);
}

#[test]
fn long_texts_are_cut_and_control_characters_replaced() {
    let errors =
        errors(&format!("stopTimeout: '{}', 'a\\u001b[1mb': 1, {}: 2", "x\n".trim().repeat(5000), "k".repeat(5000)));
    assert_eq!(errors.len(), 3);
    assert!(errors.iter().all(|error| error.chars().count() <= 500 && !error.contains('\u{1b}')), "{errors:?}");
}
