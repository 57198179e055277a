//! Tests that must observe a host from outside, or that end a process: each starts this test program again with itself
//! as the only test, as a *nested host*.

use std::{env, ffi::OsString, fmt::Display, fs, os::unix::fs::PermissionsExt, time::Duration};

use ochopod_init::{Exit, Init, ProcessSpec, ProgramOutput, RunError, Signal, SpawnError, TerminationSignals};
use tokio::{
    io::{BufReader, Lines},
    net::unix::pipe,
    time,
};

use crate::kit::{
    TIMEOUT, children_of_this_process, eventually, exit, gone, init, launch, launcher, next_number, sh, state, talking,
};

/// Set for nested hosts.
const NESTED: &str = "OCHOPOD_TEST_NESTED";

#[tokio::test]
async fn a_missing_launcher_is_an_error() {
    if is_nested() {
        return host_without_a_launcher().await;
    }
    passes("nested_host::a_missing_launcher_is_an_error").await;
}

#[tokio::test]
async fn the_child_of_a_host_that_is_killed_dies_with_it() {
    if is_nested() {
        return host_that_waits().await;
    }
    let (host, mut lines) = talking(nested_host("nested_host::the_child_of_a_host_that_is_killed_dies_with_it")).await;
    let child = next_report(&mut lines, "child=").await.parse().unwrap();
    assert!(state(child).is_some());
    init().signal_group(host.pid, Signal::SIGKILL);
    assert_eq!(exit(host).await, Exit::Signal(9));
    gone(child).await;
}

#[tokio::test]
async fn finish_leaves_nothing() {
    if is_nested() {
        return host_that_finishes().await;
    }
    passes("nested_host::finish_leaves_nothing").await;
}

#[tokio::test]
async fn finish_terminates_every_process_first_and_keeps_the_shortest_grace() {
    if is_nested() {
        return host_that_terminates_gracefully().await;
    }
    passes("nested_host::finish_terminates_every_process_first_and_keeps_the_shortest_grace").await;
}

