//! What the host knows of a running sub-process beside its exit: what it writes and what it uses.

mod output;
mod usage;

pub use output::log_output;
pub use usage::{Usage, usage};
