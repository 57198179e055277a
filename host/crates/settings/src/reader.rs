//! The reader of settings: flags first, then variables.

use ochopod_environment::{Env, PREFIX};

use crate::{Flags, SettingError, table::Setting};

/// A setting before it is parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSetting {
    /// Flag or variable, for errors.
    pub name: String,
    /// Text.
    pub text: String,
}

/// Reads settings, flags first, and collects all errors.
#[derive(Debug)]
pub struct SettingsReader<'a> {
    /// The variables.
    pub env: &'a Env,
    /// The flags.
    pub flags: &'a Flags,
    /// The errors so far.
    pub errors: Vec<SettingError>,
}

impl<'a> SettingsReader<'a> {
    /// Creates a reader of these variables and flags.
    #[must_use]
    pub fn new(env: &'a Env, flags: &'a Flags) -> Self {
        Self { env, flags, errors: Vec::new() }
    }

    /// Returns a setting by its name in the table. An empty variable counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<RawSetting> {
        debug_assert!(Setting::find(name).is_some(), "{name} is not in the table of settings");
        if let Some(text) = self.flags.text(name) {
            return Some(RawSetting { name: format!("--{}", name.replace('_', "-")), text: text.to_owned() });
        }
        let name = format!("{PREFIX}{name}");
        let text = self.env.text(&name)?.to_owned();
        Some(RawSetting { name, text })
    }

    /// Returns a setting that `parse` accepts; otherwise records an error.
    pub fn parsed<T>(&mut self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let raw = self.get(name)?;
        let value = parse(&raw.text);
        if value.is_none() {
            self.invalid(raw.name, &raw.text, expected);
        }
        value
    }

    /// Records a missing setting.
    pub fn missing(&mut self, name: &str, expected: impl Into<String>) {
        self.errors.push(SettingError::missing(name, expected));
    }

    /// Records an invalid setting whose value is secret.
    pub fn invalid_secret(&mut self, name: impl Into<String>, expected: &str) {
        self.errors.push(SettingError::secret(name, expected));
    }

    /// Records an invalid setting.
    pub fn invalid(&mut self, name: impl Into<String>, value: &str, expected: impl Into<String>) {
        self.errors.push(SettingError::new(name, value, expected));
    }
}
