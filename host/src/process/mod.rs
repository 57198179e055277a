//! What the host knows of a running sub-process beside its exit: what it writes and what it uses. And what the host itself
//! uses, and how many descriptors it may have.

mod descriptors;
mod host;
mod output;
mod usage;

pub use descriptors::most_descriptors;
pub use host::host_usage;
pub use output::{each_line, log_output};
pub use usage::{Usage, usage};
