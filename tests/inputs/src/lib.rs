//! Conditions that must hold for any external input, as one function per parser: the bodies of the fuzzer's targets
//! (`tests/fuzz`), which the tests here call too, with the fuzzer's corpus and with mutations of it.
//!
//! | target | its bytes |
//! |---|---|
//! | [`address()`] | addresses of ZooKeeper |
//! | [`configuration()`] | the configuration of services around an application, after its template |
//! | [`connection()`] | everything that a client sends to the control port |
//! | [`dependency()`] | a declared dependency; on further lines, clusters that it may match |
//! | [`difference()`] | the body of a leader's request that names its view |
//! | [`interfaces()`] | specifications of interfaces, one per line |
//! | [`plugin()`] | a plugin file |
//! | [`registration()`] | the registration of a pod |
//! | [`request()`] | a well-framed request: method and path, header lines, an empty line, the body |
//! | [`settings()`] | variables (`NAME=VALUE`) and flags (`--flag=value`), one per line |
//! | [`store()`] | nodes of ZooKeeper, one per line |
//! | [`template()`] | the template of a configuration |
//! | [`usage()`] | the name of a process, as in `/proc` |
//! | [`view()`] | the body of a leader's request |
//!
//! Each panics if its condition does not hold.

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
mod difference;
mod interfaces;
mod plugin;
mod registration;
mod settings;
mod store;
mod template;
mod usage;
mod view;

use std::fmt::Display;

pub use address::address;
pub use configuration::configuration;
pub use control::{connection, request};
pub use dependency::dependency;
pub use difference::difference;
pub use interfaces::interfaces;
pub use plugin::plugin;
pub use registration::registration;
pub use settings::settings;
pub use store::store;
pub use template::template;
pub use usage::usage;
pub use view::view;

/// Maximum length of an error that contains external input, in bytes.
const MAX_ERROR_BYTES: usize = 2048;

/// Checks that an error is not empty, and does not repeat the whole input.
fn assert_error(error: &dyn Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error is empty");
    assert!(text.len() <= MAX_ERROR_BYTES, "an error of {} bytes: {text:.200}", text.len());
}
