//! A setting that cannot be used.

use std::fmt;

/// Longest value that an error repeats, in characters.
const SHOWN: usize = 200;

/// One bad setting: what it is called, what it was, and what it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The flag (`--port`) or variable (`ochopod_port`) that it came by.
    pub name: String,
    /// Its value, cut where it is very long.
    pub value: String,
    /// What was expected.
    pub expected: String,
}

impl SettingError {
    pub(super) fn new(name: impl Into<String>, value: &str, expected: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.chars().take(SHOWN).collect(), expected: expected.into() }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}, expected {}", self.name, self.value, self.expected)
    }
}

impl std::error::Error for SettingError {}
