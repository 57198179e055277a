//! Numbers in settings and requests, parsed more strictly than by the standard library.

use std::time::Duration;

/// Parses seconds as plain decimal digits with an optional fraction (`5`, `0.25`): no sign, exponent, `inf` or blanks.
/// None also for zero and for more than `max`.
#[must_use]
pub fn seconds(text: &str, max: Duration) -> Option<Duration> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let plain = match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    };
    if !plain {
        return None;
    }
    let duration = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (!duration.is_zero() && duration <= max).then_some(duration)
}

/// Parses a port as plain decimal digits, 1 to 65535.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn seconds_are_plain_digits_with_an_optional_fraction() {
        let good = [("1", 1.0), ("0.5", 0.5), ("86400", 86_400.0), ("007", 7.0), ("1.000", 1.0)];
        for (text, expected) in good {
            assert_eq!(seconds(text, DAY), Some(Duration::from_secs_f64(expected)), "{text}");
        }
        for bad in [
            "",
            "0",
            "0.0",
            "-1",
            "+1",
            "abc",
            "nan",
            "inf",
            "1e3",
            "1.",
            ".5",
            "1.2.3",
            " 1",
            "1 ",
            "86400.1",
            "1_000",
            "0x10",
            "١",
            "0.0000000000001",
            "99999999999999999999999999999999",
        ] {
            assert_eq!(seconds(bad, DAY), None, "{bad:?}");
        }
    }

    #[test]
    fn port_is_a_number_from_1_to_65535() {
        assert_eq!(port("8080"), Some(8080));
        for bad in ["", "0", "65536", "-1", "+80", "http", "80 "] {
            assert_eq!(port(bad), None, "{bad:?}");
        }
    }
}
