//! Shared parts of the tests.

use std::{collections::BTreeMap, env, ffi::OsString, fs, path::PathBuf, sync::OnceLock, time::Duration};

use nix::sys::signal::SigSet;
use ochopod_init::{Child, Exit, Init, Privileges, ProcessSpec, Signal, StdioMode};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
    time,
};

pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) fn launcher() -> PathBuf {
    env!("CARGO_BIN_EXE_ochopod").into()
}

pub(crate) fn init() -> &'static Init {
    static INIT: OnceLock<Init> = OnceLock::new();
    INIT.get_or_init(|| {
        // The thread starts with what is blocked here: children must not.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR1);
        blocked.thread_block().unwrap();
        let init = Init::start(launcher()).unwrap();
        blocked.thread_unblock().unwrap();
        init
    })
}

pub(crate) fn launch(program: impl Into<OsString>, arguments: &[&str]) -> ProcessSpec {
    ProcessSpec {
        program: program.into(),
        arguments: arguments.iter().map(OsString::from).collect(),
        environment: BTreeMap::from([("PATH".into(), env::var_os("PATH").unwrap())]),
        directory: None,
        input: false,
        output: StdioMode::Inherit,
        keep_daemons: false,
        privileges: Privileges::default(),
    }
}

pub(crate) fn sh(script: &str) -> ProcessSpec {
    launch("/bin/sh", &["-c", script])
}

pub(crate) async fn exit(child: Child) -> Exit {
    time::timeout(TIMEOUT, child.exit).await.expect("the child ends").expect("the init lives")
}

/// Starts a child whose standard output can be read by lines.
pub(crate) async fn talking(launch: ProcessSpec) -> (Child, Lines<BufReader<pipe::Receiver>>) {
    let mut child = init().spawn(ProcessSpec { output: StdioMode::Merged, ..launch }).await.unwrap();
    let lines = BufReader::new(child.output.take().unwrap()).lines();
    (child, lines)
}

pub(crate) async fn next_number(lines: &mut Lines<BufReader<pipe::Receiver>>) -> u32 {
    let line = time::timeout(TIMEOUT, lines.next_line()).await.expect("a line arrives").unwrap();
    line.expect("a line before the end").trim().parse().expect("a number")
}

/// Returns the state and parent of a process; none when it is gone.
pub(crate) fn state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Returns all except the guard.
pub(crate) fn children_of_this_process() -> Vec<(u32, char)> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let child =
        |pid: u32| state(pid).filter(|(_, parent)| *parent == std::process::id()).map(|(state, _)| (pid, state));
    pids.filter_map(child).filter(|(pid, _)| !is_guard(*pid)).collect()
}

pub(crate) fn is_guard(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0guard\0"))
}

/// Waits for a condition that has no event.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("not within {TIMEOUT:?}: {what}"));
}

pub(crate) async fn gone(pid: u32) {
    eventually(&format!("process {pid} is gone"), || state(pid).is_none()).await;
}
