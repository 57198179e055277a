//! What a pod does while it leads its cluster.
//!
//! A pure [`Machine`] decides when and what to configure; the actor watches the store, posts to the pods and
//! writes, for exactly as long as a [`Leadership`](crate::coord::Leadership) lasts.

mod actor;
mod machine;
mod peer;
mod rollout;
mod settle;
mod store;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use {
    actor::{ended, machine, read_stored},
    peer::{answer, patience, whole_seconds},
    store::write,
};

pub use actor::Leader;
pub use machine::{Answer, Effect, Event, Machine, Post, Task, Write, Written};
