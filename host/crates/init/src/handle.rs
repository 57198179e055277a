//! Handle of the init thread.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as sync_mpsc,
    },
    thread,
    time::Duration,
};

use nix::sys::{prctl, signal::Signal};
use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::Span;

use super::{
    Child, Exit, ProcessSpec, SignalNumber, SpawnError, launcher,
    pipes::{self, ChildEnds},
    reaper::Reaper,
    terminal,
};

/// Default time for children to be gone after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time beyond its limit after which the thread counts as stuck.
const STUCK_TIMEOUT: Duration = Duration::from_millis(200);

/// Maximum number of requests of one [`LimitedSignals`] that wait for the thread.
const MAX_PENDING_SIGNALS: usize = 16;

/// A process has at most one init thread: two would reap each other's children.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Handle of the init thread, which starts, signals and reaps children. Clones share the thread.
///
/// # Guarantees
/// - The exit of every started child is reported, whatever else exits at the same time.
/// - Orphans that the kernel reparents to this process are reaped.
/// - A child is killed with its group when this process exits, however it exits. Processes that left the group are
///   killed too if this process is PID 1 or shuts down gracefully. (The kernel does not kill a child that changed its
///   user itself and left its group, unless this process is PID 1.)
///
/// Children created elsewhere in this process are treated as orphans: create none.
#[derive(Debug, Clone)]
pub struct Init {
    requests: mpsc::UnboundedSender<Request>,
}

