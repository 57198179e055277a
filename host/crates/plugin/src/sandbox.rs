//! Sandbox of the instances of one pod: grants, environment, the sub-process, the cluster's name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Instant,
};

use ochopod_environment::{is_platform_secret, is_secret_variable, mapped_port};
use ochopod_files::Directory;
use ochopod_init::{Init, Privileges};
use ochopod_model::{
    ClusterName,
    status::{LifecycleReport, PluginReport},
};
use ochopod_telemetry::Metrics;
use tokio::sync::watch;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::{
    PluginError,
    guest_log::{GuestLog, GuestStdio, LogRateLimiter, Stream},
    loopback_ports::LoopbackPorts,
    memory::MemoryBudget,
    network_rules::Endpoint,
    policy::SandboxPolicy,
};
use crate::Grants;

/// Prefix of the host's own settings.
const PREFIX: &str = "ochopod_";
/// Maximum number of random bytes that a guest gets in one call.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

/// Configuration of one pod's sandbox.
#[derive(Debug)]
pub struct SandboxConfig {
    /// The pod's cluster.
    pub cluster: ClusterName,
    /// Grants of the operator.
    pub grants: Grants,
    /// Environment of the sub-process and of programs of this pod, without the host's secrets and credentials. Guests
    /// see its variables `ochopod_*` and `PORT_<n>`, and the granted ones.
    pub environment: BTreeMap<OsString, OsString>,
    /// User and resource limits of programs of this pod.
    pub privileges: Privileges,
    /// Endpoints that are never granted, in addition to control ports of pods: the pod's control server, ZooKeeper's
    /// servers.
    pub blocked: Vec<Endpoint>,
    /// Loopback ports that the plugin declared.
    pub loopback: LoopbackPorts,
    /// Maximum memory of all instances together, tables included, in bytes.
    pub memory: usize,
    /// State of the sub-process.
    pub process: watch::Receiver<LifecycleReport>,
    /// Receives the suspended instances.
    pub report: watch::Sender<PluginReport>,
    /// Counts calls, failures and memory.
    pub metrics: Arc<Metrics>,
    /// Starts programs and sends signals. Without it guests can do neither.
    pub init: Option<Init>,
}

/// Sandbox of one pod, shared by its instances.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) services: Arc<SandboxConfig>,
    pub(super) policy: Arc<SandboxPolicy>,
    pub(super) memory: Arc<MemoryBudget>,
    /// Shared by all instances: each run of a tool has a new one.
    pub(super) rate_limit: Arc<Mutex<LogRateLimiter>>,
    /// A call was cancelled: its operation on a file may still hold a thread.
    pub(super) abandoned_call: Arc<AtomicBool>,
}

impl Sandbox {
    pub(super) fn new(services: SandboxConfig) -> Self {
        let policy = SandboxPolicy::new(services.grants.clone(), services.blocked.clone(), services.loopback.clone());
        let memory = MemoryBudget::new(services.memory, Arc::clone(&services.metrics));
        let rate_limit = Arc::new(Mutex::new(LogRateLimiter::new(Instant::now())));
        Self {
            services: Arc::new(services),
            policy: Arc::new(policy),
            memory,
            rate_limit,
            abandoned_call: Arc::default(),
        }
    }

    /// Returns the same with other declared loopback ports.
    pub(super) fn with_loopback(&self, declared: Vec<Option<u16>>) -> Self {
        Self { policy: Arc::new(self.policy.with_loopback(declared)), ..self.clone() }
    }

    /// Returns the same without any network and programs, for a plugin that describes itself.
    pub(super) fn deny_all(&self) -> Self {
        Self { policy: Arc::new(SandboxPolicy::deny_all()), ..self.clone() }
    }

