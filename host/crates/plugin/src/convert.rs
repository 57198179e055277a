//! Conversion of what guests return: settings, commands, roles and tools.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Batch, Command, LifecycleSettings, ModelSettings, OnChange, Tool, WantedDirectory, Wants,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
};
use crate::NetworkGrant;

/// Maximum time (thirty years), so that deadlines can be computed.
const MAX_SECONDS: f64 = 1e9;
/// Minimum delay between checks or probes.
const MIN_DELAY_SECONDS: f64 = 0.01;
/// Maximum length of a role.
const MAX_ROLE_BYTES: usize = 64;
/// Largest number of a signal that is not a real-time signal.
const MAX_SIGNAL: u8 = 31;
/// Maximum number of tools of one plugin.
const MAX_TOOLS: usize = 256;
/// Maximum number of entries of each list of wants.
const MAX_WANTS: usize = 1024;
/// Maximum number of arguments and variables of a command.
const MAX_COMMAND_TEXTS: usize = 16_384;

/// Parses a time that a guest or the operator gave, in seconds.
pub(super) fn seconds(value: f64, min: f64) -> Result<Duration, String> {
    if !value.is_finite() || value < min || value > MAX_SECONDS {
        return Err(format!("seconds from {min} to {MAX_SECONDS}"));
    }
    Duration::try_from_secs_f64(value).map_err(|error| error.to_string())
}

/// Parses a delay between two checks or probes.
pub(super) fn delay(value: f64) -> Result<Duration, String> {
    seconds(value, MIN_DELAY_SECONDS)
}

/// Converts the declared settings and wants; or returns every invalid setting.
pub(super) fn lifecycle_settings(given: lifecycle::LifecycleSettings) -> Result<(LifecycleSettings, Wants), String> {
    let mut errors = FieldErrors::default();
    let settings = LifecycleSettings {
        check_every: errors.parse_field("check-every", given.check_every, delay(given.check_every)),
        checks: errors.parse_field("checks", given.checks, at_least_one(given.checks)),
        grace: errors.parse_field("grace", given.grace, seconds(given.grace, 0.0)),
        cwd: given.cwd.filter(|cwd| !cwd.is_empty()),
        pipe_subprocess: given.pipe_subprocess,
        shell: given.shell,
        soft: given.soft,
        strict: given.strict,
        on_change: match given.on_change {
            lifecycle::ChangePolicy::Restart => OnChange::Restart,
            lifecycle::ChangePolicy::Compare => OnChange::Compare,
        },
        ready_within: errors.parse_field("ready-within", given.ready_within, delay(given.ready_within)),
    };
    let wanted = &given.wants;
    for (name, length) in [
        ("wants.directories", wanted.directories.len()),
        ("wants.environment", wanted.environment.len()),
        ("wants.network", wanted.network.len()),
        ("wants.programs", wanted.programs.len()),
    ] {
        if length > MAX_WANTS {
            return Err(format!("{name}: too many entries: {length}, limit is {MAX_WANTS}"));
        }
    }
    let addresses = given.wants.network.iter().filter(|address| NetworkGrant::read(address).is_none());
    addresses
        .for_each(|address| errors.push("wants.network", address, "peers, loopback:PORT, ADDRESS:PORT or ADDRESS:*"));
    errors.or_errors((settings, wants(given.wants)))
}

/// Converts the declared settings; or returns every invalid one.
pub(super) fn model_settings(given: model::ModelSettings) -> Result<ModelSettings, String> {
    let mut errors = FieldErrors::default();
    let batch = match given.batch {
        model::BatchSize::All => Batch::All,
        model::BatchSize::Pods(pods) => Batch::Pods(pods as usize),
        model::BatchSize::Percent(percent) => Batch::Percent(percent),
    };
    let settings = ModelSettings {
        batch: errors.parse_field("batch", batch, valid_batch(batch)),
        damper: errors.parse_field("damper", given.damper, seconds(given.damper, 0.0)),
        grace: errors.parse_field("grace", given.grace, delay(given.grace)),
        probe_every: errors.parse_field("probe-every", given.probe_every, delay(given.probe_every)),
        depends_on: given.depends_on,
        full_shutdown: given.full_shutdown,
        sequential: given.sequential,
        tolerate: given.tolerate as usize,
    };
    let settings = errors.or_errors(settings)?;
    settings.validate().map(|()| settings)
}

