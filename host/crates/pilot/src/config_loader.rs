//! Loads a configuration from its source, at the start and at each reload.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use ochopod_discovery::{Registry, RegistryConfig, RegistryConfigError};
use ochopod_environment::Env;
use ochopod_interfaces::{self as interfaces, InterfaceTable};
use ochopod_template::{self as template, TemplateError};

use super::config::{Config, ConfigError, ConfigSource, ConfigSourceError, ReadContext};

/// Reason why a configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigLoadError {
    /// Its source cannot be read.
    #[error(transparent)]
    Source(#[from] ConfigSourceError),
    /// It is not a valid template.
    #[error("Could not apply template to config: {0}")]
    Template(#[from] TemplateError),
    /// It is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its registry cannot be used.
    #[error(transparent)]
    RegistryConfig(#[from] RegistryConfigError),
    /// Its files or its template took too long.
    #[error("configuration not loaded within {0:?}: a file is slow to read, or the template slow to render")]
    Late(Duration),
    /// Several abandoned loads are still in progress.
    #[error("configuration not loaded: {0} earlier loads are still in progress, waiting for files")]
    Busy(usize),
    /// The task that reads it failed.
    #[error("configuration not loaded: the task that reads it failed")]
    Failed,
}

/// Loads one configuration any number of times.
#[derive(Debug, Clone)]
pub struct ConfigLoader {
    source: ConfigSource,
    env: Env,
    variables: BTreeMap<String, String>,
    plugin: bool,
    default_registry: Option<RegistryConfig>,
}

impl ConfigLoader {
    /// Creates the loader for a plain command.
    #[must_use]
    pub fn new(source: ConfigSource, env: &Env) -> Self {
        Self {
            source,
            env: env.clone(),
            variables: template::environment(env.iter()),
            plugin: false,
            default_registry: None,
        }
    }

    /// Loads as for a pod with a plugin: its services are in its own store unless the configuration names a registry.
    #[must_use]
    pub fn for_pod(self, place: RegistryConfig) -> Self {
        Self { plugin: true, default_registry: Some(place), ..self }
    }

    /// Returns the variables of templates.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Returns the rendered text.
    ///
    /// # Errors
    /// [`ConfigLoadError::Source`] and [`ConfigLoadError::Template`].
    pub fn render(&self) -> Result<String, ConfigLoadError> {
        Ok(template::render(&self.source.read()?, &self.variables)?)
    }

    /// Returns the configuration, with the current addresses of its interfaces. Reads short files.
    ///
    /// # Errors
    /// Returns all errors, not just the first one.
    pub fn load(&self) -> Result<Config, ConfigLoadError> {
        self.open().map(|(config, _)| config)
    }

    /// Loads as [`Self::load`] does. Also returns a client of the configuration's registry.
    ///
    /// # Errors
    /// Returns all errors, not just the first one.
    pub fn open(&self) -> Result<(Config, Arc<dyn Registry>), ConfigLoadError> {
        let text = self.render()?;
        let table = InterfaceTable::read().map_err(|error| error.to_string());
        let resolve = |specs: &[String]| -> Result<IpAddr, String> {
            interfaces::resolve(specs, table.as_ref().map_err(Clone::clone)?).map_err(|error| error.to_string())
        };
        let reading = ReadContext {
            env: &self.env,
            resolve: &resolve,
            template: &validate,
            plugin: self.plugin,
            default_registry: self.default_registry.clone(),
            check: &RegistryConfig::errors,
        };
        let mut config = Config::read(&text, &reading)?;
        // Before its client reads the files: one that changes in between is read again by the next reload.
        config.registry = config.registry.with_fingerprints();
        let registry = config.registry.open()?;
        Ok((config, registry))
    }
}

/// Checks that a file is a valid template.
fn validate(file: &Path) -> Result<(), String> {
    let text = ConfigSource::File(file.to_owned()).read().map_err(|error| error.to_string())?;
    template::validate(&text).map_err(|error| error.to_string())
}
