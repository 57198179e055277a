//! Starting, signalling and reaping.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use ochopod::init::{Exit, Init, InitError, Launch, Output, Signal, SpawnError};
use tokio::{io::AsyncReadExt, time};

use crate::kit::{
    LIMIT, children_of_this_process, eventually, exit, gone, init, launch, launcher, next_number, sh, state, talking,
};

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
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
        assert_eq!(time::timeout(LIMIT, exit).await.unwrap(), Ok(Exit::Code(0)));
    }
}

#[tokio::test]
async fn what_cannot_be_executed_is_an_error_that_names_it_and_leaves_no_child() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    let orphaned = directory.path().join("orphaned");
    fs::write(&orphaned, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&orphaned, fs::Permissions::from_mode(0o755)).unwrap();
    let named = |path: &Path| path.to_str().unwrap().to_owned();
    for (program, reason) in [
        ("no-such-program".to_owned(), "No such file or directory"),
        ("/no/such/program".to_owned(), "No such file or directory"),
        (named(&plain), "Permission denied"),
        (named(directory.path()), "Permission denied"),
        (named(&orphaned), "No such file or directory"),
    ] {
        let error = init().spawn(launch(&program, &[])).await.unwrap_err();
        assert!(matches!(error, SpawnError::Exec { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("cannot execute {program}: {reason}"));
    }
    for (bad, reason) in
        [(named(&directory.path().join("none")), "No such file or directory"), (named(&plain), "Not a directory")]
    {
        let error = init().spawn(Launch { directory: Some(bad.clone().into()), ..sh("exit 0") }).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot enter the working directory {bad}: {reason}"));
    }
    let huge = "x".repeat(4 << 20);
    let error = init().spawn(launch("true", &[&huge])).await.unwrap_err();
    assert!(matches!(&error, SpawnError::Fork { program, .. } if program == "true"), "{error:?}");
    let launchers = || children_of_this_process().into_iter().filter(|(pid, _)| is_launcher(*pid)).count();
    eventually("no launcher is left", || launchers() == 0).await;
}

fn is_launcher(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == launcher())
}

#[tokio::test]
async fn a_child_has_exactly_what_the_launch_says() {
    let directory = tempfile::tempdir().unwrap();
    let tool = directory.path().join("tool");
    fs::write(&tool, "#!/bin/sh\npwd; echo \"$0 $1|$2|\"; /usr/bin/env | sort\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let launch = Launch {
        environment: BTreeMap::from([("PATH".into(), (&path).into()), ("ochopod".into(), "{}".into())]),
        directory: Some("/usr".into()),
        ..launch("tool", &["two words", ""])
    };
    let finished = init().run(launch, Vec::new(), LIMIT, 4096).await.unwrap();
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
    let finished = init().run(sh(script), b"fed\n".to_vec(), LIMIT, 4096).await.unwrap();
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
async fn output_comes_through_one_pipe_or_two() {
    for (output, on_first, on_second) in [(Output::Merged, "oe", None), (Output::Separate, "o", Some("e"))] {
        let mut child = init().spawn(Launch { output, ..sh("printf o; printf e >&2") }).await.unwrap();
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

#[tokio::test]
async fn what_the_leader_leaves_of_its_group_is_killed() {
    let (child, mut lines) = talking(sh("sleep 1000 & echo $!; (sleep 1000 & echo $!); exit 3")).await;
    let (one, other) = (next_number(&mut lines).await, next_number(&mut lines).await);
    assert_eq!(exit(child).await, Exit::Code(3));
    gone(one).await;
    gone(other).await;
}

#[tokio::test]
async fn what_a_leader_that_may_leave_daemons_leaves_stays_unless_its_group_was_signalled() {
    let script = "sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & read end";
    let leaving = Launch { input: true, daemons: true, ..sh(script) };
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
    assert_eq!(exit(child).await, Exit::Signal(15));
    gone(daemon).await;
}

#[tokio::test]
async fn a_signal_for_a_group_that_is_no_child_of_ours_goes_nowhere() {
    let (outer, mut lines) = talking(sh("setsid sh -c 'echo $$; sleep 0.2; exit 4' & wait $!; echo $?")).await;
    let stranger = next_number(&mut lines).await;
    init().signal_group(stranger, Signal::SIGKILL);
    assert_eq!(next_number(&mut lines).await, 4);
    assert_eq!(exit(outer).await, Exit::Code(0));
}

#[tokio::test]
async fn daemons_that_fork_twice_outlive_their_parent_and_are_reaped() {
    let script = "setsid sh -c 'echo $$; exec sleep 1000' & read end";
    let (mut child, mut lines) = talking(Launch { input: true, ..sh(script) }).await;
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