    /// Creates the WASI context of a new instance.
    pub(super) fn wasi(&self, log: &GuestLog, uploads: Option<&Path>) -> Result<WasiCtx, PluginError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(GuestStdio { log: log.clone(), stream: Stream::Out })
            .stderr(GuestStdio { log: log.clone(), stream: Stream::Error })
            .max_random_size(MAX_RANDOM_BYTES)
            .allow_tcp(self.policy.has_network())
            .allow_udp(self.policy.has_network());
        for (name, value) in self.visible() {
            wasi.env(name, value);
        }
        let directories = self.services.grants.directories.iter();
        let granted = directories.map(|grant| (grant.host.as_path(), grant.guest.as_str(), grant.writable));
        for (host, guest, writable) in granted.chain(uploads.map(|host| (host, "/uploads", false))) {
            let failed = |error| PluginError::Sandbox(format!("cannot open {}: {error:#}", host.display()));
            let permissions = if writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            let found = if writable { Directory::find_writable(host) } else { Directory::find(host) };
            // By its descriptor, so that replacing it by a link meanwhile has no effect.
            let directory = found.map_err(|error| failed(error.into()))?;
            wasi.preopened_dir(directory.path(), guest, permissions).map_err(failed)?;
        }
        let policy = Arc::clone(&self.policy);
        wasi.socket_addr_check(move |address, usage| {
            let policy = Arc::clone(&policy);
            Box::pin(async move { super::outgoing::may_use(&policy, address, usage).await })
        });
        Ok(wasi.build())
    }

    /// Returns the environment that guests see.
    fn visible(&self) -> impl Iterator<Item = (&str, &str)> {
        let granted = &self.services.grants.environment;
        self.services.environment.iter().filter_map(move |(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            let visible = needs_no_grant(name) || granted.iter().any(|granted| granted == name);
            (visible && !is_secret_variable(name) && !is_platform_secret(name)).then_some((name, value))
        })
    }
}

/// Returns whether guests see a variable without a grant: every view of the cluster contains it too.
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
            ("VAULT_TOKEN", "v"),
        ];
        Sandbox::new(SandboxConfig {
            cluster: ClusterName::new("marathon", "redis").unwrap(),
            grants: Grants { environment: granted.iter().map(|&name| name.to_owned()).collect(), ..Grants::default() },
            environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            privileges: Privileges::default(),
            blocked: Vec::new(),
            loopback: LoopbackPorts::default(),
            memory: 256 << 20,
            process: watch::channel(LifecycleReport::default()).1,
            report: watch::Sender::default(),
            metrics: Arc::default(),
            init: None,
        })
    }

    #[test]
    fn guests_see_settings_and_granted_variables_but_no_secret_of_host_or_platform() {
        let names = |granted: &[&str]| sandbox(granted).visible().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&[]), ["PORT_6379", "ochopod_cluster", "ochopod_tlsx"]);
        let granted = names(&["HOME", "DB_PASSWORD", "ochopod_token", "VAULT_TOKEN", "MISSING"]);
        assert_eq!(granted, ["DB_PASSWORD", "HOME", "PORT_6379", "ochopod_cluster", "ochopod_tlsx"]);
    }

    #[test]
    fn missing_granted_directory_is_named() {
        let mut sandbox = sandbox(&[]);
        let missing =
            crate::DirectoryGrant { host: "/does/not/exist".into(), guest: "/data".to_owned(), writable: true };
        Arc::get_mut(&mut sandbox.services).unwrap().grants.directories.push(missing);
        let error = sandbox.wasi(&GuestLog::new(Arc::clone(&sandbox.rate_limit)), None).err().unwrap();
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn granted_directory_replaced_by_a_link_is_not_granted() {
        let directory = tempfile::tempdir().unwrap();
        let shared = directory.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/etc", shared.join("data")).unwrap();
        let grant = crate::DirectoryGrant { host: shared.join("data"), guest: "/data".to_owned(), writable: false };
        let mut sandbox = sandbox(&[]);
        Arc::get_mut(&mut sandbox.services).unwrap().grants.directories.push(grant);
        let error = sandbox.wasi(&GuestLog::new(Arc::clone(&sandbox.rate_limit)), None).err().unwrap();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
}
