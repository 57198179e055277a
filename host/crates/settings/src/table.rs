//! The table of settings: name, flag, variable, value, default and help of each.

use std::fmt::Write as _;

use ochopod_environment::PREFIX;

/// Prefix of the variables (after `ochopod_`) that override settings of the plugin.
pub const OVERRIDE_PREFIX: &str = "set_";
/// Prefix of the variables (after `ochopod_`) that limit resources.
pub const RLIMIT_PREFIX: &str = "rlimit_";

/// Form in which a setting is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A flag with a value, and a variable.
    Text,
    /// A flag with or without a value (`--local`, `--local=false`), and a variable.
    Switch,
    /// A repeatable flag (`--set NAME=VALUE`), and one variable for each name (`ochopod_set_NAME`).
    Map,
    /// A variable without a flag.
    Variable,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Name: the variable without `ochopod_`, and the flag with `_` for `-`.
    pub name: &'static str,
    /// Syntax of the value, as in `--help`.
    pub value: &'static str,
    /// Form in which it is given.
    pub kind: SettingKind,
    /// Description.
    pub help: &'static str,
    /// Default; empty if none is shown.
    pub default: &'static str,
}

use SettingKind::{Map, Switch, Text, Variable};

/// All settings, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    row(
        "cluster",
        "NAME",
        Text,
        "Cluster name: letters, digits, '_' and '-'",
        "the Marathon app ID with '/' replaced by '-', else default",
    ),
    row("namespace", "NAME", Text, "Namespace of the cluster: dot-separated tokens", "marathon"),
    row("port", "PORT", Text, "Control port that other pods connect to", "8080"),
    row(
        "zk",
        "HOSTS",
        Text,
        "ZooKeeper servers: zk://h1:p,h2:p[/chroot] or h1:p,h2:p. Credentials (zk://user:password@…) are accepted in the \
         variable only",
        "127.0.0.1:2181 in local mode, those of the masters on Marathon, the pod ocho-proxy on Kubernetes, else none",
    ),
    row(
        "zk_credentials",
        "FILE",
        Text,
        "File with ZooKeeper credentials (user:password). Nodes the pod creates are then restricted to these credentials, \
         except /ochopod and /ochopod/clusters, which anyone may list and extend",
        "those in ochopod_zk, if any",
    ),
    row(
        "zk_read",
        "WHO",
        Text,
        "With credentials: who may read the cluster's pods and snapshot nodes: creator (holders of the credentials) or \
         world (anyone; needed by dependent clusters with other credentials)",
        "creator",
    ),
    row(
        "zk_strict",
        "BOOL",
        Switch,
        "With credentials: reject nodes that others may change, such as those created by a pod without credentials, and \
         print the command that repairs them. Others may still read, and create in shared parents",
        "true with credentials, else false",
    ),
    row(
        "zk_tls_ca",
        "FILE",
        Text,
        "PEM file with CA certificates for ZooKeeper; requires TLS and verifies server host names",
        "none, no TLS",
    ),
    row("zk_tls_cert", "FILE", Text, "PEM file with the certificate that the pod presents to ZooKeeper", "none"),
    row("zk_tls_key", "FILE", Text, "PEM file with the key of that certificate", "none"),
    row("session", "SECONDS", Text, "ZooKeeper session timeout in seconds", "5"),
    row("local", "BOOL", Switch, "Local mode: ip and public are 127.0.0.1, node is \"local\"", "false"),
    row(
        "binding",
        "PLATFORM",
        Text,
        "Platform that the values of the pod are derived from: auto, local, marathon, marathon-ec2, kubernetes, nomad, ecs, \
         docker or generic",
        "auto: detected by variables of the platform",
    ),
    row("ip", "ADDRESS", Text, "Address that other pods connect to", "detected from the platform"),
    row(
        "interface",
        "SPEC,…",
        Text,
        "Interfaces whose address is ip, the first that exists: NAME, NAME:inet, NAME:inet6, NAME[N], inet, inet6, IP/BITS or \
         static:IP",
        "none, the source address of packets to the store",
    ),
    row("public", "ADDRESS", Text, "Address reachable from outside", "detected from the platform"),
    row("node", "NAME", Text, "Name of the underlying machine", "detected from the platform"),
    row(
        "env_vars_prefix",
        "PREFIX",
        Text,
        "Prefix of the variables PORT_<n> and HOST, as in --env_vars_prefix of Marathon",
        "none",
    ),
    row(
        "service_account",
        "DIRECTORY",
        Text,
        "Directory with token, ca.crt and namespace of the Kubernetes service account",
        "/var/run/secrets/kubernetes.io/serviceaccount",
    ),
    row(
        "listen",
        "ADDRESS:PORT",
        Text,
        "Bind address of the control server",
        "[::]:<port> with IPv6, else 0.0.0.0:<port>; in local mode <ip>:<mapped port>",
    ),
    row("start", "BOOL", Switch, "Start of the sub-process on the first configuration", "true"),
    row("debug", "BOOL", Switch, "Debug logging", "false"),
    row("log_level", "LEVEL", Text, "Log level: error, warning, info, debug or trace", "info, or debug with debug"),
    row("log_format", "FORMAT", Text, "Log format: text or json", "text"),
    row(
        "log",
        "FILE",
        Text,
        "Rotating log file, in addition to standard error",
        "/var/log/ochopod.log as PID 1, else none",
    ),
    row(
        "application",
        "ID",
        Text,
        "Application ID on the platform (Marathon, Kubernetes, …)",
        "detected from the platform",
    ),
    row("task", "ID", Text, "Task ID of this pod on the platform", "detected from the platform"),
    row(
        "exit_when_dead",
        "BOOL",
        Switch,
        "Exit when the pod is dead instead of staying idle: with 0, or with 1 after a failure",
        "true on Kubernetes and Nomad, else false",
    ),
    row(
        "stop_timeout",
        "SECONDS",
        Text,
        "Seconds within which the entire shutdown completes, counted from the first signal; one less than the platform \
         waits before it kills, as in --stop-timeout 9 with Docker's default",
        "grace of the plugin + leave_delay + 10, at most one less than the kill delay of the platform if that is known",
    ),
    row(
        "leave_delay",
        "SECONDS",
        Text,
        "Maximum seconds that a stopping pod keeps its sub-process running while the leader configures the others without \
         it: for load balancers that drain",
        "0",
    ),
    row("cache", "DIRECTORY", Text, "Directory of compiled plugins", "$XDG_CACHE_HOME/ochopod or /var/cache/ochopod"),
    row(
        "plugin_memory",
        "SIZE",
        Text,
        "Memory of all plugin instances of a pod, in bytes or with KiB, MiB or GiB",
        "256MiB, at most a quarter of the container's memory limit",
    ),
    row(
        "user",
        "USER",
        Text,
        "User (name or UID) for the sub-process and programs started by the plugin; requires root; also sets HOME",
        "the host's user",
    ),
    row(
        "group",
        "GROUP",
        Text,
        "Only group (name or GID) of the sub-process and programs started by the plugin; requires root",
        "all groups of the user",
    ),
    row(
        "rlimit",
        "NAME=SOFT[:HARD]",
        Map,
        "Resource limit for the sub-process and programs started by the plugin, e.g. nofile=1024:4096 or core=0: prlimit name, soft[:hard] in kernel units or unlimited; \
         repeatable",
        "",
    ),
    row(
        "token_file",
        "FILE",
        Text,
        "File with the bearer token that the control API requires, shared by all pods of the cluster: at least 16 visible \
         ASCII characters. The variable ochopod_token may contain the token itself",
        "none",
    ),
    row("token", "TOKEN", Variable, "Bearer token itself, if there is no token_file", "none"),
    row(
        "tls_cert",
        "FILE",
        Text,
        "PEM certificate chain of the control port, leaf first; enables TLS, which all pods of the cluster must then use. \
         Issued for the pod's address or the name ochopod",
        "none",
    ),
    row("tls_key", "FILE", Text, "PEM private key of that certificate", "none"),
    row(
        "tls_ca",
        "FILE",
        Text,
        "PEM CA certificates that verify other pods and every client; clients (health checks too) then need a certificate",
        "none: clients need no certificate, pods trust the certificates in tls_cert",
    ),
    row(
        "config",
        "FILE|TEXT",
        Text,
        "Configuration of services, backends, hooks and telemetry of the pod, as for `ochopod pilot`: a file, or the text",
        "none",
    ),
    row(
        "set",
        "NAME=VALUE",
        Map,
        "Override of a model or lifecycle setting of the plugin, as in --set damper=5; repeatable",
        "",
    ),
];

