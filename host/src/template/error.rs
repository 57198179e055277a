//! What can be wrong with a template.

use std::fmt;

use super::lexer::{CLOSE, OPEN};

/// Most characters of a template that an error repeats.
const SHOWN: usize = 60;

/// Where in a text: line and character, both counted from 1.
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

/// What is wrong with a template, and where. It is shown as `3:14: function "x" not defined, in {{x .NAME}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {problem}, in {text}")]
pub struct TemplateError {
    /// Where it was found.
    pub position: Position,
    /// What is wrong there.
    pub problem: Problem,
    /// The action that is to blame, cut where it is very long.
    pub text: String,
}

/// What is wrong with an argument of an application, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument {number}: {error}")]
pub struct WordError {
    /// Which one, counted from 1.
    pub number: usize,
    /// What is wrong with it.
    #[source]
    pub error: TemplateError,
}

/// What is wrong, without where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Something ends too late or never.
    #[error("{what} is not closed: expected {expected}")]
    Unclosed {
        /// What began.
        what: &'static str,
        /// How it ends.
        expected: &'static str,
    },
    /// Something stands where it must not.
    #[error("unexpected {found}: expected {expected}")]
    Unexpected {
        /// What is there.
        found: String,
        /// What may be there.
        expected: String,
    },
    /// The text ends within a block.
    #[error("the text ends without {{{{end}}}} for the block that began at {began}")]
    NoEnd {
        /// Where the block began.
        began: Position,
    },
    /// A number, string or character that is none.
    #[error("{found} is no {expected}")]
    Literal {
        /// What is there.
        found: String,
        /// What it looks like.
        expected: &'static str,
    },
    /// A name that stands for nothing.
    #[error("{what} \"{name}\" not defined")]
    Undefined {
        /// What it would be the name of.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A second `{{define}}`.
    #[error("template \"{0}\" is defined twice")]
    Redefined(String),
    /// Too few arguments, or too many.
    #[error("wrong number of arguments for {function}: expected {expected}, got {given}")]
    Count {
        /// The function.
        function: &'static str,
        /// How many it takes.
        expected: String,
        /// How many there are.
        given: usize,
    },
    /// A value of the wrong type.
    #[error("wrong type for {what}: expected {expected}, got {found}")]
    Type {
        /// What the value is for.
        what: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A function refuses its arguments.
    #[error("error calling {function}: {reason}")]
    Call {
        /// The function.
        function: &'static str,
        /// Why.
        reason: String,
    },
    /// Blocks in blocks, or templates that use themselves.
    #[error("it is nested too deep: expected at most {0} levels")]
    Depth(usize),
    /// The text that comes of it is too long.
    #[error("the result is too long: expected at most {0} bytes")]
    Length(usize),
    /// It does not come to an end.
    #[error("it takes too long: expected fewer steps or shorter texts")]
    Work,
}

impl Problem {
    /// This problem, at that byte of the text.
    pub(super) fn at(self, at: usize) -> Mistake {
        Mistake { at, about: at, problem: self }
    }
}

/// A problem, and where in the text of the template.
#[derive(Debug)]
pub(super) struct Mistake {
    /// The byte where it was found.
    pub(super) at: usize,
    /// A byte of the action that is to blame.
    pub(super) about: usize,
    pub(super) problem: Problem,
}

impl Mistake {
    /// As it is told, given the text.
    pub(super) fn told(self, text: &str) -> TemplateError {
        TemplateError { position: Position::of(self.at, text), text: action(text, self.about), problem: self.problem }
    }
}

/// The action around a byte.
fn action(text: &str, about: usize) -> String {
    let rest = text.get(about..).unwrap_or_default();
    let before = text.get(..about).unwrap_or_default();
    let start = if rest.starts_with(OPEN) { about } else { before.rfind(OPEN).unwrap_or(about) };
    let whole = text.get(start..).unwrap_or_default();
    shown(whole.split_inclusive(CLOSE).next().unwrap_or_default())
}

/// A piece of a template on one line, cut where it is very long.
pub(super) fn shown(text: &str) -> String {
    let start = text.chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char });
    let mut shown: String = start.collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, at: usize) -> TemplateError {
        Problem::Work.at(at).told(text)
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        for (text, at, expected) in
            [("", 0, "1:1"), ("ab", 2, "1:3"), ("é\n€x", 6, "2:2"), ("a\n", 2, "2:1"), ("a\r\nb", 3, "2:1")]
        {
            assert_eq!(told(text, at).position.to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn errors_show_the_action_on_one_line_and_not_too_much_of_it() {
        for (text, at, expected) in [
            ("a {{x}} b {{.Y\n}} c", 12, "{{.Y }}"),
            ("a {{x}} b", 2, "{{x}}"),
            ("a {{x b", 6, "{{x b"),
            ("é{{", 2, "{{"),
        ] {
            assert_eq!(told(text, at).text, expected, "{text:?}");
        }
        let long = told(&format!("{{{{{}}}}}", "é".repeat(100)), 4).text;
        assert_eq!(long.chars().count(), SHOWN + 1, "{long}");
    }
}
