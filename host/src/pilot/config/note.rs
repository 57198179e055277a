//! What is to be said about places in a configuration.

use std::fmt;

use super::json5::{self, Position};

/// Most mistakes that are told.
const MOST: usize = 1000;
/// Most characters of a note.
const LONGEST: usize = 500;

/// Something about a place in a configuration: a mistake or a remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it is.
    pub at: Position,
    /// What is wrong or odd there; with an excerpt of the text when that is not even JSON5.
    pub text: String,
}

impl Note {
    /// On one line, cut where it is very long.
    fn new(at: Position, text: &str) -> Self {
        let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Self { at, text: text.chars().take(LONGEST).map(visible).collect() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.text)
    }
}

/// A configuration that cannot be used. `Display` has a line for each mistake, and more where the text is not even JSON5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// All that is wrong, in the order of the text; at least one. Nobody reads more than a thousand: the rest is left out.
    pub mistakes: Vec<Note>,
}

impl ConfigError {
    /// Of a text that is not JSON5.
    pub(super) fn syntax(text: &str, error: &json5::SyntaxError) -> Self {
        let shown = format!("{}{}", error.problem, json5::excerpt(text, error.at));
        Self { mistakes: vec![Note { at: error.at, text: shown }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.mistakes.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// What was noted so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    mistakes: Vec<Note>,
    remarks: Vec<Note>,
}

impl Notes {
    pub(super) fn mistake(&mut self, at: Position, text: &str) {
        if self.mistakes.len() < MOST {
            self.mistakes.push(Note::new(at, text));
        }
    }

    pub(super) fn remark(&mut self, at: Position, text: &str) {
        self.remarks.push(Note::new(at, text));
    }

    /// What was read, and the remarks, unless there are mistakes. Nothing was read only after one was noted.
    pub(super) fn judge<T>(mut self, read: Option<T>) -> Result<(T, Vec<Note>), ConfigError> {
        self.mistakes.sort_by_key(|mistake| mistake.at);
        self.remarks.sort_by_key(|remark| remark.at);
        match read {
            Some(read) if self.mistakes.is_empty() => Ok((read, self.remarks)),
            _ => Err(ConfigError { mistakes: self.mistakes }),
        }
    }
}
