//! Environment, files, network, programs and sub-process, as a guest can access them.

use std::{
    fs::{self, OpenOptions},
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_loopback::{Announcement, GUEST_SOURCE};
use ochopod_model::status::LifecycleReport;
use ochopod_plugin::{
    Compiler, DirectoryGrant, Endpoint, Engine, Grants, LoopbackPorts, NetworkGrant, Plugin, PluginError, PodSandbox,
    SandboxConfig, Uploads,
};
use ochopod_telemetry::{Gauges, Metrics};
use serde_json::json;
use tokio::sync::watch;

use crate::kit::{
    INIT, LONG_TIMEOUT, SHORT_TIMEOUT, attempt, cache, component, lifecycle, misbehaving, plain, pod, services,
};

#[tokio::test]
async fn a_guest_sees_its_settings_but_neither_secrets_nor_the_rest_of_the_environment() {
    let environment = [("ochopod_colour", "blue"), ("ochopod_token", "t"), ("HOME", "/root"), ("LANG", "C")];
    let grants = Grants { environment: vec!["LANG".to_owned()], ..Grants::default() };
    let seen = attempt(&lifecycle(&pod(&environment, grants)).await, "environment", "", LONG_TIMEOUT).await.unwrap();
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
    assert_eq!(attempt(&lifecycle, "read", "/ro/greeting", LONG_TIMEOUT).await.unwrap(), "hello");
    attempt(&lifecycle, "write", "/rw/file", LONG_TIMEOUT).await.unwrap();
    assert_eq!(fs::read_to_string(two.path().join("file")).unwrap(), "written by a plugin");
    for (kind, path) in [
        ("write", "/ro/file"),
        ("write", "/ro/greeting"),
        ("read", "/ro/escape"),
        ("read", "/ro/../../etc/passwd"),
        ("read", "/etc/passwd"),
        ("list", "/"),
    ] {
        let denied = attempt(&lifecycle, kind, path, LONG_TIMEOUT).await;
        assert!(matches!(denied, Err(PluginError::Rejected(_))), "{kind} {path}: {denied:?}");
    }
}

#[tokio::test]
async fn a_guest_reaches_loopback_but_no_closed_port_and_nothing_beyond() {
    let (open, closed) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = closed.local_addr().unwrap().port();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port };
    let pod = PodSandbox::new(SandboxConfig { blocked: vec![endpoint], ..services(&[], Grants::default()) });
    let lifecycle = lifecycle(&pod).await;
    let address = open.local_addr().unwrap().to_string();
    assert_eq!(attempt(&lifecycle, "connect", &address, LONG_TIMEOUT).await.unwrap(), json!(address));
    assert_eq!(open.accept().unwrap().1.ip(), GUEST_SOURCE, "it looks like an operator's");
    attempt(&lifecycle, "listen", "127.0.0.1:0", LONG_TIMEOUT).await.unwrap();
    for (kind, address) in [
        ("connect", format!("127.0.0.1:{port}")),
        ("connect", format!("127.0.0.2:{port}")),
        ("connect", "10.0.0.1:80".to_owned()),
        ("connect", "example.com:80".to_owned()),
        ("listen", "0.0.0.0:0".to_owned()),
    ] {
        let denied = attempt(&lifecycle, kind, &address, LONG_TIMEOUT).await;
        assert!(matches!(denied, Err(PluginError::Rejected(_))), "{kind} {address}: {denied:?}");
    }
}

