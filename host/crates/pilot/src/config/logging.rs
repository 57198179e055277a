//! `logging`: level, format and output of the log.

use super::{
    LogFormat, LogLevel, LogOutput, LoggingConfig,
    field::{Field, Object},
    value::one_of,
};

const LEVELS: [(&str, LogLevel); 7] = [
    ("DEBUG", LogLevel::Debug),
    ("INFO", LogLevel::Info),
    ("WARN", LogLevel::Warn),
    ("WARNING", LogLevel::Warn),
    ("ERROR", LogLevel::Error),
    ("FATAL", LogLevel::Fatal),
    ("PANIC", LogLevel::Panic),
];
const FORMATS: [(&str, LogFormat); 3] =
    [("default", LogFormat::Default), ("text", LogFormat::Text), ("json", LogFormat::Json)];
const OUTPUTS: [(&str, LogOutput); 2] = [("stdout", LogOutput::Stdout), ("stderr", LogOutput::Stderr)];

pub(super) fn logging(field: Field<'_, '_>) -> Option<LoggingConfig> {
    field.object(|logging| {
        let level = choice(logging, "level", "a level", &LEVELS);
        let format = choice(logging, "format", "a format", &FORMATS);
        let output = choice(logging, "output", "an output", &OUTPUTS);
        Some(LoggingConfig { level, format, output })
    })
}

fn choice<T: Copy + Default>(logging: &mut Object<'_, '_>, key: &'static str, what: &str, choices: &[(&str, T)]) -> T {
    logging.optional(key, |field| one_of(field, what, str::eq_ignore_ascii_case, choices)).unwrap_or_default()
}
