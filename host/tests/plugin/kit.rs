//! The misbehaving plugin, and its environment.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use ochopod_init::{Init, Privileges};
use ochopod_model::{ClusterName, PostedView, status::LifecycleReport};
use ochopod_plugin::{
    Compiler, Engine, Grants, Lifecycle, LoadError, LoopbackPorts, Plugin, PluginError, PodSandbox, SandboxConfig,
};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) const LONG_TIMEOUT: Duration = Duration::from_mins(1);
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| Engine::new().unwrap());
pub(crate) static INIT: LazyLock<Init> = LazyLock::new(|| Init::start(env!("CARGO_BIN_EXE_ochopod").into()).unwrap());

/// Returns a component that `make plugins` or `make guests` leaves behind.
pub(crate) fn component(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let named = std::env::var_os("OCHOPOD_GUESTS").map(PathBuf::from);
    let places = named.into_iter().chain([target.join("plugins"), target.join("guests")]);
    let mut files = places.map(|place| place.join(format!("{name}.wasm")));
    files.find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("missing {name}.wasm: run `make plugins guests`, or name their directory in OCHOPOD_GUESTS")
    })
}

pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache")
}

pub(crate) fn services(environment: &[(&str, &str)], grants: Grants) -> SandboxConfig {
    SandboxConfig {
        cluster: ClusterName::new("marathon", "test").unwrap(),
        grants,
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        privileges: Privileges::default(),
        blocked: Vec::new(),
        loopback: LoopbackPorts { declared: vec![None], ..LoopbackPorts::default() },
        memory: 256 << 20,
        process: watch::channel(LifecycleReport::default()).1,
        report: watch::Sender::default(),
        metrics: Arc::default(),
        init: None,
    }
}

pub(crate) fn pod(environment: &[(&str, &str)], grants: Grants) -> PodSandbox {
    PodSandbox::new(services(environment, grants))
}

pub(crate) fn plain() -> PodSandbox {
    pod(&[], Grants::default())
}

pub(crate) async fn load(path: &Path, pod: &PodSandbox) -> Result<Plugin, LoadError> {
    Plugin::load(&ENGINE, path, Some(&cache()), &Compiler::InProcess, pod).await
}

pub(crate) async fn misbehaving(pod: &PodSandbox) -> Plugin {
    load(&component("misbehaving"), pod).await.unwrap()
}

pub(crate) async fn lifecycle(pod: &PodSandbox) -> Lifecycle {
    misbehaving(pod).await.lifecycle(pod)
}

/// Makes the guest execute one action in its `signaled`.
pub(crate) async fn attempt(
    lifecycle: &Lifecycle,
    kind: &str,
    argument: &str,
    limit: Duration,
) -> Result<Value, PluginError> {
    lifecycle.signaled(Some(&json!({"try": kind, "with": argument})), None, limit).await
}

pub(crate) fn view() -> PostedView {
    let body = br#"{"key":"b","pods":{"a":{"seq":4,"ip":"10.0.0.1","port":"8080"},"b":{"seq":3,"ip":"10.0.0.2"}},
        "dependencies":{"db":{"x":{"seq":0,"ip":"10.0.1.1"}}}}"#;
    PostedView::parse(body).unwrap()
}
