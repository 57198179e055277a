//! Parses JSON5 into a tree whose values know their positions, which errors in a configuration need. The published
//! parsers (json5, json-five, jsonc-parser) do not report positions of values.
//!
//! # Guarantees
//! - All of JSON5 1.0 is accepted, with letters and digits of identifiers as Rust defines them.
//! - Every error is at the first character that cannot continue a JSON5 text.
//! - Any text is parsed in bounded stack: values nest at most 64 deep.
//! - [`excerpt`] hides lines that seem to contain secrets.
//!
//! The crate keeps no state and knows nothing about configurations.
//!
//! | module | content |
//! |---|---|
//! | [`parse`], [`excerpt`] | entry points, and the types of the tree |
//! | `parser` | grammar |
//! | `cursor` | position in a text |
//! | `text`, `number` | quoted texts, numbers |

mod cursor;
mod number;
mod parser;
mod text;

use std::fmt;

use self::parser::Parser;

/// Deepest nesting of values.
const MAX_DEPTH: usize = 64;
/// Most characters of a line in an excerpt.
const MAX_EXCERPT_WIDTH: usize = 120;

/// Position in a text. Ordered as in the text.
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

/// A value and its position.
#[derive(Debug)]
pub struct Node<'t> {
    /// Position of its first character.
    pub at: Position,
    /// Text of the value, as written.
    pub written: &'t str,
    /// The value.
    pub value: Value<'t>,
}

/// A JSON5 value.
#[derive(Debug)]
pub enum Value<'t> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, which may be infinite or not a number.
    Number(f64),
    /// A quoted text, without quotes and escapes.
    Text(String),
    /// A list.
    List(Vec<Node<'t>>),
    /// An object, in the order of the text. Keys may be duplicate.
    Object(Vec<Member<'t>>),
}

/// One member of an object.
#[derive(Debug)]
pub struct Member<'t> {
    /// Key of the member, without quotes and escapes.
    pub key: String,
    /// Position of the key.
    pub at: Position,
    /// Value of the member.
    pub value: Node<'t>,
}

/// Cause of a [`SyntaxError`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxErrorKind {
    /// Something else was expected.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// Expected text.
        expected: &'static str,
        /// The text that was found.
        found: String,
    },
    /// A comma without a value before it.
    #[error("unexpected comma: no value before it")]
    ExtraComma,
    /// A missing value.
    #[error("expected a value, found {found:?}: is a template variable unset?")]
    Hole {
        /// The character that was found.
        found: char,
    },
    /// A bare word that is not a value.
    #[error("invalid value {0:?}: expected null, true, false, a number or a quoted string")]
    Word(String),
    /// An invalid number.
    #[error("invalid number {0:?}")]
    Number(String),
    /// An object, list, text or comment without an end.
    #[error("unterminated {what}, started at {start}")]
    Unterminated {
        /// Name of the part.
        what: &'static str,
        /// Its position.
        start: Position,
    },
    /// A quoted text that spans lines.
    #[error("unterminated text at the end of the line: expected its quote, or a backslash to continue it")]
    LineEnd,
    /// An invalid escape.
    #[error("invalid escape {0:?}")]
    Escape(String),
    /// Too deep nesting.
    #[error("nested too deep, limit is {MAX_DEPTH} levels")]
    TooDeep,
}

/// Error in a text that is not JSON5.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Position of the error.
    pub at: Position,
    /// Cause of the error.
    pub problem: SyntaxErrorKind,
}

/// Parses a whole text, in bounded stack.
///
/// # Errors
/// If the text is not JSON5.
pub fn parse(text: &str) -> Result<Node<'_>, SyntaxError> {
    Parser::new(text).document()
}

/// Words in lines that may contain secrets.
const SECRETS: [&str; 3] = ["token", "password", "secret"];
const HIDDEN: &str = "(hidden: may contain a secret)";

/// Returns the line of a position and the one before it, with a caret under the position. Lines that seem to contain
/// secrets are hidden.
#[must_use]
pub fn excerpt(text: &str, at: Position) -> String {
    let width = at.line.to_string().len();
    let first = at.column.saturating_sub(MAX_EXCERPT_WIDTH / 2);
    let shown = |line: &str| -> String {
        if SECRETS.iter().any(|secret| line.to_lowercase().contains(secret)) {
            return HIDDEN.to_owned();
        }
        line.chars().skip(first).take(MAX_EXCERPT_WIDTH).map(visible).collect()
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

/// Replaces characters that an excerpt cannot show.
fn visible(character: char) -> char {
    if character.is_control() && character != '\t' { char::REPLACEMENT_CHARACTER } else { character }
}

#[cfg(test)]
mod tests;
