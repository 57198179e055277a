use std::cell::{Cell, RefCell};

use super::*;
use crate::{
    Cluster, Command, Error, ModelSettings, Output, Pod, Result, Settings, Wants, json,
    testing::{self, pod},
};

/// Counts its calls, and returns the chosen values from `sanity_check` and `signaled`.
#[derive(Default)]
struct Counting {
    calls: u32,
    answer: Value,
}

impl Lifecycle for Counting {
    fn settings() -> Settings {
        SETTINGS.set(SETTINGS.get() + 1);
        Settings { checks: 3, wants: Wants::default().write("/data").connect("peers"), ..Settings::default() }
    }

    fn initialize(&mut self) -> Result<()> {
        Err(Error::not_yet("no disk yet"))
    }

    fn ready(&mut self, cluster: &Cluster, _: u32) -> Result<()> {
        let started = cluster.iter().filter(|pod| pod.started).count();
        if started < 1 {
            bail!("first of all");
        }
        Ok(())
    }

    fn role(&mut self) -> Option<String> {
        Some("primary".to_owned())
    }

    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        if cluster.size() == 1 {
            bail!("one pod is not enough");
        }
        self.calls += 1;
        Ok(Command::shell(format!("run {} of {}", cluster.index(), cluster.size())).env("CALLS", self.calls))
    }

    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        Ok(self.answer.clone())
    }

    fn signaled(&mut self, body: Option<Value>, _: Option<u32>) -> Result<Value> {
        self.answer = body.unwrap_or_default();
        Ok(self.answer.clone())
    }
}

#[derive(Default)]
struct WebModel;

impl Model for WebModel {
    fn settings() -> ModelSettings {
        ModelSettings { depends_on: vec!["db".to_owned()], ..ModelSettings::default() }
    }

    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let db = cluster.grep("db", 5432, false)?;
        Ok((!db.is_empty()).then_some(db))
    }
}

struct Greet;

impl Tool for Greet {
    fn name(&self) -> &'static str {
        "greet"
    }

    fn run(&mut self, arguments: &[String], uploads: &[String]) -> Result<Output> {
        Ok(format!("hello {}\n{}", arguments.join(" "), uploads.join(",")).into())
    }
}

struct Fixture;

thread_local! {
    static LIFECYCLE: RefCell<Counting> = RefCell::default();
    static SETTINGS: Cell<u32> = const { Cell::new(0) };
}

impl Plugin for Fixture {
    type Lifecycle = Counting;
    type Model = WebModel;

    fn lifecycle<R>(call: impl FnOnce(&mut Counting) -> R) -> R {
        LIFECYCLE.with_borrow_mut(call)
    }

    fn model<R>(call: impl FnOnce(&mut WebModel) -> R) -> R {
        call(&mut WebModel)
    }

    fn tools() -> Vec<Box<dyn Tool>> {
        vec![Box::new(Greet)]
    }
}

type Exports = Adapter<Fixture>;

fn view() -> Cluster<'static> {
    testing::cluster([pod(3), pod(4)]).view_of(4)
}

#[test]
fn settings_reach_the_host_as_declared_with_the_documented_defaults() {
    let settings = Exports::lifecycle_settings();
    assert_eq!((settings.checks, settings.check_every, settings.grace, settings.cwd), (3, 60.0, 60.0, None));
    assert!(!(settings.shell || settings.soft || settings.strict || settings.pipe_subprocess));
    assert_eq!(settings.wants.network, ["peers"]);
    assert!(settings.wants.directories[0].writable);
    let settings = Exports::model_settings();
    assert_eq!((settings.damper, settings.grace, settings.probe_every), (0.0, 60.0, 60.0));
    assert_eq!(settings.depends_on, ["db"]);
}

#[test]
fn configure_sees_the_view_and_the_plugin_keeps_its_state_between_calls() {
    for calls in ["1", "2"] {
        let command = Exports::configure(&view()).unwrap();
        assert_eq!(command.program, "/bin/sh");
        assert_eq!(command.arguments, ["-c", "run 1 of 2", "sh"]);
        assert_eq!(command.environment, [("CALLS".to_owned(), calls.to_owned())]);
    }
}