const fn row(
    name: &'static str,
    value: &'static str,
    kind: SettingKind,
    help: &'static str,
    default: &'static str,
) -> Setting {
    Setting { name, value, kind, help, default }
}

impl Setting {
    /// Finds a setting by its name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Returns the variable, `ochopod_NAME`.
    #[must_use]
    pub fn variable(&self) -> String {
        match self.kind {
            Map => format!("{PREFIX}{}_NAME", self.name),
            Text | Switch | Variable => format!("{PREFIX}{}", self.name),
        }
    }

    /// Returns the flag, if there is one.
    #[must_use]
    pub fn flag(&self) -> Option<String> {
        (self.kind != Variable).then(|| format!("--{}", self.name.replace('_', "-")))
    }

    /// Returns the help of the flag: description, variable and default.
    #[must_use]
    pub fn help_text(&self) -> String {
        let default = if self.default.is_empty() { String::new() } else { format!("; default: {}", self.default) };
        format!("{} ({}{default})", self.help, self.variable())
    }
}

/// Returns whether a variable, by its name without `ochopod_`, is a setting of the host.
#[must_use]
pub fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| match setting.kind {
        Map => name.strip_prefix(setting.name).is_some_and(|rest| rest.starts_with('_')),
        Text | Switch | Variable => name == setting.name,
    })
}

