//! The flags that set what `ochopod_*` variables also set. Taken as text: all bad ones are reported at once.

/// Settings of a pod. A flag wins over its variable.
#[allow(clippy::doc_markdown, reason = "the comments on fields are what --help shows")]
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct Flags {
    /// Name of the cluster, of letters, digits, '_' and '-' (ochopod_cluster; default: the Marathon application with '-'
    /// for '/', else default)
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Namespace of the cluster, as dot separated tokens (ochopod_namespace; default: marathon)
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Control port as the other pods know it (ochopod_port; default: 8080)
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// ZooKeeper, as zk://h1:p,h2:p[/chroot] or h1:p,h2:p. Credentials (zk://user:password@…) are taken from the
    /// variable only (ochopod_zk; default: none, 127.0.0.1:2181 in local mode)
    #[arg(long, value_name = "HOSTS")]
    pub zk: Option<String>,
    /// File that holds the ZooKeeper credentials, user:password. What the pod creates is then for those who have them
    /// only, but /ochopod and /ochopod/clusters, where all may list and create (ochopod_zk_credentials; default: those in
    /// ochopod_zk, if any)
    #[arg(long, value_name = "FILE")]
    pub zk_credentials: Option<String>,
    /// With credentials, who else may read pods and snapshot of the cluster: creator for nobody, world for all, as
    /// dependants with other credentials need it (ochopod_zk_read; default: creator)
    #[arg(long, value_name = "WHO")]
    pub zk_read: Option<String>,
    /// PEM file with the authorities that sign certificates of ZooKeeper servers: connects by TLS only and verifies the
    /// host of each server (ochopod_zk_tls_ca; default: none, no TLS)
    #[arg(long, value_name = "FILE")]
    pub zk_tls_ca: Option<String>,
    /// PEM file with the certificate that the pod presents to ZooKeeper (ochopod_zk_tls_cert; default: none)
    #[arg(long, value_name = "FILE")]
    pub zk_tls_cert: Option<String>,
    /// PEM file with the key of that certificate (ochopod_zk_tls_key; default: none)
    #[arg(long, value_name = "FILE")]
    pub zk_tls_key: Option<String>,
    /// ZooKeeper session timeout in seconds (ochopod_session; default: 5)
    #[arg(long, value_name = "SECONDS")]
    pub session: Option<String>,
    /// Everything is on this machine: ip and public are 127.0.0.1, node is local (ochopod_local; default: false)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub local: Option<String>,
    /// Address that the other pods use (ochopod_ip; default: by the platform)
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// Address reachable from outside (ochopod_public; default: by the platform)
    #[arg(long, value_name = "ADDRESS")]
    pub public: Option<String>,
    /// Name of the machine below (ochopod_node; default: by the platform)
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the control server binds (ochopod_listen; default: 0.0.0.0 and the control port, in local mode ip and what
    /// that port is mapped to)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Whether the first configuration starts the sub-process (ochopod_start; default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub start: Option<String>,
    /// Debug log (ochopod_debug; default: false)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub debug: Option<String>,
    /// error, warning, info, debug or trace (ochopod_log_level; default: info, or debug with debug)
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json (ochopod_log_format; default: text)
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Rotating log file, next to the log on standard error (ochopod_log; default: /var/log/ochopod.log as PID 1, else
    /// none)
    #[arg(long, value_name = "FILE")]
    pub log: Option<String>,
    /// Application in the platform above (ochopod_application; default: by the platform)
    #[arg(long, value_name = "ID")]
    pub application: Option<String>,
    /// This pod in the platform above (ochopod_task; default: by the platform)
    #[arg(long, value_name = "ID")]
    pub task: Option<String>,
    /// Leave once dead, instead of idling (ochopod_exit_when_dead; default: false)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub exit_when_dead: Option<String>,
    /// Directory of compiled plugins (ochopod_cache; default: $XDG_CACHE_HOME/ochopod or /var/cache/ochopod)
    #[arg(long, value_name = "DIRECTORY")]
    pub cache: Option<String>,
    /// User that the sub-process runs as, and every program that the plugin starts, by name or number; needs root. HOME
    /// becomes the user's (ochopod_user; default: that of the host)
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Group that they run as, and no other, by name or number; needs root (ochopod_group; default: all groups of the
    /// user)
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Limits a resource for them, as in --rlimit nofile=1024:4096 or core=0: a name of prlimit, then the soft and the hard
    /// limit, or one for both, in the kernel's units or unlimited; repeatable (ochopod_rlimit_NAME)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub rlimit: Vec<String>,
    /// File with the token that requests have to show, and pods of the cluster share: at least 16 visible ASCII characters
    /// (ochopod_token_file; the variable ochopod_token may hold the token itself; default: none)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// PEM certificates of the control port, its own first: it speaks TLS then, as all pods of the cluster must
    /// (ochopod_tls_cert). Made out to the pod's address or to the name ochopod
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// PEM private key of that certificate (ochopod_tls_key)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// PEM certificates that must have signed those of the other pods and of every client, health checks included
    /// (ochopod_tls_ca; default: clients need none, pods trust what is in --tls-cert)
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<String>,
    /// Configuration of services, backends, hooks and telemetry around the pod, as `ochopod pilot` takes it: a file, or
    /// the text (ochopod_config; default: none)
    #[arg(long, value_name = "FILE|TEXT")]
    pub config: Option<String>,
    /// Overrides a model or lifecycle setting of the plugin, as in --set damper=5; repeatable (ochopod_set_NAME; an
    /// empty variable is none)
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// What the plugin may do beyond its sandbox. Nothing is granted by default.
#[allow(clippy::doc_markdown, reason = "the comments on fields are what --help shows")]
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Grants to the plugin")]
pub struct GrantFlags {
    /// A directory, read-only with :ro; repeatable
    #[arg(long, value_name = "HOST::GUEST[:ro]")]
    pub dir: Vec<String>,
    /// An environment variable (those named ochopod_* and PORT_N need no grant); repeatable
    #[arg(long, value_name = "NAME")]
    pub env: Vec<String>,
    /// An address with a port or '*' for any, or peers for the pods of the present view; repeatable
    #[arg(long, value_name = "ADDRESS:PORT|peers")]
    pub net: Vec<String>,
    /// A program for the exec import; repeatable
    #[arg(long, value_name = "PROGRAM")]
    pub run: Vec<String>,
    /// The sub-process may be this program only, not any command; repeatable
    #[arg(long, value_name = "PROGRAM")]
    pub exec: Vec<String>,
}
