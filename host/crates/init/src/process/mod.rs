//! Output and resource usage of processes, resource usage of the host, and its descriptor limit.

mod fd_limit;
mod host;
mod output;
mod usage;

pub use fd_limit::max_descriptors;
pub use host::host_usage;
pub use output::{for_each_line, log_output};
pub use usage::{Usage, usage};
