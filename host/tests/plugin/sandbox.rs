//! What a guest sees and reaches: environment, files, network, programs, the sub-process.

use std::{
    fs::{self, OpenOptions},
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use ochopod::{
    plugin::{Compiler, Endpoint, Engine, Plugin, PluginError, Pod, Services, Uploads},
    settings::{DirectoryGrant, Grants, NetworkGrant},
    status::LifecycleReport,
};
use serde_json::json;
use tokio::sync::watch;

use crate::kit::{INIT, LONG, SHORT, attempt, cache, component, lifecycle, misbehaving, plain, pod, services};

#[tokio::test]
async fn a_guest_sees_its_settings_but_neither_secrets_nor_the_rest_of_the_environment() {
    let environment = [("ochopod_colour", "blue"), ("ochopod_token", "t"), ("HOME", "/root"), ("LANG", "C")];
    let grants = Grants { environment: vec!["LANG".to_owned()], ..Grants::default() };
    let seen = attempt(&lifecycle(&pod(&environment, grants)).await, "environment", "", LONG).await.unwrap();
    assert_eq!(seen, json!({"ochopod_colour": "blue", "LANG": "C"}));
}

#[tokio::test]
async fn a_guest_sees_granted_directories_only_and_writes_where_it_may() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("greeting"), "hello").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", one.path().join("escape")).unwrap();
    let directory = |host: &Path, guest: &str, writable| DirectoryGrant {
        host: host.to_owned(),
        guest: guest.to_owned(),
        writable,
    };
    let directories = vec![directory(one.path(), "/ro", false), directory(two.path(), "/rw", true)];
    let lifecycle = lifecycle(&pod(&[], Grants { directories, ..Grants::default() })).await;
    assert_eq!(attempt(&lifecycle, "read", "/ro/greeting", LONG).await.unwrap(), "hello");
    attempt(&lifecycle, "write", "/rw/file", LONG).await.unwrap();
    assert_eq!(fs::read_to_string(two.path().join("file")).unwrap(), "written by a plugin");
    for (wish, path) in [
        ("write", "/ro/file"),
        ("write", "/ro/greeting"),
        ("read", "/ro/escape"),
        ("read", "/ro/../../etc/passwd"),
        ("read", "/etc/passwd"),
        ("list", "/"),
    ] {
        let denied = attempt(&lifecycle, wish, path, LONG).await;
        assert!(matches!(denied, Err(PluginError::Rejected(_))), "{wish} {path}: {denied:?}");
    }
}

#[tokio::test]
async fn a_guest_reaches_loopback_but_no_closed_port_and_nothing_beyond() {
    let (open, closed) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = closed.local_addr().unwrap().port();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port };
    let pod = Pod::new(Services { closed: vec![endpoint], ..services(&[], Grants::default()) });
    let lifecycle = lifecycle(&pod).await;
    let address = open.local_addr().unwrap().to_string();
    assert_eq!(attempt(&lifecycle, "connect", &address, LONG).await.unwrap(), json!(address));
    attempt(&lifecycle, "listen", "127.0.0.1:0", LONG).await.unwrap();
    for (wish, address) in [
        ("connect", format!("127.0.0.1:{port}")),
        ("connect", format!("127.0.0.2:{port}")),
        ("connect", "10.0.0.1:80".to_owned()),
        ("connect", "example.com:80".to_owned()),
        ("listen", "0.0.0.0:0".to_owned()),
    ] {
        let denied = attempt(&lifecycle, wish, &address, LONG).await;
        assert!(matches!(denied, Err(PluginError::Rejected(_))), "{wish} {address}: {denied:?}");
    }
}

#[tokio::test]
async fn a_granted_address_beyond_loopback_is_tried_and_not_denied() {
    let network = vec![NetworkGrant::Address { host: "192.0.2.1".to_owned(), port: Some(80) }];
    let granted = lifecycle(&pod(&[], Grants { network, ..Grants::default() })).await;
    let denied = attempt(&lifecycle(&plain()).await, "connect", "192.0.2.1:80", SHORT).await.unwrap_err();
    assert!(denied.to_string().to_lowercase().contains("permission denied"), "{denied}");
    let tried = attempt(&granted, "connect", "192.0.2.1:80", SHORT).await.unwrap_err();
    assert!(!tried.to_string().to_lowercase().contains("permission denied"), "{tried}");
}