impl ModelSettings {
    /// Checks the settings that depend on each other.
    ///
    /// # Errors
    /// The settings that exclude each other.
    pub fn validate(&self) -> Result<(), String> {
        let others = [("sequential", self.sequential), ("full_shutdown", self.full_shutdown)];
        match others.into_iter().find(|(_, is_set)| *is_set && self.batch != Batch::All) {
            None => Ok(()),
            Some((name, _)) => Err(format!("batch={} and {name} exclude each other: expected one of both", self.batch)),
        }
    }
}

/// Valid sizes of a batch.
pub(super) const BATCH_REQUIREMENT: &str = "all, a number of pods from 1, or a percentage from 1% to 100%";

/// Validates the size of a batch.
pub(super) fn valid_batch(batch: Batch) -> Result<Batch, String> {
    let is_valid = match batch {
        Batch::All => true,
        Batch::Pods(pods) => pods > 0,
        Batch::Percent(percent) => (1..=100).contains(&percent),
    };
    if is_valid { Ok(batch) } else { Err(BATCH_REQUIREMENT.to_owned()) }
}

/// Converts the role that a callback returned.
pub(super) fn role(callback: &str, given: Option<String>) -> Result<Option<String>, String> {
    let Some(role) = given else { return Ok(None) };
    let is_word = role.chars().all(|letter| letter.is_ascii_graphic());
    if role.len() > MAX_ROLE_BYTES || !is_word {
        return Err(format!(
            "{callback} returned invalid role {role:?}: expected one word of at most {MAX_ROLE_BYTES} \
                            printable ASCII characters"
        ));
    }
    Ok(Some(role))
}

/// Validates a number of checks.
pub(super) fn at_least_one(checks: u32) -> Result<u32, String> {
    if checks == 0 { Err("a whole number from 1".to_owned()) } else { Ok(checks) }
}

/// Collects the invalid fields of a record.
#[derive(Default)]
struct FieldErrors(Vec<String>);

impl FieldErrors {
    fn parse_field<T: Default>(&mut self, name: &str, given: impl std::fmt::Display, read: Result<T, String>) -> T {
        read.unwrap_or_else(|expected| {
            self.push(name, given, &expected);
            T::default()
        })
    }

    fn push(&mut self, name: &str, given: impl std::fmt::Display, expected: &str) {
        self.0.push(format!("{name}: invalid value {given}, expected {expected}"));
    }

    fn or_errors<T>(self, record: T) -> Result<T, String> {
        if self.0.is_empty() { Ok(record) } else { Err(self.0.join("; ")) }
    }
}

/// Converts the wants of the guest.
fn wants(given: types::Wants) -> Wants {
    let directories = given.directories.into_iter();
    Wants {
        directories: directories.map(|d| WantedDirectory { guest: d.guest, writable: d.writable }).collect(),
        network: given.network,
        programs: given.programs,
        environment: given.environment,
    }
}

/// Converts the tools of the guest, if their names are distinct in a command line.
pub(super) fn tools(given: Vec<tools::Tool>) -> Result<Vec<Tool>, String> {
    if given.len() > MAX_TOOLS {
        return Err(format!("too many tools: {}, limit is {MAX_TOOLS}", given.len()));
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::with_capacity(given.len());
    for tools::Tool { name, help } in given {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("invalid tool name {name:?}: expected text without white space"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("duplicate tool name {name:?}"));
        }
        tools.push(Tool { name, help });
    }
    Ok(tools)
}

