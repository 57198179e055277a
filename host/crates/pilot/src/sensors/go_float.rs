//! Parsing of numbers as by Go's `strconv.ParseFloat`.

/// Parses a number. `None` if the text is not a number, or exceeds the largest one.
pub(super) fn parse(text: &str) -> Option<f64> {
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is = |word: &str| unsigned.eq_ignore_ascii_case(word);
    let magnitude = if is("inf") || is("infinity") { f64::INFINITY } else { finite(unsigned)? };
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

fn finite(text: &str) -> Option<f64> {
    let prefixed = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match prefixed {
        Some(digits) => hexadecimal(&joined(digits, 16, true)?)?,
        // Rust accepts a sign and words here.
        None if text.starts_with(|c: char| c == '.' || c.is_ascii_digit()) => joined(text, 10, false)?.parse().ok()?,
        None => return None,
    };
    // Rust parses numbers that are too large as infinite.
    Some(number).filter(|number: &f64| number.is_finite())
}

/// Removes underscores. Each must be between two digits, or between a prefix and a digit.
fn joined(text: &str, radix: u32, after_prefix: bool) -> Option<String> {
    let digit = |at: usize| text.as_bytes().get(at).is_some_and(|byte| char::from(*byte).is_digit(radix));
    let allowed = |at: usize| digit(at + 1) && at.checked_sub(1).map_or(after_prefix, digit);
    text.match_indices('_').all(|(at, _)| allowed(at)).then(|| text.replace('_', ""))
}

/// Parses a hexadecimal number without its prefix: digits, and the required binary exponent.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = whole.chars().chain(fraction.chars());
    let number = digits.map(|c| c.to_digit(16)).try_fold(0.0, |sum, digit| Some(sum * 16.0 + f64::from(digit?)))?;
    let places = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(places)?;
    // In two steps, because the power of two may be out of range although the number is not.
    let half = exponent / 2;
    Some(number * 2.0_f64.powi(half) * 2.0_f64.powi(exponent - half))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use ochopod_telemetry::GoFloat;

    use super::*;

    #[test]
    fn numbers_are_parsed_as_in_go() {
        for (text, number) in [
            ("0", 0.0),
            ("42", 42.0),
            ("+42", 42.0),
            ("-1", -1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("-.5e1", -5.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("5e-324", 5e-324),
            ("1e-400", 0.0),
            ("1.7976931348623157e308", f64::MAX),
            ("Inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x1p-2", 0.25),
            ("-0X1.8P1", -3.0),
            ("0x.8p0", 0.5),
            ("0x1.p+4", 16.0),
            ("0x1p-1074", 5e-324),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x0.0000000000001p1075", 2.0_f64.powi(1023)),
            ("1_000", 1000.0),
            ("1_23.50_0_0e+1_2", 1.235e14),
            ("0x_1_2.3_4_5p+1_2", 74565.0),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        assert!(parse("NaN").is_some_and(f64::is_nan) && parse("nan").is_some_and(f64::is_nan));
    }

    #[test]
    fn texts_that_go_rejects_are_rejected() {
        for text in [
            "",
            "+",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "--1",
            "+-1",
            "1 2",
            "1,5",
            "12abc",
            "0x",
            "0x1",
            "0xp1",
            "0x.p1",
            "0x1p",
            "0x1.2.3p0",
            "0xgp0",
            "0x1p1.5",
            "0x-1p0",
            "1p3",
            "+nan",
            "-NaN",
            "infin",
            "infinityx",
            "nanx",
            "-+inf",
            "1e400",
            "-1e400",
            "0x1p1024",
            "_1",
            "1_",
            "1__0",
            "1_.5",
            "1._5",
            "1_e5",
            "1e_5",
            "1e5_",
            "0_x1p0",
            "0x__1p0",
            "0x1_p0",
            "0b1",
            "0o7",
            "١",
            "½",
            "1\0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_numbers_are_parsed_to_the_same_number(number in any::<f64>()) {
            let read = parse(&GoFloat(number).to_string());
            prop_assert!(read == Some(number) || number.is_nan() && read.is_some_and(f64::is_nan));
        }
    }
}
