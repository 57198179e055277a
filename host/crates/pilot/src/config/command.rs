//! Commands: a string that is split at each blank, or a list of words.

use std::{fs, os::unix::fs::PermissionsExt as _};

use ochopod_environment::Env;
use ochopod_json5::Value;

use super::{CommandLine, field::Field, read::ReadContext, shell::shell_syntax};

const EXPECTED: &str = "a command: a string or a list of words";
/// Search path of an environment without `PATH`, as the C library has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Reads a command. The warning about shell syntax does not repeat the string, which may contain secrets.
pub(super) fn command(mut field: Field<'_, '_>, context: &ReadContext<'_>) -> Option<CommandLine> {
    let words = match field.value() {
        Value::Text(text) => {
            let syntax = shell_syntax(text, |program| is_program(program, context.env));
            if !syntax.is_empty() {
                field.warning(format_args!(
                    "shell syntax ({}) in a command that is split at blanks and run without a shell; expected \
                     [\"/bin/sh\", \"-c\", \"…\"] if a shell is meant",
                    syntax.join(" ")
                ));
            }
            text.trim().split(' ').map(str::to_owned).collect()
        }
        Value::List(items) => {
            let words = field.reborrow().list(EXPECTED, word)?;
            if words.len() < items.len() {
                return None;
            }
            words
        }
        _ => return field.invalid(EXPECTED),
    };
    if words.iter().any(|word| word.contains('\0')) {
        return field.invalid_because("a NUL character", EXPECTED);
    }
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Some(CommandLine { program, arguments: words.collect() }),
        None => field.invalid_because("zero-length argument", EXPECTED),
    }
}

/// Returns whether a directory of the search path has a program of this name.
fn is_program(name: &str, env: &Env) -> bool {
    std::env::split_paths(env.text("PATH").unwrap_or(DEFAULT_PATH)).any(|directory| {
        fs::metadata(directory.join(name)).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

fn word(field: Field<'_, '_>) -> Option<String> {
    let word = match field.value() {
        Value::Boolean(_) => Some(field.written()),
        _ => field.as_text(),
    };
    let word = word.map(str::to_owned);
    field.require(word, "a word")
}
