//! Go's `print` and `printf`, except arguments by number (`%[1]d`).

use std::{
    fmt::{self, Write},
    ops::RangeInclusive,
    str::Chars,
};

use super::{escape, float, value::Value};

/// Largest width or precision.
const MAX_WIDTH: i64 = 10_000;

/// A text with a maximum length: writing more fails.
#[derive(Debug)]
pub(super) struct BoundedString {
    pub(super) text: String,
    max: usize,
}

impl BoundedString {
    pub(super) fn new(max: usize) -> Self {
        Self { text: String::new(), max }
    }
}

impl Write for BoundedString {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.max.saturating_sub(self.text.len()) {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Prints a value as Go does with `%v`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FormatSpec::default().value(f, 'v', self)
    }
}

/// Prints values side by side, with blanks between those that are not texts.
pub(super) fn print(out: &mut dyn Write, values: &[Value<'_>]) -> fmt::Result {
    let mut text = true;
    for value in values {
        let before = text;
        text = matches!(value, Value::Text(_));
        out.write_str(if text || before { "" } else { " " })?;
        write!(out, "{value}")?;
    }
    Ok(())
}

/// Prints values with blanks between them, and the end of the line.
pub(super) fn println(out: &mut dyn Write, values: &[Value<'_>]) -> fmt::Result {
    for (position, value) in values.iter().enumerate() {
        out.write_str(if position == 0 { "" } else { " " })?;
        write!(out, "{value}")?;
    }
    out.write_char('\n')
}

/// Prints a format with its values. Errors are part of the text, as in Go.
pub(super) fn printf(out: &mut dyn Write, format: &str, values: &[Value<'_>]) -> fmt::Result {
    let mut values = values.iter();
    let mut rest = format;
    while let Some((plain, after)) = rest.split_once('%') {
        out.write_str(plain)?;
        let mut chars = after.chars();
        let style = FormatSpec::read(out, &mut chars, &mut values)?;
        match chars.next() {
            None => out.write_str("%!(NOVERB)")?,
            Some('%') => out.write_char('%')?,
            Some(verb) => match values.next() {
                None => write!(out, "%!{verb}(MISSING)")?,
                Some(value) if verb == 'v' => {
                    let style = FormatSpec { source: style.sharp, sharp: false, plus: false, ..style };
                    style.value(out, verb, value)?;
                }
                Some(value) => style.value(out, verb, value)?,
            },
        }
        rest = chars.as_str();
    }
    out.write_str(rest)?;
    for (position, value) in values.clone().enumerate() {
        out.write_str(if position == 0 { "%!(EXTRA " } else { ", " })?;
        FormatSpec::default().typed(out, value)?;
    }
    out.write_str(if values.len() == 0 { "" } else { ")" })
}

/// Flags, width and precision of one value.
#[expect(clippy::struct_excessive_bools, reason = "they are the flags that a format has")]
#[derive(Debug, Clone, Copy, Default)]
struct FormatSpec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    /// Whether to print it in Go syntax.
    source: bool,
    width: usize,
    precision: Option<usize>,
}

impl FormatSpec {
    /// Reads the text between `%` and the verb.
    fn read<'a, 'v: 'a>(
        out: &mut dyn Write,
        chars: &mut Chars<'_>,
        values: &mut impl Iterator<Item = &'a Value<'v>>,
    ) -> Result<Self, fmt::Error> {
        let rest = chars.as_str();
        let after = rest.trim_start_matches(['+', '-', '#', ' ', '0']);
        let flag = |flag| rest.strip_suffix(after).is_some_and(|flags| flags.contains(flag));
        let mut style = Self {
            plus: flag('+'),
            minus: flag('-'),
            sharp: flag('#'),
            space: flag(' '),
            zero: flag('0'),
            ..Self::default()
        };
        *chars = after.chars();
        if let Some(width) = number(out, "%!(BADWIDTH)", -MAX_WIDTH..=MAX_WIDTH, chars, values)? {
            style.minus |= width < 0;
            style.width = usize::try_from(width.unsigned_abs()).unwrap_or_default();
        }
        if let Some(after) = chars.as_str().strip_prefix('.') {
            *chars = after.chars();
            let precision = if after.starts_with(|next: char| next == '*' || next.is_ascii_digit()) {
                number(out, "%!(BADPREC)", 0..=MAX_WIDTH, chars, values)?
            } else {
                Some(0)
            };
            style.precision = precision.and_then(|precision| precision.try_into().ok());
        }
        Ok(style)
    }

    fn value(self, out: &mut dyn Write, verb: char, value: &Value<'_>) -> fmt::Result {
        match (value, verb) {
            (Value::Nil, 'T' | 'v') => self.pad(out, value.kind()),
            (_, 'T') => self.text(out, 's', value.kind()),
            (Value::Bool(bool), 't' | 'v') => self.pad(out, &bool.to_string()),
            (Value::Byte(byte), 'v') if self.source => self.pad(out, &format!("{byte:#x}")),
            (Value::Int(int), 'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U') => {
                self.integer(out, verb, *int)
            }
            (Value::Byte(byte), 'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U') => {
                self.integer(out, verb, (*byte).into())
            }
            (Value::Float(float), 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') => self.float(out, verb, *float),
            (Value::Text(text), 'v' | 's' | 'q' | 'x' | 'X') => self.text(out, verb, text),
            (Value::List(list), _) => {
                let (begin, between, end) = if self.source { ("[]string{", ", ", "}") } else { ("[", " ", "]") };
                out.write_str(begin)?;
                for (position, text) in list.iter().enumerate() {
                    out.write_str(if position == 0 { "" } else { between })?;
                    self.value(out, verb, &Value::Text(text.clone()))?;
                }
                out.write_str(end)
            }
            (Value::Map(map), _) => {
                let (begin, between, end) =
                    if self.source { ("map[string]string{", ", ", "}") } else { ("map[", " ", "]") };
                out.write_str(begin)?;
                for (position, (name, text)) in map.iter().enumerate() {
                    out.write_str(if position == 0 { "" } else { between })?;
                    self.value(out, verb, &Value::Text(name.as_str().into()))?;
                    out.write_char(':')?;
                    self.value(out, verb, &Value::Text(text.as_str().into()))?;
                }
                out.write_str(end)
            }
            (Value::Items(items), _) => {
                out.write_char('[')?;
                for (position, item) in items.iter().enumerate() {
                    out.write_str(if position == 0 { "" } else { " " })?;
                    self.value(out, verb, &item.into())?;
                }
                out.write_char(']')
            }
            (Value::Record(fields), _) => {
                out.write_char('{')?;
                for (position, (name, item)) in fields.iter().enumerate() {
                    write!(out, "{}{name}:", if position == 0 { "" } else { " " })?;
                    self.value(out, 'v', &item.into())?;
                }
                out.write_char('}')
            }
            _ => {
                write!(out, "%!{verb}(")?;
                self.typed(out, value)?;
                out.write_char(')')
            }
        }
    }

    /// Prints a value after its type.
    fn typed(self, out: &mut dyn Write, value: &Value<'_>) -> fmt::Result {
        if *value == Value::Nil {
            return out.write_str("<nil>");
        }
        write!(out, "{}=", value.kind())?;
        self.value(out, 'v', value)
    }

    /// Prints a text with its padding.
    fn pad(self, out: &mut dyn Write, text: &str) -> fmt::Result {
        if self.width == 0 {
            return out.write_str(text);
        }
        let lacking = self.width.saturating_sub(text.chars().count());
        let fill = if self.zero && !self.minus { "0" } else { " " }.repeat(lacking);
        if self.minus { write!(out, "{text}{fill}") } else { write!(out, "{fill}{text}") }
    }

    fn integer(self, out: &mut dyn Write, verb: char, int: i64) -> fmt::Result {
        let blanks = Self { zero: false, ..self };
        let char = || u32::try_from(int).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
        match verb {
            'c' => return self.pad(out, char().encode_utf8(&mut [0; 4])),
            'q' => return self.pad(out, &escape::quoted(char().encode_utf8(&mut [0; 4]), '\'', self.plus)),
            'U' => {
                let least = self.precision.unwrap_or_default().max(4);
                return blanks.pad(out, &format!("U+{int:0least$X}"));
            }
            _ => {}
        }
        let size = int.unsigned_abs();
        let (digits, prefix) = match verb {
            'b' => (format!("{size:b}"), "0b"),
            'o' | 'O' => (format!("{size:o}"), "0"),
            'x' => (format!("{size:x}"), "0x"),
            'X' => (format!("{size:X}"), "0X"),
            _ => (size.to_string(), ""),
        };
        let sign = self.sign(int < 0);
        let least = match self.precision {
            Some(0) if int == 0 => return blanks.pad(out, ""),
            Some(least) => least,
            None if self.zero && !self.minus => self.width.saturating_sub(sign.len()),
            None => 0,
        };
        let digits = format!("{digits:0>least$}");
        let prefix = match verb {
            'O' => "0o",
            'o' if digits.starts_with('0') => "",
            _ if self.sharp => prefix,
            _ => "",
        };
        blanks.pad(out, &format!("{sign}{prefix}{digits}"))
    }

    fn float(self, out: &mut dyn Write, verb: char, float: f64) -> fmt::Result {
        let sign = self.sign(float.is_sign_negative());
        let digits = float::unsigned(float, verb, self.precision);
        if self.zero && !self.minus {
            out.write_str(sign)?;
            return Self { width: self.width.saturating_sub(sign.len()), ..self }.pad(out, &digits);
        }
        self.pad(out, &format!("{sign}{digits}"))
    }

    fn sign(self, negative: bool) -> &'static str {
        match self {
            _ if negative => "-",
            Self { plus: true, .. } => "+",
            Self { space: true, .. } => " ",
            _ => "",
        }
    }

    fn text(self, out: &mut dyn Write, verb: char, text: &str) -> fmt::Result {
        if matches!(verb, 'x' | 'X') {
            let bytes = text.bytes().take(self.precision.unwrap_or(usize::MAX));
            let each = if self.sharp && self.space { "0x" } else { "" };
            let digits: Vec<String> = bytes.map(|byte| format!("{each}{byte:02x}")).collect();
            let first = if self.sharp && !self.space && !digits.is_empty() { "0x" } else { "" };
            let written = format!("{first}{}", digits.join(if self.space { " " } else { "" }));
            return self.pad(out, &if verb == 'X' { written.to_ascii_uppercase() } else { written });
        }
        let end = self.precision.and_then(|max| text.char_indices().nth(max));
        let text = end.and_then(|(end, _)| text.get(..end)).unwrap_or(text);
        if verb != 'q' && !self.source {
            return self.pad(out, text);
        }
        let is_raw = |char: char| char == '\t' || !char.is_control() && char != '`' && char != '\u{feff}';
        if self.sharp && text.chars().all(is_raw) {
            return self.pad(out, &format!("`{text}`"));
        }
        self.pad(out, &escape::quoted(text, '"', self.plus))
    }
}

/// Reads a number in a format, or its value if the format has `*`. An invalid one is reported in the text.
fn number<'a, 'v: 'a>(
    out: &mut dyn Write,
    complaint: &str,
    fit: RangeInclusive<i64>,
    chars: &mut Chars<'_>,
    values: &mut impl Iterator<Item = &'a Value<'v>>,
) -> Result<Option<i64>, fmt::Error> {
    let rest = chars.as_str();
    let number = if let Some(after) = rest.strip_prefix('*') {
        *chars = after.chars();
        values.next().and_then(Value::whole)
    } else {
        let after = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        *chars = after.chars();
        match rest.strip_suffix(after) {
            None | Some("") => return Ok(None),
            Some(digits) => digits.parse().ok(),
        }
    };
    let number = number.filter(|number| fit.contains(number));
    out.write_str(if number.is_none() { complaint } else { "" })?;
    Ok(number)
}
