//! Plugin files.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use ochopod_init::Privileges;
use ochopod_model::{
    ClusterName,
    status::{LifecycleReport, PluginReport},
};
use ochopod_plugin::{Compiler, Engine, Grants, LoadError, LoopbackPorts, Plugin, PodSandbox, SandboxConfig};
use ochopod_telemetry::Metrics;
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
};

struct Loader {
    runtime: Runtime,
    engine: Arc<Engine>,
    pod: PodSandbox,
    directory: TempDir,
}

static LOADER: LazyLock<Mutex<Loader>> = LazyLock::new(|| {
    let services = SandboxConfig {
        cluster: ClusterName::default(),
        grants: Grants::default(),
        environment: BTreeMap::new(),
        privileges: Privileges::default(),
        blocked: Vec::new(),
        loopback: LoopbackPorts::default(),
        memory: 256 << 20,
        process: watch::channel(LifecycleReport::default()).1,
        report: watch::channel(PluginReport::default()).0,
        metrics: Arc::new(Metrics::default()),
        init: None,
    };
    Mutex::new(Loader {
        runtime: runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        engine: Engine::new().expect("an engine"),
        pod: PodSandbox::new(services),
        directory: tempfile::tempdir().expect("a directory"),
    })
});

/// Checks that a file is loaded or rejected by name; native code without the trailer is never mapped.
pub fn plugin(bytes: &[u8]) {
    let loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let path = loader.directory.path().join("plugin.wasm");
    fs::write(&path, bytes).expect("a file can be written");
    let outcome = loader.runtime.block_on(Plugin::load(&loader.engine, &path, None, &Compiler::InProcess, &loader.pod));
    let native = bytes.starts_with(b"\x7fELF");
    match outcome {
        Ok(plugin) => assert!(!native, "native code of others was mapped: {:?}", plugin.inspect()),
        Err(error) => {
            assert_eq!(native, matches!(error, LoadError::CompiledPlugin { .. }), "{error}");
            assert!(error.to_string().contains("plugin.wasm"), "the file is not named: {error}");
            assert!(error.source().is_none_or(|source| !source.to_string().is_empty()), "{error:?}");
        }
    }
}