#[tokio::test]
async fn a_guest_reaches_only_the_loopback_ports_that_its_plugin_declared() {
    let (declared, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [&declared, &other].map(|listener| listener.local_addr().unwrap().port());
    let own = Some("127.0.0.3".parse().unwrap());
    let loopback = LoopbackPorts { declared: vec![Some(6379)], mapped: [(6379, ports[0])].into(), own };
    let pod = PodSandbox::new(SandboxConfig { loopback, ..services(&[], Grants::default()) });
    let lifecycle = lifecycle(&pod).await;
    attempt(&lifecycle, "connect", &format!("127.0.0.1:{}", ports[0]), LONG_TIMEOUT).await.unwrap();
    attempt(&lifecycle, "connect", &format!("localhost:{}", ports[0]), LONG_TIMEOUT).await.unwrap();
    for (kind, address) in [
        ("connect", format!("127.0.0.1:{}", ports[1])),
        ("connect", format!("localhost:{}", ports[1])),
        ("connect", format!("127.0.0.2:{}", ports[0])),
        ("connect", format!("[::1]:{}", ports[1])),
        ("act", format!("wait-request:127.0.0.1:{}", ports[1])),
        ("act", format!("wait-request:localhost:{}", ports[1])),
        ("act", format!("wait-request:0.0.0.0:{}", ports[0])),
        ("listen", "127.0.0.1:0".to_owned()),
        ("listen", "127.0.0.1:47110".to_owned()),
    ] {
        let denied = attempt(&lifecycle, kind, &address, LONG_TIMEOUT).await;
        assert!(matches!(denied, Err(PluginError::Rejected(_))), "{kind} {address}: {denied:?}");
    }
    let _announcement = Announcement::new(declared.local_addr().unwrap()).unwrap();
    let denied = attempt(&lifecycle, "connect", &format!("127.0.0.1:{}", ports[0]), LONG_TIMEOUT).await;
    assert!(matches!(denied, Err(PluginError::Rejected(_))), "a control port was reached: {denied:?}");
}

#[tokio::test]
async fn a_guest_resolves_only_granted_names() {
    let network = vec![
        NetworkGrant::Address { host: "192.0.2.1".to_owned(), port: None },
        NetworkGrant::Address { host: "granted.localhost".to_owned(), port: Some(80) },
    ];
    let granted = lifecycle(&pod(&[], Grants { network, ..Grants::default() })).await;
    let known = attempt(&granted, "resolve", "granted.localhost", LONG_TIMEOUT).await.unwrap();
    assert_eq!(known, json!(["127.0.0.1", "::1"]));
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for name in ["example.com", "data.example.com", "ip6-localhost", hostname.trim()] {
        let denied = attempt(&granted, "resolve", name, LONG_TIMEOUT).await;
        assert!(matches!(denied, Err(PluginError::Rejected(_))), "{name}: {denied:?}");
    }
}

#[tokio::test]
async fn instances_of_a_pod_share_one_budget_of_memory() {
    let metrics = Arc::<Metrics>::default();
    let services = services(&[], Grants::default());
    let pod = PodSandbox::new(SandboxConfig { memory: 64 << 20, metrics: Arc::clone(&metrics), ..services });
    let plugin = misbehaving(&pod).await;
    let lifecycle = plugin.lifecycle(&pod);
    let tool = async |how: &str| {
        plugin.run_tool(&pod, "act".to_owned(), vec![how.to_owned()], Uploads::default(), LONG_TIMEOUT).await
    };
    tool("hold:40").await.unwrap();
    attempt(&lifecycle, "act", "hold:40", LONG_TIMEOUT).await.unwrap();
    let refused = tool("hold:40").await.unwrap_err();
    assert!(matches!(&refused, PluginError::Exhausted(text) if text.contains("limit is 64 MiB")), "{refused:?}");
    let page = metrics.render(Gauges::default());
    let used = page.lines().find_map(|line| line.strip_prefix("ochopod_plugin_memory_bytes ")).unwrap();
    assert!((40 << 20..64 << 20).contains(&used.parse::<u32>().unwrap()), "{used} bytes are in use");
    attempt(&lifecycle, "act", "trap", LONG_TIMEOUT).await.unwrap_err();
    tool("hold:40").await.unwrap();
}

#[tokio::test]
async fn a_granted_address_beyond_loopback_is_tried_and_not_denied() {
    let network = vec![NetworkGrant::Address { host: "192.0.2.1".to_owned(), port: Some(80) }];
    let granted = lifecycle(&pod(&[], Grants { network, ..Grants::default() })).await;
    let denied = attempt(&lifecycle(&plain()).await, "connect", "192.0.2.1:80", LONG_TIMEOUT).await.unwrap_err();
    assert!(denied.to_string().to_lowercase().contains("permission denied"), "{denied}");
    let tried = attempt(&granted, "connect", "192.0.2.1:80", SHORT_TIMEOUT).await.unwrap_err();
    assert!(!tried.to_string().to_lowercase().contains("permission denied"), "{tried}");
}

#[tokio::test]
async fn a_guest_runs_granted_programs_only_and_not_past_the_end_of_its_call() {
    let grants = Grants { programs: vec!["sh".to_owned(), "sleep".to_owned()], ..Grants::default() };
    let path = std::env::var("PATH").unwrap();
    let environment = [("PATH", path.as_str()), ("GREETING", "hello")];
    let pod = PodSandbox::new(SandboxConfig { init: Some(INIT.clone()), ..services(&environment, grants) });
    let lifecycle = lifecycle(&pod).await;
    let ran = attempt(&lifecycle, "exec", "sh -c echo${IFS}$GREETING;exit${IFS}7", LONG_TIMEOUT).await.unwrap();
    assert_eq!(ran, json!({"code": 7, "stdout": "hello\n"}));
    let denied = attempt(&lifecycle, "exec", "cat /etc/passwd", LONG_TIMEOUT).await.unwrap_err();
    assert!(matches!(&denied, PluginError::Rejected(text) if text.contains("--run cat")), "{denied:?}");
    let mark = "86311";
    let start = Instant::now();
    attempt(&lifecycle, "exec", &format!("sleep {mark}"), SHORT_TIMEOUT).await.unwrap_err();
    assert!(start.elapsed() < LONG_TIMEOUT / 2, "{:?}", start.elapsed());
    let running = || {
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
        processes.filter(|line| line.starts_with(b"sleep\0") && line.ends_with(b"86311\0")).count()
    };
    while running() > 0 {
        assert!(start.elapsed() < LONG_TIMEOUT, "the program outlives its call");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_guest_sees_the_sub_process_as_it_is_now() {
    let (publish, process) = watch::channel(LifecycleReport::default());
    let pod = PodSandbox::new(SandboxConfig { process, ..services(&[], Grants::default()) });
    let lifecycle = lifecycle(&pod).await;
    let seen = attempt(&lifecycle, "process", "", LONG_TIMEOUT).await.unwrap();
    assert_eq!(seen, json!({"pid": null, "previous": [], "running": false, "memory": null}));
    let refused = attempt(&lifecycle, "signal", "15", LONG_TIMEOUT).await.unwrap_err();
    assert!(refused.to_string().contains("not running"), "{refused}");
    let own = std::process::id();
    publish.send_modify(|report| (report.pid, report.released) = (Some(own), vec![41, 42]));
    let seen = attempt(&lifecycle, "process", "", LONG_TIMEOUT).await.unwrap();
    assert_eq!((&seen["pid"], &seen["previous"], &seen["running"]), (&json!(own), &json!([41, 42]), &json!(true)));
    assert!(seen["memory"].as_u64().unwrap() > 1 << 20);
    let refused = attempt(&lifecycle, "signal", "200", LONG_TIMEOUT).await.unwrap_err();
    assert!(refused.to_string().contains("unknown signal 200"), "{refused}");
    let refused = attempt(&lifecycle, "signal", "37", LONG_TIMEOUT).await.unwrap_err();
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
    let (slow, output) =
        tokio::join!(run("act", &["spin"], SHORT_TIMEOUT), run("report", &["one", "two"], LONG_TIMEOUT));
    assert_eq!(slow, Err(PluginError::DeadlineExceeded(SHORT_TIMEOUT)));
    let output = output.unwrap();
    assert_eq!((output.code, output.stdout), (0, ["one", "two", "data.bin 1000"].map(str::to_owned).to_vec()));
    let error = run("act", &["reject:no"], LONG_TIMEOUT).await.unwrap_err();
    assert_eq!(error, PluginError::Rejected("no".to_owned()));
}

#[tokio::test]
async fn files_that_never_open_block_only_threads_of_the_guest_and_the_error_reports_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let granted = DirectoryGrant { host: directory.path().to_owned(), guest: "/data".to_owned(), writable: false };
    let pod = pod(&[], Grants { directories: vec![granted], ..Grants::default() });
    let engine = Engine::new().unwrap();
    let (path, cache) = (component("misbehaving"), cache());
    let loaded = Plugin::load(&engine, &path, Some(&cache), &Compiler::InProcess, &pod);
    let plugin = loaded.await.unwrap();
    let stuck: Vec<_> = (0..16).map(|_| plugin.lifecycle(&pod)).collect();
    // All of them have time to start.
    let limit = 10 * SHORT_TIMEOUT;
    let reads = stuck.iter().map(|lifecycle| attempt(lifecycle, "read", "/data/pipe", limit));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read, Err(PluginError::DeadlineExceeded(limit)));
    }
    let outcome = plugin.lifecycle(&pod).initialize(LONG_TIMEOUT).await;
    let unavailable = matches!(&outcome, Err(PluginError::Unavailable(text)) if text.contains("never end"));
    // A writer that opens and closes releases the threads.
    drop(OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap());
    assert!(unavailable, "{outcome:?}");
}
