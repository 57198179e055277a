//! Reading of a whole configuration.

use std::{net::IpAddr, path::Path, time::Duration};

use ochopod_discovery::{Part, RegistryConfig, RegistryConfigError};
use ochopod_environment::Env;
use ochopod_json5 as json5;

use super::{
    CommandLine, Config, ConfigError,
    backends::backends,
    command::command,
    diagnostic::{Diagnostic, Diagnostics},
    field::{Field, Object},
    logging::logging,
    registry::registry,
    services::services,
    tasks::{coprocess, task},
    telemetry::telemetry,
    value::{seconds_value, whole},
};

const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Environment and lookups that a configuration is read with.
pub struct ReadContext<'a> {
    /// Environment variables: `PATH`, and Consul's address and credentials.
    pub env: &'a Env,
    /// Returns the address of the first interface that matches these specifications.
    pub resolve: &'a dyn Fn(&[String]) -> Result<IpAddr, String>,
    /// Validates the template file of a backend.
    pub template: &'a dyn Fn(&Path) -> Result<(), String>,
    /// Whether the configuration belongs to a pod with a plugin, whose sanity checks services may use.
    pub plugin: bool,
    /// Registry of a configuration that defines none; if `None`, it must define one.
    pub default_registry: Option<RegistryConfig>,
    /// Returns all errors of a registry's settings, such as [`RegistryConfig::errors`], which reads files.
    pub check: &'a dyn Fn(&RegistryConfig) -> Vec<(Part, RegistryConfigError)>,
}

impl Config {
    /// Reads a configuration whose template is rendered.
    ///
    /// # Errors
    /// All errors of the configuration, or the first one if it is not valid JSON5.
    pub fn read(text: &str, context: &ReadContext<'_>) -> Result<Self, ConfigError> {
        let root = json5::parse(text).map_err(|error| ConfigError::syntax(text, &error))?;
        let mut diagnostics = Diagnostics::default();
        let config = Field::root(&root, &mut diagnostics).object(|keys| config(keys, context));
        let (config, warnings) = diagnostics.finish(config)?;
        Ok(Self { warnings: warnings.iter().map(Diagnostic::to_string).collect(), ..config })
    }
}

fn config(keys: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Option<Config> {
    let registry = registry(keys, context);
    let logging = keys.optional("logging", logging).unwrap_or_default();
    if context.plugin && keys.has("logging") {
        keys.warning("logging", "ignored in a pod, use --log-level, --log-format and --log");
    }
    let pre_start = pre_start(keys, context);
    let pre_stop = keys.optional("preStop", |field| command(field, context));
    let post_stop = keys.optional("postStop", |field| command(field, context));
    let stop_timeout = keys.optional("stopTimeout", stop_timeout).unwrap_or(Some(DEFAULT_STOP_TIMEOUT));
    let services = services(keys, context);
    let backends = backends(keys, context);
    let tasks = keys.objects("tasks", |keys| task(keys, context));
    let coprocesses = keys.objects("coprocesses", |keys| coprocess(keys, context));
    let telemetry = keys.optional("telemetry", |field| telemetry(field, context));
    Some(Config {
        registry: registry?,
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
        warnings: Vec::new(),
    })
}

/// Reads the hook `preStart`, or `onStart`, its former name.
fn pre_start(keys: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Option<CommandLine> {
    let former = keys.optional("onStart", |field| command(field, context));
    let hook = keys.optional("preStart", |field| command(field, context));
    if keys.has("onStart") {
        let is_ignored = keys.has("preStart");
        keys.warning("onStart", if is_ignored { "ignored, preStart is set" } else { "former name of preStart" });
    }
    hook.or(former)
}

/// Reads the stop timeout; the inner `None` kills the application immediately.
#[expect(clippy::option_option, reason = "the outer one is none after an error")]
fn stop_timeout(field: Field<'_, '_>) -> Option<Option<Duration>> {
    let timeout = match whole(field.value()) {
        Some(0) => Some(Some(DEFAULT_STOP_TIMEOUT)),
        Some(..0) => Some(None),
        _ => seconds_value(field.value()).map(Some),
    };
    field
        .require(timeout, "a whole number of seconds, 0 for the default of 5, or a negative number to kill immediately")
}