#[tokio::test]
async fn guarantee_6_as_pid_1_ten_thousand_orphans_leave_no_zombie_and_cost_no_status() {
    if is_nested() {
        assert_eq!(std::process::id(), 1);
        return orphan_burst().await;
    }
    let test = "nested_host::guarantee_6_as_pid_1_ten_thousand_orphans_leave_no_zombie_and_cost_no_status";
    let mut host = nested_host(test);
    let root: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let unshare = root.iter().chain(&["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    let words = unshare.map(OsString::from).chain([host.program]).chain(host.arguments);
    (host.arguments, host.program) = (words.collect(), "unshare".into());
    completes(host).await;
}

#[tokio::test]
async fn guarantee_6_as_subreaper_ten_thousand_orphans_leave_no_zombie_and_cost_no_status() {
    if is_nested() {
        return orphan_burst().await;
    }
    passes("nested_host::guarantee_6_as_subreaper_ten_thousand_orphans_leave_no_zombie_and_cost_no_status").await;
}

#[tokio::test]
async fn a_spawn_that_is_given_up_does_not_wait_for_its_launcher() {
    if is_nested() {
        return host_whose_launcher_hangs().await;
    }
    passes("nested_host::a_spawn_that_is_given_up_does_not_wait_for_its_launcher").await;
}

#[tokio::test]
async fn the_first_termination_is_a_request_and_the_second_an_order() {
    if is_nested() {
        return host_that_is_terminated().await;
    }
    let test = "nested_host::the_first_termination_is_a_request_and_the_second_an_order";
    for (first, second) in [(Signal::SIGTERM, Signal::SIGINT), (Signal::SIGINT, Signal::SIGTERM)] {
        let (host, mut lines) = talking(nested_host(test)).await;
        next_report(&mut lines, "listening").await;
        init().signal_group(host.pid, first);
        next_report(&mut lines, "requested").await;
        init().signal_group(host.pid, second);
        next_report(&mut lines, "forced").await;
        assert_eq!(exit(host).await, Exit::Code(0));
    }
}

/// Returns the line of a nested host that follows this word.
async fn next_report(lines: &mut Lines<BufReader<pipe::Receiver>>, word: &str) -> String {
    loop {
        let line = time::timeout(TIMEOUT, lines.next_line()).await.expect(word).unwrap().expect(word);
        if let Some((_, rest)) = line.split_once(word) {
            return rest.to_owned();
        }
    }
}

#[allow(clippy::print_stdout, reason = "that is how a nested host talks")]
fn print_line(text: impl Display) {
    println!("{text}");
}

fn nested_host(test: &str) -> ProcessSpec {
    let mut launch = launch(env::current_exe().unwrap(), &["--exact", test, "--nocapture"]);
    launch.environment.insert(NESTED.into(), "1".into());
    launch
}

fn is_nested() -> bool {
    env::var_os(NESTED).is_some()
}

/// Runs a nested host to its end.
async fn passes(test: &str) {
    completes(nested_host(test)).await;
}

async fn completes(host: ProcessSpec) {
    let finished = init().run(host, Vec::new(), TIMEOUT, 10_000).await.unwrap();
    let said = String::from_utf8_lossy(&[finished.stdout, finished.stderr].concat()).into_owned();
    assert!(finished.exit == Exit::Code(0) && said.contains("1 passed"), "{said}");
}

async fn host_that_waits() {
    let child = init().spawn(launch("sleep", &["1000"])).await.unwrap();
    print_line(format_args!("child={}", child.pid));
    exit(child).await;
}

async fn host_without_a_launcher() {
    let init = Init::start("/no/such/launcher".into()).unwrap();
    let error = init.spawn(sh("exit 0")).await.unwrap_err();
    assert!(matches!(error, SpawnError::Fork { .. }), "{error:?}");
    assert_eq!(children_of_this_process(), []);
}

async fn host_whose_launcher_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let launcher = directory.path().join("launcher");
    fs::write(&launcher, "#!/bin/sh\n[ \"$1\" != guard ] || exit 0\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
    let init = Init::start(launcher).unwrap();
    time::timeout(Duration::from_millis(200), init.spawn(launch("true", &[]))).await.unwrap_err();
    eventually("no launcher is left", || children_of_this_process().is_empty()).await;
}

async fn host_that_is_terminated() {
    let terminations = TerminationSignals::listen().unwrap();
    print_line("listening");
    terminations.requested().cancelled().await;
    assert!(!terminations.forced().is_cancelled());
    print_line("requested");
    terminations.forced().cancelled().await;
    print_line("forced");
}

/// Lets four processes create 10,000 orphans while children exit in every way, most of them at the same time: each exit
/// is reported correctly.
async fn orphan_burst() {
    let breeder = "i=0; while [ $i -lt 2500 ]; do (: &); i=$((i+1)); done; exit 7";
    let mut breeders = Vec::new();
    for _ in 0..4 {
        breeders.push(init().spawn(sh(breeder)).await.unwrap());
    }
    let (mut reported, mut breeding) = (0, true);
    while breeding || reported < 500 {
        let ends = [
            ("exit 0", Exit::Code(0)),
            ("exit 3", Exit::Code(3)),
            ("exec true", Exit::Code(0)),
            ("exec /no/such/program 2>&-", Exit::Code(127)),
            ("kill -9 $$", Exit::Signal(9)),
            ("kill -36 $$", Exit::Signal(36)),
            ("(: &); (setsid sleep 0.01 &); exit 255", Exit::Code(255)),
        ];
        let mut children = Vec::new();
        for (script, expected) in ends {
            children.push((init().spawn(sh(script)).await.unwrap(), script, expected));
        }
        for (child, script, expected) in children {
            assert_eq!(exit(child).await, expected, "{script}");
            reported += 1;
        }
        breeding = breeders.iter().any(|breeder| breeder.exit.is_empty() && !breeder.exit.is_terminated());
    }
    for breeder in breeders {
        assert_eq!(exit(breeder).await, Exit::Code(7));
        reported += 1;
    }
    eventually("no child is left, and no zombie", || children_of_this_process().is_empty()).await;
    print_line(format_args!("reported={reported}"));
}

async fn host_that_terminates_gracefully() {
    let polite =
        "setsid sh -c 'trap \"echo terminated; exit 0\" TERM; echo ready; while :; do sleep 0.02; done' & wait";
    let (_leader, mut lines) = talking(sh(polite)).await;
    next_report(&mut lines, "ready").await;
    let (_stubborn, mut deaf) = talking(sh("trap '' TERM; echo ready; while :; do sleep 0.02; done")).await;
    next_report(&mut deaf, "ready").await;
    let wrapped = "sh -c 'trap \"sleep 0.2; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.02; done'; echo";
    let (_wrapper, mut wrapped) = talking(sh(wrapped)).await;
    next_report(&mut wrapped, "ready").await;
    let terminated = async {
        next_report(&mut lines, "terminated").await;
        next_report(&mut wrapped, "saved").await;
        assert!(!children_of_this_process().is_empty(), "a process that ignored SIGTERM was killed immediately");
        init().shut_down(Duration::ZERO).await;
    };
    tokio::join!(init().shut_down(TIMEOUT), terminated);
    assert_eq!(children_of_this_process(), []);
}

async fn host_that_finishes() {
    let stubborn = init().spawn(sh("trap '' TERM INT; while :; do sleep 1000; done")).await.unwrap();
    let (leader, mut lines) =
        talking(sh("setsid sh -c 'echo $$; (setsid sleep 1000 & echo $!); wait; sleep 1000' & sleep 1000")).await;
    let daemons = [next_number(&mut lines).await, next_number(&mut lines).await];
    let running = init().run(sh("sleep 1000"), Vec::new(), TIMEOUT, 10);
    let (ran, ()) = tokio::join!(running, async {
        tokio::join!(init().shut_down(Duration::ZERO), init().shut_down(Duration::ZERO));
    });
    let by_itself = matches!(ran, Ok(ProgramOutput { exit: Exit::Code(_), .. }) | Err(RunError::Limit { .. }));
    assert!(!by_itself, "{ran:?}");
    assert_eq!(children_of_this_process(), []);
    for pid in [stubborn.pid, leader.pid].into_iter().chain(daemons) {
        assert_eq!(state(pid), None);
    }
    assert_eq!(exit(stubborn).await, Exit::Signal(9));
    assert_eq!(exit(leader).await, Exit::Signal(9));
    assert!(matches!(init().spawn(sh("exit 0")).await, Err(SpawnError::Gone)));
    Init::start(launcher()).expect("another may start");
}
