//! Settings: flags and `ochopod_*` variables, read once and reported on all at once.
//!
//! Everything comes from values ([`Env`], [`Flags`], [`GrantFlags`], [`Machine`]); reading only looks whether the directories
//! that are granted are there, and into the files that settings name. A flag wins over its variable; an empty variable is as
//! good as none.
//!
//! | | |
//! |---|---|
//! | [`Settings`] | the result |
//! | `flags` | the flags, with their help |
//! | `binding` | what the platform above says: Marathon, Kubernetes, or nothing |
//! | `registration` | what the pod registers, the operator's own settings included; the sub-process's environment |
//! | `access` | the token and the certificates; `pem` reads such files, `peer_name` judges certificates of peers |
//! | `ensemble` | what lets the pod into its ZooKeeper |
//! | `privileges` | as whom the sub-process runs, and within which limits |
//! | `grants` | what the plugin may do beyond its sandbox |
//! | `secret` | what nobody but the host may see |

mod access;
mod binding;
mod ensemble;
mod env;
mod error;
mod flags;
mod grants;
mod machine;
mod parse;
mod peer_name;
pub(crate) mod pem;
mod place;
mod privileges;
mod registration;
mod rows;
mod secret;
mod source;
#[cfg(test)]
mod tests;

pub use access::Access;
pub use env::Env;
pub use error::SettingError;
pub use flags::{Flags, GrantFlags};
pub use grants::{DirectoryGrant, Grants, NetworkGrant};
pub use machine::{Machine, hostname};
pub use parse::seconds;
pub use registration::mapped_port;
pub use secret::{is_secret, is_secret_variable};

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;

use self::{binding::Binding, place::Place, secret::PREFIX, source::Source};
use crate::{cluster::ClusterName, coord::ZooKeeperAddress, init::Privileges, plugin::Override, telemetry::Format};

/// Where the log goes besides standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// Whether the operator named it: then it must be writable; else it is only missed.
    pub asked: bool,
}

/// Everything that one pod was told, but where its store is: that may hold credentials, and is for coordination only.
#[derive(Clone)]
pub struct Settings {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// The control port as the other pods reach it.
    pub mapped_port: u16,
    /// The session timeout.
    pub session: Duration,
    /// Where the control server binds.
    pub listen: SocketAddr,
    /// Whether the first configuration starts the sub-process.
    pub start: bool,
    /// What is logged.
    pub log_level: LevelFilter,
    /// How it is logged.
    pub log_format: Format,
    /// Where it is logged, besides standard error.
    pub log: Option<LogFile>,
    /// Whether the host leaves once the pod is dead.
    pub exit_when_dead: bool,
    /// Where compiled plugins are kept.
    pub cache: PathBuf,
    /// The configuration of what runs around the pod, or where it is.
    pub config: Option<String>,
    /// Settings of the plugin to override.
    pub overrides: Vec<Override>,
    /// What the plugin may do beyond its sandbox.
    pub grants: Grants,
    /// Who may ask it for what.
    pub access: Access,
    /// What the pod registers, but for its `seq`. No secret is in it.
    pub registration: Map<String, Value>,
    /// What the sub-process, and programs that the plugin starts, run with.
    pub privileges: Privileges,
    /// The environment of the sub-process, but for the variable `ochopod`. No secret of the host is in it.
    pub environment: BTreeMap<OsString, OsString>,
}

/// What settings are read from.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The flags of a pod.
    pub flags: &'a Flags,
    /// The flags that grant.
    pub grants: &'a GrantFlags,
    /// The machine.
    pub machine: &'a Machine,
}

impl Settings {
    /// Settings of a pod of its own, and its store.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first.
    pub fn read(given: Given<'_>) -> Result<(Self, ZooKeeperAddress), Vec<SettingError>> {
        let (flags, source) = (given.flags, &mut Source::new(given.env));
        let local = rows::boolean(source, "local", flags.local.as_deref(), false);
        let store = rows::store(source, flags, local);
        if store.is_none() {
            source
                .missing("ochopod_zk (--zk)", "zk://h1:p,h2:p[/chroot], or --local for the ZooKeeper of this machine");
        }
        let zk = store.and_then(|store| rows::zookeeper(source, flags, &store));
        let settings = Self::gather(given, source, local, zk.as_ref());
        match (settings, zk) {
            (Some(settings), Some(zk)) if source.errors.is_empty() => Ok((settings, zk)),
            _ => Err(std::mem::take(&mut source.errors)),
        }
    }