/// Converts a command, if the system can run it.
pub(super) fn command(given: lifecycle::Command) -> Result<Command, String> {
    let lifecycle::Command { program, arguments, environment, reload } = given;
    if let Some(signal) = reload.filter(|signal| !(1..=MAX_SIGNAL).contains(signal)) {
        return Err(format!("configure returned invalid reload signal {signal}: expected 1 to {MAX_SIGNAL}"));
    }
    if program.is_empty() {
        return Err("configure returned an empty program".to_owned());
    }
    let texts = arguments.len() + environment.len();
    if texts > MAX_COMMAND_TEXTS {
        return Err(format!("configure returned {texts} arguments and variables, limit is {MAX_COMMAND_TEXTS}"));
    }
    if let Some((name, _)) = environment.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        return Err(format!("configure returned invalid variable name {name:?}"));
    }
    let texts = environment.iter().flat_map(|(name, value)| [name, value]).chain(&arguments).chain([&program]);
    if let Some(text) = { texts }.find(|text| text.contains('\0')) {
        return Err(format!("configure returned text with a NUL byte: {text:?}"));
    }
    Ok(Command { program, arguments, environment: environment.into_iter().collect::<BTreeMap<_, _>>(), reload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(damper: f64, grace: f64, probe_every: f64) -> Result<ModelSettings, String> {
        let depends_on = vec!["db".to_owned()];
        model_settings(model::ModelSettings {
            damper,
            batch: model::BatchSize::All,
            depends_on,
            full_shutdown: true,
            grace,
            probe_every,
            sequential: false,
            tolerate: 0,
        })
    }

    #[test]
    fn all_invalid_settings_are_named_in_one_error() {
        let fine = model(0.0, 60.0, 0.5).unwrap();
        assert_eq!((fine.damper, fine.probe_every), (Duration::ZERO, Duration::from_millis(500)));
        let errors = model(f64::NAN, -1.0, 0.0).unwrap_err();
        for part in ["damper: invalid value NaN", "grace: invalid value -1", "probe-every: invalid value 0"] {
            assert!(errors.contains(part), "{errors}");
        }
        for value in [f64::INFINITY, f64::NEG_INFINITY, 1e300, -0.1] {
            assert!(model(value, 60.0, 60.0).is_err(), "{value}");
        }
    }

    #[test]
    fn command_that_cannot_be_run_is_rejected() {
        let with = |program: &str, arguments: &[&str], environment: &[(&str, &str)]| {
            command(lifecycle::Command {
                program: program.to_owned(),
                arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
                environment: environment.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
                reload: None,
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
            with("a", &vec![""; MAX_COMMAND_TEXTS + 1], &[]),
        ] {
            assert!(bad.unwrap_err().starts_with("configure returned"));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_result_of_configure_is_accepted_by_the_system_or_rejected(
            texts in proptest::collection::vec(".{0,8}|[=\0a]{0,3}", 4),
        ) {
            let [program, argument, name, value] = &texts[..] else { unreachable!() };
            let (arguments, environment) = (vec![argument.clone()], vec![(name.clone(), value.clone())]);
            match command(lifecycle::Command { program: program.clone(), arguments, environment, reload: None }) {
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
        fn any_accepted_time_can_be_added_to_now(value: f64) {
            for read in [seconds(value, 0.0), delay(value)].into_iter().flatten() {
                proptest::prop_assert!(std::time::Instant::now().checked_add(read).is_some());
            }
        }
    }

    #[test]
    fn tool_names_are_distinct_and_without_white_space() {
        let named = |names: &[&str]| {
            tools(names.iter().map(|&name| tools::Tool { name: name.to_owned(), help: String::new() }).collect())
        };
        assert_eq!(named(&["a", "b"]).unwrap().len(), 2);
        for bad in [&["a", "a"][..], &[""], &["a b"], &["a\n"]] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..=MAX_TOOLS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(named(&many[1..]).unwrap().len(), MAX_TOOLS);
        assert_eq!(named(&many).unwrap_err(), "too many tools: 257, limit is 256");
    }

    fn no_wants() -> types::Wants {
        types::Wants { directories: Vec::new(), network: Vec::new(), programs: Vec::new(), environment: Vec::new() }
    }

    fn settings_with(wants: types::Wants) -> Result<(LifecycleSettings, Wants), String> {
        lifecycle_settings(lifecycle::LifecycleSettings {
            check_every: 60.0,
            checks: 1,
            cwd: None,
            grace: 60.0,
            pipe_subprocess: false,
            shell: false,
            soft: false,
            strict: false,
            on_change: lifecycle::ChangePolicy::Restart,
            ready_within: 60.0,
            wants,
        })
    }

    #[test]
    fn wants_that_no_operator_could_read_are_rejected() {
        let with = |number| {
            let wants = types::Wants { environment: vec!["A".to_owned(); number], ..no_wants() };
            settings_with(wants).map(|(_, wants)| wants.environment.len())
        };
        assert_eq!(with(MAX_WANTS), Ok(MAX_WANTS));
        assert_eq!(with(MAX_WANTS + 1), Err("wants.environment: too many entries: 1025, limit is 1024".to_owned()));
    }

    #[test]
    fn wanted_address_that_no_flag_could_grant_is_rejected() {
        let settings = |network: &[&str]| {
            let network = network.iter().map(|&address| address.to_owned()).collect();
            settings_with(types::Wants { network, ..no_wants() })
        };
        assert_eq!(
            settings(&["peers", "db:5432", "cdn:*", "[::1]:80", "loopback:80", "loopback:*"]).unwrap().1.network.len(),
            6
        );
        let error = settings(&["db:5432", "cdn", "loopback:http"]).unwrap_err();
        let expected = "expected peers, loopback:PORT, ADDRESS:PORT or ADDRESS:*";
        assert_eq!(
            error,
            format!(
                "wants.network: invalid value cdn, {expected}; wants.network: invalid value loopback:http, {expected}"
            )
        );
    }
}
