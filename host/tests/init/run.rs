//! Programs run to their end.

use std::{fs, time::Duration};

use ochopod_init::{Exit, ProcessSpec};

use crate::kit::{TIMEOUT, eventually, exit, gone, init, sh};

#[tokio::test]
async fn run_feeds_and_collects_more_than_a_pipe_holds() {
    let input: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let finished = init().run(sh("tee /dev/stderr; exit 9"), input.clone(), TIMEOUT, usize::MAX).await.unwrap();
    assert_eq!(finished.exit, Exit::Code(9));
    assert!(finished.stdout == input && finished.stderr == input);
}

#[tokio::test]
async fn run_caps_what_it_keeps_and_still_lets_the_program_end() {
    let script = "head -c 5000000 /dev/zero; echo -n done >&2; exit 2";
    let finished = init().run(sh(script), Vec::new(), TIMEOUT, 1000).await.unwrap();
    assert_eq!(finished.exit, Exit::Code(2));
    assert_eq!((finished.stdout.len(), &finished.stderr[..]), (1000, &b"done"[..]));
}

#[tokio::test]
async fn run_minds_neither_unread_input_nor_a_daemon_that_holds_the_output() {
    let finished = init().run(sh("exec true"), vec![0; 1_000_000], TIMEOUT, 10).await.unwrap();
    assert_eq!(finished.exit, Exit::Code(0));
    let directory = tempfile::tempdir().unwrap();
    let script = "mkfifo up; setsid sh -c 'echo > up; exec sleep 1000' & cat up > /dev/null; echo $!";
    let launch = ProcessSpec { directory: Some(directory.path().into()), ..sh(script) };
    let finished = init().run(launch, Vec::new(), TIMEOUT, 100).await.unwrap();
    let daemon = String::from_utf8(finished.stdout).unwrap();
    let kill = init().spawn(sh(&format!("kill -9 {daemon}"))).await.unwrap();
    assert_eq!(exit(kill).await, Exit::Code(0));
}

#[tokio::test]
async fn run_kills_the_group_at_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! > {}; wait", pids.display());
    let error = init().run(sh(&script), Vec::new(), Duration::from_secs(5), 10).await.unwrap_err();
    assert_eq!(error.to_string(), "/bin/sh did not exit within 5 s and was killed");
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        gone(pid.parse().unwrap()).await;
    }
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! . > {}; wait", pids.display());
    let written = || fs::read_to_string(&pids).is_ok_and(|text| text.ends_with(".\n"));
    tokio::select! {
        ended = init().run(sh(&script), Vec::new(), TIMEOUT, 10) => panic!("{ended:?}"),
        () = eventually("both run", written) => {}
    }
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace().filter(|word| *word != ".") {
        gone(pid.parse().unwrap()).await;
    }
}
