//! The part of Go's `text/template` that configurations use, rendered with the environment or other [`Data`].
//!
//! The crate `gtmpl` is not used: it is maintained passively and treats a missing key as an error.
//!
//! # Guarantees
//!
//! - Rendering is pure: the result depends on template, data and variables only.
//! - No text overflows the stack or runs indefinitely: blocks, parentheses and templates nest at most 100 levels deep,
//!   no result is longer than 16 MiB, and the bytes processed are counted.
//!
//! The crate keeps no state. It does not know where templates, variables and data come from, nor JSON5.
//!
//! # Language
//!
//! Everything that Go's templates have for data that is a map of strings: fields, variables, pipelines, parentheses,
//! `if`, `with`, `range`, `break`, `continue`, `define`, `template`, `block`, comments, and `-` that trims blanks. A
//! missing key is empty. Hexadecimal floats, imaginary numbers, `call`, and arguments of `printf` by number are not
//! supported.
//!
//! In addition to Go's functions there are those of ContainerPilot 2, with the piped value as the last argument:
//!
//! | call | value |
//! |---|---|
//! | `default D V` | V if it is a non-empty string, else D as `%v` prints it |
//! | `env NAME` | value of the variable |
//! | `split SEPARATOR TEXT` | the list of pieces of the text without outer blanks; an empty one of a blank text |
//! | `join SEPARATOR LIST` | a text |
//! | `replaceAll FROM TO TEXT` | the text with all of FROM replaced |
//! | `regexReplaceAll PATTERN TO TEXT` | the text with all matches replaced; `$1` in TO is a group; RE2 syntax |
//!
//! As in ContainerPilot, values are inserted unchanged: a quote or a backslash in one breaks a JSON string around it.
//! One addition helps: `{{ .X | json }}` is the value as JSON, a string with its quotes.
//!
//! | module | content |
//! |---|---|
//! | [`render`], [`render_data`], [`render_arguments`], [`validate`] | entry points |
//! | `lexer`, `literal`, `parser`, `pipeline`, `ast` | from text to tree |
//! | `evaluator`, `functions`, `compare`, `regex` | from tree to text |
//! | `format`, `float`, `escape` | values as Go prints them |
//! | `value`, `data` | values, and the data that a template sees |
//! | `error` | errors with their position |

mod ast;
mod compare;
mod data;
mod error;
mod escape;
mod evaluator;
mod float;
mod format;
mod functions;
mod lexer;
mod literal;
mod parser;
mod pipeline;
mod regex;
#[cfg(test)]
mod render_tests;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

pub use data::Data;
pub use error::{ArgumentError, Position, TemplateError, TemplateErrorKind};
use value::Value;

/// Deepest nesting of blocks, parentheses and templates.
const MAX_DEPTH: usize = 100;
/// Longest result of a template or of a function, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of all operands and values of all functions together.
const MAX_WORK: usize = 64 * 1024 * 1024;
/// Cost of one operand, one element of a list or one iteration, in bytes.
const STEP_BYTES: usize = 32;

/// Renders a template with the variables as its data.
///
/// # Errors
/// With the first error. Errors that occur only in evaluation, such as a wrong type or index, are none in parts not
/// evaluated.
pub fn render(text: &str, variables: &BTreeMap<String, String>) -> Result<String, TemplateError> {
    evaluate(text, &Value::Map(variables), variables)
}

/// Renders a template with this as its data; `env` returns the variables.
///
/// # Errors
/// With the first error, which may be a field that the data does not have.
pub fn render_data(text: &str, data: &Data, variables: &BTreeMap<String, String>) -> Result<String, TemplateError> {
    evaluate(text, &data.into(), variables)
}

/// Checks that a text is a template, without rendering it.
///
/// # Errors
/// With the first error.
pub fn validate(text: &str) -> Result<(), TemplateError> {
    parser::parse(text).map(drop).map_err(|error| error.into_error(text))
}

fn evaluate<'v>(text: &str, dot: &Value<'v>, variables: &'v BTreeMap<String, String>) -> Result<String, TemplateError> {
    let rendered = parser::parse(text).and_then(|template| evaluator::evaluate(&template, dot, variables));
    rendered.map_err(|error| error.into_error(text))
}

/// Renders each argument of a command line. If one cannot be rendered, all stay unchanged, and the error is for the
/// log.
#[must_use]
pub fn render_arguments(
    words: &[String],
    variables: &BTreeMap<String, String>,
) -> (Vec<String>, Option<ArgumentError>) {
    let rendered = words
        .iter()
        .zip(1..)
        .map(|(word, number)| render(word, variables).map_err(|error| ArgumentError { number, error }));
    match rendered.collect() {
        Ok(rendered) => (rendered, None),
        Err(error) => (words.to_vec(), Some(error)),
    }
}

/// Converts variables for templates. Bytes that are not UTF-8 become U+FFFD.
pub fn environment<'a>(variables: impl IntoIterator<Item = (&'a OsString, &'a OsString)>) -> BTreeMap<String, String> {
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    variables.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
