//! Starting, signalling and reaping.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use ochopod_init::{Exit, Init, InitError, LimitedSignals, ProcessSpec, Signal, SignalError, SpawnError, StdioMode};
use tokio::{
    io::{AsyncReadExt, BufReader, Lines},
    net::unix::pipe,
    time,
};

use crate::kit::{
    TIMEOUT, children_of_this_process, eventually, exit, gone, init, launch, launcher, next_number, sh, state, talking,
};

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    for (script, expected) in [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("exit 255", Exit::Code(255)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -15 $$", Exit::Signal(15)),
        ("kill -36 $$", Exit::Signal(36)),
    ] {
        assert_eq!(exit(init().spawn(sh(script)).await.unwrap()).await, expected, "{script}");
    }
}

#[tokio::test]
async fn variables_reach_the_program_and_not_the_launcher() {
    // The loader of each dynamically linked program that has this variable prints a table.
    let mut launch = launch("/usr/bin/env", &[]);
    launch.environment.insert("LD_SHOW_AUXV".into(), "1".into());
    launch.environment.insert("GREETING".into(), "hello\n=world".into());
    let mut child = init().spawn(ProcessSpec { output: StdioMode::Merged, ..launch }).await.unwrap();
    let mut text = String::new();
    child.output.take().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(exit(child).await, Exit::Code(0));
    assert_eq!(text.matches("AT_PAGESZ").count(), 1, "the launcher has the variables of the program: {text}");
    assert!(text.contains("GREETING=hello\n=world\n"), "{text}");
}

#[tokio::test]
async fn signals_of_a_caller_that_is_not_trusted_do_not_delay_others() {
    let child = init().spawn(sh("trap : USR1; while :; do sleep 0.01; done")).await.unwrap();
    let (signals, pid) = (LimitedSignals::new(init().clone()), child.pid);
    let flood = std::thread::spawn(move || {
        let sent = (0..1_000_000).map(|_| signals.signal(pid, Signal::SIGUSR1, true));
        (sent.filter(|sent| *sent == Err(SignalError::Pending)).count(), signals)
    });
    assert_eq!(exit(init().spawn(sh("exit 3")).await.unwrap()).await, Exit::Code(3));
    let (refused, signals) = flood.join().unwrap();
    assert!(refused > 0, "the number of pending signals has no limit");
    eventually("signals are accepted again", || signals.terminate(pid, true).is_ok()).await;
    init().signal_group(pid, Signal::SIGKILL);
    exit(child).await;
}

#[tokio::test]
async fn an_orphan_ended_by_a_real_time_signal_is_reaped() {
    let (_child, mut lines) = talking(sh("(sleep 1000 & echo $!); exec sleep 1000")).await;
    let orphan = next_number(&mut lines).await;
    eventually("the orphan is ours", || state(orphan).is_some_and(|(_, parent)| parent == std::process::id())).await;
    exit(init().spawn(sh(&format!("kill -40 {orphan}"))).await.unwrap()).await;
    gone(orphan).await;
}

#[tokio::test]
async fn a_thousand_instant_exits_lose_no_status() {
    let mut exits = Vec::new();
    for _ in 0..1000 {
        exits.push(init().spawn(launch("true", &[])).await.unwrap().exit);
    }
    for exit in exits {
        assert_eq!(time::timeout(TIMEOUT, exit).await.unwrap(), Ok(Exit::Code(0)));
    }
}

