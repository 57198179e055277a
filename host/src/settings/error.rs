//! A setting that cannot be used.

use std::fmt;

/// Longest value that an error repeats, in characters.
const SHOWN: usize = 200;

/// One bad setting: what it is called, what it was, and what it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The flag (`--port`) or variable (`ochopod_port`) that it came by.
    pub name: String,
    /// Its value, cut where it is very long; none when it is missing.
    pub value: Option<String>,
    /// What was expected.
    pub expected: String,
}

impl SettingError {
    pub(super) fn new(name: impl Into<String>, value: &str, expected: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.chars().take(SHOWN).collect()), expected: expected.into() }
    }

    /// One whose value is not to be seen.
    pub(super) fn secret(name: impl Into<String>, expected: &str) -> Self {
        Self::new(name, "(hidden)", expected)
    }

    pub(super) fn missing(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, expected: expected.into() }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is {value:?}, expected {}", self.name, self.expected),
            None => write!(f, "{} is not set, expected {}", self.name, self.expected),
        }
    }
}

impl std::error::Error for SettingError {}
