//! Quoted texts and their escapes.

use super::{SyntaxError, SyntaxErrorKind, cursor::Cursor};

/// Returns whether it ends a line in JSON5.
pub(super) fn ends_line(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

/// Parses the text whose opening quote is here.
pub(super) fn quoted(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let start = cursor.at();
    let quote = cursor.next();
    let mut text = String::new();
    loop {
        let at = cursor.at();
        match cursor.peek() {
            None => return Err(SyntaxError { at, problem: SyntaxErrorKind::Unterminated { what: "text", start } }),
            Some('\n' | '\r') => return Err(SyntaxError { at, problem: SyntaxErrorKind::LineEnd }),
            Some('\\') => text.extend(escape(cursor)?),
            end if end == quote => {
                cursor.next();
                return Ok(text);
            }
            Some(character) => {
                text.push(character);
                cursor.next();
            }
        }
    }
}

/// Parses an escape. None if it continues the line.
fn escape(cursor: &mut Cursor<'_>) -> Result<Option<char>, SyntaxError> {
    let start = *cursor;
    cursor.next();
    let character = match cursor.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('v') => '\u{b}',
        Some('0') if !cursor.peek().is_some_and(|next| next.is_ascii_digit()) => '\0',
        Some('0'..='9') | None => return Err(invalid(&start, cursor)),
        Some('x') => unit(cursor, 2).and_then(char::from_u32).ok_or_else(|| invalid(&start, cursor))?,
        Some('u') => {
            *cursor = start;
            unicode(cursor)?
        }
        Some(end) if ends_line(end) => {
            if end == '\r' {
                cursor.accept('\n');
            }
            return Ok(None);
        }
        Some(other) => other,
    };
    Ok(Some(character))
}

/// Parses `\uXXXX`: one character, which may take two of them.
pub(super) fn unicode(cursor: &mut Cursor<'_>) -> Result<char, SyntaxError> {
    let start = *cursor;
    let high = half(cursor);
    let code = match high {
        Some(high @ 0xd800..=0xdbff) => {
            let low = half(cursor).filter(|low| (0xdc00..=0xdfff).contains(low));
            low.map(|low| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
        }
        other => other,
    };
    code.and_then(char::from_u32).ok_or_else(|| invalid(&start, cursor))
}

fn half(cursor: &mut Cursor<'_>) -> Option<u32> {
    if cursor.accept('\\') && cursor.accept('u') { unit(cursor, 4) } else { None }
}

/// Parses so many hexadecimal digits.
fn unit(cursor: &mut Cursor<'_>, digits: usize) -> Option<u32> {
    let mut number = 0;
    for _ in 0..digits {
        number = number * 16 + cursor.peek()?.to_digit(16)?;
        cursor.next();
    }
    Some(number)
}

fn invalid(start: &Cursor<'_>, end: &Cursor<'_>) -> SyntaxError {
    SyntaxError { at: start.at(), problem: SyntaxErrorKind::Escape(end.since(start).to_owned()) }
}
