//! Errors of templates with their position.

use std::fmt;

use super::lexer::{CLOSE, OPEN};

/// Most characters of a template that an error repeats.
const MAX_SHOWN: usize = 60;

/// Position in a text: line and character, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Position {
    pub(super) fn of(at: usize, text: &str) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rfind('\n').map_or(before, |end| before.get(end + 1..).unwrap_or_default());
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Error in a template. It is shown as `3:14: function "x" not defined, in {{x .NAME}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {problem}, in {text}")]
pub struct TemplateError {
    /// Position of the error.
    pub position: Position,
    /// Cause of the error.
    pub problem: TemplateErrorKind,
    /// The action with the error, cut where it is very long.
    pub text: String,
}

/// Error in an argument of an application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument {number}: {error}")]
pub struct ArgumentError {
    /// Number of the argument, from 1.
    pub number: usize,
    /// Error in it.
    #[source]
    pub error: TemplateError,
}

/// Cause of a [`TemplateError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// Something is not closed, or too late.
    #[error("unclosed {what}: expected {expected}")]
    Unclosed {
        /// Name of the part.
        what: &'static str,
        /// Expected end.
        expected: &'static str,
    },
    /// Something else was expected.
    #[error("unexpected {found}: expected {expected}")]
    Unexpected {
        /// The text that was found.
        found: String,
        /// Expected text.
        expected: String,
    },
    /// The text ends within a block.
    #[error("missing {{{{end}}}} of the block started at {start}")]
    NoEnd {
        /// Position of the block.
        start: Position,
    },
    /// An invalid number, string or character.
    #[error("invalid {expected} {found}")]
    Literal {
        /// The text that was found.
        found: String,
        /// Kind of the literal.
        expected: &'static str,
    },
    /// An unknown name.
    #[error("{what} \"{name}\" not defined")]
    Undefined {
        /// Kind of the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A second `{{define}}`.
    #[error("duplicate template \"{0}\"")]
    Redefined(String),
    /// Too few arguments, or too many.
    #[error("wrong number of arguments for {function}: expected {expected}, got {given}")]
    Count {
        /// The function.
        function: &'static str,
        /// Expected number.
        expected: String,
        /// Given number.
        given: usize,
    },
    /// A value of the wrong type.
    #[error("wrong type for {what}: expected {expected}, got {found}")]
    Type {
        /// Use of the value.
        what: String,
        /// Expected type.
        expected: &'static str,
        /// Type of the value.
        found: &'static str,
    },
    /// A function rejects its arguments.
    #[error("error calling {function}: {reason}")]
    Call {
        /// The function.
        function: &'static str,
        /// Cause.
        reason: String,
    },
    /// Too deep blocks, or templates that use themselves.
    #[error("nested too deep, limit is {0} levels")]
    Depth(usize),
    /// The result is too long.
    #[error("result too long, limit is {0} bytes")]
    Length(usize),
    /// The work limit is exceeded.
    #[error("evaluation takes too long: expected fewer steps or shorter texts")]
    Work,
}

impl TemplateErrorKind {
    /// Locates this error at that byte of the text.
    pub(super) fn at(self, at: usize) -> LocatedError {
        LocatedError { at, about: at, problem: self }
    }
}

/// An error at a byte of the template.
#[derive(Debug)]
pub(super) struct LocatedError {
    /// Byte of the error.
    pub(super) at: usize,
    /// A byte of the action with the error.
    pub(super) about: usize,
    pub(super) problem: TemplateErrorKind,
}

impl LocatedError {
    /// Converts it to the public error, given the text.
    pub(super) fn into_error(self, text: &str) -> TemplateError {
        TemplateError { position: Position::of(self.at, text), text: action(text, self.about), problem: self.problem }
    }
}

/// Returns the action around a byte.
fn action(text: &str, about: usize) -> String {
    let rest = text.get(about..).unwrap_or_default();
    let before = text.get(..about).unwrap_or_default();
    let start = if rest.starts_with(OPEN) { about } else { before.rfind(OPEN).unwrap_or(about) };
    let whole = text.get(start..).unwrap_or_default();
    excerpt(whole.split_inclusive(CLOSE).next().unwrap_or_default())
}

/// Returns a piece of a template on one line, cut where it is very long.
pub(super) fn excerpt(text: &str) -> String {
    let start = text.chars().take(MAX_SHOWN).map(|char| if char.is_control() { ' ' } else { char });
    let mut excerpt: String = start.collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str, at: usize) -> TemplateError {
        TemplateErrorKind::Work.at(at).into_error(text)
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        for (text, at, expected) in
            [("", 0, "1:1"), ("ab", 2, "1:3"), ("é\n€x", 6, "2:2"), ("a\n", 2, "2:1"), ("a\r\nb", 3, "2:1")]
        {
            assert_eq!(located(text, at).position.to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn errors_show_the_action_on_one_line_and_cut() {
        for (text, at, expected) in [
            ("a {{x}} b {{.Y\n}} c", 12, "{{.Y }}"),
            ("a {{x}} b", 2, "{{x}}"),
            ("a {{x b", 6, "{{x b"),
            ("é{{", 2, "{{"),
        ] {
            assert_eq!(located(text, at).text, expected, "{text:?}");
        }
        let long = located(&format!("{{{{{}}}}}", "é".repeat(100)), 4).text;
        assert_eq!(long.chars().count(), MAX_SHOWN + 1, "{long}");
    }
}
