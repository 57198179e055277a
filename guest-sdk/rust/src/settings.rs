/// Settings of a [`Lifecycle`](crate::Lifecycle). Times are in seconds; the operator may override each except `shell`
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
    /// Number of consecutive failed sanity checks that stops the sub-process. Default 1.
    pub checks: u32,
    /// Working directory of the sub-process. Default: the host's.
    pub cwd: Option<String>,
    /// Time for the sub-process and its process group to exit before they are killed. Default 60.
    pub grace: f64,
    /// Whether its output goes to the pod's log. Default false.
    pub pipe_subprocess: bool,
    /// Whether `configure` returns text for `/bin/sh -c`, whatever made the [`Command`](crate::Command). Default false.
    pub shell: bool,
    /// Whether a sub-process that outlives `grace` is released instead of killed. Default false.
    pub soft: bool,
    /// Whether every configuration restarts the sub-process, even if its dependencies are the same. Default false.
    pub strict: bool,
    /// Effect of a configuration with other dependencies on the running sub-process. Default [`OnChange::Restart`].
    pub on_change: OnChange,
    /// Time from a start until [`Lifecycle::ready`](crate::Lifecycle::ready) must return ok. A sub-process that exceeds
    /// it fails one sanity check, and one more each time that this time passes again. Default 60.
    pub ready_within: f64,
    /// Requests beyond the sandbox. Default: none.
    pub wants: Wants,
}

/// Effect of a configuration with other dependencies on the running sub-process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It is stopped before `configure` is called, and started again.
    #[default]
    Restart,
    /// `configure` is called while it runs. If the command is the same, it keeps running (see
    /// [`Command::reload`](crate::Command::reload)); otherwise it is stopped and started.
    Compare,
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
            on_change: OnChange::Restart,
            ready_within: 60.0,
            wants: Wants::default(),
        }
    }
}

/// Settings of a [`Model`](crate::Model). Times are seconds; the operator may override each (`--set damper=5`).
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// Number of pods that may be down at a time while a configuration stops and starts them. Each batch is ready before
    /// the next, and the leader's own pod comes last. Not with `sequential` or `full_shutdown`. Default [`Batch::All`].
    pub batch: Batch,
    /// Delay of a configuration after the first change. Default 0.
    pub damper: f64,
    /// Clusters that this one depends on: `name` (same namespace), `/absolute.name`, or globs of either. Default none.
    pub depends_on: Vec<String>,
    /// Whether all pods are stopped before any is started. Default false.
    pub full_shutdown: bool,
    /// Time limit of each request sent by the leader. Default 60.
    pub grace: f64,
    /// Delay between two probes. Default 60.
    pub probe_every: f64,
    /// Whether pods are stopped and started one by one, in the order of `seq`. Default false.
    pub sequential: bool,
    /// Number of pods that may be left out of a configuration because they reject it or do not answer. They are listed in
    /// `status` and included again when possible. Default 0.
    pub tolerate: u32,
}

/// Number of pods that a configuration handles at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Batch {
    /// All of them.
    #[default]
    All,
    /// This many, at least 1.
    Pods(u32),
    /// This percentage of the live pods, from 1 to 100, rounded down to a number of at least 1.
    Percent(u8),
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            batch: Batch::All,
            damper: 0.0,
            depends_on: Vec::new(),
            full_shutdown: false,
            grace: 60.0,
            probe_every: 60.0,
            sequential: false,
            tolerate: 0,
        }
    }
}

/// Requests of a plugin beyond its sandbox. A request grants nothing: the host prints the flags that are missing.
///
/// ```
/// # use ochopod_sdk::Wants;
/// let wants = Wants::default().write("/data").connect("peers").connect("loopback:6379").run("redis-cli");
/// assert_eq!(wants.network, ["peers", "loopback:6379"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Directories (`--dir`).
    pub directories: Vec<Directory>,
    /// `ADDRESS:PORT`, `ADDRESS:*`, or `peers` for the pods of the current view (`--net`); only names that are granted
    /// can be looked up. `loopback:PORT` or `loopback:*` declares ports of the pod's own loopback addresses and needs
    /// no flag.
    pub network: Vec<String>,
    /// Programs for [`exec`](crate::exec) (`--run`).
    pub programs: Vec<String>,
    /// Environment variables (`--env`). Those named `ochopod_*` (settings, the pod's own `ochopod_ip` among them) and
    /// `PORT_<n>` (mapped ports) need no grant. Where the operator limits programs (`--exec`), `configure` may set only
    /// variables that are named here, never `PATH`, `LD_*`, `ENV`, `BASH_ENV` or `BASH_FUNC_*`.
    pub environment: Vec<String>,
}

/// Directory that the plugin requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Path in the plugin.
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

    /// Adds a network address, `peers`, or `loopback:PORT` for a port of the container on the pod's own loopback
    /// addresses.
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
