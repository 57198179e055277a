//! How the rest of the host reaches the init thread.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc as sync_mpsc,
    },
    thread,
    time::Duration,
};

use nix::sys::{prctl, signal::Signal};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

use super::{
    Child, Exit, Launch, SpawnError,
    pipes::{self, ChildEnds},
    reaper::Reaper,
};

/// Two of them would reap each other's children.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// The init thread: starts children, waits for them and signals them. One per process; clones reach the same one.
///
/// # Guarantees
/// - The exit of every child that was started is told, whatever else ends at the same time.
/// - Orphans that the kernel gives to this process are reaped.
/// - A child is killed when this process ends, however it ends. (The kernel lets go of one that changes its user itself, unless
///   this process is PID 1.)
///
/// Children that anybody else in this process makes are taken for orphans: make none.
#[derive(Debug, Clone)]
pub struct Init {
    requests: mpsc::UnboundedSender<Request>,
}

/// Why there is no init thread.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// This process has one already.
    #[error("the init of this process runs already")]
    Running,
    /// Without `/proc` no child can be started or found.
    #[error("/proc is not mounted: children cannot be started, nor orphans be found")]
    Proc,
    /// The process cannot become the parent of orphans.
    #[error("cannot become a subreaper")]
    Subreaper(#[source] io::Error),
    /// The thread or its event loop cannot be made.
    #[error("cannot start the init thread")]
    Start(#[source] io::Error),
}

/// What the thread is asked. Unbounded, as a kill must neither wait nor get lost; all else is awaited by who asks.
#[derive(Debug)]
pub(super) enum Request {
    Spawn(Box<Order>),
    Signal { pid: u32, signal: Signal, whole: bool },
    Finish { patience: Duration },
}

/// A child to be made.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) launch: Launch,
    pub(super) ends: ChildEnds,
    pub(super) exit: oneshot::Sender<Exit>,
    pub(super) started: oneshot::Sender<Result<KillOnDrop, SpawnError>>,
    pub(super) init: Init,
}

/// Kills a child's group when dropped, so that whoever stops waiting for a child leaves none behind. Does nothing once the
/// child has ended.
#[derive(Debug)]
#[must_use = "dropped, it kills at once"]
pub struct KillOnDrop {
    pub(super) init: Init,
    pub(super) pid: Option<u32>,
}

impl KillOnDrop {
    /// Lets the child go on.
    pub fn disarm(mut self) {
        self.pid = None;
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
    /// Starts the thread. `launcher` is this program's binary (it has to call [`super::launch::run`] when
    /// [`super::launch::is_launch`]). From here on orphans are this process's, also when it is not PID 1.
    ///
    /// # Errors
    /// When this process has an init, or the system refuses the thread.
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
        if !fs::exists("/proc/self/stat").unwrap_or(false) {
            return Err(InitError::Proc);
        }
        if std::process::id() != 1 {
            prctl::set_child_subreaper(true).map_err(|errno| InitError::Subreaper(errno.into()))?;
        }
        let (requests, receiver) = mpsc::unbounded_channel();
        let (ready, is_ready) = sync_mpsc::sync_channel(1);
        let work = move || {
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
        thread::Builder::new().name("init".to_owned()).spawn(work).map_err(InitError::Start)?;
        let gone = |_| Err(io::Error::other("the thread ended at once"));
        is_ready.recv().unwrap_or_else(gone).map_err(InitError::Start)?;
        Ok(Self { requests })
    }

    /// Starts a child in a process group of its own and returns once the program runs.
    ///
    /// # Errors
    /// When it does not, or the host is ending. Nothing is left behind then.
    ///
    /// # Cancellation safety
    /// Dropping the future kills what was started. Dropping the [`Child`] does not.
    pub async fn spawn(&self, launch: Launch) -> Result<Child, SpawnError> {
        let (child, kill) = self.spawn_guarded(launch).await?;
        kill.disarm();
        Ok(child)
    }

    /// The same; the child's group is killed when the guard is dropped.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    ///
    /// # Cancellation safety
    /// Dropping the future kills what was started.
    pub async fn spawn_guarded(&self, launch: Launch) -> Result<(Child, KillOnDrop), SpawnError> {
        let (host, ends) = pipes::open(&launch)
            .map_err(|source| SpawnError::Fork { program: launch.program.to_string_lossy().into_owned(), source })?;
        let (exit_sender, exit) = oneshot::channel();
        let (started, has_started) = oneshot::channel();
        let order = Order { launch, ends, exit: exit_sender, started, init: self.clone() };
        self.requests.send(Request::Spawn(Box::new(order))).map_err(|_| SpawnError::Gone)?;
        let kill = has_started.await.map_err(|_| SpawnError::Gone)??;
        let pid = kill.pid.ok_or(SpawnError::Gone)?;
        Ok((Child { pid, exit, input: host.input, output: host.output, error: host.error }, kill))
    }

    /// Sends a signal to the group of a child, in the order of the calls. Nothing happens when that child has ended:
    /// a process that got its id since is safe.
    pub fn signal_group(&self, pid: u32, signal: Signal) {
        self.send(pid, signal, true);
    }

    /// The same to a child alone.
    pub fn signal(&self, pid: u32, signal: Signal) {
        self.send(pid, signal, false);
    }

    fn send(&self, pid: u32, signal: Signal, whole: bool) {
        // The thread being gone means that so is the child.
        let _ = self.requests.send(Request::Signal { pid, signal, whole });
    }

    /// Ends and reaps everything that descends from this process, whatever groups and sessions it made for itself, and
    /// ends the thread: SIGTERM for all, SIGKILL for those that are left when `patience` is over. Calls of
    /// [`Self::spawn`] that are not answered yet, and later ones, fail. May be called by several: all wait for the end, and
    /// the least patient is obeyed.
    ///
    /// # Cancellation safety
    /// Once polled, the thread goes on without the future.
    pub async fn finish(&self, patience: Duration) {
        let _ = self.requests.send(Request::Finish { patience });
        self.requests.closed().await;
    }
}
