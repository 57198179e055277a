//! Literals in Go syntax.

use std::str::Chars;

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

/// Piece of a quoted literal.
#[derive(Debug, PartialEq)]
enum Piece {
    Char(char),
    /// A byte, which may be part of a character.
    Byte(u8),
}

/// Parses a string in double quotes. Bytes that are not UTF-8 become U+FFFD. None for an invalid escape.
pub(super) fn quoted(literal: &str) -> Option<String> {
    let mut chars = literal.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut bytes = Vec::with_capacity(literal.len());
    while !chars.as_str().is_empty() {
        match piece(&mut chars, '"')? {
            Piece::Char(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Piece::Byte(byte) => bytes.push(byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Parses a string in back quotes, without its carriage returns.
pub(super) fn raw(literal: &str) -> String {
    literal.trim_matches('`').replace('\r', "")
}

/// Parses a character in single quotes to its number.
pub(super) fn character(literal: &str) -> Option<i64> {
    let mut chars = literal.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let number = match piece(&mut chars, '\'')? {
        Piece::Char(char) => u32::from(char).into(),
        Piece::Byte(byte) => byte.into(),
    };
    chars.as_str().is_empty().then_some(number)
}

/// Parses the next piece of a literal in such quotes.
fn piece(chars: &mut Chars<'_>, quote: char) -> Option<Piece> {
    let first = chars.next()?;
    if first != '\\' {
        return (first != quote).then_some(Piece::Char(first));
    }
    let escape = chars.next()?;
    let char = match escape {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        _ if escape == quote => quote,
        'x' => return digits(chars, 2, 16).and_then(|number| number.try_into().ok()).map(Piece::Byte),
        '0'..='7' => {
            let first = escape.to_digit(8)?;
            let number = first * 64 + digits(chars, 2, 8)?;
            return number.try_into().ok().map(Piece::Byte);
        }
        'u' => char::from_u32(digits(chars, 4, 16)?)?,
        'U' => char::from_u32(digits(chars, 8, 16)?)?,
        _ => return None,
    };
    Some(Piece::Char(char))
}

/// Parses exactly so many digits.
fn digits(chars: &mut Chars<'_>, count: usize, base: u32) -> Option<u32> {
    let (digits, _) = chars.as_str().split_at_checked(count)?;
    let number =
        digits.chars().try_fold(0_u32, |number, digit| number.checked_mul(base)?.checked_add(digit.to_digit(base)?))?;
    *chars = chars.as_str().get(count..)?.chars();
    Some(number)
}

/// Parses a number with its sign, except hexadecimal floats and imaginary numbers.
pub(super) fn number(literal: &str) -> Option<Number> {
    let unsigned = literal.strip_prefix(['+', '-']).unwrap_or(literal);
    let (base, digits) = based(unsigned);
    if !is_separated(digits, base, digits.len() < unsigned.len()) {
        return None;
    }
    let sign = if literal.starts_with('-') { "-" } else { "" };
    if let Ok(int) = i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), base) {
        // With an e it is a float in Go, unless it starts with 0x.
        let float = unsigned.len() < literal.len() && literal.contains(['e', 'E']);
        #[expect(clippy::cast_precision_loss, reason = "Go loses it too")]
        return Some(if float { Number::Float(int as f64) } else { Number::Int(int) });
    }
    let decimal = literal.chars().all(|char| char.is_ascii_digit() || "+-._eE".contains(char));
    if !decimal || !literal.contains(['.', 'e', 'E']) {
        return None;
    }
    let float: f64 = literal.replace('_', "").parse().ok()?;
    float.is_finite().then_some(Number::Float(float))
}

/// Returns the base of a whole number and its digits.
fn based(unsigned: &str) -> (u32, &str) {
    let mut chars = unsigned.chars();
    if chars.next() != Some('0') {
        return (10, unsigned);
    }
    let base = match chars.next() {
        Some('x' | 'X') => 16,
        Some('o' | 'O') => 8,
        Some('b' | 'B') => 2,
        Some('0'..='9' | '_') => return (8, unsigned),
        _ => return (10, unsigned),
    };
    (base, chars.as_str())
}

/// Returns whether underscores are only between digits or after the prefix of the base.
fn is_separated(digits: &str, base: u32, named: bool) -> bool {
    let is_digit = |char: char| char.is_digit(base.max(10));
    let mut before = if named { '0' } else { ' ' };
    digits.chars().chain([' ']).all(|char| {
        let stray = char == '_' && !is_digit(before) || before == '_' && !is_digit(char);
        before = char;
        !stray
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        for (literal, expected) in [
            ("0", 0),
            ("+5", 5),
            ("-0", 0),
            ("017", 15),
            ("0o17", 15),
            ("0_1", 1),
            ("0b101", 5),
            ("0XfF", 255),
            ("0x1e", 30),
            ("0x_1", 1),
            ("1_000", 1000),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(number(literal), Some(Number::Int(expected)), "{literal}");
        }
        for (literal, expected) in [
            ("5.", 5.0),
            (".5", 0.5),
            ("-.5_0", -0.5),
            ("08.5", 8.5),
            ("0_8.5", 8.5),
            ("0e5", 0.0),
            ("1_0e5", 1e6),
            ("1.e3", 1000.0),
            ("1e+2", 100.0),
            ("-0x1e", -30.0),
        ] {
            assert_eq!(number(literal), Some(Number::Float(expected)), "{literal}");
        }
        for literal in [
            "", "-", ".", "08", "0x", "0b2", "1_", "1__0", "0_x1", "1_.5", "1_e5", "1e400", "1i", "0x1p4", "+inf", "1a",
        ] {
            assert_eq!(number(literal), None, "{literal}");
        }
        assert_eq!(number("9223372036854775808"), None);
    }

    #[test]
    fn strings_and_characters_have_the_escapes_of_go() {
        for (literal, expected) in [
            (r#""""#, ""),
            (r#""\a\b\f\n\r\t\v\\\"""#, "\x07\x08\x0c\n\r\t\x0b\\\""),
            (r#""\u00e9\U0001F600\x41\101""#, "é😀AA"),
            (r#""\xc3\xa9 \xff""#, "é \u{fffd}"),
        ] {
            assert_eq!(quoted(literal).as_deref(), Some(expected), "{literal}");
        }
        for literal in
            [r#""\'""#, r#""\q""#, r#""\x4""#, r#""\x4é""#, r#""\400""#, r#""\08""#, r#""\ud800""#, r#""\U00110000""#]
        {
            assert_eq!(quoted(literal), None, "{literal}");
        }
        for (literal, expected) in
            [("'a'", 97), ("'é'", 233), (r"'\n'", 10), (r"'\''", 39), (r"'\xff'", 255), (r"'\u20ac'", 0x20ac)]
        {
            assert_eq!(character(literal), Some(expected), "{literal}");
        }
        for literal in ["''", "'ab'", r#"'\"'"#, r"'\'"] {
            assert_eq!(character(literal), None, "{literal}");
        }
        assert_eq!(raw("`a\\n\r\n\"`"), "a\\n\n\"");
    }
}
