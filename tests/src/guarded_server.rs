//! Servers that end with the test process, in every case, and leave nothing behind.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::Result;

/// Starts and stops the server on command, and removes everything once its input ends: with the test process at the
/// latest.
const GUARD: &str = r#"
dir=$1; shift; server=
end() { [ -z "$server" ] || { kill -9 "$server"; wait "$server"; } 2>/dev/null; server=; }
while read -r word; do
    case $word in
        start) "$@" >>"$dir/log" 2>&1 </dev/null & server=$!; echo "$server" ;;
        end) end; echo 0 ;;
    esac
done
end; rm -rf "$dir"
"#;

/// Time for a process to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A server and its directory.
#[derive(Debug)]
pub(crate) struct GuardedServer {
    directory: PathBuf,
    guard: Mutex<GuardProcess>,
}

#[derive(Debug)]
struct GuardProcess {
    shell: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    server: Option<Pid>,
}

impl GuardedServer {
    /// Returns a directory for a server of this name.
    pub(crate) fn directory_for(name: &str) -> Result<PathBuf> {
        Ok(tempfile::Builder::new().prefix(&format!("ochopod-{name}-")).tempdir()?.keep())
    }

    /// Returns a server that is not started yet: its command line. The directory, with its log, is removed with it.
    pub(crate) fn new(directory: PathBuf, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "guard"]).arg(&directory).args(command);
        Ok(Self { directory, guard: Mutex::new(GuardProcess::new(shell)?) })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns its output.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(crate) fn start(&self) -> Result {
        self.command(|guard| {
            let pid = guard.send("start")?;
            guard.server = Some(Pid::from_raw(pid));
            Ok(())
        })
    }

    /// Kills it as a power failure would.
    pub(crate) fn end(&self) -> Result {
        self.command(|guard| {
            guard.send("end")?;
            guard.server = None;
            Ok(())
        })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result {
        self.command(|guard| {
            let server = guard.server.context("the server does not run")?;
            signal::kill(server, signal)?;
            if signal == Signal::SIGSTOP { until_stopped(server) } else { Ok(()) }
        })
    }

    fn command<T>(&self, act: impl FnOnce(&mut GuardProcess) -> Result<T>) -> Result<T> {
        act(&mut *self.guard.lock().map_err(|_| anyhow!("another test failed here"))?)
    }
}

/// Waits until all threads of a process have stopped: until then it may still answer.
pub(crate) fn until_stopped(process: Pid) -> Result {
    let begin = Instant::now();
    let is_stopped = || -> Result<bool> {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread that ends meanwhile does not answer either.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'));
            if state != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    while !is_stopped()? {
        ensure!(begin.elapsed() < STOP_TIMEOUT, "process {process} does not stop");
        #[expect(clippy::disallowed_methods, reason = "nothing notifies of it")]
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl GuardProcess {
    fn new(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        #[expect(clippy::disallowed_methods, reason = "waited for when dropped")]
        let mut shell = command.spawn().context("cannot start sh")?;
        let input = shell.stdin.take();
        let output = BufReader::new(shell.stdout.take().context("the guard has no output")?);
        Ok(Self { shell, input, output, server: None })
    }

    fn send(&mut self, word: &str) -> Result<i32> {
        writeln!(self.input.as_mut().context("the guard is gone")?, "{word}")?;
        let mut reply = String::new();
        self.output.read_line(&mut reply)?;
        reply.trim().parse().with_context(|| format!("unexpected reply of the guard {reply:?}"))
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        self.input = None;
        _ = self.shell.wait();
    }
}
