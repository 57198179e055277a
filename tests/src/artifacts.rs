//! Paths of the artifacts under test.

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

/// Returns a script of `host/packaging`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/packaging").join(name)
}

fn existing(path: PathBuf, make: &str) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is not there: run `make {make}`", path.display());
    Ok(path)
}

/// Returns the binary under test: `OCHOPOD_BIN`, else the debug build.
///
/// # Errors
/// If it was not built.
pub fn ochopod() -> Result<PathBuf> {
    let path = env::var_os("OCHOPOD_BIN").map_or_else(|| target().join("debug/ochopod"), PathBuf::from);
    existing(path, "build-debug")
}

/// Returns the debug build of the binary that has the pilot command alone.
///
/// # Errors
/// If it was not built.
pub fn ochopod_pilot() -> Result<PathBuf> {
    existing(target().join("debug/ochopod-pilot"), "build-debug")
}

/// Returns the release build of the binary that has the pilot command alone.
///
/// # Errors
/// If it was not built.
pub fn released_pilot() -> Result<PathBuf> {
    existing(target().join("release/ochopod-pilot"), "build")
}

/// Returns the release build of the binary.
///
/// # Errors
/// If it was not built.
pub fn released() -> Result<PathBuf> {
    let path = env::var_os("OCHOPOD_BIN").map_or_else(|| target().join("release/ochopod"), PathBuf::from);
    existing(path, "build")
}

/// Returns a real Consul agent: `CONSUL_BIN`, else the one that `make consul` fetched. None if it is not available.
#[must_use]
pub fn consul() -> Option<PathBuf> {
    let given = env::var_os("CONSUL_BIN").filter(|given| !given.is_empty());
    let path = given.map_or_else(|| target().join("consul/usr/bin/consul"), PathBuf::from);
    path.exists().then_some(path)
}

/// Returns a plugin of `plugins/`, by its name.
///
/// # Errors
/// If it was not built.
pub fn plugin(name: &str) -> Result<PathBuf> {
    existing(target().join("plugins").join(format!("{name}.wasm")), "plugins")
}

/// Returns a guest of `tests/guests/`, by its name.
///
/// # Errors
/// If it was not built.
pub fn guest(name: &str) -> Result<PathBuf> {
    existing(target().join("guests").join(format!("{name}.wasm")), "guests")
}

/// Returns the directory of the logs of failed chaos runs.
pub(crate) fn chaos(name: &str) -> PathBuf {
    target().join("chaos").join(name)
}

/// Returns the directory of plugins that were compiled in an earlier test, next to the build results.
pub(crate) fn cache() -> PathBuf {
    target().join("test-cache")
}

/// Returns the guest whose behaviour its environment selects: see [`crate::PodBuilder::misbehave`].
///
/// # Errors
/// If it was not built.
pub fn misbehaving() -> Result<PathBuf> {
    guest("misbehaving")
}
