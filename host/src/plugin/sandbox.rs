//! What surrounds the instances of one pod: grants, environment, the sub-process, the cluster's name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Instant,
};

use tokio::sync::watch;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::{
    PluginError,
    gate::Gate,
    network::Endpoint,
    output::{Console, Flood, Stream, Voice},
};
use crate::{
    cluster::ClusterName,
    init::{Init, Privileges},
    settings::{Grants, is_secret_variable, mapped_port},
    status::{LifecycleReport, PluginReport},
    telemetry::Metrics,
};

/// Prefix of the host's own settings.
const PREFIX: &str = "ochopod_";
/// Most random bytes that a guest gets at once.
const RANDOM: u64 = 1 << 20;

/// What one pod lends to the instances of its plugin.
#[derive(Debug)]
pub struct Services {
    /// The pod's cluster.
    pub cluster: ClusterName,
    /// What the operator grants.
    pub grants: Grants,
    /// The environment of programs of this pod: the sub-process's, thus without the host's secrets and credentials. Guests
    /// see `ochopod_*` and `PORT_<n>` of it, and what is granted.
    pub environment: BTreeMap<OsString, OsString>,
    /// As whom programs of this pod run, and within which limits.
    pub privileges: Privileges,
    /// What is never granted besides control ports of pods: the pod's own control server, ZooKeeper's servers.
    pub closed: Vec<Endpoint>,
    /// The sub-process.
    pub process: watch::Receiver<LifecycleReport>,
    /// Where instances tell that they failed too often.
    pub report: watch::Sender<PluginReport>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who starts programs and sends signals. Without it guests can do neither.
    pub init: Option<Init>,
}

/// The services of one pod, shared by its instances.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) services: Arc<Services>,
    pub(super) gate: Arc<Gate>,
    /// What all instances together may say in the log: a tool has a fresh one for each run.
    pub(super) flood: Arc<Mutex<Flood>>,
    /// Whether a call was given up of late: what it did to a file may still hold a thread.
    pub(super) gave_up: Arc<AtomicBool>,
}

impl Sandbox {
    pub(super) fn new(services: Services) -> Self {
        let gate = Gate::new(services.grants.clone(), services.closed.clone());
        let flood = Arc::new(Mutex::new(Flood::new(Instant::now())));
        Self { services: Arc::new(services), gate: Arc::new(gate), flood, gave_up: Arc::default() }
    }

    /// The same without any network and programs, for a plugin that describes itself.
    pub(super) fn shut(&self) -> Self {
        Self { gate: Arc::new(Gate::shut()), ..self.clone() }
    }

    /// The WASI side of a new instance.
    pub(super) fn wasi(&self, voice: &Voice, uploads: Option<&Path>) -> Result<WasiCtx, PluginError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(Console { voice: voice.clone(), stream: Stream::Out })
            .stderr(Console { voice: voice.clone(), stream: Stream::Error })
            .max_random_size(RANDOM)
            .allow_tcp(self.gate.has_network())
            .allow_udp(self.gate.has_network())
            .allow_ip_name_lookup(self.gate.may_look_up());
        for (name, value) in self.visible() {
            wasi.env(name, value);
        }
        let directories = self.services.grants.directories.iter();
        let granted = directories.map(|grant| (grant.host.as_path(), grant.guest.as_str(), grant.writable));
        for (host, guest, writable) in granted.chain(uploads.map(|host| (host, "/uploads", false))) {
            let permissions = if writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(host, guest, permissions)
                .map_err(|error| PluginError::Sandbox(format!("cannot open {}: {error:#}", host.display())))?;
        }
        let gate = Arc::clone(&self.gate);
        wasi.socket_addr_check(move |address, usage| {
            let gate = Arc::clone(&gate);
            Box::pin(async move { super::outgoing::may_use(&gate, address, usage).await })
        });
        Ok(wasi.build())
    }

    /// The environment that guests see.
    fn visible(&self) -> impl Iterator<Item = (&str, &str)> {
        let granted = &self.services.grants.environment;
        self.services.environment.iter().filter_map(move |(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            let visible = needs_no_grant(name) || granted.iter().any(|granted| granted == name);
            (visible && !is_secret_variable(name)).then_some((name, value))
        })
    }
}

/// Whether guests see a variable anyway: what is in every view of the cluster too.
pub(super) fn needs_no_grant(variable: &str) -> bool {
    variable.starts_with(PREFIX) || mapped_port(variable).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(granted: &[&str]) -> Sandbox {
        let environment = [
            ("ochopod_cluster", "redis"),
            ("ochopod_token", "t"),
            ("ochopod_tls_cert", "c"),
            ("ochopod_db_password", "p"),
            ("ochopod_API_KEY", "k"),
            ("ochopod_tlsx", "x"),
            ("HOME", "/root"),
            ("PORT_6379", "7001"),
            ("PORT_BASE", "31000"),
            ("DB_PASSWORD", "q"),
        ];
        Sandbox::new(Services {
            cluster: ClusterName::new("marathon", "redis").unwrap(),
            grants: Grants { environment: granted.iter().map(|&name| name.to_owned()).collect(), ..Grants::default() },
            environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            privileges: Privileges::default(),
            closed: Vec::new(),
            process: watch::channel(LifecycleReport::default()).1,
            report: watch::Sender::default(),
            metrics: Arc::default(),
            init: None,
        })
    }

    #[test]
    fn guests_see_settings_and_granted_variables_but_never_a_secret_of_the_host() {
        let names = |granted: &[&str]| sandbox(granted).visible().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&[]), ["PORT_6379", "ochopod_cluster", "ochopod_tlsx"]);
        let granted = names(&["HOME", "DB_PASSWORD", "ochopod_token", "MISSING"]);
        assert_eq!(granted, ["DB_PASSWORD", "HOME", "PORT_6379", "ochopod_cluster", "ochopod_tlsx"]);
    }

    #[test]
    fn a_granted_directory_that_cannot_be_opened_is_named() {
        let mut sandbox = sandbox(&[]);
        let missing = crate::settings::DirectoryGrant {
            host: "/does/not/exist".into(),
            guest: "/data".to_owned(),
            writable: true,
        };
        Arc::get_mut(&mut sandbox.services).unwrap().grants.directories.push(missing);
        let error = sandbox.wasi(&Voice::new(Arc::clone(&sandbox.flood)), None).err().unwrap();
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
    }
}
