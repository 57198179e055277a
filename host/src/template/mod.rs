//! The part of Go's `text/template` that configurations use, rendered with the environment.
//!
//! The crate `gtmpl` is not used: it is maintained passively, and takes a missing key for an error.
//!
//! # What there is
//!
//! Everything that Go's templates have for data that is a map of strings: fields, variables, pipelines, parentheses, `if`,
//! `with`, `range`, `break`, `continue`, `define`, `template`, `block`, comments, and `-` that takes blanks away. A missing
//! key is empty. Not taken are hexadecimal floats, imaginary numbers, `call`, and arguments of `printf` by their number.
//!
//! Besides Go's functions there are those of ContainerPilot 2, with the value that a pipe brings as the last argument:
//!
//! | call | value |
//! |---|---|
//! | `default D V` | V if it is a string and not empty, else D as `%v` prints it |
//! | `env NAME` | the variable |
//! | `split SEPARATOR TEXT` | the list of pieces of the text without outer blanks; an empty one of a blank text |
//! | `join SEPARATOR LIST` | a text |
//! | `replaceAll FROM TO TEXT` | the text with all of FROM replaced |
//! | `regexReplaceAll PATTERN TO TEXT` | the text with all matches replaced; `$1` in TO is a group; RE2 syntax |
//!
//! As in ContainerPilot, values are put into the text as they are: one with a quote or a backslash in it breaks a JSON
//! string around it. One addition helps: `{{ .X | json }}` is the value as JSON, a string with its quotes.
//!
//! # Bounds
//!
//! No text overflows the stack or runs for ever: blocks, parentheses and templates nest a hundred levels deep at most, no
//! text that is made is longer than 16 MiB, and what may be looked at on the way is counted.

#[cfg(test)]
mod behaviour;
mod compare;
mod error;
mod escape;
mod evaluation;
mod float;
mod format;
mod functions;
mod lexer;
mod literal;
mod parser;
mod pattern;
mod pipeline;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

pub use error::{Position, Problem, TemplateError, WordError};

/// How deep blocks, parentheses and templates may nest.
const DEPTH: usize = 100;
/// Longest text that may come of a template or of a function, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;
/// How many bytes all operands of all functions, and their values, may have together.
const WORK: usize = 64 * 1024 * 1024;
/// What one operand, one element of a list or one turn of a loop counts for, in bytes.
const STEP: usize = 32;

/// Renders a template with the variables as its data.
///
/// # Errors
/// With the first thing that is wrong. What can only be wrong when it is carried out, as a type or an index, is no error where
/// it is not.
pub fn render(text: &str, variables: &BTreeMap<String, String>) -> Result<String, TemplateError> {
    let rendered = parser::parse(text).and_then(|template| evaluation::evaluate(&template, variables));
    rendered.map_err(|mistake| mistake.told(text))
}

/// Renders each word of an application's command line. When one cannot be rendered, all stay as they were given, and
/// the error is for the log.
#[must_use]
pub fn render_words(words: &[String], variables: &BTreeMap<String, String>) -> (Vec<String>, Option<WordError>) {
    let rendered = words
        .iter()
        .zip(1..)
        .map(|(word, number)| render(word, variables).map_err(|error| WordError { number, error }));
    match rendered.collect() {
        Ok(rendered) => (rendered, None),
        Err(error) => (words.to_vec(), Some(error)),
    }
}

/// The variables that templates see: bytes that are no UTF-8 become U+FFFD.
pub fn environment<'a>(variables: impl IntoIterator<Item = (&'a OsString, &'a OsString)>) -> BTreeMap<String, String> {
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    variables.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
