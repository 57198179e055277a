//! Between the host's words and the contract's: views go in, settings and commands come out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    Command, LifecycleSettings, ModelSettings, Tool, WantedDirectory, Wants,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
};
use crate::{
    cluster::{ClusterName, Pods, PostedView, Registration},
    settings::NetworkGrant,
};

/// Keys of a registration that have fields of their own.
const FIELDS: [&str; 9] = ["seq", "ip", "public", "node", "application", "task", "status", "port", "ports"];
/// Times are below this (thirty years), so that deadlines can be reckoned.
const FOREVER: f64 = 1e9;
/// Delays between checks or probes are at least this, in seconds.
const SHORTEST: f64 = 0.01;
/// Most tools of one plugin.
const TOOLS: usize = 256;

/// A view as the guest sees it.
pub(super) fn cluster(name: &ClusterName, posted: &PostedView) -> types::Cluster {
    let dependencies = posted.view.dependencies.iter();
    types::Cluster {
        namespace: name.namespace().to_owned(),
        name: name.cluster().to_owned(),
        key: posted.key.to_string(),
        index: count(posted.index()),
        seq: posted.own().map_or(0, Registration::seq),
        size: count(posted.view.pods.len()),
        pods: pods(&posted.view.pods),
        dependencies: dependencies
            .map(|(name, registered)| types::Dependency { name: name.clone(), pods: pods(registered) })
            .collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn pods(pods: &Pods) -> Vec<types::Pod> {
    pods.iter().map(|(key, registration)| pod(key.as_str(), registration)).collect()
}

fn pod(key: &str, registration: &Registration) -> types::Pod {
    let text = |key| registration.text(key).to_owned();
    let others = registration.fields().iter().filter(|(key, _)| !FIELDS.contains(&key.as_str()));
    types::Pod {
        key: key.to_owned(),
        seq: registration.seq(),
        ip: text("ip"),
        public: text("public"),
        node: text("node"),
        application: text("application"),
        task: text("task"),
        status: text("status"),
        port: registration.control_port().unwrap_or(0),
        ports: registration.ports().into_iter().collect(),
        settings: others.map(|(key, value)| (key.clone(), as_text(value))).collect(),
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time that a guest or the operator gave, in seconds.
pub(super) fn seconds(value: f64, shortest: f64) -> Result<Duration, String> {
    if !value.is_finite() || value < shortest || value > FOREVER {
        return Err(format!("seconds from {shortest} to {FOREVER}"));
    }
    Duration::try_from_secs_f64(value).map_err(|error| error.to_string())
}

/// A delay between two checks or probes.
pub(super) fn delay(value: f64) -> Result<Duration, String> {
    seconds(value, SHORTEST)
}

/// Settings and wants as the guest declared them; or every setting that makes no sense.
pub(super) fn lifecycle_settings(given: lifecycle::LifecycleSettings) -> Result<(LifecycleSettings, Wants), String> {
    let mut wrong = Wrong::default();
    let settings = LifecycleSettings {
        check_every: wrong.unless("check-every", given.check_every, delay(given.check_every)),
        checks: wrong.unless("checks", given.checks, at_least_one(given.checks)),
        grace: wrong.unless("grace", given.grace, seconds(given.grace, 0.0)),
        cwd: given.cwd.filter(|cwd| !cwd.is_empty()),
        pipe_subprocess: given.pipe_subprocess,
        shell: given.shell,
        soft: given.soft,
        strict: given.strict,
    };
    let addresses = given.wants.network.iter().filter(|address| NetworkGrant::read(address).is_none());
    addresses.for_each(|address| wrong.note("wants.network", address, "peers, ADDRESS:PORT or ADDRESS:*"));
    wrong.or((settings, wants(given.wants)))
}

/// Settings as the guest declared them; or every one that makes no sense.
pub(super) fn model_settings(given: model::ModelSettings) -> Result<ModelSettings, String> {
    let mut wrong = Wrong::default();
    let settings = ModelSettings {
        damper: wrong.unless("damper", given.damper, seconds(given.damper, 0.0)),
        grace: wrong.unless("grace", given.grace, delay(given.grace)),
        probe_every: wrong.unless("probe-every", given.probe_every, delay(given.probe_every)),
        depends_on: given.depends_on,
        full_shutdown: given.full_shutdown,
        sequential: given.sequential,
    };
    wrong.or(settings)
}

/// A number of checks.
pub(super) fn at_least_one(checks: u32) -> Result<u32, String> {
    if checks == 0 { Err("a whole number from 1".to_owned()) } else { Ok(checks) }
}

/// Gathers what is wrong with a record.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless<T: Default>(&mut self, name: &str, given: impl std::fmt::Display, read: Result<T, String>) -> T {
        read.unwrap_or_else(|expected| {
            self.note(name, given, &expected);
            T::default()
        })
    }

    fn note(&mut self, name: &str, given: impl std::fmt::Display, expected: &str) {
        self.0.push(format!("{name} is {given}, expected {expected}"));
    }

    fn or<T>(self, record: T) -> Result<T, String> {
        if self.0.is_empty() { Ok(record) } else { Err(self.0.join("; ")) }
    }
}

/// What the guest wants.
fn wants(given: types::Wants) -> Wants {
    let directories = given.directories.into_iter();
    Wants {
        directories: directories.map(|d| WantedDirectory { guest: d.guest, writable: d.writable }).collect(),
        network: given.network,
        programs: given.programs,
        environment: given.environment,
    }
}

/// The guest's tools, if their names can be told apart in a command line.
pub(super) fn tools(given: Vec<tools::Tool>) -> Result<Vec<Tool>, String> {
    if given.len() > TOOLS {
        return Err(format!("there are {} tools, expected at most {TOOLS}", given.len()));
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::with_capacity(given.len());
    for tools::Tool { name, help } in given {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("the tool name {name:?} is empty or has white space"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("there are two tools {name:?}"));
        }
        tools.push(Tool { name, help });
    }
    Ok(tools)
}

/// What to run, if it can be run at all.
pub(super) fn command(given: lifecycle::Command) -> Result<Command, String> {
    let lifecycle::Command { program, arguments, environment } = given;
    if program.is_empty() {
        return Err("configure returned an empty program".to_owned());
    }
    if let Some((name, _)) = environment.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        return Err(format!("configure returned {name:?} as the name of a variable"));
    }
    let texts = environment.iter().flat_map(|(name, value)| [name, value]).chain(&arguments).chain([&program]);
    if let Some(text) = { texts }.find(|text| text.contains('\0')) {
        return Err(format!("configure returned text with a zero byte: {text:?}"));
    }
    Ok(Command { program, arguments, environment: environment.into_iter().collect::<BTreeMap<_, _>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_reaches_the_guest_whole_and_in_order() {
        let view = br#"{"key":"b","pods":{
            "b":{"seq":3,"ip":"10.0.0.2","public":"54.0.0.2","node":"n","application":"app","task":"t","status":"",
                 "port":"8080","ports":{"8080":31000,"BASE":1,"9000":"31001"},
                 "cluster":"web","namespace":"prod","binding":"marathon","zk":"h:2181","local":"false","debug":"true",
                 "start":"true","weight":7,"tags":["x",{"y":null}]},
            "a":{"seq":9,"status":"dead"}},
            "dependencies":{"kafka":{},"db":{"x":{"seq":1,"ip":"10.0.1.1"}}}}"#;
        let name = ClusterName::new("prod", "web").unwrap();
        let seen = cluster(&name, &PostedView::parse(view).unwrap());
        assert_eq!((seen.namespace.as_str(), seen.name.as_str(), seen.key.as_str()), ("prod", "web", "b"));
        assert_eq!((seen.index, seen.seq, seen.size), (1, 3, 2));
        let [a, b] = &seen.pods[..] else { panic!("{seen:?}") };
        assert_eq!((a.key.as_str(), a.seq, a.status.as_str(), a.port), ("a", 9, "dead", 0));
        assert!(a.settings.is_empty() && a.ports.is_empty() && a.ip.is_empty());
        assert_eq!((b.ip.as_str(), b.public.as_str(), b.node.as_str()), ("10.0.0.2", "54.0.0.2", "n"));
        assert_eq!((b.application.as_str(), b.task.as_str(), b.port), ("app", "t", 8080));
        assert_eq!(b.ports, [(8080, 31000), (9000, 31001)]);
        let settings: BTreeMap<_, _> = b.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("binding", "marathon"),
            ("cluster", "web"),
            ("debug", "true"),
            ("local", "false"),
            ("namespace", "prod"),
            ("start", "true"),
            ("tags", r#"["x",{"y":null}]"#),
            ("weight", "7"),
            ("zk", "h:2181"),
        ];
        assert_eq!(settings, expected.into());
        let dependencies: Vec<_> = seen.dependencies.iter().map(|d| (d.name.as_str(), d.pods.len())).collect();
        assert_eq!(dependencies, [("db", 1), ("kafka", 0)]);
    }

    fn model(damper: f64, grace: f64, probe_every: f64) -> Result<ModelSettings, String> {
        let depends_on = vec!["db".to_owned()];
        model_settings(model::ModelSettings {
            damper,
            depends_on,
            full_shutdown: true,
            grace,
            probe_every,
            sequential: false,
        })
    }

    #[test]
    fn settings_that_make_no_sense_are_all_named_at_once() {
        let fine = model(0.0, 60.0, 0.5).unwrap();
        assert_eq!((fine.damper, fine.probe_every), (Duration::ZERO, Duration::from_millis(500)));
        let wrong = model(f64::NAN, -1.0, 0.0).unwrap_err();
        for part in ["damper is NaN", "grace is -1", "probe-every is 0"] {
            assert!(wrong.contains(part), "{wrong}");
        }
        for value in [f64::INFINITY, f64::NEG_INFINITY, 1e300, -0.1] {
            assert!(model(value, 60.0, 60.0).is_err(), "{value}");
        }
    }

    #[test]
    fn a_command_that_cannot_be_run_is_refused() {
        let with = |program: &str, arguments: &[&str], environment: &[(&str, &str)]| {
            command(lifecycle::Command {
                program: program.to_owned(),
                arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
                environment: environment.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            })
        };
        let fine = with("redis-server", &["--port", ""], &[("A", "1"), ("A", "=2")]).unwrap();
        assert_eq!(fine.environment, BTreeMap::from([("A".to_owned(), "=2".to_owned())]));
        for bad in [
            with("", &[], &[]),
            with("a\0b", &[], &[]),
            with("a", &["\0"], &[]),
            with("a", &[], &[("", "x")]),
            with("a", &[], &[("A=B", "x")]),
            with("a", &[], &[("A", "\0")]),
        ] {
            assert!(bad.unwrap_err().starts_with("configure returned"));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_configure_returns_can_be_handed_to_the_system_or_is_refused(
            texts in proptest::collection::vec(".{0,8}|[=\0a]{0,3}", 4),
        ) {
            let [program, argument, name, value] = &texts[..] else { unreachable!() };
            let (arguments, environment) = (vec![argument.clone()], vec![(name.clone(), value.clone())]);
            match command(lifecycle::Command { program: program.clone(), arguments, environment }) {
                Ok(command) => {
                    proptest::prop_assert!(!command.program.is_empty());
                    proptest::prop_assert!(command.environment.keys().all(|name| !name.is_empty() && !name.contains('=')));
                    let variables = command.environment.iter().map(|(name, value)| format!("{name}={value}"));
                    for text in [command.program].into_iter().chain(command.arguments).chain(variables) {
                        proptest::prop_assert!(std::ffi::CString::new(text).is_ok());
                    }
                }
                Err(reason) => proptest::prop_assert!(reason.starts_with("configure returned")),
            }
        }

        #[test]
        fn whatever_time_a_plugin_or_an_operator_names_can_be_reckoned_with(value: f64) {
            for read in [seconds(value, 0.0), delay(value)].into_iter().flatten() {
                proptest::prop_assert!(std::time::Instant::now().checked_add(read).is_some());
            }
        }
    }

    #[test]
    fn tools_need_names_that_can_be_told_apart() {
        let named = |names: &[&str]| {
            tools(names.iter().map(|&name| tools::Tool { name: name.to_owned(), help: String::new() }).collect())
        };
        assert_eq!(named(&["a", "b"]).unwrap().len(), 2);
        for bad in [&["a", "a"][..], &[""], &["a b"], &["a\n"]] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..=TOOLS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(named(&many[1..]).unwrap().len(), TOOLS);
        assert_eq!(named(&many).unwrap_err(), "there are 257 tools, expected at most 256");
    }

    #[test]
    fn a_wanted_address_that_no_flag_could_grant_is_refused() {
        let settings = |network: &[&str]| {
            lifecycle_settings(lifecycle::LifecycleSettings {
                check_every: 60.0,
                checks: 1,
                cwd: None,
                grace: 60.0,
                pipe_subprocess: false,
                shell: false,
                soft: false,
                strict: false,
                wants: types::Wants {
                    directories: Vec::new(),
                    network: network.iter().map(|&address| address.to_owned()).collect(),
                    programs: Vec::new(),
                    environment: Vec::new(),
                },
            })
        };
        assert_eq!(settings(&["peers", "db:5432", "cdn:*", "[::1]:80"]).unwrap().1.network.len(), 4);
        let refused = settings(&["db:5432", "cdn", "::1"]).unwrap_err();
        let expected = "expected peers, ADDRESS:PORT or ADDRESS:*";
        assert_eq!(refused, format!("wants.network is cdn, {expected}; wants.network is ::1, {expected}"));
    }
}
