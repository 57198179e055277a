//! Plain values. As ContainerPilot 2.7 does, numbers are taken for texts and texts for numbers where nothing is lost by that.

use std::time::Duration;

use super::{field::Field, json5::Value};

/// Most seconds that a time may have: as many as Go's durations.
const MOST_SECONDS: i64 = i64::MAX / 1_000_000_000;
/// Largest number, either way, up to which a double holds every whole one.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The whole number that a value is.
pub(super) fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Number(number) => whole_part(*number).filter(|_| number.fract() == 0.0),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// A number without its fraction.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is to be cut, and the rest fits")]
pub(super) fn whole_part(number: f64) -> Option<i64> {
    (number.abs() <= EXACT).then_some(number as i64)
}

/// Seconds: a whole number, at least 1.
pub(super) fn seconds(field: Field<'_, '_>) -> Option<Duration> {
    let seconds = some_seconds(field.value());
    field.judge(seconds, "a whole number of seconds, at least 1")
}

/// The same, not judged yet.
pub(super) fn some_seconds(value: &Value<'_>) -> Option<Duration> {
    let seconds = whole(value).filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// A port.
pub(super) fn port(field: Field<'_, '_>) -> Option<u16> {
    let port = whole(field.value()).and_then(|port| u16::try_from(port).ok());
    field.judge(port.filter(|port| *port != 0), "a port from 1 to 65535")
}

/// What a text says of yes and no, as Go reads it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Yes or no.
pub(super) fn boolean(field: Field<'_, '_>) -> Option<bool> {
    let boolean = match field.value() {
        Value::Boolean(boolean) => Some(*boolean),
        _ => field.as_text().and_then(truth),
    };
    field.judge(boolean, "true or false")
}

/// A text.
pub(super) fn text(field: Field<'_, '_>) -> Option<String> {
    let text = field.as_text().map(str::to_owned);
    field.judge(text, "a text")
}

/// A text that says nothing when it is empty.
pub(super) fn some_text(field: Field<'_, '_>) -> Option<String> {
    text(field).filter(|text| !text.is_empty())
}

/// A list of texts.
pub(super) fn texts(field: Field<'_, '_>) -> Option<Vec<String>> {
    field.list("a list of texts", text)
}

/// A name that places and variables of the environment can bear.
pub(super) fn name(field: Field<'_, '_>) -> Option<String> {
    let name = field.as_text().filter(|name| !name.is_empty() && !name.contains(char::is_control));
    let name = name.map(str::to_owned);
    field.judge(name, "a name: a text that is not empty")
}

/// Whether a name of a service is one as ContainerPilot 2.2 asks for.
pub(super) fn is_customary(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// One of several texts, each with what it means.
pub(super) fn one_of<T: Copy>(
    field: Field<'_, '_>,
    what: &str,
    same: fn(&str, &str) -> bool,
    choices: &[(&str, T)],
) -> Option<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let chosen = field.as_text().and_then(|text| choices.iter().find(|(choice, _)| same(choice, text)));
    field.judge(chosen.map(|(_, meaning)| *meaning), format_args!("{what}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_taken_where_nothing_is_lost() {
        let number = |number| whole(&Value::Number(number));
        assert_eq!([number(19.0), number(-1.0), number(1e3)], [Some(19), Some(-1), Some(1000)]);
        for lossy in [1.5, f64::NAN, f64::INFINITY, 1e16] {
            assert_eq!(number(lossy), None);
        }
        let text = |text: &str| whole(&Value::Text(text.to_owned()));
        assert_eq!([text("19"), text("-1"), text("+2")], [Some(19), Some(-1), Some(2)]);
        for other in ["", " 19", "19 ", "1.5", "0x1f", "1e3", "99999999999999999999"] {
            assert_eq!(text(other), None, "{other}");
        }
        assert_eq!(whole(&Value::Boolean(true)), None);
    }
}
