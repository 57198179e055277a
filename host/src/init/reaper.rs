//! The actor of the init thread.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        signal::{self, Signal},
        wait::{self, Id, WaitPidFlag, WaitStatus},
    },
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    signal::unix::{self, SignalKind},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Exit, Launch, SpawnError, adopted,
    handle::{KillOnDrop, Order, Request},
    launch::{self, Failure},
    pipes::{self, ChildEnds},
};

/// Owns every child from its making to its reaping. It never waits for anything but events.
#[derive(Debug)]
pub(super) struct Reaper {
    launcher: PathBuf,
    requests: mpsc::UnboundedReceiver<Request>,
    /// SIGCHLD. One event stands for any number of children.
    ended: unix::Signal,
    /// By process id: those not reaped yet, so the ids are theirs.
    children: HashMap<u32, Entry>,
    /// Those whose launcher has not become the program yet.
    launching: JoinSet<Launched>,
}

#[derive(Debug)]
struct Entry {
    process: process::Child,
    exit: oneshot::Sender<Exit>,
    /// What is left of its group stays.
    daemons: bool,
    /// What to say once the launcher that failed is reaped.
    failed: Option<(Reply, SpawnError)>,
}

type Reply = oneshot::Sender<Result<KillOnDrop, SpawnError>>;

/// A launcher that is not waited for any more.
#[derive(Debug)]
struct Launched {
    kill: KillOnDrop,
    reply: Reply,
    failure: Option<SpawnError>,
}

impl Reaper {
    /// An actor that is about to run on the runtime which is entered. Children that end from here on are seen.
    pub(super) fn new(launcher: PathBuf, requests: mpsc::UnboundedReceiver<Request>) -> io::Result<Self> {
        let ended = unix::signal(SignalKind::child())?;
        Ok(Self { launcher, requests, ended, children: HashMap::new(), launching: JoinSet::new() })
    }

    /// Runs until it is asked to finish, or nobody can ask anything any more; then no child is left. Dropping what is
    /// returned tells those that wait for the end.
    pub(super) async fn run(mut self) -> mpsc::UnboundedReceiver<Request> {
        // Children that this process had before it was this program.
        self.reap();
        let patience = loop {
            tokio::select! {
                _ = self.ended.recv() => {
                    self.reap();
                }
                Some(Ok(launched)) = self.launching.join_next() => self.launched(launched),
                request = self.requests.recv() => match request {
                    Some(Request::Spawn(order)) => self.spawn(*order),
                    Some(Request::Signal { pid, signal, whole }) => self.signal(pid, signal, whole),
                    Some(Request::Finish { patience }) => break patience,
                    None => break Duration::ZERO,
                },
            }
        };
        self.finish(patience).await;
        self.requests
    }

    fn spawn(&mut self, order: Order) {
        let Order { launch, ends, exit, started, init } = order;
        if started.is_closed() {
            return;
        }
        match self.make(&launch, ends) {
            Ok((process, status)) => {
                let kill = KillOnDrop { init, pid: Some(process.id()) };
                self.children.insert(process.id(), Entry { process, exit, daemons: launch.daemons, failed: None });
                self.launching.spawn(launched(kill, status, started, launch));
            }
            Err(source) => {
                let program = launch.program.to_string_lossy().into_owned();
                let _ = started.send(Err(SpawnError::Fork { program, source }));
            }
        }
    }

