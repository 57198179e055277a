use std::sync::Once;

use crate::bindings::ochopod::pod::log as host;

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Diagnostics; hidden unless debug logging is on.
    Debug,
    /// Normal operation.
    Info,
    /// Unexpected but handled.
    Warning,
    /// Failure.
    Error,
}

/// Adds a line to the pod's log; natively, to standard error. The macros ([`info!`](crate::info)…) format for it.
pub fn log(level: Level, message: &str) {
    if cfg!(target_family = "wasm") {
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warning => host::Level::Warning,
            Level::Error => host::Level::Error,
        };
        host::write(level, message);
    } else {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        eprintln!("[{level}] {message}");
    }
}

/// Logs panics. The host itself sees only a trap.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.payload_as_str().unwrap_or("no message");
            match panic.location() {
                Some(location) => log(Level::Error, &format!("panic at {location}: {text}")),
                None => log(Level::Error, &format!("panic: {text}")),
            }
        }));
    });
}

/// Logs a formatted line of diagnostics.
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log($crate::Level::Debug, &::std::format!($($text)*)) };
}

/// Logs a formatted line.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log($crate::Level::Info, &::std::format!($($text)*)) };
}

/// Logs a formatted line about something unexpected.
#[macro_export]
macro_rules! warning {
    ($($text:tt)*) => { $crate::log($crate::Level::Warning, &::std::format!($($text)*)) };
}

/// Logs a formatted line about a failure.
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log($crate::Level::Error, &::std::format!($($text)*)) };
}
