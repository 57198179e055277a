//! Real components in the real sandbox: what a plugin can do, what it cannot, and what happens to it when it tries.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use ochopod::{
    cluster::{ClusterName, PostedView},
    init::Init,
    plugin::{
        self, ArtefactError, Compiler, Endpoint, Engine, Lifecycle, LoadError, Plugin, PluginError, Pod, Services,
        Uploads,
    },
    settings::{DirectoryGrant, Grants, NetworkGrant},
    status::LifecycleReport,
};
use serde_json::{Value, json};
use tokio::sync::watch;

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(500);

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| Engine::new().unwrap());
static INIT: LazyLock<Init> = LazyLock::new(|| Init::start(env!("CARGO_BIN_EXE_ochopod").into()).unwrap());

/// A component that `make plugins` or `make guests` leaves behind.
fn component(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let named = std::env::var_os("OCHOPOD_GUESTS").map(PathBuf::from);
    let places = named.into_iter().chain([target.join("plugins"), target.join("guests")]);
    let mut files = places.map(|place| place.join(format!("{name}.wasm")));
    files.find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("there is no {name}.wasm: run `make plugins guests`, or name their directory in OCHOPOD_GUESTS")
    })
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache")
}

fn services(environment: &[(&str, &str)], grants: Grants) -> Services {
    Services {
        cluster: ClusterName::new("marathon", "test").unwrap(),
        grants,
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        closed: Vec::new(),
        process: watch::channel(LifecycleReport::default()).1,
        init: None,
    }
}

fn pod(environment: &[(&str, &str)], grants: Grants) -> Pod {
    Pod::new(services(environment, grants))
}

fn plain() -> Pod {
    pod(&[], Grants::default())
}

async fn load(path: &Path, pod: &Pod) -> Result<Plugin, LoadError> {
    Plugin::load(&ENGINE, path, Some(&cache()), &Compiler::Here, pod).await
}

async fn misbehaving(pod: &Pod) -> Plugin {
    load(&component("misbehaving"), pod).await.unwrap()
}

async fn lifecycle(pod: &Pod) -> Lifecycle {
    misbehaving(pod).await.lifecycle(pod)
}

/// Has the guest do one thing in its `signaled`.
async fn attempt(lifecycle: &Lifecycle, wish: &str, argument: &str, limit: Duration) -> Result<Value, PluginError> {
    lifecycle.signaled(Some(&json!({"try": wish, "with": argument})), None, limit).await
}

fn view() -> PostedView {
    let body = br#"{"key":"b","pods":{"a":{"seq":4,"ip":"10.0.0.1","port":"8080"},"b":{"seq":3,"ip":"10.0.0.2"}},
        "dependencies":{"db":{"x":{"seq":0,"ip":"10.0.1.1"}}}}"#;
    PostedView::parse(body).unwrap()
}

#[tokio::test]
async fn a_plugin_describes_itself_and_computes_a_command_from_a_view() {
    let pod = plain();
    let plugin = misbehaving(&pod).await;
    let description = plugin.description();
    assert_eq!((description.lifecycle.check_every, description.model.grace), (LONG, LONG));
    assert_eq!(description.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["report", "act"]);
    let lifecycle = plugin.lifecycle(&pod);
    lifecycle.initialize(LONG).await.unwrap();
    lifecycle.can_configure(&view(), LONG).await.unwrap();
    let command = lifecycle.configure(&view(), LONG).await.unwrap();
    let expected = [("OCHOPOD_TEST_INDEX", "1"), ("OCHOPOD_TEST_SEQ", "3")];
    let expected: BTreeMap<_, _> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(command.environment, expected);
    lifecycle.configured(&view(), LONG).await.unwrap();
    assert_eq!(lifecycle.sanity_check(7, LONG).await.unwrap()["pid"], 7);
    lifecycle.finalize(LONG).await.unwrap();
    let status = plugin.model(&pod).probe(&view(), LONG).await.unwrap();
    assert_eq!(status.as_deref(), Some("2 pods probed"));
}

