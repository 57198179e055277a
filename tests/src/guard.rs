//! Servers that end with the test process, however that ends, and leave nothing behind.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, anyhow};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::Result;

/// Starts and ends the server on command, and removes everything once its input ends: with the test process at the latest.
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

/// A server and its directory.
#[derive(Debug)]
pub(crate) struct Guarded {
    directory: PathBuf,
    guard: Mutex<Guard>,
}

#[derive(Debug)]
struct Guard {
    shell: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    server: Option<Pid>,
}

impl Guarded {
    /// A directory for a server of this name.
    pub(crate) fn directory_for(name: &str) -> Result<PathBuf> {
        Ok(tempfile::Builder::new().prefix(&format!("ochopod-{name}-")).tempdir()?.keep())
    }

    /// A server that is not started yet: its command line. The directory, with its log, is removed with it.
    pub(crate) fn new(directory: PathBuf, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "guard"]).arg(&directory).args(command);
        Ok(Self { directory, guard: Mutex::new(Guard::new(shell)?) })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(crate) fn start(&self) -> Result {
        self.command(|guard| {
            let pid = guard.tell("start")?;
            guard.server = Some(Pid::from_raw(pid));
            Ok(())
        })
    }

    /// Ends it as a power failure would.
    pub(crate) fn end(&self) -> Result {
        self.command(|guard| {
            guard.tell("end")?;
            guard.server = None;
            Ok(())
        })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result {
        self.command(|guard| Ok(signal::kill(guard.server.context("the server does not run")?, signal)?))
    }

    fn command<T>(&self, act: impl FnOnce(&mut Guard) -> Result<T>) -> Result<T> {
        act(&mut *self.guard.lock().map_err(|_| anyhow!("another test failed here"))?)
    }
}

impl Guard {
    fn new(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        #[expect(clippy::disallowed_methods, reason = "waited for when dropped")]
        let mut shell = command.spawn().context("cannot start sh")?;
        let input = shell.stdin.take();
        let output = BufReader::new(shell.stdout.take().context("the guard has no output")?);
        Ok(Self { shell, input, output, server: None })
    }

    fn tell(&mut self, word: &str) -> Result<i32> {
        writeln!(self.input.as_mut().context("the guard is gone")?, "{word}")?;
        let mut reply = String::new();
        self.output.read_line(&mut reply)?;
        reply.trim().parse().with_context(|| format!("the guard said {reply:?}"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.input = None;
        _ = self.shell.wait();
    }
}
