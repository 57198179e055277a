//! Errors and warnings about a configuration, with their positions.

use std::fmt;

use ochopod_json5::{self as json5, Position};

/// Maximum number of errors that are reported.
const MAX_ERRORS: usize = 1000;
/// Maximum length of the text of a diagnostic, in characters.
const MAX_TEXT_CHARS: usize = 500;

/// An error or a warning at a position in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Position of the value that it is about.
    pub at: Position,
    /// Description of the problem; includes an excerpt of the configuration if that is not valid JSON5.
    pub text: String,
}

impl Diagnostic {
    /// Creates a diagnostic of one line, cut at [`MAX_TEXT_CHARS`].
    fn new(at: Position, text: &str) -> Self {
        let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Self { at, text: text.chars().take(MAX_TEXT_CHARS).map(visible).collect() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.text)
    }
}

/// Invalid configuration. `Display` prints one line for each error, and an excerpt if the text is not valid JSON5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// All errors in the order of the text: at least one, at most a thousand.
    pub errors: Vec<Diagnostic>,
}

impl ConfigError {
    /// Creates the error of a text that is not valid JSON5.
    pub(super) fn syntax(text: &str, error: &json5::SyntaxError) -> Self {
        let text = format!("{}{}", error.problem, json5::excerpt(text, error.at));
        Self { errors: vec![Diagnostic { at: error.at, text }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Errors and warnings collected while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn error(&mut self, at: Position, text: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(Diagnostic::new(at, text));
        }
    }

    pub(super) fn warning(&mut self, at: Position, text: &str) {
        self.warnings.push(Diagnostic::new(at, text));
    }

    /// Returns the value with the warnings if there are no errors. A value is missing only after an error was recorded.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Diagnostic>), ConfigError> {
        self.errors.sort_by_key(|error| error.at);
        self.warnings.sort_by_key(|warning| warning.at);
        match value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => Err(ConfigError { errors: self.errors }),
        }
    }
}
