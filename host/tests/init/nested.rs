//! What has to be seen from outside, or ends a process: each test here starts this test program again with itself as
//! the only test. In there, it is a *nested host*.

use std::{env, ffi::OsString, fmt::Display, fs, os::unix::fs::PermissionsExt, time::Duration};

use ochopod::init::{Exit, Finished, Init, Launch, RunError, Signal, SpawnError, Terminations};
use tokio::{
    io::{BufReader, Lines},
    net::unix::pipe,
    time,
};

use crate::kit::{
    LIMIT, children_of_this_process, eventually, exit, gone, init, launch, launcher, next_number, sh, state, talking,
};

/// Set for nested hosts.
const NESTED: &str = "OCHOPOD_TEST_NESTED";

#[tokio::test]
async fn a_missing_launcher_is_an_error() {
    if is_nested() {
        return host_without_a_launcher().await;
    }
    passes("nested::a_missing_launcher_is_an_error").await;
}

#[tokio::test]
async fn the_child_of_a_host_that_is_killed_dies_with_it() {
    if is_nested() {
        return host_that_waits().await;
    }
    let (host, mut lines) = talking(nested_host("nested::the_child_of_a_host_that_is_killed_dies_with_it")).await;
    let child = told(&mut lines, "child=").await.parse().unwrap();
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
    passes("nested::finish_leaves_nothing").await;
}

#[tokio::test]
async fn finish_asks_everybody_first_and_is_as_patient_as_the_least_patient() {
    if is_nested() {
        return host_that_asks_first().await;
    }
    passes("nested::finish_asks_everybody_first_and_is_as_patient_as_the_least_patient").await;
}

#[tokio::test]
async fn guarantee_6_as_pid_1_ten_thousand_orphans_leave_no_zombie_and_cost_no_status() {
    if is_nested() {
        assert_eq!(std::process::id(), 1);
        return storm().await;
    }
    let test = "nested::guarantee_6_as_pid_1_ten_thousand_orphans_leave_no_zombie_and_cost_no_status";
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
        return storm().await;
    }
    passes("nested::guarantee_6_as_subreaper_ten_thousand_orphans_leave_no_zombie_and_cost_no_status").await;
}

#[tokio::test]
async fn a_spawn_that_is_given_up_does_not_wait_for_its_launcher() {
    if is_nested() {
        return host_whose_launcher_hangs().await;
    }
    passes("nested::a_spawn_that_is_given_up_does_not_wait_for_its_launcher").await;
}

#[tokio::test]
async fn the_first_termination_is_a_request_and_the_second_an_order() {
    if is_nested() {
        return host_that_is_asked_to_end().await;
    }
    let test = "nested::the_first_termination_is_a_request_and_the_second_an_order";
    for (first, second) in [(Signal::SIGTERM, Signal::SIGINT), (Signal::SIGINT, Signal::SIGTERM)] {
        let (host, mut lines) = talking(nested_host(test)).await;
        told(&mut lines, "listening").await;
        init().signal_group(host.pid, first);
        told(&mut lines, "requested").await;
        init().signal_group(host.pid, second);
        told(&mut lines, "forced").await;
        assert_eq!(exit(host).await, Exit::Code(0));
    }
}

/// What a nested host says after this word.
async fn told(lines: &mut Lines<BufReader<pipe::Receiver>>, word: &str) -> String {
    loop {
        let line = time::timeout(LIMIT, lines.next_line()).await.expect(word).unwrap().expect(word);
        if let Some((_, rest)) = line.split_once(word) {
            return rest.to_owned();
        }
    }
}

#[allow(clippy::print_stdout, reason = "that is how a nested host talks")]
fn say(text: impl Display) {
    println!("{text}");
}

fn nested_host(test: &str) -> Launch {
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

async fn completes(host: Launch) {
    let finished = init().run(host, Vec::new(), LIMIT, 10_000).await.unwrap();
    let said = String::from_utf8_lossy(&[finished.stdout, finished.stderr].concat()).into_owned();
    assert!(finished.exit == Exit::Code(0) && said.contains("1 passed"), "{said}");
}

async fn host_that_waits() {
    let child = init().spawn(launch("sleep", &["1000"])).await.unwrap();
    say(format_args!("child={}", child.pid));
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
    fs::write(&launcher, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
    let init = Init::start(launcher).unwrap();
    time::timeout(Duration::from_millis(200), init.spawn(launch("true", &[]))).await.unwrap_err();
    eventually("no launcher is left", || children_of_this_process().is_empty()).await;
}

async fn host_that_is_asked_to_end() {
    let terminations = Terminations::listen().unwrap();
    say("listening");
    terminations.requested().cancelled().await;
    assert!(!terminations.forced().is_cancelled());
    say("requested");
    terminations.forced().cancelled().await;
    say("forced");
}

/// Four breeders make 10,000 orphans while children end in every way, most of them at once: each end is told as it was.
async fn storm() {
    let breeder = "i=0; while [ $i -lt 2500 ]; do (: &); i=$((i+1)); done; exit 7";
    let mut breeders = Vec::new();
    for _ in 0..4 {
        breeders.push(init().spawn(sh(breeder)).await.unwrap());
    }
    let (mut told, mut breeding) = (0, true);
    while breeding || told < 500 {
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
            told += 1;
        }
        breeding = breeders.iter().any(|breeder| breeder.exit.is_empty() && !breeder.exit.is_terminated());
    }
    for breeder in breeders {
        assert_eq!(exit(breeder).await, Exit::Code(7));
        told += 1;
    }
    eventually("no child is left, and no zombie", || children_of_this_process().is_empty()).await;
    say(format_args!("told={told}"));
}

async fn host_that_asks_first() {
    let polite = "setsid sh -c 'trap \"echo asked; exit 0\" TERM; echo ready; while :; do sleep 0.02; done' & wait";
    let (_leader, mut lines) = talking(sh(polite)).await;
    told(&mut lines, "ready").await;
    let (_stubborn, mut deaf) = talking(sh("trap '' TERM; echo ready; while :; do sleep 0.02; done")).await;
    told(&mut deaf, "ready").await;
    let asked = async {
        told(&mut lines, "asked").await;
        assert!(!children_of_this_process().is_empty(), "who does not end when asked was killed at once");
        init().finish(Duration::ZERO).await;
    };
    tokio::join!(init().finish(LIMIT), asked);
    assert_eq!(children_of_this_process(), []);
}

async fn host_that_finishes() {
    let stubborn = init().spawn(sh("trap '' TERM INT; while :; do sleep 1000; done")).await.unwrap();
    let (leader, mut lines) =
        talking(sh("setsid sh -c 'echo $$; (setsid sleep 1000 & echo $!); wait; sleep 1000' & sleep 1000")).await;
    let daemons = [next_number(&mut lines).await, next_number(&mut lines).await];
    let running = init().run(sh("sleep 1000"), Vec::new(), LIMIT, 10);
    let (ran, ()) = tokio::join!(running, async {
        tokio::join!(init().finish(Duration::ZERO), init().finish(Duration::ZERO));
    });
    let by_itself = matches!(ran, Ok(Finished { exit: Exit::Code(_), .. }) | Err(RunError::Limit { .. }));
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
