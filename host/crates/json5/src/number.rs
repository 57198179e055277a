//! Numbers.

/// Parses a word that starts like a number. None if it is not a number.
pub(super) fn number(word: &str) -> Option<f64> {
    let (sign, magnitude) = match word.strip_prefix('-') {
        Some(magnitude) => (-1.0, magnitude),
        None => (1.0, word.strip_prefix('+').unwrap_or(word)),
    };
    let magnitude = match magnitude {
        "Infinity" => f64::INFINITY,
        "NaN" => f64::NAN,
        _ => match magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X")) {
            Some(digits) => hexadecimal(digits)?,
            None => decimal(magnitude)?,
        },
    };
    Some(sign * magnitude)
}

fn hexadecimal(digits: &str) -> Option<f64> {
    let more = |number: f64, digit: char| Some(number * 16.0 + f64::from(digit.to_digit(16)?));
    if digits.is_empty() { None } else { digits.chars().try_fold(0.0, more) }
}

/// Parses a decimal number. Rust accepts what JSON5 does, and more.
fn decimal(text: &str) -> Option<f64> {
    let whole = text.split(['.', 'e', 'E']).next()?;
    let octal = whole.len() > 1 && whole.starts_with('0');
    let plain = !text.starts_with(['+', '-']) && text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    if plain && !octal { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_parse_as_in_json5() {
        let numbers = [
            ("0", 0.0),
            ("-0", 0.0),
            ("19", 19.0),
            ("+19", 19.0),
            ("-1", -1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-5.e1", -50.0),
            ("1e3", 1000.0),
            ("1.5E-1", 0.15),
            ("1e+2", 100.0),
            ("0x1F", 31.0),
            ("-0XfF", -255.0),
            ("0xffffffffffffffffffff", 1_208_925_819_614_629_174_706_175.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e999", f64::INFINITY),
        ];
        for (word, number) in numbers {
            assert_eq!(super::number(word), Some(number), "{word}");
        }
        assert!(number("NaN").unwrap().is_nan() && number("-NaN").unwrap().is_nan());
        let others = [
            "", "+", "-", ".", "e1", "1e", "1e+", "--1", "+-1", "-+1", "01", "-010", "0x", "0x-1", "0xg", "1.2.3",
            "1e2.5", "1_000", "1a", "inf", "infinity", "nan", "+nan", "-inf",
        ];
        for word in others {
            assert_eq!(number(word), None, "{word}");
        }
    }
}
