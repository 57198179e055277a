//! Where the things under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::ensure;

use crate::Result;

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".."));
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |given| workspace.join(given))
}

fn existing(path: PathBuf, make: &str) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is not there: run `make {make}`", path.display());
    Ok(path)
}

/// The binary under test: `OCHOPOD_BIN`, else the debug build.
///
/// # Errors
/// When it was not built.
pub fn ochopod() -> Result<PathBuf> {
    let path = env::var_os("OCHOPOD_BIN").map_or_else(|| target().join("debug/ochopod"), PathBuf::from);
    existing(path, "build-debug")
}

/// The release build of the binary.
///
/// # Errors
/// When it was not built.
pub fn released() -> Result<PathBuf> {
    let path = env::var_os("OCHOPOD_BIN").map_or_else(|| target().join("release/ochopod"), PathBuf::from);
    existing(path, "build")
}

/// A plugin of `plugins/`, by its name.
///
/// # Errors
/// When it was not built.
pub fn plugin(name: &str) -> Result<PathBuf> {
    existing(target().join("plugins").join(format!("{name}.wasm")), "plugins")
}

/// A guest of `tests/guests/`, by its name.
///
/// # Errors
/// When it was not built.
pub fn guest(name: &str) -> Result<PathBuf> {
    existing(target().join("guests").join(format!("{name}.wasm")), "guests")
}

/// Where the logs of a storm are kept in which something did not hold.
pub(crate) fn chaos(name: &str) -> PathBuf {
    target().join("chaos").join(name)
}

/// Where plugins are kept that were compiled in an earlier test: beside what was built.
pub(crate) fn cache() -> PathBuf {
    target().join("test-cache")
}

/// The guest that does as its environment says: see [`crate::PodBuilder::misbehave`].
///
/// # Errors
/// When it was not built.
pub fn misbehaving() -> Result<PathBuf> {
    guest("misbehaving")
}
