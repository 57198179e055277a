//! Escaping for HTML, JavaScript, URLs and quotes, as in Go.

use std::fmt::Write;

/// Escapes a text for HTML.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\0' => escaped.push('\u{fffd}'),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// Escapes a text for a JavaScript string.
pub(super) fn js(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | '\'' | '"' => escaped.extend(['\\', char]),
            '<' | '>' | '&' | '=' | '\0'..' ' => _ = write!(escaped, "\\u{:04X}", u32::from(char)),
            _ if char.is_ascii() || is_printed(char) => escaped.push(char),
            _ => _ = write!(escaped, "\\u{:04X}", u32::from(char)),
        }
    }
    escaped
}

/// Escapes a text for the query of a URL.
pub(super) fn url_query(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            _ => _ = write!(escaped, "%{byte:02X}"),
        }
    }
    escaped
}

/// Quotes a text as Go does a string or a character, in ASCII only if required.
pub(super) fn quoted(text: &str, quote: char, ascii: bool) -> String {
    let mut escaped = String::with_capacity(text.len() + 2);
    escaped.push(quote);
    for char in text.chars() {
        let short = match char {
            '\x07' => 'a',
            '\x08' => 'b',
            '\x0c' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\x0b' => 'v',
            '\\' => '\\',
            _ if char == quote => quote,
            _ => '\0',
        };
        let code = u32::from(char);
        _ = match code {
            _ if short != '\0' => write!(escaped, "\\{short}"),
            0..0x20 | 0x7f => write!(escaped, "\\x{code:02x}"),
            _ if char.is_ascii() || !ascii && is_printed(char) => write!(escaped, "{char}"),
            0..0x1_0000 => write!(escaped, "\\u{code:04x}"),
            _ => write!(escaped, "\\U{code:08x}"),
        };
    }
    escaped.push(quote);
    escaped
}

/// Returns whether Go prints a character unchanged: a letter, mark, number, sign or symbol.
fn is_printed(char: char) -> bool {
    // Rust's quotes print these unchanged. They escape a mark at the beginning of a text, where it would join the
    // quote.
    String::from_iter(['a', char]).escape_debug().skip(1).eq([char])
}