#[tokio::test]
async fn what_is_shown_of_a_plugin_names_its_world_and_interfaces() {
    let inspection = misbehaving(&plain()).await.inspect();
    assert_eq!(inspection.world, "ochopod:pod/plugin@0.1.0");
    assert!(inspection.imports.iter().any(|name| name == "ochopod:pod/exec@0.1.0"), "{inspection:?}");
    assert!(inspection.exports.iter().any(|name| name == "ochopod:pod/tools@0.1.0"), "{inspection:?}");
}

#[tokio::test]
async fn a_plugin_for_another_version_is_refused_with_both_versions() {
    let error = load(&component("wrong_world"), &plain()).await.unwrap_err();
    assert!(matches!(&error, LoadError::Version { found, .. } if found == "0.2.0"), "{error}");
    assert!(error.to_string().contains("ochopod:pod@0.1.0"), "{error}");
}

#[tokio::test]
async fn a_plugin_that_fails_to_describe_itself_is_refused_with_the_reason() {
    for (told, reason) in
        [("panic:no settings today", "no settings today"), ("spin", "within 2 s"), ("allocate", "MiB")]
    {
        for (variable, callback) in [
            ("ochopod_test_settings", "lifecycle.settings"),
            ("ochopod_test_model_settings", "model.settings"),
            ("ochopod_test_list", "tools.list"),
        ] {
            let error =
                load(&component("misbehaving"), &pod(&[(variable, told)], Grants::default())).await.unwrap_err();
            let LoadError::Describe { callback: named, reason: given, .. } = &error else { panic!("{error}") };
            assert!(*named == callback && given.contains(reason), "{variable}={told}: {error}");
        }
    }
}

#[tokio::test]
async fn a_compiled_plugin_runs_and_a_truncated_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let compiled = directory.path().join("misbehaving.cwasm");
    plugin::compile(&component("misbehaving"), &compiled).unwrap();
    let pod = plain();
    let plugin = Plugin::load(&ENGINE, &compiled, None, &Compiler::Here, &pod).await.unwrap();
    plugin.lifecycle(&pod).initialize(LONG).await.unwrap();
    let bytes = fs::read(&compiled).unwrap();
    let truncated = directory.path().join("truncated.cwasm");
    fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    let error = load(&truncated, &pod).await.unwrap_err();
    assert!(matches!(error, LoadError::Artefact { source: ArtefactError::Foreign, .. }), "{error}");
}

#[tokio::test]
async fn a_call_is_over_at_its_deadline_whether_it_computes_or_waits() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = format!("wait-socket:{}", silent.local_addr().unwrap());
    for told in ["spin", "sleep", &waiting] {
        let lifecycle = lifecycle(&plain()).await;
        lifecycle.initialize(LONG).await.unwrap();
        let start = Instant::now();
        let error = attempt(&lifecycle, "act", told, SHORT).await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error, PluginError::DeadlineExceeded(SHORT), "{told}");
        assert!(took >= SHORT && took < SHORT.mul_f64(1.2), "{told} ended after {took:?}");
        let again = lifecycle.sanity_check(1, LONG).await.unwrap();
        assert_eq!(again["calls"], 1, "{told}: the instance was not rebuilt");
    }
}

#[tokio::test]
async fn a_failure_costs_one_instance_and_is_told_apart_by_kind() {
    let lifecycle = lifecycle(&plain()).await;
    let fails = [
        ("panic:out of cheese", "out of cheese"),
        ("trap", "unreachable"),
        ("exit", "exit(1)"),
        ("stack", "out of bounds"),
        ("huge", "too much data"),
    ];
    for (told, part) in fails {
        let error = attempt(&lifecycle, "act", told, LONG).await.unwrap_err();
        assert!(matches!(error, PluginError::Trapped(_)), "{told}: {error:?}");
        assert!(error.to_string().contains(part), "{told}: {error}");
        assert_eq!(lifecycle.sanity_check(1, LONG).await.unwrap()["calls"], 1, "{told}");
    }
    let error = attempt(&lifecycle, "act", "allocate", LONG).await.unwrap_err();
    assert!(matches!(&error, PluginError::Exhausted(text) if text.contains("256")), "{error:?}");
    let error = attempt(&lifecycle, "act", "reject:not today", LONG).await.unwrap_err();
    assert_eq!(error, PluginError::Rejected("not today".to_owned()));
    assert_eq!(lifecycle.sanity_check(1, LONG).await.unwrap()["calls"], 2, "a refusal cost the instance");
}

