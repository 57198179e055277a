//! `tasks` and `coprocesses`: programs that run alongside the application.

use ochopod_json5::Value;

use super::{
    CommandLine, Coprocess, RestartLimit, Task,
    command::command,
    duration::{duration, is_empty},
    field::{Field, Object},
    read::ReadContext,
    value::{name, whole, whole_part},
};

pub(super) fn task(keys: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Option<Task> {
    let name = keys.optional("name", name);
    let command = keys.required("command", |field| command(field, context));
    let frequency = keys.required("frequency", |field| duration(field, "an interval"));
    let limit = keys
        .optional("timeout", |field| if is_empty(&field) { None } else { duration(field, "a timeout of the command") });
    let command = command?;
    let name = name.unwrap_or_else(|| line(&command));
    Some(Task { name, command, frequency: frequency?, limit: limit.or(frequency)? })
}

pub(super) fn coprocess(keys: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Option<Coprocess> {
    let name = keys.optional("name", name);
    let command = keys.required("command", |field| command(field, context));
    let restarts = keys.optional("restarts", restarts).unwrap_or(RestartLimit::AtMost(0));
    let command = command?;
    Some(Coprocess { name: name.unwrap_or_else(|| line(&command)), command, restarts })
}

/// Reads a limit: a number, whose fraction is ignored as by ContainerPilot, or a word.
fn restarts(field: Field<'_, '_>) -> Option<RestartLimit> {
    let count = match field.value() {
        Value::Text(text) if text == "unlimited" => return Some(RestartLimit::Unlimited),
        Value::Text(text) if text == "never" => Some(0),
        Value::Number(number) => whole_part(*number),
        value => whole(value),
    };
    let count = count.and_then(|count| u64::try_from(count).ok());
    field.require(count.map(RestartLimit::AtMost), "a whole number, \"unlimited\" or \"never\"")
}

/// Returns a command as one line.
fn line(command: &CommandLine) -> String {
    let words: Vec<&str> = [&command.program].into_iter().chain(&command.arguments).map(String::as_str).collect();
    words.join(" ")
}
