//! Escaping of untrusted text for display: characters that are invisible, move the cursor or change the text direction.
//!
//! Plugins, peers and programs choose names, help texts and errors. On a terminal, an escape sequence in one of them hides
//! the text after it; in a log, a newline forges a line.

use std::fmt::{self, Write as _};

/// Displays text on one line: hidden characters are printed as `\u{…}`, or as `\n`, `\r` and `\t`.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_hidden(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Escapes each line of a text.
#[must_use]
pub fn lines(text: &str) -> String {
    text.split('\n').map(|line| Escaped(line).to_string()).collect::<Vec<_>>().join("\n")
}

/// Returns the same JSON with hidden characters as escapes; they occur in strings only.
#[must_use]
pub fn json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) && !matches!(c, '\n' | '\r' | '\t') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Returns whether a character is hidden: it controls the terminal, ends the line, changes the text direction, has no width, or
/// displays as a blank that is not a space.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hidden_characters_are_escaped() {
        for (text, escaped) in [
            ("plain é 日本 🙂", "plain é 日本 🙂"),
            ("a\x1b[2K\rb", r"a\u{1b}[2K\rb"),
            ("two\nlines\ttab", r"two\nlines\ttab"),
            ("\0\x07\x7f\u{85}\u{9b}31m", r"\u{0}\u{7}\u{7f}\u{85}\u{9b}31m"),
            ("\u{2028}\u{2029}", r"\u{2028}\u{2029}"),
            (
                "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}",
                r"\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}",
            ),
            ("x\u{200b}y\u{feff}z\u{e0041}", r"x\u{200b}y\u{feff}z\u{e0041}"),
            ("a\u{fe00}b\u{fe0f}c\u{2800}d", r"a\u{fe00}b\u{fe0f}c\u{2800}d"),
            ("\u{1bca0}\u{1bca3}\u{fe10}", "\\u{1bca0}\\u{1bca3}\u{fe10}"),
        ] {
            assert_eq!(Escaped(text).to_string(), escaped);
        }
        assert_eq!(lines("one\x1b\ntwo"), "one\\u{1b}\ntwo");
    }

    proptest! {
        #[test]
        fn escaped_text_is_one_line_and_json_keeps_its_meaning(text in any::<String>()) {
            prop_assert!(!Escaped(&text).to_string().contains(is_hidden));
            let value = serde_json::Value::from(text);
            let escaped = json(&value.to_string());
            prop_assert!(!escaped.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