#[tokio::test]
async fn a_failed_execution_returns_an_error_with_the_program_and_leaves_no_child() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    let orphaned = directory.path().join("orphaned");
    fs::write(&orphaned, "#!/no/such/interpreter\r\n").unwrap();
    fs::set_permissions(&orphaned, fs::Permissions::from_mode(0o755)).unwrap();
    let named = |path: &Path| path.to_str().unwrap().to_owned();
    for (program, reason) in [
        ("no-such-program".to_owned(), "No such file or directory (ENOENT), not in PATH: install it or extend PATH"),
        ("/no/such/program".to_owned(), "No such file or directory (ENOENT)"),
        (named(&plain), "Permission denied (EACCES)"),
        (named(directory.path()), "Permission denied (EACCES)"),
        (
            named(&orphaned),
            "No such file or directory (ENOENT), interpreter \"/no/such/interpreter\\r\" (the line ends with a carriage \
             return) is missing",
        ),
    ] {
        let error = init().spawn(launch(&program, &[])).await.unwrap_err();
        assert!(matches!(error, SpawnError::Exec { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("cannot execute {program}: {reason}"));
    }
    for (bad, reason) in [
        (named(&directory.path().join("none")), "No such file or directory (ENOENT)"),
        (named(&plain), "Not a directory (ENOTDIR)"),
    ] {
        let error =
            init().spawn(ProcessSpec { directory: Some(bad.clone().into()), ..sh("exit 0") }).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot enter the working directory {bad}: {reason}"));
    }
    let huge = "x".repeat(4 << 20);
    let error = init().spawn(launch("true", &[&huge])).await.unwrap_err();
    assert!(matches!(&error, SpawnError::Fork { program, .. } if program == "true"), "{error:?}");
    assert!(error.to_string().contains("(E2BIG)") && !error.is_transient(), "{error}");
    let launchers = || children_of_this_process().into_iter().filter(|(pid, _)| is_launcher(*pid)).count();
    eventually("no launcher is left", || launchers() == 0).await;
}

/// A script of another user may be a pipe without a writer, which would block a reader.
#[tokio::test]
async fn fifo_as_program_fails_immediately_with_eacces() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::from_bits_truncate(0o755)).unwrap();
    let interpreted = directory.path().join("interpreted");
    fs::write(&interpreted, format!("#!{}\n", fifo.display())).unwrap();
    fs::set_permissions(&interpreted, fs::Permissions::from_mode(0o755)).unwrap();
    for (program, detail) in
        [(&fifo, String::new()), (&interpreted, format!(", interpreter {fifo:?} is not executable"))]
    {
        let spawning = init().spawn(launch(program, &[]));
        let error = time::timeout(Duration::from_secs(20), spawning).await.expect("it hangs").unwrap_err();
        let expected = format!("cannot execute {}: Permission denied (EACCES){detail}", program.display());
        assert_eq!(error.to_string(), expected);
    }
}

fn is_launcher(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == launcher())
}

#[tokio::test]
async fn a_child_has_exactly_the_state_of_its_launch() {
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("tool");
    fs::write(&tool, "#!/bin/sh\npwd; echo \"$0 $1|$2|\"; /usr/bin/env | sort\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let launch = ProcessSpec {
        environment: BTreeMap::from([("PATH".into(), (&path).into()), ("ochopod".into(), "{}".into())]),
        directory: Some("/usr".into()),
        ..launch("tool", &["two words", ""])
    };
    let finished = init().run(launch, Vec::new(), TIMEOUT, 4096).await.unwrap();
    let expected = format!("/usr\n{} two words||\nPATH={path}\nPWD=/usr\nochopod={{}}\n", tool.display());
    assert_eq!(String::from_utf8(finished.stdout).unwrap(), expected);
    assert_eq!((finished.exit, finished.stderr), (Exit::Code(0), Vec::new()));
}

#[tokio::test]
async fn a_child_has_its_own_group_no_blocked_signal_and_the_default_for_pipes() {
    let (child, mut lines) = talking(launch("cat", &["/proc/self/status", "/proc/self/stat"])).await;
    let (pid, mut masks, mut group) = (child.pid, BTreeMap::new(), None);
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((name, mask)) = line.split_once(":\t").filter(|(name, _)| name.starts_with("Sig")) {
            masks.insert(name.to_owned(), mask.to_owned());
        }
        if let Some((_, rest)) = line.split_once("(cat) R ") {
            group = rest.split(' ').nth(1).map(|group| group.parse().unwrap());
        }
    }
    assert_eq!(exit(child).await, Exit::Code(0));
    assert_eq!(masks["SigBlk"], "0000000000000000");
    let ignored = u64::from_str_radix(&masks["SigIgn"], 16).unwrap();
    assert_eq!(ignored & 1 << (Signal::SIGPIPE as u32 - 1), 0, "{ignored:x}");
    assert_eq!(group, Some(pid));
}

