//! What the host knows of a running sub-process beside its exit: what it writes and what it uses. And how many descriptors
//! the host itself may have.

mod descriptors;
mod output;
mod usage;

pub use descriptors::most_descriptors;
pub use output::{each_line, log_output};
pub use usage::{Usage, usage};
