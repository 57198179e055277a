//! Actor of the init thread.

use std::{
    collections::HashMap,
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
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
    unistd::{self, Pid},
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    signal::unix::{self, SignalKind},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::Span;

use super::{
    Cause, Exit, ProcessSpec, SignalNumber, SpawnError,
    descendants::{self, Process},
    environment,
    guard::Guard,
    handle::{KillOnDrop, Request, SpawnRequest},
    launcher::{self, Input, LauncherFailure},
    pipes::{self, ChildEnds},
    signals, terminal,
};

/// Owns every child from its spawn to its reaping. Waits for events only.
#[derive(Debug)]
pub(super) struct Reaper {
    launcher: PathBuf,
    requests: mpsc::UnboundedReceiver<Request>,
    /// SIGCHLD. One event may stand for several children.
    sigchld: unix::Signal,
    /// SIGCONT: a shell continued this process.
    sigcont: unix::Signal,
    /// Kills the groups of children if this process is killed. None as PID 1, and before the first child.
    guard: Option<Guard>,
    /// Number of consecutive guards that exited early.
    early_exits: u8,
    /// Whether the last guard failed to start, which is logged once.
    guard_failed: bool,
    /// Children that are not reaped yet, so that no other process has their ids.
    children: HashMap<u32, ChildEntry>,
    /// Children whose launcher has not executed the program yet.
    launching: JoinSet<LaunchResult>,
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct ChildEntry {
    process: process::Child,
    exit: oneshot::Sender<Exit>,
    /// Whether the rest of its group may stay.
    keep_daemons: bool,
    /// Whether the caller is ending the group, and sends SIGKILL at the end of the grace.
    exit_requested: bool,
    /// Whether the child alone got the stop signal: the rest of its group gets SIGTERM once it has exited.
    leader_only: bool,
    /// Whether the child has exited. It is neither reaped nor reported while its group has members, so that no other
    /// process gets its id.
    exited: bool,
    /// Program, for the log.
    program: String,
    /// Whether it has the terminal.
    foreground: bool,
    stopped: watch::Sender<Option<Signal>>,
    span: Span,
    /// Error to send once the failed launcher is reaped.
    failed: Option<(Reply, SpawnError)>,
}

type Reply = oneshot::Sender<Result<KillOnDrop, SpawnError>>;

/// Outcome of a launcher.
#[derive(Debug)]
struct LaunchResult {
    kill: KillOnDrop,
    reply: Reply,
    failure: Option<SpawnError>,
}

impl Reaper {
    /// Creates an actor for the entered runtime. Exits are noticed from here on.
    pub(super) fn new(launcher: PathBuf, requests: mpsc::UnboundedReceiver<Request>) -> io::Result<Self> {
        let sigchld = unix::signal(SignalKind::child())?;
        let sigcont = unix::signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
        let (children, launching) = (HashMap::new(), JoinSet::new());
        Ok(Self {
            launcher,
            requests,
            sigchld,
            sigcont,
            guard: None,
            early_exits: 0,
            guard_failed: false,
            children,
            launching,
        })
    }

    /// Runs until a shutdown is requested or all handles are dropped; then no child is left. Dropping the returned
    /// receiver wakes the callers that wait for the end.
    pub(super) async fn run(mut self) -> mpsc::UnboundedReceiver<Request> {
        // Children from before this process executed this program.
        self.reap();
        let deadlines = loop {
            tokio::select! {
                _ = self.sigchld.recv() => {
                    self.reap();
                }
                _ = self.sigcont.recv() => self.resume(),
                Some(Ok(result)) = self.launching.join_next() => self.handle_launch_result(result),
                request = self.requests.recv() => match request {
                    Some(Request::Spawn(request)) => self.spawn(*request),
                    Some(Request::Signal { pid, signal, process_group, running, permit: _permit }) => self.signal(pid, signal, process_group, running),
                    Some(Request::Terminate { pid, running, permit: _permit }) => self.terminate(pid, running),
                    Some(Request::ShutDown { grace, limit }) => break Deadlines::after(grace, limit),
                    None => break Deadlines::after(Duration::ZERO, ORPHANED_TIMEOUT),
                },
                () = sleep(GROUP_POLL_INTERVAL), if self.has_retained_leaders() => self.report_empty_groups(),
            }
        };
        self.shut_down(deadlines).await;
        self.requests
    }

    fn spawn(&mut self, request: SpawnRequest) {
        let SpawnRequest { launch, ends, foreground, span, stopped, exit, started, init } = request;
        if started.is_closed() {
            return;
        }
        match self.spawn_launcher(&launch, ends, foreground) {
            Ok((process, status)) => {
                let pid = process.id();
                let kill = KillOnDrop { init, pid: Some(pid) };
                let (keep_daemons, program) = (launch.keep_daemons, launch.program.to_string_lossy().into_owned());
                let entry = ChildEntry {
                    process,
                    exit,
                    keep_daemons,
                    exit_requested: false,
                    leader_only: false,
                    exited: false,
                    program,
                    foreground,
                    stopped,
                    span,
                    failed: None,
                };
                self.children.insert(pid, entry);
                // After the launcher, which starts meanwhile.
                self.ensure_guard();
                self.notify_guard(|guard| guard.add_group(pid));
                self.launching.spawn(await_exec(kill, status, started, launch));
            }
            Err(error) => {
                let program = launch.program.to_string_lossy().into_owned();
                let _ = started.send(Err(SpawnError::Fork { program, cause: launcher_error(error, &self.launcher) }));
            }
        }
    }

    /// Spawns the launcher, and returns the pipe for its status.
    fn spawn_launcher(
        &self,
        launch: &ProcessSpec,
        ends: ChildEnds,
        foreground: bool,
    ) -> io::Result<(process::Child, pipe::Receiver)> {
        let (status, status_end) = pipes::outgoing()?;
        let keeps_input = foreground && terminal::is_input();
        let input = match &ends.input {
            Some(input) => Input::From(input.as_fd()),
            None if keeps_input => Input::Kept(status_end.as_fd()),
            None => Input::Empty,
        };
        if let Input::From(inherited) | Input::Kept(inherited) = input {
            // Inherited by the next child, which is this one: nothing else in the process spawns.
            fcntl(inherited, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let environment = environment::write(&launch.environment)?;
        let mut command = launcher::command(&self.launcher, launch, input, environment.as_fd(), foreground);
        let stdin = if keeps_input { process::Stdio::inherit() } else { status_end.try_clone()?.into() };
        command.stdin(stdin).stdout(ends.output).stderr(ends.error);
        #[allow(clippy::disallowed_methods, reason = "all children are spawned here")]
        let process = command.spawn()?;
        Ok((process, status))
    }

    fn handle_launch_result(&mut self, result: LaunchResult) {
        let LaunchResult { kill, reply, failure } = result;
        match failure {
            // If the caller no longer waits, the returned guard kills the child.
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

    /// Signals a child or its group. Starts the end of a group that is not to keep `running`.
    fn signal(&mut self, pid: u32, signal: SignalNumber, process_group: bool, running: bool) {
        let Some(entry) = self.children.get_mut(&pid) else { return };
        // A group that is signalled as a whole leaves no daemons.
        entry.keep_daemons &= !process_group;
        entry.exit_requested |= process_group && !running && signal != Signal::SIGKILL;
        entry.leader_only &= !(process_group && signal == Signal::SIGTERM);
        let send = |signal: SignalNumber| if process_group { signal.send_to_group(pid) } else { signal.send(pid) };
        // The group may be gone already.
        let _ = send(signal);
        if signal == Signal::SIGTERM {
            let _ = send(Signal::SIGCONT.into());
        }
        if process_group && signal == Signal::SIGKILL {
            entry.exit_requested = false;
            if entry.exited {
                self.report_exit(pid);
            }
        }
    }

    fn terminate(&mut self, pid: u32, running: bool) {
        let Some(entry) = self.children.get_mut(&pid) else { return };
        entry.exit_requested |= !running;
        entry.leader_only |= !running && !entry.exited && signals::stop_signal() != Signal::SIGTERM;
        // The stop signal is for leaders; the rest of a group gets SIGTERM.
        let signal = if entry.exited { Signal::SIGTERM.into() } else { signals::stop_signal() };
        self.signal(pid, signal, signal == Signal::SIGTERM, running);
        self.signal(pid, Signal::SIGCONT.into(), true, running);
    }

    /// Ensures that there is a guard that knows all children. Children run without one, too.
    fn ensure_guard(&mut self) {
        if self.guard.is_some() || process::id() == 1 {
            return;
        }
        match Guard::start(&self.launcher, self.children.keys().copied()) {
            Ok(guard) => {
                self.guard = Some(guard);
                self.guard_failed = false;
            }
            Err(error) => {
                // Starts are retried during a shortage: only the first failure is logged.
                if !std::mem::replace(&mut self.guard_failed, true) {
                    tracing::warn!(%error, "guard not started, process groups would survive a killed host");
                }
            }
        }
    }

    /// Starts another guard if this process was the guard, unless guards keep exiting early.
    fn on_guard_exit(&mut self, pid: u32) {
        let Some(exited) = self.guard.take_if(|guard| guard.pid() == pid) else { return };
        self.early_exits = if exited.age() > MIN_GUARD_AGE { 0 } else { self.early_exits.saturating_add(1) };
        if self.early_exits < MAX_EARLY_EXITS {
            tracing::warn!("guard exited, restarting it");
            self.ensure_guard();
        }
    }

    /// Notifies the guard. Replaces a guard that does not read.
    fn notify_guard(&mut self, notify: impl FnOnce(&mut Guard) -> io::Result<()>) {
        if let Some(mut guard) = self.guard.take() {
            match notify(&mut guard) {
                Ok(()) => self.guard = Some(guard),
                Err(error) => {
                    tracing::warn!(%error, "guard does not respond, restarting it");
                    guard.kill();
                    self.ensure_guard();
                }
            }
        }
    }

    /// Reaps all exited children. Returns whether any child is left.
    fn reap(&mut self) -> bool {
        self.detect_stops();
        loop {
            // The kernel would report a retained leader again and again.
            if self.has_retained_leaders() {
                if !self.reap_unretained() {
                    self.report_empty_groups();
                    if self.has_retained_leaders() {
                        return true;
                    }
                }
                continue;
            }
            match wait::waitid(Id::All, PEEK) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(status) => match status.pid() {
                    Some(pid) => self.reap_child(pid.as_raw().cast_unsigned()),
                    None => return true,
                },
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return false,
                Err(_) => {
                    if !self.reap_unclassified() {
                        return true;
                    }
                }
            }
        }
    }

    /// Reaps exited children except retained leaders, and returns whether there were any.
    fn reap_unretained(&mut self) -> bool {
        let waits = |pid: &u32| self.children.get(pid).is_some_and(|entry| entry.exited);
        let has_exited = |pid: &u32| match wait::waitid(Id::Pid(id(*pid)), PEEK) {
            Ok(status) => status != WaitStatus::StillAlive,
            // By a real-time signal.
            Err(errno) => errno == Errno::EINVAL,
        };
        let found: Vec<u32> =
            descendants::children().into_iter().filter(|pid| !waits(pid) && has_exited(pid)).collect();
        for pid in &found {
            self.reap_child(*pid);
        }
        !found.is_empty()
    }

    fn has_retained_leaders(&self) -> bool {
        self.children.values().any(|entry| entry.exited)
    }

    /// Reports the exits of leaders whose groups have become empty.
    fn report_empty_groups(&mut self) {
        let exited = self.children.iter().filter(|(_, entry)| entry.exited).map(|(pid, _)| *pid);
        let groups = descendants::live_groups();
        let empty: Vec<u32> = exited.filter(|pid| !groups.contains(pid)).collect();
        for pid in empty {
            self.report_exit(pid);
        }
    }

    /// Reports which children were stopped or continued.
    fn detect_stops(&mut self) {
        let mut suspended = false;
        for (pid, entry) in &self.children {
            while let Ok(status) = wait::waitid(Id::Pid(id(*pid)), STOPS) {
                let stopped_by = match status {
                    WaitStatus::Stopped(_, signal) => Some(signal),
                    WaitStatus::Continued(_) => None,
                    _ => break,
                };
                entry.report_stop(*pid, stopped_by);
                let by_terminal = matches!(stopped_by, Some(Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU));
                suspended |= entry.foreground && by_terminal;
            }
        }
        if suspended {
            self.suspend();
        }
    }

    /// Stops this process's group too after a child with the terminal was stopped, as by `^Z`, so that the shell
    /// continues. Without such a shell, continues the child.
    fn suspend(&mut self) {
        if !terminal::can_suspend() {
            self.resume();
            return;
        }
        if let Err(error) = terminal::reclaim() {
            tracing::warn!(%error, "cannot reclaim terminal");
        }
        // The shell continues this process by SIGCONT.
        let _ = signal::killpg(unistd::getpgrp(), Signal::SIGTSTP);
    }

    /// Gives the terminal back to children that had it, if this process has it, and continues them.
    fn resume(&mut self) {
        for (pid, _) in self.children.iter().filter(|(_, entry)| entry.foreground) {
            let has_terminal = if terminal::is_foreground() {
                terminal::set_foreground(id(*pid)).is_ok()
            } else {
                terminal::is_foreground_group(id(*pid)) || terminal::can_suspend()
            };
            // Without the terminal, a child that reads would be stopped again.
            if has_terminal {
                let _ = signal::killpg(id(*pid), Signal::SIGCONT);
            }
        }
    }

    /// Reaps children killed by a real-time signal, and returns whether there were any. nix has no name for these
    /// signals, so a peek fails without the process id.
    fn reap_unclassified(&mut self) -> bool {
        let is_unclassified = |pid: &u32| wait::waitid(Id::Pid(id(*pid)), PEEK) == Err(Errno::EINVAL);
        let found: Vec<u32> = self.children.keys().copied().filter(is_unclassified).collect();
        let found = if found.is_empty() {
            descendants::children().into_iter().filter(is_unclassified).collect()
        } else {
            found
        };
        for pid in &found {
            self.reap_child(*pid);
        }
        !found.is_empty()
    }

    /// Reaps an exited child. Retains it if its group is being ended and has members, which keep the rest of the grace.
    fn reap_child(&mut self, pid: u32) {
        let Some(entry) = self.children.get_mut(&pid) else {
            let _ = wait::waitid(Id::Pid(id(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            self.on_guard_exit(pid);
            return;
        };
        if !entry.exit_requested || entry.keep_daemons || !descendants::live_groups().contains(&pid) {
            self.report_exit(pid);
            return;
        }
        entry.exited = true;
        if entry.leader_only {
            let _ = signal::killpg(id(pid), Signal::SIGTERM);
            let _ = signal::killpg(id(pid), Signal::SIGCONT);
        }
    }

    /// Kills the rest of an exited child's group, then reaps the child and reports its exit. Until it is reaped, its id
    /// cannot name another group.
    fn report_exit(&mut self, pid: u32) {
        let Some(ChildEntry { mut process, exit, keep_daemons, foreground, failed, .. }) = self.children.remove(&pid)
        else {
            return;
        };
        if !keep_daemons {
            let _ = signal::killpg(id(pid), Signal::SIGKILL);
        }
        if foreground && let Err(error) = terminal::reclaim() {
            tracing::warn!(%error, "cannot reclaim terminal");
        }
        self.notify_guard(|guard| guard.remove_group(pid));
        let status = process.try_wait().ok().flatten().and_then(to_exit);
        if let Some((reply, error)) = failed {
            let _ = reply.send(Err(error));
        }
        if let Some(status) = status {
            // The caller may have dropped the receiver.
            let _ = exit.send(status);
        } else {
            tracing::error!(pid, "cannot reap exited child");
        }
    }

    /// Sends SIGTERM to all descendants and waits for them, then SIGKILL until none is left. The children of a process
    /// that exits become this process's, so every descendant gets its turn. A process that cannot be killed is left
    /// behind.
    async fn shut_down(&mut self, mut deadlines: Deadlines) {
        self.launching.abort_all();
        let guard = self.guard.as_ref().map(Guard::pid);
        if deadlines.kill > Instant::now() && self.reap_but_guard() {
            for entry in self.children.values_mut() {
                entry.exit_requested = true;
            }
            for pid in descendants::descendants().into_iter().filter(|pid| Some(*pid) != guard) {
                let _ = signal::kill(id(pid), Signal::SIGTERM);
                let _ = signal::kill(id(pid), Signal::SIGCONT);
            }
            while self.reap_but_guard() && deadlines.kill > Instant::now() {
                self.wait_until(deadlines.kill, &mut deadlines).await;
            }
        }
        while self.reap_but_guard() {
            for pid in self.children.keys().copied().collect::<Vec<_>>() {
                self.signal(pid, Signal::SIGKILL.into(), true, false);
            }
            for pid in descendants::children().into_iter().filter(|pid| Some(*pid) != guard) {
                let _ = signal::kill(id(pid), Signal::SIGKILL);
            }
            if deadlines.end <= Instant::now() {
                report_left_behind(guard);
                return;
            }
            self.wait_until(deadlines.end, &mut deadlines).await;
        }
        // No group is left to guard.
        if let Some(guard) = self.guard.take() {
            guard.kill();
        }
        while self.reap() {
            self.sigchld.recv().await;
        }
    }

    /// Reaps all exited children. Returns whether any child except the guard is left.
    fn reap_but_guard(&mut self) -> bool {
        if !self.reap() {
            return false;
        }
        let guard = self.guard.as_ref().map(Guard::pid);
        descendants::children().into_iter().any(|pid| Some(pid) != guard)
    }

    /// Waits until a child exits, a request arrives, or that time.
    async fn wait_until(&mut self, time: Instant, deadlines: &mut Deadlines) {
        tokio::select! {
            biased;
            Some(request) = self.requests.recv() => match request {
                Request::Signal { pid, signal, process_group, running, permit: _permit } => self.signal(pid, signal, process_group, running),
                Request::Terminate { pid, running, permit: _permit } => self.terminate(pid, running),
                Request::ShutDown { grace, limit } => deadlines.shorten(grace, limit),
                // Dropping it fails the call.
                Request::Spawn(_) => {}
            },
            _ = self.sigchld.recv() => {}
            () = sleep(GROUP_POLL_INTERVAL), if self.has_retained_leaders() => {}
            () = sleep_until(time) => {}
        }
    }
}

/// Deadlines of a shutdown: SIGKILL, and leaving behind what is not gone.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    kill: Instant,
    end: Instant,
}

impl Deadlines {
    fn after(grace: Duration, limit: Duration) -> Self {
        let now = Instant::now();
        let far = now + FAR_FUTURE;
        let after = |time| now.checked_add(time).unwrap_or(far);
        Self { kill: after(grace.min(limit)), end: after(limit) }
    }

    /// Applies the earlier of both deadlines.
    fn shorten(&mut self, grace: Duration, limit: Duration) {
        let other = Self::after(grace, limit);
        *self = Self { kill: self.kill.min(other.kill), end: self.end.min(other.end) };
    }
}

/// Time for children to be gone after SIGKILL once all handles are dropped.
const ORPHANED_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which groups of retained leaders are checked: members with another parent exit without an event.
const GROUP_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Duration that never elapses in practice.
const FAR_FUTURE: Duration = Duration::from_hours(24 * 365);

/// Logs each remaining process. The message contains all of it, because some log formats omit fields.
fn report_left_behind(guard: Option<u32>) {
    for Process { pid, command, state } in
        descendants::running_descendants().into_iter().filter(|process| Some(process.pid) != guard)
    {
        tracing::error!("process {pid} ({command:?}, state {state}) not gone after SIGKILL, leaving it behind");
    }
}

/// Returns the cause of a launcher that cannot be executed.
fn launcher_error(error: io::Error, launcher: &Path) -> Cause {
    let cause = Cause::from(error);
    match cause.errno() {
        Some(errno @ (Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) => {
            Cause::new(errno, format!("programs are started through {}; is /proc mounted?", launcher.display()))
        }
        _ => cause,
    }
}

impl ChildEntry {
    fn report_stop(&self, pid: u32, signal: Option<Signal>) {
        let _entered = self.span.enter();
        let program = &self.program;
        // Some log formats omit fields.
        if let Some(signal) = signal {
            tracing::warn!(pid, "child {program} stopped by {signal}");
        } else {
            tracing::info!(pid, "child {program} continued");
        }
        self.stopped.send_replace(signal);
    }
}

/// Reports children that were stopped or continued since; does not reap.
const STOPS: WaitPidFlag = WaitPidFlag::WSTOPPED.union(WaitPidFlag::WCONTINUED).union(WaitPidFlag::WNOHANG);

/// Minimum age of a guard whose exit does not count as early.
const MIN_GUARD_AGE: Duration = Duration::from_secs(1);
/// Number of early exits after which the next guard starts with the next child.
const MAX_EARLY_EXITS: u8 = 3;

/// Reports an exited child without reaping it.
const PEEK: WaitPidFlag = WaitPidFlag::WEXITED.union(WaitPidFlag::WNOHANG).union(WaitPidFlag::WNOWAIT);

fn id(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn to_exit(status: process::ExitStatus) -> Option<Exit> {
    status.code().map(Exit::Code).or(status.signal().map(Exit::Signal))
}

/// Waits until the launcher has executed the program or failed, or the caller no longer waits.
async fn await_exec(
    kill: KillOnDrop,
    mut status: pipe::Receiver,
    mut reply: Reply,
    launch: ProcessSpec,
) -> LaunchResult {
    let mut bytes = Vec::new();
    tokio::select! {
        // A pipe does not fail; if it did, the exit would follow.
        _ = status.read_to_end(&mut bytes) => {}
        () = reply.closed() => {}
    }
    let failure = LauncherFailure::from_bytes(&bytes).map(|failure| failure.into_spawn_error(&launch));
    LaunchResult { kill, reply, failure }
}
