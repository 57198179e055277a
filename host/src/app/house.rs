//! What all pods of one process share.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{error::StartError, pod::Stop};
use crate::{
    cluster::Dependency,
    coord::Ensemble,
    init::Init,
    plugin::{self, Compiler, Endpoint, Engine, LifecycleSettings, ModelSettings, Plugin, Services},
    settings::{Env, Flags, Machine, Settings},
    status::{LifecycleReport, PluginReport},
    telemetry::{Log, Metrics},
};

/// Where a process finds its own binary, even after that was replaced: the launcher of children, and the compiler.
pub(super) const OWN_BINARY: &str = "/proc/self/exe";

/// Looks around on another thread: resolving names may take long, and a request to end is heard meanwhile.
pub(super) async fn look(env: &Env, flags: &Flags) -> Result<Machine, StartError> {
    let (env, flags) = (env.clone(), flags.clone());
    let looked = tokio::task::spawn_blocking(move || Machine::look(&env, &flags)).await;
    looked.map_err(|error| StartError::System { what: "cannot look at this machine", source: error.into() })
}

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
            privileges: settings.privileges.clone(),
            closed: Vec::new(),
            process: watch::channel(LifecycleReport::default()).1,
            report: watch::Sender::default(),
            metrics: Arc::default(),
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
        let never: Vec<&str> = plugin.description().wants.never_granted().collect();
        if !never.is_empty() {
            tracing::warn!("the plugin wants secrets of the host, which are never granted: {}", never.join(" "));
        }
        Ok(Self { init, log, ensemble, plugin, lifecycle, model, dependencies })
    }

    /// The surroundings of one pod's guests.
    pub(super) fn surroundings(
        &self,
        settings: &Settings,
        process: watch::Receiver<LifecycleReport>,
        report: watch::Sender<PluginReport>,
        metrics: Arc<Metrics>,
    ) -> plugin::Pod {
        let ip = settings.registration.get("ip").and_then(serde_json::Value::as_str).unwrap_or_default();
        plugin::Pod::new(Services {
            cluster: settings.cluster.clone(),
            grants: settings.grants.clone(),
            environment: settings.environment.clone(),
            privileges: settings.privileges.clone(),
            closed: closed(self.ensemble.servers(), settings.listen.port(), ip, settings.mapped_port),
            process,
            report,
            metrics,
            init: Some(self.init.clone()),
        })
    }

    /// Ends every process that is left, whatever group or session it made for itself: SIGTERM for all, SIGKILL after the
    /// plugin's grace, or at once where that is an order.
    pub(super) async fn close(self, stop: &Stop) {
        tokio::select! {
            biased;
            () = stop.forced.cancelled() => self.init.finish(Duration::ZERO).await,
            () = self.init.finish(self.lifecycle.grace) => {}
        }
    }
}

/// What no guest of a pod ever reaches: the store, and the pod's own control server, wherever it listens, on loopback and
/// at the address that it registers.
fn closed(servers: &[(String, u16)], listen: u16, ip: &str, mapped: u16) -> Vec<Endpoint> {
    let servers = servers.iter().map(|(host, port)| Endpoint { host: host.clone(), port: *port });
    let loopback = Endpoint { host: Ipv4Addr::LOCALHOST.to_string(), port: listen };
    let registered = [listen, mapped].map(|port| Endpoint { host: ip.to_owned(), port });
    servers.chain([loopback]).chain(registered).filter(|endpoint| !endpoint.host.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_control_port_is_closed_on_loopback_and_where_others_reach_it() {
        let servers = [("zk".to_owned(), 2181)];
        let shown = |ip| {
            let endpoints = closed(&servers, 8080, ip, 31000).into_iter();
            endpoints.map(|Endpoint { host, port }| format!("{host}:{port}")).collect::<Vec<_>>()
        };
        assert_eq!(shown("10.0.0.1"), ["zk:2181", "127.0.0.1:8080", "10.0.0.1:8080", "10.0.0.1:31000"]);
        assert_eq!(shown(""), ["zk:2181", "127.0.0.1:8080"]);
    }
}