#[test]
fn settings_are_called_once_in_the_loaded_instance_and_in_a_rebuilt_one() {
    let settings_calls = |loaded: bool| {
        let instance = std::thread::spawn(move || {
            if loaded {
                _ = Exports::lifecycle_settings();
            }
            for _ in 0..2 {
                assert_eq!(Exports::configure(&view()).unwrap().program, "/bin/sh");
            }
            SETTINGS.get()
        });
        instance.join().unwrap()
    };
    assert_eq!((settings_calls(true), settings_calls(false)), (1, 1));
}

#[test]
fn metrics_are_an_object_or_nothing() {
    assert_eq!(Exports::sanity_check(1).unwrap().metrics, "");
    Exports::signaled(r#"{"up":1}"#, None).unwrap();
    assert_eq!(Exports::sanity_check(1).unwrap().metrics, r#"{"up":1}"#);
    Exports::signaled("[1]", None).unwrap();
    assert_eq!(Exports::sanity_check(1).unwrap_err(), "sanity_check returned [1], expected a JSON object");
}

#[test]
fn a_signal_carries_any_json_or_nothing() {
    assert_eq!(Exports::signaled("", None).unwrap(), "");
    assert_eq!(Exports::signaled(&json!({"a": [1]}).to_string(), Some(1)).unwrap(), r#"{"a":[1]}"#);
}

#[test]
fn the_default_tear_down_needs_a_process() {
    assert!(Exports::tear_down(1).unwrap_err().contains("stop signal not sent"));
}

#[test]
fn a_probe_answers_with_text_nothing_or_a_refusal() {
    let builder = testing::cluster([pod(0)]);
    let with = |db: &[Pod]| builder.clone().dependency("db", db.iter().cloned()).view_of(0);
    let mapped = Pod { ip: "10.0.0.1".to_owned(), ports: [(5432, 31000)].into(), ..pod(7) };
    assert_eq!(Exports::probe(&with(&[mapped])).unwrap().unwrap(), "10.0.0.1:31000");
    assert_eq!(Exports::probe(&with(&[])).unwrap(), None);
    assert!(Exports::probe(&builder.view_of(0)).unwrap_err().contains("undeclared dependency \"db\""));
}

#[test]
fn a_tool_is_found_by_its_name() {
    assert_eq!(Exports::list()[0].name, "greet");
    let output = Exports::run("greet", &["a", "b"].map(str::to_owned), &["f".to_owned()]).unwrap();
    assert_eq!((output.code, output.stdout), (0, vec!["hello a b".to_owned(), "f".to_owned()]));
    assert_eq!(Exports::run("x", &[], &[]).unwrap_err(), "unknown tool \"x\"");
}

#[test]
fn errors_of_initialize_and_configure_are_not_yet_or_fatal() {
    let Err(lifecycle::Failure::NotYet(reason)) = Exports::initialize() else { panic!("expected not yet") };
    assert_eq!(reason, "no disk yet");
    let alone = testing::cluster([pod(0)]).view_of(0);
    let Err(lifecycle::Failure::Fatal(reason)) = Exports::configure(&alone) else { panic!("expected fatal") };
    assert_eq!(reason, "one pod is not enough");
}

#[test]
fn ready_sees_the_pods_of_the_view_before_it() {
    assert_eq!(Exports::ready(&view(), 1).unwrap_err(), "first of all");
    let later = testing::cluster([Pod { started: true, ..pod(3) }, pod(4)]).view_of(4);
    assert_eq!(Exports::ready(&later, 1), Ok(()));
}

#[test]
fn role_follows_checks_and_confirmations() {
    assert_eq!(Exports::sanity_check(1).unwrap().role.as_deref(), Some("primary"));
    assert_eq!(Exports::configured(&view()).unwrap().as_deref(), Some("primary"));
}