#[tokio::test]
async fn a_guest_runs_granted_programs_only_and_not_past_the_end_of_its_call() {
    let grants = Grants { programs: vec!["sh".to_owned(), "sleep".to_owned()], ..Grants::default() };
    let path = std::env::var("PATH").unwrap();
    let environment = [("PATH", path.as_str()), ("GREETING", "hello")];
    let pod = Pod::new(Services { init: Some(INIT.clone()), ..services(&environment, grants) });
    let lifecycle = lifecycle(&pod).await;
    let ran = attempt(&lifecycle, "exec", "sh -c echo${IFS}$GREETING;exit${IFS}7", LONG).await.unwrap();
    assert_eq!(ran, json!({"code": 7, "stdout": "hello\n"}));
    let denied = attempt(&lifecycle, "exec", "cat /etc/passwd", LONG).await.unwrap_err();
    assert!(matches!(&denied, PluginError::Rejected(text) if text.contains("--run cat")), "{denied:?}");
    let mark = "86311";
    let start = Instant::now();
    attempt(&lifecycle, "exec", &format!("sleep {mark}"), SHORT).await.unwrap_err();
    assert!(start.elapsed() < 2 * SHORT);
    let running = || {
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
        processes.filter(|line| line.starts_with(b"sleep\0") && line.ends_with(b"86311\0")).count()
    };
    while running() > 0 {
        assert!(start.elapsed() < LONG, "the program outlives its call");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_guest_sees_the_sub_process_as_it_is_now() {
    let (publish, process) = watch::channel(LifecycleReport::default());
    let pod = Pod::new(Services { process, ..services(&[], Grants::default()) });
    let lifecycle = lifecycle(&pod).await;
    let seen = attempt(&lifecycle, "process", "", LONG).await.unwrap();
    assert_eq!(seen, json!({"pid": null, "previous": [], "running": false, "memory": null}));
    let refused = attempt(&lifecycle, "signal", "15", LONG).await.unwrap_err();
    assert!(refused.to_string().contains("not running"), "{refused}");
    let own = std::process::id();
    publish.send_modify(|report| (report.pid, report.released) = (Some(own), vec![41, 42]));
    let seen = attempt(&lifecycle, "process", "", LONG).await.unwrap();
    assert_eq!((&seen["pid"], &seen["previous"], &seen["running"]), (&json!(own), &json!([41, 42]), &json!(true)));
    assert!(seen["memory"].as_u64().unwrap() > 1 << 20);
    let refused = attempt(&lifecycle, "signal", "200", LONG).await.unwrap_err();
    assert!(refused.to_string().contains("no signal 200"), "{refused}");
    let refused = attempt(&lifecycle, "signal", "37", LONG).await.unwrap_err();
    assert!(refused.to_string().contains("real-time"), "{refused}");
}

#[tokio::test]
async fn a_tool_runs_in_a_fresh_instance_with_its_uploads_and_beside_others() {
    let uploads = tempfile::tempdir().unwrap();
    fs::write(uploads.path().join("data.bin"), [0; 1000]).unwrap();
    fs::set_permissions(uploads.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let pod = plain();
    let plugin = misbehaving(&pod).await;
    let run = |name: &str, arguments: &[&str], limit| {
        let uploads = Uploads { directory: Some(uploads.path().to_owned()), names: vec!["data.bin".to_owned()] };
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        plugin.run_tool(&pod, name.to_owned(), arguments, uploads, limit)
    };
    let (slow, output) = tokio::join!(run("act", &["spin"], SHORT), run("report", &["one", "two"], LONG));
    assert_eq!(slow, Err(PluginError::DeadlineExceeded(SHORT)));
    let output = output.unwrap();
    assert_eq!((output.code, output.stdout), (0, ["one", "two", "data.bin 1000"].map(str::to_owned).to_vec()));
    let error = run("act", &["reject:no"], LONG).await.unwrap_err();
    assert_eq!(error, PluginError::Rejected("no".to_owned()));
}

#[tokio::test]
async fn files_that_never_open_use_up_no_more_than_the_guests_own_threads_and_the_error_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let granted = DirectoryGrant { host: directory.path().to_owned(), guest: "/data".to_owned(), writable: false };
    let pod = pod(&[], Grants { directories: vec![granted], ..Grants::default() });
    let engine = Engine::new().unwrap();
    let (path, cache) = (component("misbehaving"), cache());
    let loaded = Plugin::load(&engine, &path, Some(&cache), &Compiler::Here, &pod);
    let plugin = loaded.await.unwrap();
    let stuck: Vec<_> = (0..16).map(|_| plugin.lifecycle(&pod)).collect();
    let reads = stuck.iter().map(|lifecycle| attempt(lifecycle, "read", "/data/pipe", SHORT));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read, Err(PluginError::DeadlineExceeded(SHORT)));
    }
    let outcome = plugin.lifecycle(&pod).initialize(LONG).await;
    let unavailable = matches!(&outcome, Err(PluginError::Unavailable(text)) if text.contains("never end"));
    // A writer that comes and goes lets the threads go.
    drop(OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap());
    assert!(unavailable, "{outcome:?}");
}
