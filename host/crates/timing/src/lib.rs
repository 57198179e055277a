//! Time for actors: waits between attempts, timers of state machines, and the deadlines of a shutdown.
//!
//! Guarantees: a [`Backoff`] never returns more than its cap, and a [`Schedule`](shutdown::Schedule) never exceeds its timeout.
//! There is no state except in these values. Nothing here knows what is retried, awaited or shut down.
//!
//! | module | content |
//! |---|---|
//! | `backoff` | delays between attempts |
//! | `timer` | timers of state machines |
//! | [`shutdown`] | deadlines of a shutdown |

mod backoff;
pub mod shutdown;
mod timer;

pub use backoff::Backoff;
pub use timer::{next_completed, sleep_until};
