//! Fields of one event, and its line in ContainerPilot's formats: those of logrus and of Go's log package.
//!
//! Each event is one line. Hidden characters are escaped as in Go's quoted strings, also where ContainerPilot prints them
//! unescaped: in messages of the default format and on terminals.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{self, Write as _},
};

use jiff::ZonedDateTime;
use ochopod_telemetry::{escape, escape::is_hidden};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};

use super::{LogFormat, LogLevel};

/// Message and fields of an event or a span.
#[derive(Debug, Clone, Default)]
pub(super) struct EventFields {
    pub(super) message: String,
    pub(super) fields: BTreeMap<&'static str, Value>,
}

impl EventFields {
    fn insert(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            "message" => {
                self.message = display(&value);
                return;
            }
            "level" => "fields.level",
            "msg" => "fields.msg",
            "time" => "fields.time",
            name => name,
        };
        self.fields.insert(name, value);
    }
}

impl Visit for EventFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity.
        self.insert(field, serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::from));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.insert(field, value.to_string().into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }
}

/// A log event. Results of writing to a string are ignored, because it cannot fail.
#[derive(Debug)]
pub(super) struct LogRecord {
    pub(super) level: LogLevel,
    pub(super) event: EventFields,
}

impl LogRecord {
    /// Returns the line with its end.
    pub(super) fn line(&self, format: LogFormat, moment: &ZonedDateTime) -> String {
        match format {
            LogFormat::Default => {
                format!("{} {}\n", moment.strftime("%Y/%m/%d %H:%M:%S"), escaped(&self.event.message))
            }
            LogFormat::Text => self.text(moment),
            LogFormat::Json => self.json(moment),
        }
    }

    /// Returns the line of the text format on a terminal, with its end.
    pub(super) fn colored(&self, seconds: i64) -> String {
        let color = match self.level {
            LogLevel::Debug => 37,
            LogLevel::Info => 34,
            LogLevel::Warn => 33,
            LogLevel::Error | LogLevel::Fatal | LogLevel::Panic => 31,
        };
        let level = self.level.name().to_uppercase();
        let level = level.get(..4).unwrap_or(&level);
        let message = escaped(&self.event.message);
        let mut line = format!("\x1b[{color}m{level}\x1b[0m[{seconds:04}] {message:<44} ");
        for (name, value) in &self.event.fields {
            _ = write!(line, " \x1b[{color}m{name}\x1b[0m={}", quoted_if_needed(value));
        }
        line.push('\n');
        line
    }

    fn text(&self, moment: &ZonedDateTime) -> String {
        let mut line = format!("time=\"{}\" level={} ", rfc3339(moment), self.level.name());
        if !self.event.message.is_empty() {
            _ = write!(line, "msg={} ", quoted_if_needed(&self.event.message.as_str().into()));
        }
        for (name, value) in &self.event.fields {
            _ = write!(line, "{name}={} ", quoted_if_needed(value));
        }
        line.push('\n');
        line
    }

    fn json(&self, moment: &ZonedDateTime) -> String {
        let mut object: Map<String, Value> =
            self.event.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        object.insert("level".to_owned(), self.level.name().into());
        object.insert("msg".to_owned(), self.event.message.as_str().into());
        object.insert("time".to_owned(), rfc3339(moment).into());
        let mut line = String::new();
        for c in escape::json(&Value::Object(object).to_string()).chars() {
            // These occur in strings only; Go escapes them because JSON may be embedded in HTML.
            match c {
                '<' | '>' | '&' => _ = write!(line, "\\u{:04x}", u32::from(c)),
                c => line.push(c),
            }
        }
        line.push('\n');
        line
    }
}

fn rfc3339(moment: &ZonedDateTime) -> String {
    let form = if moment.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    moment.strftime(form).to_string()
}

fn display(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns a value of the text format, unquoted unless it is a string with special characters.
fn quoted_if_needed(value: &Value) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    match value.as_str() {
        Some(text) if !text.chars().all(is_bare) => quoted(text),
        _ => display(value),
    }
}

