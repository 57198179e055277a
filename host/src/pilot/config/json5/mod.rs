//! JSON5 as a tree whose values know where they stand. The crates that read JSON5 (json5, json-five, jsonc-parser were looked
//! at) do not tell positions of values, which is what errors of a configuration are about: so this one is our own.
//!
//! All of JSON5 1.0 is read; identifiers as Rust knows letters and digits. Every error is at the character where the text stops
//! being JSON5.

mod cursor;
mod number;
mod parser;
mod text;

use std::fmt;

use self::parser::Parser;

/// Deepest that values may be nested.
const DEEPEST: usize = 64;
/// Most characters of a line that an error shows.
const WIDEST: usize = 120;

/// Where something stands in a text. Ordered as in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node<'t> {
    /// Where it begins.
    pub(super) at: Position,
    /// What stands there.
    pub(super) written: &'t str,
    /// What that means.
    pub(super) value: Value<'t>,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Value<'t> {
    Null,
    Boolean(bool),
    Number(f64),
    Text(String),
    List(Vec<Node<'t>>),
    /// In the order of the text. A key may be there twice.
    Object(Vec<Member<'t>>),
}

/// One member of an object.
#[derive(Debug)]
pub(super) struct Member<'t> {
    pub(super) key: String,
    /// Where the key begins.
    pub(super) at: Position,
    pub(super) value: Node<'t>,
}

/// Why a text is not JSON5.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("expected {expected}, found {found}")]
    Unexpected { expected: &'static str, found: String },
    #[error("an extra comma: there is nothing before it")]
    ExtraComma,
    #[error("expected a value, found {found:?}: a variable that is not set leaves such a hole")]
    Hole { found: char },
    #[error("{0:?} is no value, expected null, true, false, a number, or quotes around a text")]
    Word(String),
    #[error("{0:?} is no number")]
    Number(String),
    #[error("the {what} that begins at {began} does not end")]
    Unended { what: &'static str, began: Position },
    #[error("a text ends on the line that it begins on, unless a backslash ends the line")]
    LineEnd,
    #[error("{0:?} is no escape")]
    Escape(String),
    #[error("it is nested more than {DEEPEST} deep")]
    TooDeep,
}

/// A text that is not JSON5, and where that shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) at: Position,
    pub(super) problem: Problem,
}

/// Reads a whole text. In bounded stack, whatever it is.
pub(super) fn parse(text: &str) -> Result<Node<'_>, SyntaxError> {
    Parser::new(text).document()
}

/// What a line with a secret has in it.
const SECRETS: [&str; 3] = ["token", "password", "secret"];
const HIDDEN: &str = "(not shown: a secret may stand here)";

/// The line of a position and the one before it, with a caret under the position. Lines that seem to hold secrets are hidden.
pub(super) fn excerpt(text: &str, at: Position) -> String {
    let width = at.line.to_string().len();
    let first = at.column.saturating_sub(WIDEST / 2);
    let shown = |line: &str| -> String {
        if SECRETS.iter().any(|secret| line.to_lowercase().contains(secret)) {
            return HIDDEN.to_owned();
        }
        line.chars().skip(first).take(WIDEST).map(visible).collect()
    };
    let mut excerpt = String::new();
    for (number, line) in (1..).zip(text.split('\n')).skip(at.line.saturating_sub(2)).take(at.line.min(2)) {
        excerpt += format!("\n  {number:width$} | {}", shown(line.trim_end_matches('\r'))).trim_end();
    }
    let line = text.split('\n').nth(at.line - 1).unwrap_or_default();
    let before = line.chars().take(at.column - 1).skip(first);
    let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
    format!("{excerpt}\n  {:width$} | {indent}^", "")
}

/// A character as a line of an excerpt can show it.
fn visible(character: char) -> char {
    if character.is_control() && character != '\t' { char::REPLACEMENT_CHARACTER } else { character }
}

#[cfg(test)]
mod tests;
