//! State shared by all pods of this process.

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use ochopod_control::SharedViews;
use ochopod_entry::SystemError;
use ochopod_environment::Env;
use ochopod_init::{Init, SELF_EXE};
use ochopod_model::{
    Dependency,
    status::{LifecycleReport, PluginReport},
};
use ochopod_platform::{InstanceMetadata, LookUpResults, SystemInfo};
use ochopod_plugin::{
    self as plugin, Compiler, Endpoint, Engine, Grants, LifecycleSettings, LoadError, LoopbackPorts, ModelSettings,
    Plugin, SandboxConfig, SettingOverride,
};
use ochopod_settings::Flags;
use ochopod_store::{StoreBackend, ZooKeeperAddress};
use ochopod_telemetry::{Metrics, PodLog};
use tokio::sync::{oneshot, watch};

use super::{error::StartError, shutdown::Shutdown};
use crate::settings::{GrantFlags, Settings, SettingsInput, platform};

/// System and platform, as they were detected before the settings are read.
pub(super) struct Detected {
    system: SystemInfo,
    found: LookUpResults,
    instance_metadata: Option<InstanceMetadata>,
}

impl Detected {
    /// Runs the look-ups that the platform needs, then detects the system on another thread: resolving names may take long,
    /// and a termination signal is handled meanwhile. `is_local` is set for pods that share this machine.
    pub(super) async fn detect(env: &Env, flags: &Flags, is_local: bool) -> Result<Self, StartError> {
        let look_ups = platform::look_ups(env, flags, is_local);
        let instance_metadata = look_ups.instance_metadata().cloned();
        let found = look_ups.run().await;
        let zk = platform::store_text(env, flags, &found);
        let servers = zk.parse::<ZooKeeperAddress>().map(|address| address.servers().to_vec()).unwrap_or_default();
        let (env, prefix) = (env.clone(), platform::env_vars_prefix(env, flags));
        let system = off_thread("detect", move || SystemInfo::detect(&env, &servers, &prefix)).await?;
        Ok(Self { system, found, instance_metadata })
    }

    /// Returns the sources of the settings.
    pub(super) fn input<'a>(&'a self, env: &'a Env, flags: &'a Flags, grants: &'a GrantFlags) -> SettingsInput<'a> {
        let Self { system, found, instance_metadata } = self;
        SettingsInput { env, flags, grants, system, found, instance_metadata: instance_metadata.as_ref() }
    }
}

/// Runs work that may wait for names or files on another thread; a termination signal is handled meanwhile.
pub(super) async fn off_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let failed = SystemError::of("cannot detect host settings");
    let (result_tx, result_rx) = oneshot::channel();
    let work = move || drop(result_tx.send(work()));
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(&failed)?;
    Ok(result_rx.await.map_err(|_| failed(io::Error::other("thread ended without a result")))?)
}

/// State shared by all pods of this process.
pub(super) struct HostContext {
    pub(super) init: Init,
    pub(super) log: PodLog,
    pub(super) ensemble: StoreBackend,
    pub(super) loader: PluginLoader,
    pub(super) plugin: Plugin,
    pub(super) lifecycle: LifecycleSettings,
    pub(super) model: ModelSettings,
    pub(super) dependencies: Vec<Dependency>,
    /// The views of all pods.
    pub(super) views: Arc<SharedViews>,
}

impl HostContext {
    /// Starts init and engine, and loads the plugin.
    pub(super) async fn start(
        settings: &Settings,
        path: &Path,
        ensemble: StoreBackend,
        log: PodLog,
    ) -> Result<Self, StartError> {
        let init = Init::start(PathBuf::from(SELF_EXE)).map_err(StartError::Init)?;
        let engine = Engine::new().map_err(StartError::Engine)?;
        let sandbox = plugin::PodSandbox::new(SandboxConfig {
            cluster: settings.cluster.clone(),
            grants: settings.grants.clone(),
            environment: settings.environment.clone(),
            privileges: settings.privileges.clone(),
            blocked: Vec::new(),
            loopback: LoopbackPorts::default(),
            memory: settings.plugin_memory,
            process: watch::channel(LifecycleReport::default()).1,
            report: watch::Sender::default(),
            metrics: Arc::default(),
            init: None,
        });
        let loader = PluginLoader {
            engine,
            path: path.to_owned(),
            cache: settings.cache.clone(),
            compiler: Compiler::Child { init: init.clone(), host: PathBuf::from(SELF_EXE) },
            sandbox,
            grants: settings.grants.clone(),
            overrides: settings.overrides.clone(),
        };
        let plugin = loader.load().await.map_err(StartError::Plugin)?;
        let (lifecycle, model) = loader.settings(&plugin);
        model.validate().map_err(StartError::ModelSettings)?;
        let dependencies = model.depends_on.iter().map(|name| Dependency::new(name, &settings.cluster));
        let dependencies = dependencies.collect::<Result<_, _>>().map_err(StartError::Dependency)?;
        let missing = plugin.description().wants.missing_flags(&settings.grants);
        if !missing.is_empty() {
            tracing::warn!(flags = missing.join(" "), "plugin requests ungranted permissions");
        }
        let denied: Vec<&str> = plugin.description().wants.denied_secrets().collect();
        if !denied.is_empty() {
            tracing::warn!(variables = denied.join(" "), "plugin requests secrets of host or platform, never granted");
        }
        Ok(Self { init, log, ensemble, loader, plugin, lifecycle, model, dependencies, views: Arc::default() })
    }