    /// Settings of pods that live together in one process: local mode, and no ZooKeeper unless it was given. See
    /// [`Settings::at`].
    ///
    /// # Errors
    /// Everything that is wrong, not just the first.
    pub fn read_shared(given: Given<'_>) -> Result<(Self, Option<ZooKeeperAddress>), Vec<SettingError>> {
        let (flags, source) = (given.flags, &mut Source::new(given.env));
        rows::refuse_own(source, flags);
        let store = rows::store(source, flags, false);
        let zk = store.and_then(|store| rows::zookeeper(source, flags, &store));
        let settings = Self::gather(given, source, true, zk.as_ref());
        match settings {
            Some(settings) if source.errors.is_empty() => Ok((settings, zk)),
            _ => Err(std::mem::take(&mut source.errors)),
        }
    }

    /// The same settings for another pod on this machine, at another address.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Self {
        let mut pod = self.clone();
        for key in ["ip", "public"] {
            pod.registration.insert(key.to_owned(), ip.to_string().into());
            pod.environment.insert(format!("{PREFIX}{key}").into(), ip.to_string().into());
        }
        pod.listen = SocketAddr::new(ip, self.mapped_port);
        pod
    }

    /// The address that the pod registers, when it means this machine to whoever reads it, on other machines too.
    #[must_use]
    pub fn misleading_ip(&self, zk: &ZooKeeperAddress) -> Option<&str> {
        let text = |key: &str| self.registration.get(key).and_then(Value::as_str).unwrap_or_default();
        let here = |host: &str| host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let elsewhere = zk.servers().iter().any(|(host, _)| !here(host));
        (text("local") != "true" && elsewhere).then(|| text("ip")).filter(|ip| here(ip))
    }

    /// What the operator should know of who may reach the pod.
    #[must_use]
    pub fn exposures(&self) -> Vec<String> {
        let files = self.access.exposed.iter();
        let files = files.map(|path| format!("everybody on this machine may read {}: chmod o-r", path.display()));
        let open = self.access.token.is_none() && !self.access.mutual && !self.listen.ip().is_loopback();
        let open = open.then(|| {
            format!(
                "ANYBODY who reaches {} controls this pod: set a token (--token-file, ochopod_token) or require client \
                 certificates (--tls-ca)",
                self.listen
            )
        });
        files.chain(open).collect()
    }

    /// None only after an error was noted.
    fn gather(given: Given<'_>, source: &mut Source<'_>, local: bool, zk: Option<&ZooKeeperAddress>) -> Option<Self> {
        let Given { env, flags, machine, .. } = given;
        let grants = Grants::read(given.grants, source);
        let (privileges, home) = privileges::read(source, flags, machine);
        let access = Access::read(source, flags);
        let start = rows::boolean(source, "start", flags.start.as_deref(), true);
        let debug = rows::boolean(source, "debug", flags.debug.as_deref(), false);
        let exit_when_dead = rows::boolean(source, "exit_when_dead", flags.exit_when_dead.as_deref(), false);
        let session = rows::session(source, flags);
        let (log_level, log_format) = rows::logging(source, flags, debug);
        let binding = Binding::find(local, env, machine);
        let place = Place::read(source, flags, &binding, local);
        let cluster = rows::cluster(source, flags, &binding);
        let log = rows::log_file(source, flags, machine.init);
        let cache = rows::cache(source, flags);
        let config = source.given("config", flags.config.as_deref()).map(|given| given.text);
        let overrides = rows::overrides(source, flags, &cluster.clone().unwrap_or_default());
        let flag = |on: bool| if on { "true" } else { "false" };
        let port = place.port.to_string();
        let zk = zk.map(|zk| zk.hosts() + zk.chroot().unwrap_or_default()).unwrap_or_default();
        let effective = [
            ("application", &*place.application),
            ("cluster", cluster.as_ref().map_or("", ClusterName::cluster)),
            ("debug", flag(debug)),
            ("ip", &place.ip),
            ("local", flag(local)),
            ("namespace", cluster.as_ref().map_or("", ClusterName::namespace)),
            ("node", &place.node),
            ("port", &port),
            ("public", &place.public),
            ("start", flag(start)),
            ("task", &place.task),
            ("zk", &zk),
        ];
        let mut environment = registration::child_environment(env, &effective);
        environment.extend(home.map(|home| ("HOME".into(), home.into())));
        let texts = effective.into_iter().chain([("binding", binding.name)]);
        let registration = registration::compose(source, &place.ports, texts);
        Some(Self {
            cluster: cluster?,
            mapped_port: place.mapped_port,
            session,
            listen: place.listen?,
            start,
            log_level,
            log_format,
            log,
            exit_when_dead,
            cache,
            config,
            overrides,
            grants,
            access: access?,
            registration,
            privileges,
            environment,
        })
    }
}

impl fmt::Debug for Settings {
    /// Without what may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("cluster", &self.cluster)
            .field("listen", &self.listen)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}
