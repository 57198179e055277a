use crate::{Cluster, Command, Result, Settings, Value, process};

/// Lifecycle callbacks of one pod and its sub-process. Only [`configure`](Self::configure) is required.
///
/// A callback past its deadline is stopped wherever it is. The host's WIT package documents each deadline.
pub trait Lifecycle: Default + 'static {
    /// Returns the settings. Called when the plugin is loaded, and at most once in each instance. Must be pure: the
    /// result must not depend on the clock, files or the environment.
    #[must_use]
    fn settings() -> Settings {
        Settings::default()
    }

    /// Initializes the pod. Called before the first [`configure`](Self::configure) until it succeeds once, and not again
    /// for a rebuilt instance. Must tolerate state left by an earlier call or an earlier run of the same container.
    ///
    /// # Errors
    /// An error ends the pod: it finalizes and becomes dead. [`Error::not_yet`](crate::Error::not_yet) does not: the
    /// leader holds the configuration and retries.
    fn initialize(&mut self) -> Result<()> {
        Ok(())
    }

    /// Checks whether the pod can be configured. Called on every pod before each configuration, with every registered
    /// pod, dead ones included. It may be called many times with the same view and must change nothing, because another
    /// pod may reject the view.
    ///
    /// # Errors
    /// An error blocks the configuration of the whole cluster, and the leader retries.
    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        let _ = cluster;
        Ok(())
    }

    /// Returns the command to run. Called when the sub-process is started or restarted for a new view of all live pods.
    /// Not called if a running sub-process is left unchanged (see [`Settings::strict`]); called while the sub-process runs
    /// if its dependencies changed and [`Settings::on_change`] is `Compare`.
    ///
    /// # Errors
    /// An error ends the pod: it finalizes and becomes dead. [`Error::not_yet`](crate::Error::not_yet) does not: the
    /// leader holds the configuration and retries.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command>;

    /// Checks whether the sub-process is ready to serve, or to take its part in the cluster. Called after each start until
    /// it returns ok: immediately, then with delays from 50 ms up to 1 s. The leader does not go on to the next pod or
    /// batch before. While a quorum forms, a pod must be ready as soon as it listens: wait only for pods that
    /// [`Pod::started`](crate::Pod::started) marks, because the others start later. Deadline: 2 s.
    ///
    /// # Errors
    /// The reason why the sub-process is not ready.
    fn ready(&mut self, cluster: &Cluster, pid: u32) -> Result<()> {
        let _ = (cluster, pid);
        Ok(())
    }

    /// Returns the role of the pod, one word of at most 64 characters, such as `primary`. Called after each
    /// [`sanity_check`](Self::sanity_check) and [`configured`](Self::configured) that succeeded. None leaves the last
    /// role; an empty text clears it. Peers and dependants see it as [`Pod::role`](crate::Pod::role).
    fn role(&mut self) -> Option<String> {
        None
    }

    /// Notifies the pod that all live pods are configured. Called on every live pod at least once per configuration,
    /// also if the sub-process was left unchanged, and again when the role of a pod of a dependency has changed.
    ///
    /// # Errors
    /// An error is logged and changes nothing else.
    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        let _ = cluster;
        Ok(())
    }

    /// Checks the sub-process. Called every [`Settings::check_every`] while it runs and is ready, and soon after each start. Returns
    /// metrics, a JSON object (or null for none), which `/info` shows. A request that arrives stops the check.
    ///
    /// # Errors
    /// An error is one failed check; [`Settings::checks`] consecutive failures stop the sub-process.
    fn sanity_check(&mut self, pid: u32) -> Result<Value> {
        let _ = pid;
        Ok(Value::Null)
    }

    /// Handles `POST /control/signal`. `pid` is set while the sub-process is running. The returned value is the reply
    /// (null becomes `{}`).
    ///
    /// # Errors
    /// An error is answered 500 with its text and changes nothing else.
    fn signaled(&mut self, body: Option<Value>, pid: Option<u32>) -> Result<Value> {
        let _ = (body, pid);
        Ok(Value::Null)
    }

    /// Asks the running sub-process to exit. The default is [`process::terminate`]: SIGTERM to its process group, or
    /// the signal that the host was stopped with.
    ///
    /// # Errors
    /// An error is logged, and the host does the default instead. The host also does the default when half of the grace has
    /// passed without a result.
    fn tear_down(&mut self, pid: u32) -> Result<()> {
        let _ = pid;
        process::terminate()
    }

    /// Finalizes the pod. Called last and at most once, after the sub-process exited, when the pod dies or the host
    /// shuts down.
    ///
    /// # Errors
    /// An error is logged.
    fn finalize(&mut self) -> Result<()> {
        Ok(())
    }
}