/// Error of starting the init thread.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// This process has an init thread already.
    #[error("init thread already running")]
    Running,
    /// The standard input of children cannot be opened.
    #[error("cannot use /dev/null as the input of children; mount /dev in the container, or /dev/null alone")]
    NullDevice(#[source] io::Error),
    /// The process cannot become the parent of orphans.
    #[error("cannot become a subreaper")]
    Subreaper(#[source] io::Error),
    /// The thread or its event loop cannot be created.
    #[error("cannot start the init thread")]
    Start(#[source] io::Error),
}

/// Request to the thread. The queue is unbounded, because a kill must neither wait nor get lost; callers await the
/// others.
#[derive(Debug)]
pub(super) enum Request {
    Spawn(Box<SpawnRequest>),
    Signal {
        pid: u32,
        signal: SignalNumber,
        process_group: bool,
        /// The caller is not ending the group, see [`LimitedSignals::signal`].
        running: bool,
        /// Permit of a caller with a limit, until the request is handled.
        permit: Option<OwnedSemaphorePermit>,
    },
    Terminate {
        pid: u32,
        running: bool,
        permit: Option<OwnedSemaphorePermit>,
    },
    /// Kills what is left after `grace`, and leaves behind what is not gone after `limit`.
    ShutDown {
        grace: Duration,
        limit: Duration,
    },
}

/// Child to be spawned.
#[derive(Debug)]
pub(super) struct SpawnRequest {
    pub(super) launch: ProcessSpec,
    pub(super) ends: ChildEnds,
    /// Whether the child gets the terminal.
    pub(super) foreground: bool,
    /// Span of log lines about the child.
    pub(super) span: Span,
    pub(super) stopped: watch::Sender<Option<Signal>>,
    pub(super) exit: oneshot::Sender<Exit>,
    pub(super) started: oneshot::Sender<Result<KillOnDrop, SpawnError>>,
    pub(super) init: Init,
}

/// Kills a child's group when dropped, so that a caller that stops waiting leaves no process behind. Does nothing once
/// the exit of the child was reported.
#[derive(Debug)]
#[must_use = "dropping it kills the child"]
pub struct KillOnDrop {
    pub(super) init: Init,
    pub(super) pid: Option<u32>,
}

impl KillOnDrop {
    /// Leaves the child running.
    pub fn disarm(mut self) {
        self.pid = None;
    }
}

/// Signals to the groups of children, for a caller that is not trusted. Few of its requests wait for the init thread, so that it
/// delays others only briefly.
#[derive(Debug, Clone)]
pub struct LimitedSignals {
    init: Init,
    pending: Arc<Semaphore>,
}

/// Error of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Earlier requests of the caller still wait.
    #[error("{MAX_PENDING_SIGNALS} signals are pending: try again later")]
    Pending,
}

impl LimitedSignals {
    /// Returns the signals of one caller.
    #[must_use]
    pub fn new(init: Init) -> Self {
        Self { init, pending: Arc::new(Semaphore::new(MAX_PENDING_SIGNALS)) }
    }

    /// Sends a signal to the group of a child, as [`Init::signal_group`] does unless the child is to keep `running`. If it exits
    /// then, the rest of its group is killed, as after an exit on its own; the caller need not send SIGKILL.
    ///
    /// # Errors
    /// If too many requests are pending.
    pub fn signal(&self, pid: u32, signal: impl Into<SignalNumber>, running: bool) -> Result<(), SignalError> {
        let (signal, permit) = (signal.into(), Some(self.permit()?));
        self.init.request(Request::Signal { pid, signal, process_group: true, running, permit });
        Ok(())
    }

    /// Asks a child to exit, as [`Init::terminate`] does. With `running`, the caller sends no SIGKILL later, as for
    /// [`Self::signal`].
    ///
    /// # Errors
    /// If too many requests are pending.
    pub fn terminate(&self, pid: u32, running: bool) -> Result<(), SignalError> {
        self.init.request(Request::Terminate { pid, running, permit: Some(self.permit()?) });
        Ok(())
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, SignalError> {
        Arc::clone(&self.pending).try_acquire_owned().map_err(|_| SignalError::Pending)
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.init.signal_group(pid, Signal::SIGKILL);
        }
    }
}

impl Init {
    /// Starts the thread. `launcher` is this program's binary, which must call [`super::launcher::run`] if
    /// [`super::launcher::is_launch`]. From here on this process adopts orphans, also if it is not PID 1.
    ///
    /// # Errors
    /// If this process has an init thread already, or the system rejects one.
    pub fn start(launcher: PathBuf) -> Result<Self, InitError> {
        if RUNNING.swap(true, Ordering::AcqRel) {
            return Err(InitError::Running);
        }
        let started = Self::start_first(launcher);
        if started.is_err() {
            RUNNING.store(false, Ordering::Release);
        }
        started
    }

    fn start_first(launcher: PathBuf) -> Result<Self, InitError> {
        launcher::open_null_device().map_err(InitError::NullDevice)?;
        if std::process::id() != 1 {
            prctl::set_child_subreaper(true).map_err(|errno| InitError::Subreaper(errno.into()))?;
        }
        let (requests, receiver) = mpsc::unbounded_channel();
        let (ready, is_ready) = sync_mpsc::sync_channel(1);
        let run = move || {
            let prepared = runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                let entered = runtime.enter();
                let reaper = Reaper::new(launcher, receiver)?;
                drop(entered);
                Ok((runtime, reaper))
            });
            match prepared {
                Ok((runtime, reaper)) => {
                    let _ = ready.send(Ok(()));
                    let requests = runtime.block_on(reaper.run());
                    RUNNING.store(false, Ordering::Release);
                    drop(requests);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        thread::Builder::new().name("init".to_owned()).spawn(run).map_err(InitError::Start)?;
        let exited_early = |_| Err(io::Error::other("the thread ended immediately"));
        is_ready.recv().unwrap_or_else(exited_early).map_err(InitError::Start)?;
        Ok(Self { requests })
    }

    /// Starts a child in its own process group and returns once the program runs.
    ///
    /// # Errors
    /// If the program cannot be started, or the host is shutting down. Nothing is left behind then.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the child, also a launcher that hangs before exec. Dropping the [`Child`] does not.
    pub async fn spawn(&self, launch: ProcessSpec) -> Result<Child, SpawnError> {
        let (child, kill) = self.spawn_guarded(launch).await?;
        kill.disarm();
        Ok(child)
    }

    /// Starts a child as [`Self::spawn`] does. Dropping the guard kills the child's group.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    ///
    /// # Cancellation safety
    /// Dropping the future kills the child.
    pub async fn spawn_guarded(&self, launch: ProcessSpec) -> Result<(Child, KillOnDrop), SpawnError> {
        self.spawn_child(launch, false).await
    }

    /// Starts a child as [`Self::spawn`] does. If this process has the foreground of its terminal, the child's group
    /// gets it, and the child inherits standard input if that is a terminal too. The terminal is reclaimed when the
    /// exit is reported.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    ///
    /// # Cancellation safety
    /// Dropping the future kills the child, also a launcher that hangs before exec. Dropping the [`Child`] does not.
    pub async fn spawn_in_foreground(&self, launch: ProcessSpec) -> Result<Child, SpawnError> {
        let (child, kill) = self.spawn_child(launch, terminal::is_foreground()).await?;
        kill.disarm();
        Ok(child)
    }

    async fn spawn_child(&self, launch: ProcessSpec, foreground: bool) -> Result<(Child, KillOnDrop), SpawnError> {
        let (host, ends) = pipes::open(&launch).map_err(|error| SpawnError::Fork {
            program: launch.program.to_string_lossy().into_owned(),
            cause: error.into(),
        })?;
        let (exit_sender, exit) = oneshot::channel();
        let (stop_sender, stopped) = watch::channel(None);
        let (started, has_started) = oneshot::channel();
        let request = SpawnRequest {
            launch,
            ends,
            foreground,
            span: Span::current(),
            stopped: stop_sender,
            exit: exit_sender,
            started,
            init: self.clone(),
        };
        self.requests.send(Request::Spawn(Box::new(request))).map_err(|_| SpawnError::Gone)?;
        let kill = has_started.await.map_err(|_| SpawnError::Gone)??;
        let pid = kill.pid.ok_or(SpawnError::Gone)?;
        Ok((Child { pid, exit, stopped, input: host.input, output: host.output, error: host.error }, kill))
    }

    /// Sends a signal to the group of a child, in the order of the calls. Does nothing once the exit was reported: a
    /// process that reuses the id is safe. SIGCONT follows SIGTERM, because a stopped process handles no signal.
    ///
    /// Any signal except SIGKILL starts the end of the group: once the child has exited, the rest of its group keeps
    /// running, and the exit is reported when the group is empty. The caller must send SIGKILL at the end of its grace:
    /// it kills the rest, and the exit is reported immediately.
    pub fn signal_group(&self, pid: u32, signal: impl Into<SignalNumber>) {
        self.send(pid, signal.into(), true, false);
    }

    /// Sends a signal to a child alone.
    pub fn signal(&self, pid: u32, signal: impl Into<SignalNumber>) {
        self.send(pid, signal.into(), false, true);
    }

    /// Asks a child to exit, by SIGTERM to its group. If this process was stopped by SIGQUIT, SIGWINCH or `RTMIN+3`,
    /// that signal is sent to the child alone, as a container runtime would, and the rest of the group gets SIGTERM
    /// once the child has exited. SIGCONT follows for the group. Does nothing once the exit was reported. The caller
    /// must send SIGKILL at the end of its grace, see [`Self::signal_group`].
    pub fn terminate(&self, pid: u32) {
        self.request(Request::Terminate { pid, running: false, permit: None });
    }

    fn send(&self, pid: u32, signal: SignalNumber, process_group: bool, running: bool) {
        self.request(Request::Signal { pid, signal, process_group, running, permit: None });
    }

    /// Requests something for a child. If the thread ended, so did the child.
    fn request(&self, request: Request) {
        let _ = self.requests.send(request);
    }

    /// Terminates and reaps every descendant of this process, whatever its group or session, and ends the thread:
    /// SIGTERM (and SIGCONT) for all, SIGKILL at the end of `grace`. A process that is not gone 5 s later, as in
    /// uninterruptible sleep, is logged and left behind. Pending and later calls of [`Self::spawn`] fail. With
    /// concurrent calls, all wait for the end, and the shortest times apply.
    ///
    /// # Cancellation safety
    /// Once polled, the thread continues without the future.
    pub async fn shut_down(&self, grace: Duration) {
        self.shut_down_within(grace, grace.saturating_add(KILL_TIMEOUT)).await;
    }

    /// Shuts down as [`Self::shut_down`] does, but leaves behind what is not gone at the `limit`, even if the thread
    /// itself is stuck in a system call.
    ///
    /// # Cancellation safety
    /// As [`Self::shut_down`].
    pub async fn shut_down_within(&self, grace: Duration, limit: Duration) {
        let _ = self.requests.send(Request::ShutDown { grace, limit });
        if timeout(limit.saturating_add(STUCK_TIMEOUT), self.requests.closed()).await.is_err() {
            tracing::error!("init thread stuck in a system call; exiting without it");
        }
    }
}
