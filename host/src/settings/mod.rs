//! Settings of a pod: flags and `ochopod_*` variables, read once. All errors are reported together.
//!
//! The table of settings and their reader are in the crate `ochopod-settings`, detection of the platform is in
//! `ochopod-platform`. Everything is derived from values ([`Env`], [`Flags`], [`GrantFlags`], [`SystemInfo`]); only files that
//! settings name are read, and granted directories are checked for existence.
//!
//! | module | content |
//! |---|---|
//! | [`Settings`] | the result |
//! | `values` | one function for each setting that needs no module of its own |
//! | [`platform`] | binding, look-ups and values of the platform |
//! | `pod_location` | addresses and names: settings of the operator, or else values of the platform |
//! | `registration` | registration of the pod, including the operator's own settings; environment of the sub-process |
//! | `access` | token and certificates of the control API |
//! | `zookeeper` | credentials and certificates for ZooKeeper |
//! | [`grant_flags`] | flags of permissions: `--dir`, `--env`, `--net`, `--run`, `--exec` |

mod access;
pub mod grant_flags;
mod parse;
pub mod platform;
mod pod_location;
mod registration;
#[cfg(test)]
mod tests;
mod values;
mod zookeeper;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use grant_flags::GrantFlags;
use ochopod_environment::{Env, PREFIX, Withheld};
use ochopod_init::{Privileges, own_user_and_group};
use ochopod_model::{ClusterName, status::PlatformReport};
use ochopod_platform::{InstanceMetadata, KillDelay, LookUpError, LookUpResults, SystemInfo};
use ochopod_plugin::{Grants, SettingOverride};
use ochopod_settings::{Flags, SettingError, SettingsReader, privileges};
use ochopod_store::ZooKeeperAddress;
use ochopod_telemetry::{LogFile, PodLogFormat};
use ochopod_tls::ControlSecurity;
use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use self::pod_location::PodLocation;

/// Default duration of a shutdown, in addition to `leave_delay` and the grace of the sub-process.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Settings of one pod, except the address of its store, which may contain credentials.
#[derive(Clone)]
pub struct Settings {
    /// Cluster of the pod.
    pub cluster: ClusterName,
    /// Control port that other pods connect to.
    pub mapped_port: u16,
    /// Session timeout.
    pub session: Duration,
    /// Bind address of the control server.
    pub listen: SocketAddr,
    /// Whether the first configuration starts the sub-process.
    pub start: bool,
    /// Log level.
    pub log_level: LevelFilter,
    /// Log format.
    pub log_format: PodLogFormat,
    /// Log file, in addition to standard error.
    pub log: Option<LogFile>,
    /// Whether the host exits when the pod is dead.
    pub exit_when_dead: bool,
    /// Time limit of a shutdown, if it is set: see [`Settings::stop_timeout`].
    pub explicit_stop_timeout: Option<Duration>,
    /// Time for which a pod that stops waits outside the view.
    pub leave_delay: Duration,
    /// Time between SIGTERM and SIGKILL of the platform, if it is known.
    pub kill_delay: Option<KillDelay>,
    /// Directory of compiled plugins.
    pub cache: PathBuf,
    /// Memory limit in bytes of all plugin instances of a pod.
    pub plugin_memory: usize,
    /// Configuration of the pilot services of the pod, or its file.
    pub config: Option<String>,
    /// Overrides of the plugin's settings.
    pub overrides: Vec<SettingOverride>,
    /// Permissions of the plugin beyond its sandbox.
    pub grants: Grants,
    /// Token and certificates of the control API.
    pub access: ControlSecurity,
    /// Registration of the pod, except its `seq`. Contains no secret.
    pub registration: Map<String, Value>,
    /// User, group and limits of the sub-process and of programs that the plugin starts.
    pub privileges: Privileges,
    /// Environment of the sub-process, except the variable `ochopod` and its secrets. Contains no secret of the host.
    pub environment: BTreeMap<OsString, OsString>,
    /// Secrets of the sub-process, which are not passed to plugins or to programs that they start.
    pub secrets: BTreeMap<OsString, OsString>,
    /// Names of the variables that are withheld from registration, plugins and sub-process.
    pub withheld: Withheld,
    /// Platform, and the source of each value.
    pub platform: PlatformReport,
    /// Look-ups that failed.
    pub failed_look_ups: Vec<LookUpError>,
    /// The service with the public address of the EC2 instance, unless a setting has the address.
    pub public_look_up: Option<InstanceMetadata>,
}

