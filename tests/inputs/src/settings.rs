//! Variables and flags.

use std::{
    ffi::{OsStr, OsString},
    net::IpAddr,
    os::unix::ffi::OsStrExt as _,
};

use ochopod::{
    cli,
    cli::{CliError, Commands},
    settings::{GrantFlags, Settings, SettingsInput, grant_flags},
};
use ochopod_environment::{Env, is_secret_variable};
use ochopod_interfaces::InterfaceTable;
use ochopod_model::Registration;
use ochopod_platform::{LookUpResults, SystemInfo};
use ochopod_settings::{Flags, SettingError};
use serde_json::Value;

use crate::assert_error;

const SECRET: &str = "hunter2";
/// Maximum size of a registration.
const MAX_REGISTRATION_BYTES: usize = 4096;

/// Checks that all errors are named, valid values are registered, and no secret is revealed.
pub fn settings(bytes: &[u8]) {
    if String::from_utf8_lossy(bytes).contains(SECRET) {
        return;
    }
    let (arguments, variables): (Vec<&[u8]>, Vec<&[u8]>) =
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.contains(&0)).partition(|line| line.starts_with(b"-"));
    let Some((flags, grants)) = flags(&arguments) else { return };
    let env: Env = variables.into_iter().map(variable).collect();
    let address = IpAddr::from([10, 0, 0, 9]);
    let system = SystemInfo {
        hostname: "box".to_owned(),
        address,
        host: None,
        interfaces: InterfaceTable::default(),
        container: false,
        init: false,
        user: 0,
        group: 0,
        memory: None,
    };
    let (system, found) = (&system, &LookUpResults::default());
    let input = SettingsInput { env: &env, flags: &flags, grants: &grants, system, found, instance_metadata: None };
    match Settings::read(input) {
        Ok((settings, zk)) => {
            assert_sound(&settings);
            assert_silent(&format!("{zk} {zk:?} {:?}", settings.unreachable_ip(&zk)));
            assert_sound(&settings.with_address(address));
        }
        Err(errors) => assert_named(&errors),
    }
    match Settings::read_for_up(input) {
        Ok((settings, _)) => assert_sound(&settings),
        Err(errors) => assert_named(&errors),
    }
    if let Err(errors) = grant_flags::read_alone(&grants) {
        assert_named(&errors);
    }
}

/// Returns the flags as they are read from a command line.
fn flags(arguments: &[&[u8]]) -> Option<(Flags, GrantFlags)> {
    let words = ["ochopod", "run", "plugin.wasm"].map(OsString::from);
    let arguments = arguments.iter().map(|word| OsStr::from_bytes(word).to_owned());
    match cli::parse(words.into_iter().chain(arguments)) {
        Ok(parsed) => match parsed.command {
            Commands::Run(run) => Some((run.settings, run.grants)),
            other => panic!("run is read as {other:?}"),
        },
        Err(CliError::Usage(text) | CliError::Info(text)) => {
            assert!(!text.is_empty(), "bad usage is not explained");
            None
        }
    }
}

/// Returns a variable, with a secret wherever one may be.
fn variable(line: &[u8]) -> (OsString, OsString) {
    let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
    let value = line.get(name.len() + 1..).unwrap_or_default();
    let name = OsStr::from_bytes(name);
    let value = match value.iter().rposition(|byte| *byte == b'@') {
        Some(at) if name == "ochopod_zk" => [&value[..at], SECRET.as_bytes(), &value[at..]].concat(),
        _ if is_secret_variable(&name.to_string_lossy()) => [value, SECRET.as_bytes()].concat(),
        _ => value.to_owned(),
    };
    (name.to_owned(), OsStr::from_bytes(&value).to_owned())
}

fn assert_sound(settings: &Settings) {
    let mut fields = settings.registration.clone();
    fields.insert("seq".to_owned(), u64::MAX.into());
    let registration = Value::Object(fields.clone()).to_string();
    assert!(registration.len() <= MAX_REGISTRATION_BYTES, "a registration of {} bytes", registration.len());
    assert!(Registration::from_fields(fields).is_ok(), "{registration} is refused");
    assert_silent(&registration);
    assert_silent(&format!("{settings:?}"));
    for (name, value) in &settings.environment {
        assert_silent(&name.to_string_lossy());
        assert_silent(&value.to_string_lossy());
    }
}

fn assert_named(errors: &[SettingError]) {
    assert!(!errors.is_empty(), "settings are refused without a reason");
    for error in errors {
        assert!(!error.name.is_empty() && !error.expected.is_empty(), "{error:?}");
        assert_silent(&format!("{error} {error:?}"));
        if error.name.starts_with("PORT_") {
            assert_error(error);
        }
    }
}

fn assert_silent(text: &str) {
    assert!(!text.contains(SECRET), "a secret is revealed: {text}");
}
