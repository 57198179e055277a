use crate::{Cluster, Command, Result, Settings, Value, process};

/// What one pod does: the callbacks around its sub-process. Only [`configure`](Self::configure) is required.
///
/// Each callback has a deadline, and one past it is stopped wherever it is. The host's WIT package says it for each.
pub trait Lifecycle: Default + 'static {
    /// Asked when the plugin is loaded, and at most once in each instance. Pure: it may not depend on the clock, files or the environment.
    #[must_use]
    fn settings() -> Settings {
        Settings::default()
    }

    /// Called once per pod process, before the first [`configure`](Self::configure). It must tolerate traces of an
    /// earlier run of the same container.
    ///
    /// # Errors
    /// An error ends the pod: it finalizes and turns dead.
    fn initialize(&mut self) -> Result<()> {
        Ok(())
    }

    /// Called on every pod before each configuration, with every registered pod, dead ones included. It may be called
    /// many times with the same view, and must change nothing: another pod may refuse.
    ///
    /// # Errors
    /// An error holds the whole cluster's configuration; the leader tries again.
    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        let _ = cluster;
        Ok(())
    }

    /// Says what to run, when the sub-process is to be (re)started from a new view of all live pods. Not called when a
    /// running sub-process is left alone (see [`Settings::strict`]).
    ///
    /// # Errors
    /// An error ends the pod: it finalizes and turns dead.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command>;

    /// Called on every live pod after all of them were configured, also where the sub-process was left alone: at least
    /// once per configuration. The sub-process was started, which does not mean that it serves already.
    ///
    /// # Errors
    /// An error is logged and changes nothing else.
    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        let _ = cluster;
        Ok(())
    }

    /// Called every [`Settings::check_every`] while the sub-process is wanted, and soon after each start. Returns
    /// metrics, a JSON object (or null for none), which `/info` shows. A request that arrives stops it.
    ///
    /// # Errors
    /// An error is one failed check; [`Settings::checks`] of them in a row turn the sub-process off.
    fn sanity_check(&mut self, pid: u32) -> Result<Value> {
        let _ = pid;
        Ok(Value::Null)
    }

    /// Called for each `POST /control/signal`: user logic. `pid` is there while the sub-process runs. What it returns
    /// is the reply (null gives `{}`).
    ///
    /// # Errors
    /// An error is a 500 with its text and changes nothing else.
    fn signaled(&mut self, body: Option<Value>, pid: Option<u32>) -> Result<Value> {
        let _ = (body, pid);
        Ok(Value::Null)
    }

    /// Called when the running sub-process is to end: makes it end soon. The default sends SIGTERM to its group.
    ///
    /// # Errors
    /// An error is logged, and SIGTERM sent instead.
    fn tear_down(&mut self, pid: u32) -> Result<()> {
        let _ = pid;
        process::signal(process::SIGTERM)
    }

    /// Called last, once, when the pod dies or the host stops, after the sub-process ended.
    ///
    /// # Errors
    /// An error is logged.
    fn finalize(&mut self) -> Result<()> {
        Ok(())
    }
}
