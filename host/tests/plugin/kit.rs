//! The plugin that does as it is told, and what it needs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use ochopod::{
    cluster::{ClusterName, PostedView},
    init::{Init, Privileges},
    plugin::{Compiler, Engine, Lifecycle, LoadError, Plugin, PluginError, Pod, Services},
    settings::Grants,
    status::LifecycleReport,
};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) const LONG: Duration = Duration::from_mins(1);
pub(crate) const SHORT: Duration = Duration::from_millis(500);

pub(crate) static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| Engine::new().unwrap());
pub(crate) static INIT: LazyLock<Init> = LazyLock::new(|| Init::start(env!("CARGO_BIN_EXE_ochopod").into()).unwrap());

/// A component that `make plugins` or `make guests` leaves behind.
pub(crate) fn component(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let named = std::env::var_os("OCHOPOD_GUESTS").map(PathBuf::from);
    let places = named.into_iter().chain([target.join("plugins"), target.join("guests")]);
    let mut files = places.map(|place| place.join(format!("{name}.wasm")));
    files.find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("there is no {name}.wasm: run `make plugins guests`, or name their directory in OCHOPOD_GUESTS")
    })
}

pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache")
}

pub(crate) fn services(environment: &[(&str, &str)], grants: Grants) -> Services {
    Services {
        cluster: ClusterName::new("marathon", "test").unwrap(),
        grants,
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        privileges: Privileges::default(),
        closed: Vec::new(),
        process: watch::channel(LifecycleReport::default()).1,
        report: watch::Sender::default(),
        metrics: Arc::default(),
        init: None,
    }
}

pub(crate) fn pod(environment: &[(&str, &str)], grants: Grants) -> Pod {
    Pod::new(services(environment, grants))
}

pub(crate) fn plain() -> Pod {
    pod(&[], Grants::default())
}

pub(crate) async fn load(path: &Path, pod: &Pod) -> Result<Plugin, LoadError> {
    Plugin::load(&ENGINE, path, Some(&cache()), &Compiler::Here, pod).await
}

pub(crate) async fn misbehaving(pod: &Pod) -> Plugin {
    load(&component("misbehaving"), pod).await.unwrap()
}

pub(crate) async fn lifecycle(pod: &Pod) -> Lifecycle {
    misbehaving(pod).await.lifecycle(pod)
}

/// Has the guest do one thing in its `signaled`.
pub(crate) async fn attempt(
    lifecycle: &Lifecycle,
    wish: &str,
    argument: &str,
    limit: Duration,
) -> Result<Value, PluginError> {
    lifecycle.signaled(Some(&json!({"try": wish, "with": argument})), None, limit).await
}

pub(crate) fn view() -> PostedView {
    let body = br#"{"key":"b","pods":{"a":{"seq":4,"ip":"10.0.0.1","port":"8080"},"b":{"seq":3,"ip":"10.0.0.2"}},
        "dependencies":{"db":{"x":{"seq":0,"ip":"10.0.1.1"}}}}"#;
    PostedView::parse(body).unwrap()
}