/// Quotes a string as Go's `%q`.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_hidden(c) => escape(&mut quoted, c),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Escapes text so that it stays on one line.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && c != '\t' {
            escape(&mut escaped, c);
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn escape(text: &mut String, c: char) {
    match c {
        '\x07' => text.push_str(r"\a"),
        '\x08' => text.push_str(r"\b"),
        '\t' => text.push_str(r"\t"),
        '\n' => text.push_str(r"\n"),
        '\x0b' => text.push_str(r"\v"),
        '\x0c' => text.push_str(r"\f"),
        '\r' => text.push_str(r"\r"),
        c if c.is_ascii() => _ = write!(text, "\\x{:02x}", u32::from(c)),
        c if u32::from(c) > 0xffff => _ = write!(text, "\\U{:08x}", u32::from(c)),
        c => _ = write!(text, "\\u{:04x}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(level: LogLevel, message: &str, fields: &[(&'static str, Value)]) -> LogRecord {
        LogRecord {
            level,
            event: EventFields { message: message.to_owned(), fields: fields.iter().cloned().collect() },
        }
    }

    fn at(moment: &str, hours: i8) -> ZonedDateTime {
        let moment: Timestamp = moment.parse().unwrap();
        moment.to_zoned_datetime(TimeZone::fixed(jiff::tz::offset(hours)))
    }

    #[test]
    fn lines_match_those_of_containerpilot() {
        let vectors: Value = serde_json::from_str(include_str!("../../../../../tests/vectors/logging.json")).unwrap();
        let failed = record(LogLevel::Error, "exit status 2", &[]);
        let health = record(
            LogLevel::Info,
            "hout",
            &[("serviceName", "appx".into()), ("process", "health".into()), ("serviceID", "appx-vm".into())],
        );
        let (default, text, json) = (LogFormat::Default, LogFormat::Text, LogFormat::Json);
        let printed = [
            (default, failed.line(default, &at("2026-11-21T20:51:12Z", 0))),
            (text, failed.line(text, &at("2026-11-21T20:51:14Z", 0))),
            (text, health.line(text, &at("2026-11-21T20:51:18Z", 0))),
            (json, failed.line(json, &at("2026-11-21T20:51:15Z", 0))),
        ];
        let lines = vectors["lines"].as_array().unwrap();
        assert_eq!(lines.len(), printed.len());
        for (vector, (format, line)) in lines.iter().zip(printed) {
            assert_eq!(vector["format"], format!("{format:?}").to_lowercase());
            assert_eq!(vector["line"].as_str(), line.strip_suffix('\n'));
        }
    }

    #[test]
    fn lines_match_those_of_the_logrus_manual() {
        let morning = at("2015-03-26T05:27:38Z", -4);
        let text = |level, message, fields: &[_]| record(level, message, fields).line(LogFormat::Text, &morning);
        let of_walrus = |name, value: i32| [("animal", "walrus".into()), (name, value.into())];
        assert_eq!(
            text(LogLevel::Debug, "Started observing beach", &of_walrus("number", 8)),
            "time=\"2015-03-26T01:27:38-04:00\" level=debug msg=\"Started observing beach\" animal=walrus number=8 \n"
        );
        assert_eq!(
            text(LogLevel::Warn, "The group's number increased!", &[("omg", true.into()), ("number", 122.into())]),
            "time=\"2015-03-26T01:27:38-04:00\" level=warning msg=\"The group's number increased!\" number=122 omg=true \n"
        );
        assert_eq!(
            text(LogLevel::Fatal, "", &[("temperature", (-4).into())]),
            "time=\"2015-03-26T01:27:38-04:00\" level=fatal temperature=-4 \n"
        );
        let observed = record(LogLevel::Debug, "Started observing beach", &of_walrus("number", 8));
        assert_eq!(observed.line(LogFormat::Default, &morning), "2015/03/26 01:27:38 Started observing beach\n");
        assert_eq!(
            record(LogLevel::Info, "A group emerges", &of_walrus("size", 10)).line(LogFormat::Json, &morning),
            concat!(
                r#"{"animal":"walrus","level":"info","msg":"A group emerges","size":10,"#,
                r#""time":"2015-03-26T01:27:38-04:00"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn empty_message_is_a_line_in_every_format() {
        let (empty, moment) = (record(LogLevel::Panic, "", &[]), at("2026-11-21T20:51:12Z", 0));
        assert_eq!(empty.line(LogFormat::Default, &moment), "2026/11/21 20:51:12 \n");
        assert_eq!(empty.line(LogFormat::Text, &moment), "time=\"2026-11-21T20:51:12Z\" level=panic \n");
        assert_eq!(
            empty.line(LogFormat::Json, &moment),
            "{\"level\":\"panic\",\"msg\":\"\",\"time\":\"2026-11-21T20:51:12Z\"}\n"
        );
    }

    #[test]
    fn terminal_lines_have_colors_and_seconds() {
        let warning = record(LogLevel::Warn, "two\nlines", &[("backend", "db".into()), ("after", "1 s".into())]);
        assert_eq!(
            warning.colored(61),
            format!(
                "\x1b[33mWARN\x1b[0m[0061] {:<44}  \x1b[33mafter\x1b[0m=\"1 s\" \x1b[33mbackend\x1b[0m=db\n",
                "two\\nlines"
            )
        );
        assert!(record(LogLevel::Debug, "", &[]).colored(0).starts_with("\x1b[37mDEBU\x1b[0m[0000] "));
        assert!(record(LogLevel::Info, "", &[]).colored(12345).starts_with("\x1b[34mINFO\x1b[0m[12345] "));
        assert!(record(LogLevel::Fatal, "", &[]).colored(0).starts_with("\x1b[31mFATA\x1b[0m[0000] "));
    }

    #[test]
    fn values_are_quoted_and_escaped_as_in_go() {
        for (value, printed) in [
            ("", ""),
            ("a-1.Z", "a-1.Z"),
            ("a_b", "\"a_b\""),
            ("/bin/sh", "\"/bin/sh\""),
            ("ä", "\"ä\""),
            ("a \"b\" \\ 'c'", r#""a \"b\" \\ 'c'""#),
            ("\t\r\n\x07\x08\x0b\x0c\0\x1b[31m\x7f", r#""\t\r\n\a\b\v\f\x00\x1b[31m\x7f""#),
            ("\u{85}\u{2028}\u{202e}", r#""\u0085\u2028\u202e""#),
        ] {
            assert_eq!(quoted_if_needed(&value.into()), printed);
        }
        let html = record(LogLevel::Info, "<a & b>", &[]).line(LogFormat::Json, &at("2026-11-21T20:51:12Z", 0));
        assert!(html.contains(r#""msg":"\u003ca \u0026 b\u003e""#), "{html}");
    }

    proptest! {
        #[test]
        fn any_event_is_one_line(
            message in any::<String>(), value in any::<String>(), number in any::<f64>(),
        ) {
            let moment = at("2026-11-21T20:51:12Z", 0);
            let record = record(LogLevel::Info, &message, &[("value", value.clone().into()), ("number", number.into())]);
            for line in [
                record.line(LogFormat::Default, &moment),
                record.line(LogFormat::Text, &moment),
                record.line(LogFormat::Json, &moment),
                record.colored(0).replace('\x1b', ""),
            ] {
                let content = line.strip_suffix('\n').unwrap();
                prop_assert!(!content.contains(|c: char| is_hidden(c) && c != '\t'), "{:?}", content);
            }
            let read: Value = serde_json::from_str(&record.line(LogFormat::Json, &moment)).unwrap();
            prop_assert_eq!(&read["msg"], &json!(message));
            prop_assert_eq!(&read["value"], &json!(value));
        }
    }
}
