//! Descriptor limits of the host and its children.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::ResourceLimit;

/// Limit that this process was started with, once it has raised its own.
static INHERITED: OnceLock<ResourceLimit> = OnceLock::new();

/// Raises the soft limit on open files to the hard one. Children get the earlier limit, because programs that close all
/// descriptors up to the limit, or use `select`, expect a low one.
pub fn raise_descriptor_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        // Set once.
        _ = INHERITED.set(ResourceLimit::descriptors(soft, hard));
    }
}

/// Returns the limit on open files for children without another one.
pub(super) fn inherited() -> Option<ResourceLimit> {
    INHERITED.get().copied()
}