    /// Returns the sandbox of one pod's guests.
    pub(super) fn pod_sandbox(
        &self,
        settings: &Settings,
        process: watch::Receiver<LifecycleReport>,
        report: watch::Sender<PluginReport>,
        metrics: Arc<Metrics>,
    ) -> plugin::PodSandbox {
        let ip = settings.registration.get("ip").and_then(serde_json::Value::as_str).unwrap_or_default();
        let declared = self.plugin.description().wants.loopback().collect();
        plugin::PodSandbox::new(SandboxConfig {
            cluster: settings.cluster.clone(),
            grants: settings.grants.clone(),
            environment: settings.environment.clone(),
            privileges: settings.privileges.clone(),
            blocked: blocked_endpoints(self.ensemble.servers(), settings.listen.port(), ip, settings.mapped_port),
            loopback: LoopbackPorts::new(declared, &settings.registration),
            memory: settings.plugin_memory,
            process,
            report,
            metrics,
            init: Some(self.init.clone()),
        })
    }

    /// Terminates all remaining processes.
    pub(super) async fn shut_down(self, stop: &Shutdown) {
        stop.finish(&self.init, self.lifecycle.grace).await;
    }
}

/// Loads plugins: the one of the start, and those that replace it.
#[derive(Clone)]
pub(super) struct PluginLoader {
    engine: Arc<Engine>,
    /// The plugin's file.
    pub(super) path: PathBuf,
    cache: PathBuf,
    compiler: Compiler,
    /// Sandbox in which a plugin describes itself.
    sandbox: plugin::PodSandbox,
    /// Grants of the operator.
    pub(super) grants: Grants,
    overrides: Vec<SettingOverride>,
}

impl PluginLoader {
    /// Loads the plugin's file.
    pub(super) async fn load(&self) -> Result<Plugin, LoadError> {
        Plugin::load(&self.engine, &self.path, Some(&self.cache), &self.compiler, &self.sandbox).await
    }

    /// Loads a component that a client posted.
    pub(super) async fn load_component(&self, path: &Path) -> Result<Plugin, LoadError> {
        // It lasts until the host restarts, and so is not worth a place in the cache.
        Plugin::load_component(&self.engine, path, None, &self.compiler, &self.sandbox).await
    }

    /// Returns the settings of a plugin after the operator's overrides.
    pub(super) fn settings(&self, plugin: &Plugin) -> (LifecycleSettings, ModelSettings) {
        let (mut lifecycle, mut model) = (plugin.description().lifecycle.clone(), plugin.description().model.clone());
        for setting in self.overrides.iter().cloned() {
            setting.apply(&mut lifecycle, &mut model);
        }
        (lifecycle, model)
    }
}

/// Returns the endpoints that no guest of a pod reaches: the store, and the pod's control server on loopback and at the
/// registered address.
fn blocked_endpoints(servers: &[(String, u16)], listen: u16, ip: &str, mapped: u16) -> Vec<Endpoint> {
    let servers = servers.iter().map(|(host, port)| Endpoint { host: host.clone(), port: *port });
    let loopback = Endpoint { host: Ipv4Addr::LOCALHOST.to_string(), port: listen };
    let registered = [listen, mapped].map(|port| Endpoint { host: ip.to_owned(), port });
    servers.chain([loopback]).chain(registered).filter(|endpoint| !endpoint.host.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_control_port_is_blocked_on_loopback_and_at_the_registered_address() {
        let servers = [("zk".to_owned(), 2181)];
        let shown = |ip| {
            let endpoints = blocked_endpoints(&servers, 8080, ip, 31000).into_iter();
            endpoints.map(|Endpoint { host, port }| format!("{host}:{port}")).collect::<Vec<_>>()
        };
        assert_eq!(shown("10.0.0.1"), ["zk:2181", "127.0.0.1:8080", "10.0.0.1:8080", "10.0.0.1:31000"]);
        assert_eq!(shown(""), ["zk:2181", "127.0.0.1:8080"]);
    }
}
