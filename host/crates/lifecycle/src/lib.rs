//! Lifecycle of one pod.
//!
//! Requests, the plugin's callbacks, the sub-process and time meet in one pure [`LifecycleMachine`]; [`LifecycleActor`] carries its
//! effects out:
//!
//! ```text
//!            on (initialize once, configure, spawn)             exit 0, kill, on rejected
//!  stopped ─────────────────────────────────────────▶ running ───────────────────────────▶ stop, finalize ▶ dead
//!     ▲   ◀───────────────────────────────────────────  │  ▲
//!     │        off (tear-down, grace, SIGKILL),         │  │ any other exit: restart, immediately, then with back-off
//!     └──────  too many failed sanity checks            └──┘
//! ```
//!
//! Guarantees: every request is answered once; one callback and one sub-process run at a time; a process receives SIGTERM
//! before SIGKILL; a dead pod starts nothing. The machine owns the state of requests, checks and sub-process; the actor owns
//! the process and the callback. Nothing here knows HTTP, the cluster or how a leader decides.
//!
//! | module | content |
//! |---|---|
//! | `command` | requests and outcomes |
//! | `event` | events and effects of the machine |
//! | `machine` | [`LifecycleMachine`]: composes the parts, steps of each job, shutdown |
//! | `queue`, `task_order` | requests that wait, and which of a leader's may start |
//! | `jobs` | the job in progress |
//! | `sub_process`, `shortage` | supervision: start, stop, restart, retries for lack of resources |
//! | `readiness` | schedule of `ready`, and the requests that wait for it |
//! | `sanity` | schedule and score of sanity checks |
//! | `outbox` | effects of a step |
//! | `reason` | cause for which the sub-process does not run |
//! | `actor`, `handle` | carries effects out; submits requests |
//! | `fence` | epoch check: which leadership is accepted |
//! | `launch` | process specification of a plugin's command |

mod actor;
mod command;
mod event;
mod fence;
mod handle;
mod jobs;
mod launch;
mod machine;
mod outbox;
mod queue;
#[cfg(test)]
mod random_walk;
mod readiness;
mod reason;
mod sanity;
mod shortage;
mod sub_process;
mod task_order;
#[cfg(test)]
mod tests;

pub use actor::{LifecycleActor, register_death};
pub use command::{ControlTask, Cordon, Failure, Outcome, Request, TimeoutResult};
pub use event::{Callback, CallbackError, CallbackErrorKind, CallbackValue, Effect, Event, RequestId, StartFailure};
pub use fence::{AdmittedEpoch, Fence, FenceError, KnownLeader};
pub use handle::{Claim, LifecycleHandle, Submission};
pub use launch::{LaunchConfig, LaunchError};
pub use machine::LifecycleMachine;
