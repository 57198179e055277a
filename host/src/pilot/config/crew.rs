//! `tasks` and `coprocesses`: what runs besides the application.

use super::{
    Command, Coprocess, Restarts, Task,
    command::command,
    duration::{is_empty, span},
    field::{Field, Object},
    json5::Value,
    value::{name, whole, whole_part},
};

pub(super) fn task(keys: &mut Object<'_, '_>) -> Option<Task> {
    let name = keys.optional("name", name);
    let command = keys.required("command", command);
    let frequency = keys.required("frequency", |field| span(field, "how often it runs"));
    let limit =
        keys.optional(
            "timeout",
            |field| {
                if is_empty(&field) { None } else { span(field, "how long the command may take") }
            },
        );
    let command = command?;
    let name = name.unwrap_or_else(|| line(&command));
    Some(Task { name, command, frequency: frequency?, limit: limit.or(frequency)? })
}

pub(super) fn coprocess(keys: &mut Object<'_, '_>) -> Option<Coprocess> {
    let name = keys.optional("name", name);
    let command = keys.required("command", command);
    let restarts = keys.optional("restarts", restarts).unwrap_or(Restarts::Most(0));
    let command = command?;
    Some(Coprocess { name: name.unwrap_or_else(|| line(&command)), command, restarts })
}

/// How often: a number without its fraction, as ContainerPilot has it, or a word.
fn restarts(field: Field<'_, '_>) -> Option<Restarts> {
    let count = match field.value() {
        Value::Text(text) if text == "unlimited" => return Some(Restarts::Unlimited),
        Value::Text(text) if text == "never" => Some(0),
        Value::Number(number) => whole_part(*number),
        value => whole(value),
    };
    let count = count.and_then(|count| u64::try_from(count).ok());
    field.judge(count.map(Restarts::Most), "a whole number, \"unlimited\" or \"never\"")
}

/// A command as it is typed.
fn line(command: &Command) -> String {
    let words: Vec<&str> = [&command.program].into_iter().chain(&command.arguments).map(String::as_str).collect();
    words.join(" ")
}
