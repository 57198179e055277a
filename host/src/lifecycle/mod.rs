//! The life of one pod.

mod command;
mod fence;
mod handle;

pub use command::{Blame, Command, Failure, Outcome, Request};
pub use fence::{Fence, FenceError};
pub use handle::{LifecycleHandle, Submission};
