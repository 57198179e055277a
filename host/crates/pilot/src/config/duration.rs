//! Durations: whole seconds, or in Go's notation (`300ms`, `1h30m`).

use std::time::Duration;

use ochopod_json5::Value;

use super::{field::Field, value::whole};

/// Go's units, in nanoseconds. Go accepts both the micro sign and the Greek letter.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];
const SECOND: i128 = 1_000_000_000;
/// Maximum number of digits of a fraction; further ones are ignored.
const MAX_FRACTION_DIGITS: usize = 15;
/// Minimum of a duration.
const MIN_DURATION: Duration = Duration::from_millis(1);

/// Cause of an invalid duration, in Go's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum DurationError {
    #[error("invalid duration")]
    Invalid,
    #[error("missing unit in duration")]
    MissingUnit,
    #[error("unknown unit {0} in duration")]
    UnknownUnit(String),
    #[error("unexpected type")]
    Type,
}

/// Reads a duration of at least a millisecond. `what` describes it in errors.
pub(super) fn duration(field: Field<'_, '_>, what: &str) -> Option<Duration> {
    let expected = format!("{what}: seconds or a duration like \"1m30s\", at least 1ms");
    match read(field.value()).map(|nanoseconds| u64::try_from(nanoseconds).map(Duration::from_nanos)) {
        Ok(Ok(duration)) if duration >= MIN_DURATION => Some(duration),
        Ok(_) => field.invalid_because("below 1 ms", expected),
        Err(error) => field.invalid_because(error, expected),
    }
}

/// Reads the timeout of something. `None` for an empty string and for 0, which stand for the default, and after an error.
pub(super) fn timeout(field: Field<'_, '_>, what: &str) -> Option<Duration> {
    let default = is_empty(&field) || read(field.value()) == Ok(0);
    if default { None } else { duration(field, &format!("a timeout of {what}")) }
}

/// Returns whether it is an empty string, which stands for no duration.
pub(super) fn is_empty(field: &Field<'_, '_>) -> bool {
    field.as_text().is_some_and(str::is_empty)
}

/// Reads a string that Go parses as a duration, and returns it unchanged. `None` if it is empty, and after an error.
pub(super) fn go_text(field: Field<'_, '_>) -> Option<String> {
    let expected = "a duration like \"40m\"";
    match field.value() {
        Value::Text(_) if is_empty(&field) => None,
        Value::Text(text) => match parse_go(text) {
            Ok(_) => Some(text.clone()),
            Err(error) => field.invalid_because(error, expected),
        },
        _ => field.invalid(expected),
    }
}

/// Returns a duration in nanoseconds.
fn read(value: &Value<'_>) -> Result<i64, DurationError> {
    match (whole(value), value) {
        (Some(seconds), _) => checked(i128::from(seconds) * SECOND),
        (None, Value::Text(text)) => parse_go(text),
        _ => Err(DurationError::Type),
    }
}

/// Parses a duration as Go's `time.ParseDuration`, in nanoseconds.
fn parse_go(text: &str) -> Result<i64, DurationError> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(DurationError::Invalid);
    }
    let mut total = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Invalid);
        }
        let (unit, after) = after.split_at(after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len()));
        total += amount(whole, fraction, nanoseconds(unit)?)?;
        rest = after;
    }
    checked(sign * total)
}

/// Rejects what exceeds the 64 bits of Go's durations.
fn checked(nanoseconds: i128) -> Result<i64, DurationError> {
    i64::try_from(nanoseconds).map_err(|_| DurationError::Invalid)
}

/// Splits a text after the digits that it starts with.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn nanoseconds(unit: &str) -> Result<i128, DurationError> {
    match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, nanoseconds)) => Ok(*nanoseconds),
        None if unit.is_empty() => Err(DurationError::MissingUnit),
        None => Err(DurationError::UnknownUnit(unit.to_owned())),
    }
}

/// Returns a number of units in nanoseconds.
fn amount(whole: &str, fraction: &str, unit: i128) -> Result<i128, DurationError> {
    let number = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u64>().ok().map(i128::from) };
    let fraction = fraction.get(..MAX_FRACTION_DIGITS).unwrap_or(fraction);
    let parts = (0..fraction.len()).fold(1, |parts, _| parts * 10);
    let (whole, fraction) = number(whole).zip(number(fraction)).ok_or(DurationError::Invalid)?;
    Ok(whole * unit + fraction * unit / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_as_by_go() {
        let cases = [
            ("0", 0),
            ("-0", 0),
            ("-1.5s", -1_500_000_000),
            ("+5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1µs2μs", 3_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("2562047h47m16.854775807s", i64::MAX),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_go(text), Ok(nanoseconds), "{text}");
        }
        let unknown = |unit: &str| DurationError::UnknownUnit(unit.to_owned());
        let errors = [
            ("", DurationError::Invalid),
            ("-", DurationError::Invalid),
            ("s", DurationError::Invalid),
            (".s", DurationError::Invalid),
            ("1", DurationError::MissingUnit),
            ("1.5", DurationError::MissingUnit),
            ("1h5", DurationError::MissingUnit),
            ("1 s", unknown(" s")),
            ("1S", unknown("S")),
            ("1d", unknown("d")),
            ("2562047h47m16.854775808s", DurationError::Invalid),
            ("99999999999999999999s", DurationError::Invalid),
        ];
        for (text, error) in errors {
            assert_eq!(parse_go(text), Err(error), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_rejected_or_a_duration_that_fits(text in "[-+0-9.nuµmsh]{0,40}|.*") {
            if let Ok(nanoseconds) = parse_go(&text) {
                let duration = Duration::from_nanos(nanoseconds.unsigned_abs());
                proptest::prop_assert!(std::time::Instant::now().checked_add(duration).is_some());
            }
        }
    }
}