#[tokio::test]
async fn an_instance_that_keeps_failing_is_rebuilt_ten_times_and_then_not() {
    let lifecycle = lifecycle(&pod(&[("ochopod_test_initialize", "panic:again")], Grants::default())).await;
    for _ in 0..11 {
        assert!(matches!(lifecycle.initialize(LONG).await, Err(PluginError::Trapped(_))));
    }
    let error = lifecycle.initialize(LONG).await.unwrap_err();
    assert!(matches!(&error, PluginError::Unavailable(text) if text.contains("again")), "{error:?}");
}

#[tokio::test]
async fn giving_a_call_up_ends_it_and_costs_no_budget() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let waiting = format!("wait-socket:{}", silent.local_addr().unwrap());
    let lifecycle = lifecycle(&plain()).await;
    for _ in 0..20 {
        tokio::select! {
            ended = attempt(&lifecycle, "act", &waiting, LONG) => panic!("{ended:?}"),
            begun = silent.accept() => drop(begun.unwrap()),
        }
        let start = Instant::now();
        assert_eq!(lifecycle.sanity_check(1, LONG).await.unwrap()["calls"], 1);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn spinning_guests_hold_up_neither_the_host_nor_each_other() {
    let pod = plain();
    let plugin = misbehaving(&pod).await;
    let spinning: Vec<_> = (0..6).map(|_| plugin.lifecycle(&pod)).collect();
    let spins = futures_util::future::join_all(spinning.iter().map(|one| attempt(one, "act", "spin", 3 * SHORT)));
    let other = plugin.lifecycle(&pod);
    let work = async {
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        while start.elapsed() < 2 * SHORT {
            let begun = Instant::now();
            other.initialize(LONG).await.unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let (spins, slowest) = tokio::join!(spins, work);
    assert!(spins.iter().all(|spin| *spin == Err(PluginError::DeadlineExceeded(3 * SHORT))), "{spins:?}");
    assert!(slowest < SHORT, "a call among spinning guests took {slowest:?}");
}

#[tokio::test]
async fn a_flood_of_log_lines_ends_soon() {
    let lifecycle = lifecycle(&plain()).await;
    let start = Instant::now();
    attempt(&lifecycle, "act", "flood-log:100000", LONG).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

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

/// A stand-in for the host's `compile PLUGIN -o FILE`, quick and with a will of its own.
fn compiler(directory: &Path) -> PathBuf {
    let (program, compiled) = (directory.join("compiler"), directory.join("ready.cwasm"));
    plugin::compile(&component("misbehaving"), &compiled).unwrap();
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1 $3\" = 'compile -o' ] || exit 64\n\
         case $2 in *broken*) echo 'malformed section' >&2; exit 65;; esac\n\
         if [ \"$4\" = - ]; then exec /bin/cat {0}; else exec /bin/cp {0} \"$4\"; fi\n",
        compiled.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn a_child_process_compiles_into_the_cache_or_into_memory() {
    let directory = tempfile::tempdir().unwrap();
    let compiler = Compiler::Child { init: INIT.clone(), host: compiler(directory.path()) };
    let pod = plain();
    let cache = directory.path().join("cache");
    for cache in [Some(cache.as_path()), Some(Path::new("/proc/nowhere")), None] {
        let plugin = Plugin::load(&ENGINE, &component("misbehaving"), cache, &compiler, &pod).await.unwrap();
        plugin.lifecycle(&pod).initialize(LONG).await.unwrap();
    }
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    let broken = directory.path().join("broken.wasm");
    fs::write(&broken, b"\0asm\x0d\0\x01\0").unwrap();
    let error = Plugin::load(&ENGINE, &broken, None, &compiler, &pod).await.unwrap_err();
    assert!(matches!(&error, LoadError::Compile { reason, .. } if reason == "malformed section"), "{error}");
    let error = Plugin::load(&ENGINE, &component("hello"), None, &compiler, &pod).await.unwrap_err();
    assert!(matches!(&error, LoadError::Changed { .. }), "{error}");
}

#[tokio::test]
async fn each_example_plugin_loads() {
    for name in ["hello", "redis", "metrics", "sanity", "shell", "tool", "misbehaved"] {
        load(&component(name), &plain()).await.unwrap();
    }
}