    /// Makes a process that runs the launcher, and the pipe that tells how that went.
    fn make(&self, launch: &Launch, ends: ChildEnds) -> io::Result<(process::Child, pipe::Receiver)> {
        let (status, status_end) = pipes::outgoing()?;
        if let Some(input) = &ends.input {
            // Inherited by the child made next, which is this one: nobody else in the process makes any.
            fcntl(input, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let mut command = launch::command(&self.launcher, launch, ends.input.as_ref().map(OwnedFd::as_fd));
        command.stdin(status_end).stdout(ends.output).stderr(ends.error);
        #[allow(clippy::disallowed_methods, reason = "this is the place where children are made")]
        let process = command.spawn()?;
        Ok((process, status))
    }

    fn launched(&mut self, launched: Launched) {
        let Launched { kill, reply, failure } = launched;
        match failure {
            // Should nobody wait any more, the guard comes back and kills.
            None => drop(reply.send(Ok(kill))),
            Some(error) => {
                match kill.pid.and_then(|pid| self.children.get_mut(&pid)) {
                    Some(entry) => entry.failed = Some((reply, error)),
                    None => drop(reply.send(Err(error))),
                }
                kill.disarm();
            }
        }
    }

    fn signal(&mut self, pid: u32, signal: Signal, whole: bool) {
        if let Some(entry) = self.children.get_mut(&pid) {
            // What is ended with its group leaves nothing.
            entry.daemons &= !whole;
            // That the group is gone already is as good.
            let _ = if whole { signal::killpg(id(pid), signal) } else { signal::kill(id(pid), signal) };
        }
    }

    /// Reaps all that have ended. Whether any child is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait::waitid(Id::All, PEEK) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(status) => match status.pid() {
                    Some(pid) => self.bury(pid.as_raw().cast_unsigned()),
                    None => return true,
                },
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return false,
                Err(_) => {
                    if !self.bury_nameless() {
                        return true;
                    }
                }
            }
        }
    }

    /// Reaps those that a real-time signal ended: nix has no name for these, so a peek fails and does not say who it
    /// was. Whether there was any.
    fn bury_nameless(&mut self) -> bool {
        let nameless = |pid: &u32| wait::waitid(Id::Pid(id(*pid)), PEEK) == Err(Errno::EINVAL);
        let found: Vec<u32> = self.children.keys().copied().filter(nameless).collect();
        let found = if found.is_empty() { adopted::children().into_iter().filter(nameless).collect() } else { found };
        for pid in &found {
            self.bury(*pid);
        }
        !found.is_empty()
    }

    /// Reaps a child that has ended. While it is not reaped its id cannot name another group, so this is the moment to
    /// kill what is left of its own.
    fn bury(&mut self, pid: u32) {
        let Some(Entry { mut process, exit, daemons, failed }) = self.children.remove(&pid) else {
            let _ = wait::waitid(Id::Pid(id(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            return;
        };
        if !daemons {
            let _ = signal::killpg(id(pid), Signal::SIGKILL);
        }
        let told = process.try_wait().ok().flatten().and_then(exit_of);
        if let Some((reply, error)) = failed {
            let _ = reply.send(Err(error));
        }
        if let Some(told) = told {
            // Not everybody cares.
            let _ = exit.send(told);
        } else {
            tracing::error!(pid, "a child that has ended cannot be reaped");
        }
    }

    /// Asks all descendants to end, and waits for them; then kills until nobody is left. A child that dies hands its own
    /// children over, and each death is an event: so every descendant gets its turn.
    async fn finish(&mut self, patience: Duration) {
        self.launching.abort_all();
        if !patience.is_zero() && self.reap() {
            for pid in adopted::descendants() {
                let _ = signal::kill(id(pid), Signal::SIGTERM);
            }
            self.ended_within(patience).await;
        }
        while self.reap() {
            for pid in self.children.keys() {
                let _ = signal::killpg(id(*pid), Signal::SIGKILL);
            }
            for pid in adopted::children() {
                let _ = signal::kill(id(pid), Signal::SIGKILL);
            }
            self.ended.recv().await;
        }
    }

    /// Waits until no child is left, at most this long, and no longer than the least patient of those that ask.
    async fn ended_within(&mut self, patience: Duration) {
        let mut deadline = Instant::now() + patience;
        while self.reap() {
            tokio::select! {
                () = sleep_until(deadline) => return,
                _ = self.ended.recv() => {}
                Some(request) = self.requests.recv() => match request {
                    Request::Signal { pid, signal, whole } => self.signal(pid, signal, whole),
                    Request::Finish { patience } => deadline = deadline.min(Instant::now() + patience),
                    // Who asked is told by the drop.
                    Request::Spawn(_) => {}
                },
            }
        }
    }
}

/// Looks at a child that has ended, and leaves it.
const PEEK: WaitPidFlag = WaitPidFlag::WEXITED.union(WaitPidFlag::WNOHANG).union(WaitPidFlag::WNOWAIT);

fn id(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn exit_of(status: process::ExitStatus) -> Option<Exit> {
    status.code().map(Exit::Code).or(status.signal().map(Exit::Signal))
}

/// Waits until the launcher has become the program, says why not, or nobody cares any more.
async fn launched(kill: KillOnDrop, mut status: pipe::Receiver, mut reply: Reply, launch: Launch) -> Launched {
    let mut said = Vec::new();
    tokio::select! {
        // A pipe cannot fail; if it did, the exit that follows would tell.
        _ = status.read_to_end(&mut said) => {}
        () = reply.closed() => {}
    }
    let failure = Failure::from_bytes(&said).map(|failure| failure.explain(&launch));
    Launched { kill, reply, failure }
}
