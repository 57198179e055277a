use std::sync::Once;

use crate::bindings::ochopod::pod::log as host;

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for a mistake; shown when the operator asks.
    Debug,
    /// What happens normally.
    Info,
    /// What may need a look.
    Warning,
    /// What went wrong.
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
        eprintln!("[{level:?}] {message}");
    }
}

/// Sends panics to the log. The host itself sees no more of one than a trap.
pub(crate) fn hook_panics() {
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

/// Logs a formatted line for whoever looks for a mistake.
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log($crate::Level::Debug, &::std::format!($($text)*)) };
}

/// Logs a formatted line.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log($crate::Level::Info, &::std::format!($($text)*)) };
}

/// Logs a formatted line that may need a look.
#[macro_export]
macro_rules! warning {
    ($($text:tt)*) => { $crate::log($crate::Level::Warning, &::std::format!($($text)*)) };
}

/// Logs a formatted line about something that went wrong.
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log($crate::Level::Error, &::std::format!($($text)*)) };
}
