/// Settings of a [`Lifecycle`](crate::Lifecycle). Times are seconds; the operator may override each but `shell`
/// (`--set grace=5`).
///
/// ```
/// # use ochopod_sdk::Settings;
/// let settings = Settings { check_every: 5.0, checks: 3, ..Settings::default() };
/// assert_eq!(settings.grace, 60.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the contract")]
pub struct Settings {
    /// Delay between two sanity checks. Default 60.
    pub check_every: f64,
    /// How many sanity checks in a row may fail before the sub-process is turned off. Default 1.
    pub checks: u32,
    /// Working directory of the sub-process. Default: the host's.
    pub cwd: Option<String>,
    /// How long a sub-process may take to end before it is killed. Default 60.
    pub grace: f64,
    /// Whether its output goes to the pod's log. Default false.
    pub pipe_subprocess: bool,
    /// Whether `configure` returns text for `/bin/sh -c`, whatever made the [`Command`](crate::Command). Default false.
    pub shell: bool,
    /// Whether a sub-process that outlives `grace` is released instead of killed. Default false.
    pub soft: bool,
    /// Whether every configuration restarts the sub-process, even when its dependencies are the same. Default false.
    pub strict: bool,
    /// What the plugin needs beyond its sandbox. Default: nothing.
    pub wants: Wants,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            check_every: 60.0,
            checks: 1,
            cwd: None,
            grace: 60.0,
            pipe_subprocess: false,
            shell: false,
            soft: false,
            strict: false,
            wants: Wants::default(),
        }
    }
}

/// Settings of a [`Model`](crate::Model). Times are seconds; the operator may override each (`--set damper=5`).
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// How long the leader waits after the first change before it configures. Default 0.
    pub damper: f64,
    /// Clusters that this one depends on: `name` (same namespace), `/absolute.name`, or globs of either. Default none.
    pub depends_on: Vec<String>,
    /// Whether all pods are stopped before any is started. Default false.
    pub full_shutdown: bool,
    /// Limit of each request of the leader's. Default 60.
    pub grace: f64,
    /// Delay between two probes. Default 60.
    pub probe_every: f64,
    /// Whether pods are stopped and started one after the other, in the order of `seq`. Default false.
    pub sequential: bool,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            damper: 0.0,
            depends_on: Vec::new(),
            full_shutdown: false,
            grace: 60.0,
            probe_every: 60.0,
            sequential: false,
        }
    }
}

/// What a plugin needs beyond its sandbox. Nothing is granted by asking: the host prints which flags of the operator's
/// are still missing.
///
/// ```
/// # use ochopod_sdk::Wants;
/// let wants = Wants::default().write("/data").connect("peers").run("redis-cli");
/// assert_eq!(wants.network, ["peers"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Directories (`--dir`).
    pub directories: Vec<Directory>,
    /// `ADDRESS:PORT`, `ADDRESS:*`, or `peers` for the pods of the present view (`--net`). Loopback needs no grant.
    pub network: Vec<String>,
    /// Programs for [`exec`](crate::exec) (`--run`).
    pub programs: Vec<String>,
    /// Environment variables (`--env`). Those named `ochopod_*` (settings, the pod's own `ochopod_ip` among
    /// them) and `PORT_<n>` (mapped ports) need no grant.
    pub environment: Vec<String>,
}

/// A directory that the plugin needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Path under which the plugin sees it.
    pub guest: String,
    /// Whether the plugin writes to it.
    pub writable: bool,
}

impl Wants {
    /// Adds a directory to read from.
    #[must_use]
    pub fn read(mut self, guest: impl Into<String>) -> Self {
        self.directories.push(Directory { guest: guest.into(), writable: false });
        self
    }

    /// Adds a directory to write to.
    #[must_use]
    pub fn write(mut self, guest: impl Into<String>) -> Self {
        self.directories.push(Directory { guest: guest.into(), writable: true });
        self
    }

    /// Adds a network address, or `peers`.
    #[must_use]
    pub fn connect(mut self, address: impl Into<String>) -> Self {
        self.network.push(address.into());
        self
    }

    /// Adds a program of the container.
    #[must_use]
    pub fn run(mut self, program: impl Into<String>) -> Self {
        self.programs.push(program.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>) -> Self {
        self.environment.push(name.into());
        self
    }
}