/// Returns the table as Markdown, for the reference.
#[must_use]
pub fn markdown() -> String {
    let mut text = "| flag | variable | default | |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let cell = |text: &str| text.replace('|', "\\|");
        let flag = setting.flag().map(|flag| format!("`{flag} {}`", cell(setting.value))).unwrap_or_default();
        let (variable, default) = (setting.variable(), cell(setting.default));
        // Angle brackets would be HTML.
        let default = default.replace('<', "&lt;");
        _ = writeln!(text, "| {flag} | `{variable}` | {default} | {} |", cell(setting.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_reserved() {
        for (i, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS.iter().skip(i + 1).all(|other| other.name != setting.name), "{}", setting.name);
            assert!(is_setting(setting.variable().strip_prefix(PREFIX).unwrap()), "{}", setting.name);
        }
        assert!(is_setting("set_damper") && is_setting("rlimit_core"));
        assert!(!is_setting("rack") && !is_setting("settings") && !is_setting("set"));
        assert_eq!(
            SETTINGS
                .iter()
                .filter(|setting| setting.kind == Map)
                .map(|map| format!("{}_", map.name))
                .collect::<Vec<_>>(),
            [RLIMIT_PREFIX, OVERRIDE_PREFIX]
        );
    }

    #[test]
    fn help_names_the_variable_and_the_default() {
        let help = |name| Setting::find(name).unwrap().help_text();
        assert_eq!(help("session"), "ZooKeeper session timeout in seconds (ochopod_session; default: 5)");
        assert!(help("set").ends_with("repeatable (ochopod_set_NAME)"));
    }
}