#[tokio::test]
async fn a_child_holds_the_ends_of_its_own_pipes_once_and_no_other() {
    let script = "readlink /proc/$$/fd/*; cat";
    let finished = init().run(sh(script), b"fed\n".to_vec(), TIMEOUT, 4096).await.unwrap();
    let said = String::from_utf8(finished.stdout).unwrap();
    // What this test program itself was given may show up as well.
    let given: Vec<_> =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
    let pipes: Vec<&str> =
        said.lines().filter(|line| line.starts_with("pipe:") && !given.contains(&line.into())).collect();
    let unique: BTreeSet<&str> = pipes.iter().copied().collect();
    assert_eq!((pipes.len(), unique.len()), (3, 3), "{said}");
    assert!(said.ends_with("fed\n"), "{said}");
}

#[tokio::test]
async fn output_passes_through_one_pipe_or_two() {
    for (output, on_first, on_second) in [(StdioMode::Merged, "oe", None), (StdioMode::Separate, "o", Some("e"))] {
        let mut child = init().spawn(ProcessSpec { output, ..sh("printf o; printf e >&2") }).await.unwrap();
        let mut text = String::new();
        child.output.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, on_first);
        let second = match child.error.take() {
            None => None,
            Some(mut error) => {
                let mut text = String::new();
                error.read_to_string(&mut text).await.unwrap();
                Some(text)
            }
        };
        assert_eq!(second.as_deref(), on_second);
        assert_eq!(exit(child).await, Exit::Code(0));
    }
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group_in_order() {
    let (child, mut lines) = talking(sh("trap '' TERM; sleep 1000 & echo $!; wait; exit 5")).await;
    let grandchild = next_number(&mut lines).await;
    init().signal_group(child.pid, Signal::SIGTERM);
    init().signal_group(child.pid, Signal::SIGKILL);
    assert_eq!(exit(child).await, Exit::Signal(9));
    gone(grandchild).await;
}

/// Returns a shell that waits for a child which takes a moment to exit: `sh -c 'a; b'`.
fn wrapper(on_term: &str) -> ProcessSpec {
    let child = format!("trap \"{on_term}\" TERM; echo $$; while :; do sleep 0.02; done");
    sh(&format!("sh -c '{child}'; echo never"))
}

/// Waits for this line; the shell reports its killed `sleep` too.
async fn wait_line(lines: &mut Lines<BufReader<pipe::Receiver>>, expected: &str) {
    loop {
        let line = time::timeout(TIMEOUT, lines.next_line()).await.expect(expected).unwrap().expect(expected);
        if line == expected {
            return;
        }
    }
}

#[tokio::test]
async fn rest_of_a_terminated_group_keeps_its_grace_and_the_exit_is_reported_once_it_is_empty() {
    for by_signal in [false, true] {
        let (child, mut lines) = talking(wrapper("sleep 0.5; echo done; exit 0")).await;
        let grandchild = next_number(&mut lines).await;
        if by_signal {
            init().signal_group(child.pid, Signal::SIGTERM);
        } else {
            init().terminate(child.pid);
        }
        assert_eq!(exit(child).await, Exit::Signal(15));
        assert!(state(grandchild).is_none_or(|(state, _)| state == 'Z'), "it is reported before the group is empty");
        wait_line(&mut lines, "done").await;
        gone(grandchild).await;
    }
}

#[tokio::test]
async fn rest_of_a_terminated_group_is_killed_on_request_only() {
    let (mut child, mut lines) = talking(wrapper("echo ignored")).await;
    let grandchild = next_number(&mut lines).await;
    init().terminate(child.pid);
    wait_line(&mut lines, "ignored").await;
    time::timeout(Duration::from_secs(1), &mut child.exit)
        .await
        .expect_err("the exit is reported while the group lives");
    // Others are reaped meanwhile, and the group can still be signalled.
    assert_eq!(exit(init().spawn(sh("exit 7")).await.unwrap()).await, Exit::Code(7));
    init().terminate(child.pid);
    wait_line(&mut lines, "ignored").await;
    init().signal_group(child.pid, Signal::SIGKILL);
    assert_eq!(exit(child).await, Exit::Signal(15));
    gone(grandchild).await;
}