/// A warning about settings, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityWarning {
    /// Other users of this machine may read a file with a secret.
    ReadableSecret(PathBuf),
    /// Any client that reaches this address controls the pod.
    NoAuthentication(SocketAddr),
    /// A limit has no effect.
    IneffectiveLimit(String),
}

impl SecurityWarning {
    /// Logs the warning.
    pub fn log(&self) {
        match self {
            Self::ReadableSecret(path) => {
                tracing::warn!(path = %path.display(), "secret file is world-readable; run chmod o-r");
            }
            Self::NoAuthentication(listen) => tracing::warn!(
                %listen,
                "control API is not authenticated, anyone who can reach it controls this pod; set --token-file \
                 (ochopod_token) or --tls-ca"
            ),
            Self::IneffectiveLimit(warning) => tracing::warn!("{warning}"),
        }
    }
}

/// Sources of settings.
#[derive(Debug, Clone, Copy)]
pub struct SettingsInput<'a> {
    /// Environment.
    pub env: &'a Env,
    /// Flags of the settings.
    pub flags: &'a Flags,
    /// Flags of the grants.
    pub grants: &'a GrantFlags,
    /// System.
    pub system: &'a SystemInfo,
    /// Results of look-ups.
    pub found: &'a LookUpResults,
    /// The service with the public address of the EC2 instance, if it was queried.
    pub instance_metadata: Option<&'a InstanceMetadata>,
}

