//! The configuration as a whole.

use std::{net::IpAddr, time::Duration};

use super::{
    Command, Config, ConfigError,
    backends::backends,
    command::command,
    crew::{coprocess, task},
    field::{Field, Object},
    json5,
    logging::logging,
    note::{Note, Notes},
    place::place,
    services::services,
    telemetry::telemetry,
    value::{some_seconds, whole},
};
use crate::{discovery::Place, settings::Env};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a configuration is read with.
pub struct Reading<'a> {
    /// The environment: where Consul is, and how one gets into it, may stand there.
    pub env: &'a Env,
    /// The address that specifications of interfaces lead to, or why to none.
    pub resolve: &'a dyn Fn(&[String]) -> Result<IpAddr, String>,
    /// Whether it is for a pod with a plugin, whose own checks a service may ask for.
    pub plugin: bool,
    /// The place of a configuration that names none; none when it has to.
    pub default_place: Option<Place>,
}

impl Config {
    /// Reads a configuration, its template carried out.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first: but for a text that is not JSON5, where that shows.
    pub fn read(text: &str, reading: &Reading<'_>) -> Result<Self, ConfigError> {
        let root = json5::parse(text).map_err(|error| ConfigError::syntax(text, &error))?;
        let mut notes = Notes::default();
        let config = Field::root(&root, &mut notes).object(|keys| config(keys, reading));
        let (config, remarks) = notes.judge(config)?;
        Ok(Self { remarks: remarks.iter().map(Note::to_string).collect(), ..config })
    }
}

fn config(keys: &mut Object<'_, '_>, reading: &Reading<'_>) -> Option<Config> {
    let place = place(keys, reading);
    let logging = keys.optional("logging", logging).unwrap_or_default();
    if reading.plugin && keys.has("logging") {
        keys.remark("logging", "is of no account here: a pod has --log-level, --log-format and --log");
    }
    let pre_start = pre_start(keys);
    let pre_stop = keys.optional("preStop", command);
    let post_stop = keys.optional("postStop", command);
    let stop_timeout = keys.optional("stopTimeout", stop_timeout).unwrap_or(Some(STOP_TIMEOUT));
    let services = services(keys, reading);
    let backends = backends(keys);
    let tasks = keys.objects("tasks", task);
    let coprocesses = keys.objects("coprocesses", coprocess);
    let telemetry = keys.optional("telemetry", |field| telemetry(field, reading));
    Some(Config {
        place: place?,
        logging,
        pre_start,
        pre_stop,
        post_stop,
        stop_timeout,
        services,
        backends,
        tasks,
        coprocesses,
        telemetry,
        remarks: Vec::new(),
    })
}

/// The hook under its name, or the old one.
fn pre_start(keys: &mut Object<'_, '_>) -> Option<Command> {
    let old = keys.optional("onStart", command);
    let new = keys.optional("preStart", command);
    if keys.has("onStart") {
        let beside = keys.has("preStart");
        keys.remark("onStart", if beside { "is ignored beside preStart" } else { "is the old name of preStart" });
    }
    new.or(old)
}

/// None where the application is killed at once.
#[expect(clippy::option_option, reason = "the outer one is none after a mistake")]
fn stop_timeout(field: Field<'_, '_>) -> Option<Option<Duration>> {
    let timeout = match whole(field.value()) {
        Some(0) => Some(Some(STOP_TIMEOUT)),
        Some(..0) => Some(None),
        _ => some_seconds(field.value()).map(Some),
    };
    field.judge(timeout, "a whole number of seconds, 0 for the default of 5, or a negative one to kill at once")
}
