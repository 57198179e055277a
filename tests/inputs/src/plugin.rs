//! Plugin files.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use ochopod::{
    cluster::ClusterName,
    init::Privileges,
    plugin::{Compiler, Engine, LoadError, Plugin, Pod, Services},
    settings::Grants,
    status::{LifecycleReport, PluginReport},
    telemetry::Metrics,
};
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
};

struct Loader {
    runtime: Runtime,
    engine: Arc<Engine>,
    pod: Pod,
    directory: TempDir,
}

static LOADER: LazyLock<Mutex<Loader>> = LazyLock::new(|| {
    let services = Services {
        cluster: ClusterName::default(),
        grants: Grants::default(),
        environment: BTreeMap::new(),
        privileges: Privileges::default(),
        closed: Vec::new(),
        process: watch::channel(LifecycleReport::default()).1,
        report: watch::channel(PluginReport::default()).0,
        metrics: Arc::new(Metrics::default()),
        init: None,
    };
    Mutex::new(Loader {
        runtime: runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        engine: Engine::new().expect("an engine"),
        pod: Pod::new(services),
        directory: tempfile::tempdir().expect("a directory"),
    })
});

/// A file is loaded or refused by name; native code that does not bear the seal is never mapped.
pub fn plugin(bytes: &[u8]) {
    let loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let path = loader.directory.path().join("plugin.wasm");
    fs::write(&path, bytes).expect("a file can be written");
    let outcome = loader.runtime.block_on(Plugin::load(&loader.engine, &path, None, &Compiler::Here, &loader.pod));
    let native = bytes.starts_with(b"\x7fELF");
    match outcome {
        Ok(plugin) => assert!(!native, "native code of others was mapped: {:?}", plugin.inspect()),
        Err(error) => {
            assert_eq!(native, matches!(error, LoadError::Artefact { .. }), "{error}");
            assert!(error.to_string().contains("plugin.wasm"), "the file is not named: {error}");
            assert!(error.source().is_none_or(|source| !source.to_string().is_empty()), "{error:?}");
        }
    }
}
