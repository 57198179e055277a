//! Text format of the Python SDK: `time - LEVEL - message`.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use crate::escape::is_hidden;

/// Formats each event as one line; hidden characters are escaped.
pub(super) struct TextFormat;

impl<S, N> FormatEvent<S, N> for TextFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " - {} - ", level(*event.metadata().level()))?;
        let mut text = String::new();
        for span in ctx.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                text.push_str(fields);
                text.push_str(" : ");
            }
        }
        ctx.field_format().format_fields(Writer::new(&mut text), event)?;
        for character in text.trim_end().chars() {
            if is_hidden(character) && character != '\t' {
                write!(writer, "{}", character.escape_default())?;
            } else {
                writer.write_char(character)?;
            }
        }
        writeln!(writer)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::WARN => "WARNING",
        other => other.as_str(),
    }
}
