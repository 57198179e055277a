//! Plain values. As in ContainerPilot 2.7, numbers are accepted as strings and strings as numbers if nothing is lost.

use std::time::Duration;

use ochopod_json5::Value;

use super::field::Field;

/// Maximum of Go's durations, in whole seconds.
const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;
/// Magnitude up to which a double represents every whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns a value as a whole number.
pub(super) fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Number(number) => whole_part(*number).filter(|_| number.fract() == 0.0),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// Returns a number without its fraction.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is to be cut, and the rest fits")]
pub(super) fn whole_part(number: f64) -> Option<i64> {
    (number.abs() <= MAX_EXACT).then_some(number as i64)
}

/// Reads seconds: a whole number, at least 1.
pub(super) fn seconds(field: Field<'_, '_>) -> Option<Duration> {
    let seconds = seconds_value(field.value());
    field.require(seconds, "a whole number of seconds, at least 1")
}

/// Returns a value as seconds, recording no error.
pub(super) fn seconds_value(value: &Value<'_>) -> Option<Duration> {
    let seconds = whole(value).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Reads a port.
pub(super) fn port(field: Field<'_, '_>) -> Option<u16> {
    let port = whole(field.value()).and_then(|port| u16::try_from(port).ok());
    field.require(port.filter(|port| *port != 0), "a port from 1 to 65535")
}

/// Parses a boolean as Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a boolean.
pub(super) fn boolean(field: Field<'_, '_>) -> Option<bool> {
    let boolean = match field.value() {
        Value::Boolean(boolean) => Some(*boolean),
        _ => field.as_text().and_then(parse_bool),
    };
    field.require(boolean, "true or false")
}

/// Reads a string.
pub(super) fn text(field: Field<'_, '_>) -> Option<String> {
    let text = field.as_text().map(str::to_owned);
    field.require(text, "a string")
}

/// Reads a string; an empty one counts as missing.
pub(super) fn non_empty_text(field: Field<'_, '_>) -> Option<String> {
    text(field).filter(|text| !text.is_empty())
}

/// Reads a list of strings.
pub(super) fn texts(field: Field<'_, '_>) -> Option<Vec<String>> {
    field.list("a list of strings", text)
}

/// Reads a name that registries and environment variables accept.
pub(super) fn name(field: Field<'_, '_>) -> Option<String> {
    let name = field.as_text().filter(|name| !name.is_empty() && !name.contains(char::is_control));
    let name = name.map(str::to_owned);
    field.require(name, "a name: a string that is not empty")
}

/// Returns whether the name of a service is one that ContainerPilot 2.2 requires and DNS accepts.
pub(super) fn is_dns_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Reads one of several strings and returns its meaning.
pub(super) fn one_of<T: Copy>(
    field: Field<'_, '_>,
    what: &str,
    same: fn(&str, &str) -> bool,
    choices: &[(&str, T)],
) -> Option<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let chosen = field.as_text().and_then(|text| choices.iter().find(|(choice, _)| same(choice, text)));
    field.require(chosen.map(|(_, meaning)| *meaning), format_args!("{what}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_accepted_if_nothing_is_lost() {
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
