//! What all pods of one process share.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::error::StartError;
use crate::{
    cluster::Dependency,
    coord::Ensemble,
    init::Init,
    plugin::{self, Compiler, Endpoint, Engine, LifecycleSettings, ModelSettings, Plugin, Services},
    settings::Settings,
    status::LifecycleReport,
    telemetry::Log,
};

/// Where a process finds its own binary, even after that was replaced: the launcher of children, and the compiler.
pub(super) const OWN_BINARY: &str = "/proc/self/exe";

/// What all pods of one process share.
pub(super) struct House {
    pub(super) init: Init,
    pub(super) log: Log,
    pub(super) ensemble: Ensemble,
    pub(super) plugin: Plugin,
    pub(super) lifecycle: LifecycleSettings,
    pub(super) model: ModelSettings,
    pub(super) dependencies: Vec<Dependency>,
}

impl House {
    /// Starts what the pods share, and loads the plugin.
    pub(super) async fn open(
        settings: &Settings,
        path: &Path,
        ensemble: Ensemble,
        log: Log,
    ) -> Result<Self, StartError> {
        let init = Init::start(PathBuf::from(OWN_BINARY)).map_err(StartError::Init)?;
        let engine = Engine::new().map_err(StartError::Engine)?;
        let surroundings = plugin::Pod::new(Services {
            cluster: settings.cluster.clone(),
            grants: settings.grants.clone(),
            environment: settings.environment.clone(),
            closed: Vec::new(),
            process: watch::channel(LifecycleReport::default()).1,
            init: None,
        });
        let compiler = Compiler::Child { init: init.clone(), host: PathBuf::from(OWN_BINARY) };
        let plugin = Plugin::load(&engine, path, Some(&settings.cache), &compiler, &surroundings)
            .await
            .map_err(StartError::Plugin)?;
        let (mut lifecycle, mut model) = (plugin.description().lifecycle.clone(), plugin.description().model.clone());
        for setting in settings.overrides.iter().cloned() {
            setting.apply(&mut lifecycle, &mut model);
        }
        let dependencies = model.depends_on.iter().map(|name| Dependency::new(name, &settings.cluster));
        let dependencies = dependencies.collect::<Result<_, _>>().map_err(StartError::Dependency)?;
        let missing = plugin.description().wants.missing(&settings.grants);
        if !missing.is_empty() {
            tracing::warn!("the plugin wants more than it is granted; add: {}", missing.join(" "));
        }
        Ok(Self { init, log, ensemble, plugin, lifecycle, model, dependencies })
    }

    /// The surroundings of one pod's guests.
    pub(super) fn surroundings(&self, settings: &Settings, process: watch::Receiver<LifecycleReport>) -> plugin::Pod {
        let own = Endpoint { host: settings.listen.ip().to_string(), port: settings.listen.port() };
        let ip = settings.registration.get("ip").and_then(serde_json::Value::as_str).unwrap_or_default();
        let mapped = Endpoint { host: ip.to_owned(), port: settings.mapped_port };
        let servers = match &self.ensemble {
            Ensemble::ZooKeeper { address, .. } => address.servers(),
            Ensemble::Embedded(_) => &[],
        };
        let servers = servers.iter().map(|(host, port)| Endpoint { host: host.clone(), port: *port });
        plugin::Pod::new(Services {
            cluster: settings.cluster.clone(),
            grants: settings.grants.clone(),
            environment: settings.environment.clone(),
            closed: servers.chain([own, mapped]).collect(),
            process,
            init: Some(self.init.clone()),
        })
    }

    /// Ends every child that is left.
    pub(super) async fn close(self) {
        self.init.finish().await;
    }
}