impl Settings {
    /// Reads the settings of a pod, and the address of its store.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn read(input: SettingsInput<'_>) -> Result<(Self, ZooKeeperAddress), Vec<SettingError>> {
        let reader = &mut SettingsReader::new(input.env, input.flags);
        grant_flags::declare(input.grants);
        let local = platform::is_local(reader);
        let store = values::store(reader, local, input.found);
        if store.is_none() {
            let expected = "zk://h1:p,h2:p[/chroot], or --local for the ZooKeeper of this machine";
            let failed = input.found.problems.iter().map(|problem| format!(" ({problem})"));
            reader.missing("ochopod_zk (--zk)", failed.fold(expected.to_owned(), |text, problem| text + &problem));
        }
        let zk = store.as_ref().and_then(|store| values::zookeeper(reader, store));
        let source = store.map(|raw| raw.name).unwrap_or_default();
        let settings = Self::gather(input, reader, local, zk.as_ref().zip(Some(&*source)));
        match (settings, zk) {
            (Some(settings), Some(zk)) if reader.errors.is_empty() => Ok((settings, zk)),
            _ => Err(std::mem::take(&mut reader.errors)),
        }
    }

    /// Reads the settings of pods that share one process: local mode, and no ZooKeeper unless it is set. See
    /// [`Settings::with_address`].
    ///
    /// # Errors
    /// All invalid settings.
    pub fn read_for_up(input: SettingsInput<'_>) -> Result<(Self, Option<ZooKeeperAddress>), Vec<SettingError>> {
        let reader = &mut SettingsReader::new(input.env, input.flags);
        grant_flags::declare(input.grants);
        values::reject_unsupported(reader);
        let store = reader.get("zk");
        let zk = store.as_ref().and_then(|store| values::zookeeper(reader, store));
        let source = store.map(|raw| raw.name).unwrap_or_default();
        let settings = Self::gather(input, reader, true, zk.as_ref().zip(Some(&*source)));
        match settings {
            Some(settings) if reader.errors.is_empty() => Ok((settings, zk)),
            _ => Err(std::mem::take(&mut reader.errors)),
        }
    }

    /// Returns the same settings for a pod with another address.
    #[must_use]
    pub fn with_address(&self, ip: IpAddr) -> Self {
        let mut pod = self.clone();
        for key in ["ip", "public"] {
            pod.registration.insert(key.to_owned(), ip.to_string().into());
            pod.environment.insert(format!("{PREFIX}{key}").into(), ip.to_string().into());
            pod.platform.sources.insert(key.to_owned(), "up".to_owned());
        }
        pod.listen = SocketAddr::new(ip, self.mapped_port);
        pod
    }

    /// Returns the time limit of a shutdown for a plugin with this grace: as set, else so long that `leave_delay` and the whole
    /// grace fit, limited by the kill delay of the platform.
    #[must_use]
    pub fn stop_timeout(&self, grace: Duration) -> Duration {
        let default = grace.saturating_add(self.leave_delay).saturating_add(STOP_MARGIN);
        let default = self.kill_delay.map_or(default, |known| default.min(known.longest_stop()));
        self.explicit_stop_timeout.unwrap_or(default)
    }

    /// Returns a registered text; empty if there is none.
    #[must_use]
    pub fn registered(&self, key: &str) -> &str {
        self.registration.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the registered address if it is a loopback address although the store is on another host.
    #[must_use]
    pub fn unreachable_ip(&self, zk: &ZooKeeperAddress) -> Option<&str> {
        let is_loopback = |host: &str| host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let elsewhere = zk.servers().iter().any(|(host, _)| !is_loopback(host));
        (self.registered("local") != "true" && elsewhere).then(|| self.registered("ip")).filter(|ip| is_loopback(ip))
    }

    /// Returns warnings about insecure settings and limits without effect.
    #[must_use]
    pub fn security_warnings(&self) -> Vec<SecurityWarning> {
        let files = self.access.exposed.iter().map(|path| SecurityWarning::ReadableSecret(path.clone()));
        let is_open = self.access.token.is_none() && !self.access.mutual && !self.listen.ip().is_loopback();
        let open = is_open.then_some(SecurityWarning::NoAuthentication(self.listen));
        let limit = privileges::ineffective_limit(&self.privileges, own_user_and_group().0);
        files.chain(open).chain(limit.map(SecurityWarning::IneffectiveLimit)).collect()
    }

    /// Returns none only after an error was recorded.
    fn gather(
        input: SettingsInput<'_>,
        reader: &mut SettingsReader<'_>,
        local: bool,
        zk: Option<(&ZooKeeperAddress, &str)>,
    ) -> Option<Self> {
        let SettingsInput { env, system, .. } = input;
        let grants = grant_flags::read(input.grants, reader);
        let (privileges, home) = privileges::read(reader, (system.user, system.group));
        let access = access::read(reader);
        let start = values::boolean(reader, "start", true);
        let debug = values::boolean(reader, "debug", false);
        let session = values::session(reader);
        let explicit_stop_timeout = values::stop_timeout(reader);
        let leave_delay = values::leave_delay(reader);
        let (log_level, log_format) = values::logging(reader, debug);
        let location = PodLocation::read(reader, input, local);
        let platform = &location.platform;
        let exit_when_dead = values::boolean(reader, "exit_when_dead", platform.binding.restarts_containers());
        let cluster = values::cluster(reader, platform);
        let log = values::log_file(reader, system.init);
        let cache = values::cache(reader);
        let plugin_memory = values::plugin_memory(reader, system.memory);
        let config = reader.get("config").map(|raw| raw.text);
        let overrides = values::overrides(reader, &cluster.clone().unwrap_or_default());
        let flag = |on: bool| if on { "true" } else { "false" };
        let port = location.port.to_string();
        let sources = location.sources(zk.map(|(_, source)| source));
        let has_public = reader.get("public").is_some();
        let zk = zk.map(|(zk, _)| zk.hosts() + zk.chroot().unwrap_or_default()).unwrap_or_default();
        let effective = [
            ("application", &*location.application.text),
            ("cluster", cluster.as_ref().map_or("", ClusterName::cluster)),
            ("debug", flag(debug)),
            ("ip", &location.ip.text),
            ("local", flag(local)),
            ("namespace", cluster.as_ref().map_or("", ClusterName::namespace)),
            ("node", &location.node.text),
            ("port", &port),
            ("public", &location.public.text),
            ("start", flag(start)),
            ("task", &location.task.text),
            ("zk", &zk),
        ];
        let mut environment = registration::child_environment(env, &effective);
        environment.extend(home.map(|home| ("HOME".into(), home.into())));
        let texts = effective.into_iter().chain([("binding", platform.binding.name())]);
        let registration = registration::build(reader, &location.ports, texts);
        Some(Self {
            cluster: cluster?,
            mapped_port: location.mapped_port,
            session,
            listen: location.listen?,
            start,
            log_level,
            log_format,
            log,
            exit_when_dead,
            explicit_stop_timeout,
            leave_delay,
            kill_delay: platform.kill_delay,
            cache,
            plugin_memory,
            config,
            overrides,
            grants,
            access: access?,
            registration,
            privileges,
            environment,
            secrets: registration::child_secrets(env),
            withheld: Withheld::of(env).with_platform_secrets(env),
            platform: PlatformReport { binding: platform.binding.name().to_owned(), sources, late_public: None },
            failed_look_ups: input.found.problems.clone(),
            public_look_up: input.instance_metadata.filter(|_| !has_public).cloned(),
        })
    }
}

impl fmt::Debug for Settings {
    /// Formats the settings without fields that may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("cluster", &self.cluster)
            .field("listen", &self.listen)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}
