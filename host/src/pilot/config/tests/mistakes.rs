//! What is wrong is told: all of it, where it is, and what was expected.

use super::*;

#[test]
fn lines_that_may_hold_secrets_are_not_shown_with_a_syntax_error() {
    let error = read("{\n  consul: {address: 'a:1', token: 'hunter2'},,\n}").unwrap_err().to_string();
    assert!(error.contains("2:46") && error.contains("not shown") && !error.contains("hunter2"), "{error}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_text() {
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
3:16: stopTimeout is 'soon', expected a whole number of seconds, 0 for the default of 5, or a negative one to kill at once
5:25: services[0].port is 70000, expected a port from 1 to 65535
5:47: services[0].ttl is -1, expected a whole number of seconds, at least 1
5:57: services[0].tags is 'a', expected a list of texts
6:12: services[1].name is \"web\", as is services[0].name at 5:12, expected it once
6:35: services[1].poll is 1.5, expected a whole number of seconds, at least 1
6:57: services[1].health is [] (zero-length argument), expected a command: a text or a list of words
6:73: services[1].interfaces gives no address: no interface matches [\"eth9\"], there is eth0 10.2.0.1
7:5: services[2] is 'db', expected an object
9:13: backends is {}, expected a list of objects
10:27: tasks[0].command[1] is null, expected a word
10:33: tasks[0].command[2] is {a: 1}, expected a word
10:53: tasks[0].frequency is '1d' (unknown unit d in duration), expected how often it runs: seconds, or a duration like \"1m30s\", at least 1ms
11:42: coprocesses[0].restarts is 'often', expected a whole number, \"unlimited\" or \"never\"
12:21: telemetry.port is 0, expected a port from 1 to 65535
12:34: telemetry.sensors[0].poll is missing, expected a whole number of seconds, at least 1
12:41: telemetry.sensors[0].name makes \"1x\" of namespace, subsystem and name, expected a metric name: letters, digits, '_' and ':', no digit first
12:53: telemetry.sensors[0].help is '', expected a text that says what is measured
12:63: telemetry.sensors[0].type is 'Gauge', expected a sensor type: counter, gauge, histogram, summary";
    assert_eq!(read(text).unwrap_err().to_string(), expected);
}

#[test]
fn a_text_that_is_no_json5_is_shown_with_a_caret() {
    let error = read("{\n    \"test\": ,\n    \"test2\": \"hello\"\n}").unwrap_err();
    let expected = "\
2:13: expected a value, found ',': a variable that is not set leaves such a hole
  1 | {
  2 |     \"test\": ,
    |             ^";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn unknown_keys_are_refused_by_name_at_every_level() {
    let known = "(known are ";
    let cases = [
        ("Consul: 'x'", "Consul is unknown, did you mean consul? (known are consul, etcd, zookeeper, logging, "),
        ("loging: {}", "loging is unknown, did you mean logging?"),
        ("logging: {Level: 'info'}", "logging.Level is unknown, did you mean level? (known are level, format, output)"),
        ("services: [{zzz: 1, name: 'ab', port: 1, poll: 1, ttl: 2}]", "services[0].zzz is unknown (known are name, "),
        (
            "services: [{name: 'ab', port: 1, poll: 1, ttl: 2, consul: {enableTagOveride: true}}]",
            "services[0].consul.enableTagOveride is unknown, did you mean enableTagOverride?",
        ),
        (
            "backends: [{name: 'ab', poll: 1, onchange: 'x', onChange: 'x'}]",
            "backends[0].onchange is unknown, did you mean onChange?",
        ),
        ("tasks: [{command: 'x', frequency: 1, interval: 1}]", "tasks[0].interval is unknown (known are "),
        ("coprocesses: [{command: 'x', restart: 1}]", "coprocesses[0].restart is unknown, did you mean restarts?"),
        ("telemetry: {sensor: []}", "telemetry.sensor is unknown, did you mean sensors?"),
        (
            "telemetry: {sensors: [{name: 'a', help: 'b', type: 'gauge', poll: 1, check: 'x', helptext: 'y'}]}",
            "telemetry.sensors[0].helptext is unknown, did you mean help?",
        ),
    ];
    for (rest, expected) in cases {
        let mistakes = mistakes(rest);
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(expected), "{rest}: {mistakes:?}");
        assert!(mistakes[0].contains(known), "{rest}: {mistakes:?}");
    }
    let error = read("{consul: {adress: 'x', tls: {verify: 1, cafil: 'x'}}}").unwrap_err().to_string();
    assert!(error.contains("1:11: consul.adress is unknown, did you mean address?"), "{error}");
    assert!(error.contains("1:41: consul.tls.cafil is unknown, did you mean cafile?"), "{error}");
}

#[test]
fn what_may_be_there_once_is_refused_with_both_places() {
    let service = |name: &str| format!("{{name: '{name}', port: 1, poll: 1, ttl: 2}}");
    let sensor = |parts: &str| format!("{{{parts}, help: 'h', type: 'gauge', poll: 1, check: 'x'}}");
    let cases = [
        (
            "stopTimeout: 1, stopTimeout: 2".to_owned(),
            "stopTimeout stands here and at 1:25, expected it once".to_owned(),
        ),
        (
            format!("telemetry: {{}}, services: [{}]", service("containerpilot")),
            "services[0].name is \"containerpilot\", as is telemetry at 1:36, expected it once".to_owned(),
        ),
        (
            "backends: [{name: 'a', poll: 1, onChange: 'x', tag: 't'}, {name: 'a', poll: 1, onChange: 'x', tag: 't'}]"
                .to_owned(),
            "backends[1].name is \"a\" with the same tag, as is backends[0].name at 1:43, expected it once".to_owned(),
        ),
        (
            format!(
                "telemetry: {{sensors: [{}, {}]}}",
                sensor("namespace: 'a', name: 'b_c'"),
                sensor("subsystem: 'a_b', name: 'c'")
            ),
            "telemetry.sensors[1].name is \"a_b_c\", as is telemetry.sensors[0].name at 1:70, expected it once"
                .to_owned(),
        ),
    ];
    for (rest, expected) in cases {
        assert_eq!(mistakes(&rest), [expected]);
    }
    let fine = "backends: [{name: 'a', poll: 1, onChange: 'x', tag: 't'}, {name: 'a', poll: 1, onChange: 'x'}]";
    assert_eq!(config(fine).backends.len(), 2);
    assert_eq!(config(&format!("services: [{}]", service("containerpilot"))).services.len(), 1);
}

#[test]
fn a_machine_without_eth0_is_told_what_to_write() {
    let env = Env::default();
    let resolve = |specs: &[String]| Err(format!("none of {specs:?} is among enp3s0 10.0.0.7"));
    let reading = Reading { env: &env, resolve: &resolve, plugin: false, default_place: None };
    let text = "{consul: 'a:1', services: [\n{name: 'ab', port: 1, poll: 1, ttl: 2}]}";
    let expected = "2:1: services[0].interfaces names none, and the default, \"eth0:inet\", gives no address: none of \
                    [\"eth0:inet\"] is among enp3s0 10.0.0.7; expected interfaces of this machine, or \"inet\" for whichever is \
                    not the loopback";
    assert_eq!(Config::read(text, &reading).unwrap_err().to_string(), expected);
    let wrong = text.replace("ttl: 2", "ttl: 2, interfaces: 5");
    assert_eq!(
        Config::read(&wrong, &reading).unwrap_err().to_string(),
        "2:52: services[0].interfaces is 5, expected an interface, or a list of such"
    );
}

#[test]
fn a_thousand_mistakes_are_enough() {
    assert_eq!(mistakes(&format!("services: [{}]", "5,".repeat(5000))).len(), 1000);
}

#[test]
fn long_and_odd_texts_are_cut_and_made_visible() {
    let mistakes =
        mistakes(&format!("stopTimeout: '{}', 'a\\u001b[1mb': 1, {}: 2", "x\n".trim().repeat(5000), "k".repeat(5000)));
    assert_eq!(mistakes.len(), 3);
    assert!(
        mistakes.iter().all(|mistake| mistake.chars().count() <= 500 && !mistake.contains('\u{1b}')),
        "{mistakes:?}"
    );
}
