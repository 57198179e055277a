//! Errors of settings.

use std::fmt;

use ochopod_environment::without_url_credentials;

/// Longest value that an error repeats, in characters.
const MAX_SHOWN: usize = 200;

/// An invalid setting: its name, its value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// Flag (`--port`) or variable (`ochopod_port`).
    pub name: String,
    /// Value without the credentials of URLs, truncated if it is long; none if it is missing.
    pub value: Option<String>,
    /// Expected value.
    pub expected: String,
}

impl SettingError {
    /// Creates an error for a value.
    pub(crate) fn new(name: impl Into<String>, value: &str, expected: impl Into<String>) -> Self {
        let value = without_url_credentials(value).chars().take(MAX_SHOWN).collect();
        Self { name: name.into(), value: Some(value), expected: expected.into() }
    }

    /// Creates an error for a value that is secret.
    pub(crate) fn secret(name: impl Into<String>, expected: &str) -> Self {
        Self::new(name, "(hidden)", expected)
    }

    /// Creates an error for a missing value.
    pub(crate) fn missing(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, expected: expected.into() }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: invalid value {value:?}, expected {}", self.name, self.expected),
            None => write!(f, "{}: not set, expected {}", self.name, self.expected),
        }
    }
}

impl std::error::Error for SettingError {}
