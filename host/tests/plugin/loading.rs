//! Loading: from a file to a described plugin, compiled in process, by a child, or ahead of time.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use ochopod_init::{Privileges, ProcessSpec, StdioMode};
use ochopod_plugin::{self as plugin, CompiledPluginError, Compiler, DirectoryGrant, Grants, LoadError, Plugin};

use crate::kit::{ENGINE, INIT, LONG_TIMEOUT, component, load, misbehaving, plain, pod, view};

#[tokio::test]
async fn a_plugin_describes_itself_and_computes_a_command_from_a_view() {
    let pod = plain();
    let plugin = misbehaving(&pod).await;
    let description = plugin.description();
    assert_eq!((description.lifecycle.check_every, description.model.grace), (LONG_TIMEOUT, LONG_TIMEOUT));
    assert_eq!(description.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["report", "act"]);
    let lifecycle = plugin.lifecycle(&pod);
    lifecycle.initialize(LONG_TIMEOUT).await.unwrap();
    lifecycle.can_configure(&view(), LONG_TIMEOUT).await.unwrap();
    let command = lifecycle.configure(&view(), LONG_TIMEOUT).await.unwrap();
    let expected = [("OCHOPOD_TEST_INDEX", "1"), ("OCHOPOD_TEST_SEQ", "3")];
    let expected: BTreeMap<_, _> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(command.environment, expected);
    lifecycle.configured(&view(), LONG_TIMEOUT).await.unwrap();
    assert_eq!(lifecycle.sanity_check(7, LONG_TIMEOUT).await.unwrap().0["pid"], 7);
    lifecycle.finalize(LONG_TIMEOUT).await.unwrap();
    let status = plugin.model(&pod).probe(&view(), LONG_TIMEOUT).await.unwrap();
    assert_eq!(status.as_deref(), Some("2 pods probed"));
}

#[tokio::test]
async fn the_inspection_of_a_plugin_names_its_world_and_interfaces() {
    let inspection = misbehaving(&plain()).await.inspect();
    assert_eq!(inspection.world, "ochopod:pod/plugin@0.1.0");
    assert!(inspection.imports.iter().any(|name| name == "ochopod:pod/exec@0.1.0"), "{inspection:?}");
    assert!(inspection.exports.iter().any(|name| name == "ochopod:pod/tools@0.1.0"), "{inspection:?}");
}

#[tokio::test]
async fn a_plugin_for_another_version_is_refused_with_both_versions() {
    let error = load(&component("wrong-version"), &plain()).await.unwrap_err();
    assert!(matches!(&error, LoadError::Version { found, .. } if found == "0.2.0"), "{error}");
    assert!(error.to_string().contains("ochopod:pod@0.1.0"), "{error}");
}

#[tokio::test]
async fn a_plugin_that_fails_to_describe_itself_is_refused_with_the_reason() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let behaviours = [
        ("panic:no settings today", "no settings today"),
        ("trap", "unreachable"),
        ("exit", "exit(1)"),
        ("spin", "deadline of 2 s"),
        ("sleep", "deadline of 2 s"),
        ("flood-out", "deadline of 2 s"),
        // That it wanted too much, where it is quick enough.
        ("allocate", ""),
        ("stack", "out of bounds"),
        ("leak-pollables", "no free keys"),
        ("wait-socket", ""),
        ("wait-request", ""),
        ("exec:yes", "not granted"),
    ];
    let exports = [
        ("ochopod_test_settings", "lifecycle.settings"),
        ("ochopod_test_model_settings", "model.settings"),
        ("ochopod_test_list", "tools.list"),
    ];
    for (behaviour, reason) in behaviours {
        let loads = exports.map(|(variable, callback)| {
            let pod = pod(&[(variable, behaviour), ("ochopod_test_address", &address)], Grants::default());
            async move { (variable, callback, load(&component("misbehaving"), &pod).await.unwrap_err()) }
        });
        for (variable, callback, error) in join_all(loads).await {
            let LoadError::Describe { callback: named, reason: given, .. } = &error else { panic!("{error}") };
            assert!(*named == callback && given.contains(reason), "{variable}={behaviour}: {error}");
        }
    }
}

#[tokio::test]
async fn a_compiled_plugin_runs_and_a_truncated_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let compiled = directory.path().join("misbehaving.cwasm");
    plugin::compile(&component("misbehaving"), &compiled).unwrap();
    let pod = plain();
    let plugin = Plugin::load(&ENGINE, &compiled, None, &Compiler::InProcess, &pod).await.unwrap();
    plugin.lifecycle(&pod).initialize(LONG_TIMEOUT).await.unwrap();
    let bytes = fs::read(&compiled).unwrap();
    let truncated = directory.path().join("truncated.cwasm");
    fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    let error = load(&truncated, &pod).await.unwrap_err();
    assert!(matches!(error, LoadError::CompiledPlugin { source: CompiledPluginError::Foreign, .. }), "{error}");
}

