//! The life of one pod.
//!
//! Requests, the plugin's callbacks, the sub-process and time meet in one pure [`Machine`]; [`LifecycleActor`]
//! carries out what it decides. In words:
//!
//! ```text
//!            on (initialize once, configure, spawn)             exit 0, kill, on refused
//!  stopped ─────────────────────────────────────────▶ running ───────────────────────────▶ stop, finalize ▶ dead
//!     ▲   ◀───────────────────────────────────────────  │  ▲
//!     │        off (tear-down, grace, SIGKILL),         │  │ any other end: restart, at once, then with back-off
//!     └──────  too many failed sanity checks            └──┘
//! ```

mod actor;
mod command;
mod fence;
mod handle;
mod jobs;
mod launch;
mod machine;
mod order;
mod sanity;
mod sub_process;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;

pub use actor::LifecycleActor;
pub use command::{Blame, Command, Failure, Outcome, Overrun, Request};
pub use fence::{Admission, Fence, FenceError};
pub use handle::{LifecycleHandle, Submission};
pub use launch::{LaunchError, LaunchPad};
pub use machine::{CallFailure, Callback, Effect, Event, Machine, Returned, Ticket};
