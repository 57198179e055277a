//! Commands: a text, split at each blank, or a list of words.

use super::{Command, field::Field, json5::Value};

const EXPECTED: &str = "a command: a text or a list of words";

/// A command.
pub(super) fn command(mut field: Field<'_, '_>) -> Option<Command> {
    let words = match field.value() {
        Value::Text(text) => text.trim().split(' ').map(str::to_owned).collect(),
        Value::List(items) => {
            let words = field.again().list(EXPECTED, word)?;
            if words.len() < items.len() {
                return None;
            }
            words
        }
        _ => return field.refuse(EXPECTED),
    };
    if words.iter().any(|word| word.contains('\0')) {
        return field.refuse_as("a NUL character", EXPECTED);
    }
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Some(Command { program, arguments: words.collect() }),
        None => field.refuse_as("zero-length argument", EXPECTED),
    }
}

fn word(field: Field<'_, '_>) -> Option<String> {
    let word = match field.value() {
        Value::Boolean(_) => Some(field.written()),
        _ => field.as_text(),
    };
    let word = word.map(str::to_owned);
    field.judge(word, "a word")
}