/// Replaces the host's `compile PLUGIN -o FILE`: fast, with a chosen behaviour.
fn compiler(directory: &Path) -> PathBuf {
    let (program, compiled) = (directory.join("compiler"), directory.join("ready.cwasm"));
    plugin::compile(&component("misbehaving"), &compiled).unwrap();
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1 $3\" = 'compile -o' ] || exit 64\n\
         case $2 in *broken*) echo 'malformed section' >&2; exit 65;; esac\n\
         case $4 in */full/*) echo 'no space left on device' >&2; exit 70;; esac\n\
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
    let (cache, full) = (directory.path().join("cache"), directory.path().join("full"));
    for cache in [Some(cache.as_path()), Some(full.as_path()), Some(Path::new("/proc/nowhere")), None] {
        let plugin = Plugin::load(&ENGINE, &component("misbehaving"), cache, &compiler, &pod).await.unwrap();
        plugin.lifecycle(&pod).initialize(LONG_TIMEOUT).await.unwrap();
    }
    assert_eq!([cache, full].map(|cache| fs::read_dir(cache).unwrap().count()), [1, 0]);
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

#[tokio::test]
async fn this_very_program_compiles_as_a_child() {
    let directory = tempfile::tempdir().unwrap();
    let compiler = Compiler::Child { init: INIT.clone(), host: env!("CARGO_BIN_EXE_ochopod").into() };
    let (cache, pod) = (directory.path().join("cache"), plain());
    let plugin = Plugin::load(&ENGINE, &component("hello"), Some(&cache), &compiler, &pod).await.unwrap();
    plugin.lifecycle(&pod).initialize(LONG_TIMEOUT).await.unwrap();
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    let broken = directory.path().join("broken.wasm");
    fs::write(&broken, b"\0asm\x0d\0\x01\0\x7f\x01\0").unwrap();
    for cache in [Some(cache.as_path()), None] {
        let error = Plugin::load(&ENGINE, &broken, cache, &compiler, &pod).await.unwrap_err();
        assert!(matches!(&error, LoadError::Compile { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_describes_itself_has_no_network_not_even_loopback() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let behaviour = format!("wait-socket:{}", server.local_addr().unwrap());
    let pod = pod(&[("ochopod_test_settings", &behaviour)], Grants::default());
    let error = load(&component("misbehaving"), &pod).await.unwrap_err();
    assert!(matches!(&error, LoadError::Describe { .. }), "{error}");
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "it got through");
}

#[tokio::test]
async fn a_granted_directory_that_is_missing_is_not_the_plugins_fault() {
    let missing = DirectoryGrant { host: "/does/not/exist".into(), guest: "/data".to_owned(), writable: false };
    let pod = pod(&[], Grants { directories: vec![missing], ..Grants::default() });
    let error = load(&component("misbehaving"), &pod).await.unwrap_err();
    assert!(matches!(&error, LoadError::Sandbox { reason } if reason.contains("/does/not/exist")), "{error:?}");
}

#[tokio::test]
async fn mistakes_of_the_operator_have_exit_codes_of_their_own() {
    let plugin = component("hello").into_os_string();
    let (broken, small) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    fs::write(small.path(), b"\0asm\x0d\0\x01\0").unwrap();
    let cases: [(&[&str], &std::ffi::OsStr, u8); 3] = [
        (&["compile", "-o", "/does/not/exist/x.cwasm"], small.path().as_os_str(), 70),
        (&["check", "--dir", "/does/not/exist::/data"], &plugin, 64),
        (&["check"], broken.path().as_os_str(), 65),
    ];
    for (arguments, plugin, expected) in cases {
        let launch = ProcessSpec {
            program: env!("CARGO_BIN_EXE_ochopod").into(),
            arguments: arguments.iter().map(Into::into).chain([plugin.to_owned()]).collect(),
            environment: BTreeMap::new(),
            directory: None,
            input: false,
            output: StdioMode::Separate,
            keep_daemons: false,
            privileges: Privileges::default(),
        };
        let finished = INIT.run(launch, Vec::new(), LONG_TIMEOUT, 10_000).await.unwrap();
        let said = String::from_utf8_lossy(&finished.stderr);
        assert_eq!(finished.exit.code(), expected, "{arguments:?}: {said}");
    }
}