#[tokio::test]
async fn rest_of_a_group_that_was_terminated_while_running_dies_with_its_leader() {
    let (child, mut lines) = talking(wrapper("echo ignored")).await;
    let grandchild = next_number(&mut lines).await;
    LimitedSignals::new(init().clone()).signal(child.pid, Signal::SIGTERM, true).unwrap();
    assert_eq!(exit(child).await, Exit::Signal(15));
    gone(grandchild).await;
}

#[tokio::test]
async fn remaining_processes_of_the_leaders_group_are_killed() {
    let (child, mut lines) = talking(sh("sleep 1000 & echo $!; (sleep 1000 & echo $!); exit 3")).await;
    let (one, other) = (next_number(&mut lines).await, next_number(&mut lines).await);
    assert_eq!(exit(child).await, Exit::Code(3));
    gone(one).await;
    gone(other).await;
}

#[tokio::test]
async fn daemons_of_a_leader_that_may_leave_them_stay_unless_its_group_was_signalled() {
    let script = "sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & read end";
    let leaving = ProcessSpec { input: true, keep_daemons: true, ..sh(script) };
    let (mut child, mut lines) = talking(leaving.clone()).await;
    let daemon = next_number(&mut lines).await;
    drop(child.input.take());
    assert_eq!(exit(child).await, Exit::Code(1));
    assert_eq!(state(daemon).map(|(_, parent)| parent), Some(std::process::id()));
    exit(init().spawn(sh(&format!("kill -9 {daemon}"))).await.unwrap()).await;
    gone(daemon).await;

    let (child, mut lines) = talking(leaving).await;
    let daemon = next_number(&mut lines).await;
    init().signal_group(child.pid, Signal::SIGTERM);
    init().signal_group(child.pid, Signal::SIGKILL);
    assert!(matches!(exit(child).await, Exit::Signal(15 | 9)));
    gone(daemon).await;
}

#[tokio::test]
async fn a_signal_for_a_foreign_group_is_not_sent() {
    let (outer, mut lines) = talking(sh("setsid sh -c 'echo $$; sleep 0.2; exit 4' & wait $!; echo $?")).await;
    let stranger = next_number(&mut lines).await;
    init().signal_group(stranger, Signal::SIGKILL);
    assert_eq!(next_number(&mut lines).await, 4);
    assert_eq!(exit(outer).await, Exit::Code(0));
}

#[tokio::test]
async fn daemons_that_fork_twice_outlive_their_parent_and_are_reaped() {
    let script = "setsid sh -c 'echo $$; exec sleep 1000' & read end";
    let (mut child, mut lines) = talking(ProcessSpec { input: true, ..sh(script) }).await;
    let daemon = next_number(&mut lines).await;
    drop(child.input.take());
    assert_eq!(exit(child).await, Exit::Code(1));
    assert_eq!(state(daemon).map(|(_, parent)| parent), Some(std::process::id()));
    exit(init().spawn(sh(&format!("kill -9 {daemon}"))).await.unwrap()).await;
    gone(daemon).await;
}

#[tokio::test]
async fn a_dropped_spawn_leaves_nothing() {
    let mark = "86399.25";
    for patience in (0..40).map(|number| Duration::from_micros(number * 100)) {
        let _ = time::timeout(patience, init().spawn(launch("sleep", &[mark]))).await.map(|child| {
            init().signal_group(child.unwrap().pid, Signal::SIGKILL);
        });
    }
    let marked = |pid: u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    // Requests are handled in order: all of the above are through.
    exit(init().spawn(launch("true", &[])).await.unwrap()).await;
    eventually("none of them is left", || !children_of_this_process().iter().any(|(pid, _)| marked(*pid))).await;
}

#[tokio::test]
async fn a_process_has_one_init() {
    init();
    assert!(matches!(Init::start(launcher()), Err(InitError::Running)));
}
