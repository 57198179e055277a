//! From where the configuration is, to the configuration: at the start, and anew at each reload.

use std::{collections::BTreeMap, net::IpAddr};

use super::config::{Config, ConfigError, Reading, Source, SourceError};
use crate::{
    discovery::{OpenError, Place},
    interfaces::{self, Table},
    settings::Env,
    template::{self, TemplateError},
};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its text cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is no template.
    #[error("Could not apply template to config: {0}")]
    Template(#[from] TemplateError),
    /// It is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Where services are to be registered cannot be used as it says.
    #[error(transparent)]
    Place(#[from] OpenError),
}

/// Loads one configuration as often as it is asked for.
#[derive(Debug, Clone)]
pub struct Loader {
    source: Source,
    env: Env,
    variables: BTreeMap<String, String>,
    plugin: bool,
    default_place: Option<Place>,
}

impl Loader {
    /// The configuration of a plain command.
    #[must_use]
    pub fn new(source: Source, env: &Env) -> Self {
        Self {
            source,
            env: env.clone(),
            variables: template::environment(env.iter()),
            plugin: false,
            default_place: None,
        }
    }

    /// That of a pod with a plugin, whose services are in its own store unless the configuration says otherwise.
    #[must_use]
    pub fn of_a_pod(self, place: Place) -> Self {
        Self { plugin: true, default_place: Some(place), ..self }
    }

    /// What templates know.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The text, its template applied.
    ///
    /// # Errors
    /// [`LoadError::Source`] and [`LoadError::Template`].
    pub fn render(&self) -> Result<String, LoadError> {
        Ok(template::render(&self.source.read()?, &self.variables)?)
    }

    /// The configuration, and the addresses that it asks for as they are now. Reads files: short ones.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first.
    pub fn load(&self) -> Result<Config, LoadError> {
        let text = self.render()?;
        let table = Table::read().map_err(|error| error.to_string());
        let resolve = |specs: &[String]| -> Result<IpAddr, String> {
            interfaces::resolve(specs, table.as_ref().map_err(Clone::clone)?).map_err(|error| error.to_string())
        };
        let reading = Reading {
            env: &self.env,
            resolve: &resolve,
            plugin: self.plugin,
            default_place: self.default_place.clone(),
        };
        let config = Config::read(&text, &reading)?;
        config.place.open()?;
        Ok(config)
    }
}
