//! What must hold whatever bytes come from outside, as one function per place where they come in: the bodies of the fuzzer's
//! targets (`tests/fuzz`), which the tests here call too, with the fuzzer's corpus and with mutations of it.
//!
//! | target | its bytes |
//! |---|---|
//! | [`address()`] | where ZooKeeper is |
//! | [`configuration()`] | the configuration of services around an application, its template carried out |
//! | [`connection()`] | everything that a client sends to the control port |
//! | [`dependency()`] | a declared dependency; on further lines, clusters that it may match |
//! | [`interfaces()`] | specifications of interfaces, one per line |
//! | [`plugin()`] | a plugin file |
//! | [`registration()`] | what a pod registered |
//! | [`request()`] | a well-framed request: method and path, header lines, an empty line, the body |
//! | [`settings()`] | variables (`NAME=VALUE`) and flags (`--flag=value`), one per line |
//! | [`store()`] | nodes of ZooKeeper, one per line |
//! | [`template()`] | the template of a configuration |
//! | [`usage()`] | the name of a process, which stands in `/proc` |
//! | [`view()`] | what a leader posts |
//!
//! Each panics when what it promises does not hold.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a promise that is not kept is a panic"
)]

mod address;
mod configuration;
mod control;
mod dependency;
mod interfaces;
mod plugin;
mod registration;
mod settings;
mod store;
mod template;
mod usage;
mod view;

pub use address::address;
pub use configuration::configuration;
pub use control::{connection, request};
pub use dependency::dependency;
pub use interfaces::interfaces;
pub use plugin::plugin;
pub use registration::registration;
pub use settings::settings;
pub use store::store;
pub use template::template;
pub use usage::usage;
pub use view::view;

use std::fmt::Display;

/// Longest error that is made of what others sent, in bytes.
const LONGEST_ERROR: usize = 2048;

/// An error says something, and does not repeat everything that was sent.
fn assert_told(error: &dyn Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error says nothing");
    assert!(text.len() <= LONGEST_ERROR, "an error of {} bytes: {text:.200}", text.len());
}
