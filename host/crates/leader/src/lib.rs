//! The leader of a cluster: what a pod does while it holds the lock.
//!
//! # Guarantees
//!
//! - Each write to the store is one commit with a check on the lock: after another pod has taken the lock, nothing is
//!   written.
//! - Requests carry the epoch of the leadership and increasing numbers, so that pods can reject what is outdated.
//! - While the session is suspended or lost, nothing is started.
//! - A configuration counts as complete only after all of its pods have confirmed it and the store has it.
//!
//! The pure [`LeaderMachine`] decides when and what to configure. [`LeaderActor`] runs it for as long as a
//! [`Leadership`](ochopod_store::Leadership) lasts: it observes the store, posts to the pods and writes. The store owns the
//! lock and the session, the plugin the probe. The leader knows neither how the control API executes a request, nor what its
//! own pod's sub-process does.
//!
//! | module | owns |
//! |---|---|
//! | `event` | events, effects and requests of the machine |
//! | `machine` | [`LeaderMachine`]: state of one leadership, damper and back-off; composes those down to `down_pods` |
//! | `burst` | changes that are gathered into one configuration |
//! | `settle` | the current view, and when it may be compared |
//! | `rollout`, `progress` | one configuration, phase by phase, and the results of its steps |
//! | `failed_check`, `unready` | a pre-check that pods fail, and the pods that a configuration waits for |
//! | `snapshot` | the snapshot as far as this leadership wrote it |
//! | `left_out` | the pods that the last configuration left out |
//! | `reconciliation` | when the model's `reconcile` is called |
//! | `down_pods` | the pods that are off, dead, not ready or cordoned |
//! | `actor` | [`LeaderActor`]: work in flight |
//! | `peer_client` | requests to pods over a [`PeerTransport`], and what replies mean |
//! | `view_encoding` | views as they are sent, and the views that pods hold |
//!
//! `hash`, `view` and `snapshot` are read, written and restored by the store's
//! [`ConfigurationKeeper`](ochopod_store::ConfigurationKeeper).

mod actor;
mod burst;
mod down_pods;
mod event;
mod failed_check;
mod left_out;
mod machine;
mod peer_client;
mod progress;
mod reconciliation;
mod rollout;
mod settle;
mod snapshot;
#[cfg(test)]
mod tests;
mod unready;
mod view_encoding;

pub use actor::{ClusterModel, LeaderActor, Step, StepObserver};
pub use event::{Effect, Event, PeerReply, PeerRequest, RolloutTask, StoreWrite, WriteResult};
pub use machine::LeaderMachine;
pub use peer_client::PeerTransport;
