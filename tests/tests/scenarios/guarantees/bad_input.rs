//! Guarantee 7: no input by network or file can crash the host: invalid input gets an error that names it.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, PodBuilder, Result, TestEnv, ZooKeeper, artifacts, consistently, eventually};

use crate::pod;

/// Starts it, and checks its exit code and that its output has all of the texts.
async fn refused(builder: PodBuilder, code: i32, texts: &[&str]) -> Result {
    let mut pod = builder.start()?;
    let ended = pod.exit_code().await?;
    let console = pod.console()?;
    ensure!(ended == code, "it ended with {ended} instead of {code}: {console}");
    for text in texts {
        ensure!(console.contains(text), "{text:?} is not in {console}");
    }
    ensure!(!console.contains("panicked"), "it panicked: {console}");
    Ok(())
}

#[tokio::test]
async fn each_bad_setting_is_named_with_its_value() -> Result {
    let env = TestEnv::new().await?;
    let rows = [
        ("cluster", "a/b"),
        ("cluster", "a.b"),
        ("namespace", "a..b"),
        ("namespace", "über"),
        ("port", "http"),
        ("port", "0"),
        ("port", "65536"),
        ("port", "-1"),
        ("session", "soon"),
        ("session", "0"),
        ("session", "-5"),
        ("session", "inf"),
        ("local", "maybe"),
        ("start", "perhaps"),
        ("debug", "2"),
        ("exit_when_dead", "later"),
        ("listen", "nowhere"),
        ("listen", "127.0.0.1:99999"),
        ("ip", "not an address"),
        ("public", "a b"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("set_grace", "long"),
        ("set_checks", "0"),
        ("set_damper", "-1"),
        ("set_nothing", "1"),
        ("seq", "7"),
        ("status", "dead"),
        ("ports", "{}"),
        ("metrics", "{}"),
    ];
    for (name, value) in rows {
        let named = if let Some(setting) = name.strip_prefix("set_") { setting } else { name };
        refused(pod(&env).set(name, value), 64, &[named, value]).await.with_context(|| format!("{name}={value}"))?;
    }
    ensure!(env.cluster("default").registered().await?.is_empty(), "a pod registered");
    Ok(())
}

#[tokio::test]
async fn each_bad_part_of_the_ensembles_address_is_named() -> Result {
    let env = TestEnv::new().await?;
    let rows = [
        ("zk://", "server 1"),
        ("host:port", "port"),
        ("host:0", "\"0\""),
        ("host:65536", "65536"),
        ("one:2181,,two:2181", "server 2"),
        ("host:2181/a//b", "/a//b"),
        ("host:2181/a/../b", "/a/../b"),
        ("zk://user@host:2181", "user:password"),
        ("http://host:2181", "http"),
    ];
    for (zk, expected) in rows {
        refused(pod(&env).set("zk", zk), 64, &["ochopod_zk", expected]).await.with_context(|| zk.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn all_bad_settings_are_reported_together() -> Result {
    let env = TestEnv::new().await?;
    let builder = pod(&env).set("port", "http").set("session", "soon").set("start", "perhaps").env("PORT_80", "x");
    let builder = builder.set("set_damper", "later").set("zk", "zk://host:port");
    let builder = builder.flags(["--namespace", "a..b", "--set", "nothing=1", "--dir", "/not/there::/data"]);
    refused(
        builder,
        64,
        &[
            "ochopod_port",
            "http",
            "ochopod_session",
            "soon",
            "ochopod_start",
            "PORT_80",
            "--namespace",
            "ochopod_set_damper",
            "ochopod_zk",
            "--set nothing",
            "--dir",
        ],
    )
    .await
}

#[tokio::test]
async fn bad_usage_is_64() -> Result {
    let env = TestEnv::new().await?;
    for flags in [&["--nonsense"][..], &["--set", "grace"], &["--net", "nowhere"], &["--dir", "/tmp"], &["another"]] {
        refused(pod(&env).flags(flags.iter().copied()), 64, &[flags[flags.len() - 1]]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn help_is_an_answer_and_names_flags_and_variables() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod(&env).flags(["--help"]).start()?;
    let code = pod.exit_code().await?;
    let said = pod.output()?;
    ensure!(code == 0 && said.contains("--session") && said.contains("ochopod_session"), "{code}: {said}");
    Ok(())
}

#[tokio::test]
async fn flags_win_over_variables_and_unknown_names_of_ports_are_ignored() -> Result {
    let env = TestEnv::new().await?;
    let builder = pod(&env).set("cluster", "variable").env("PORT_BASE", "not a number").env("PORT_", "x");
    let pod = builder.flags(["--cluster", "flag"]).start()?;
    let info = pod.wait_info("process", "running").await?;
    ensure!(info["cluster"] == "flag", "the cluster is {}", info["cluster"]);
    ensure!(info["ports"] == serde_json::json!({}), "ports are {}", info["ports"]);
    Ok(())
}

#[tokio::test]
async fn a_registration_of_more_than_4_kib_is_refused() -> Result {
    let env = TestEnv::new().await?;
    refused(pod(&env).set("blob", "x".repeat(5000)), 64, &["4096"]).await
}

#[tokio::test]
async fn secrets_are_in_no_log() -> Result {
    let env = TestEnv::new().await?;
    let secret = "hunter2-of-the-kit";
    env.store().authenticate(&format!("kit:{secret}")).await?;
    let zk = format!("zk://kit:{secret}@{}", env.store().connect_string());
    let builder = pod(&env).set("zk", zk).set("api_key", secret).set("token", secret).set("debug", "true");
    let pod =
        builder.command("env; echo answer $((40 + 2)); exec sleep 86400").set("set_pipe_subprocess", "true").start()?;
    let info = pod.wait_info("process", "running").await?;
    pod.wait_log("answer 42").await?;
    ensure!(!info.to_string().contains(secret), "/info contains it");
    let bearer = format!("Bearer {secret}");
    let bearer = [("authorization", bearer.as_str())];
    let log = pod.client().send(hyper::Method::POST, "/log", &bearer, bytes::Bytes::new()).await?.json(200)?;
    ensure!(!log.to_string().contains(secret), "/log contains it");
    ensure!(!pod.console()?.contains(secret), "the console contains it");
    for registration in env.cluster("default").registrations().await?.values() {
        ensure!(!registration.to_string().contains(secret), "the registration contains it");
    }
    Ok(())
}

#[tokio::test]
async fn each_bad_plugin_file_is_named() -> Result {
    let env = TestEnv::new().await?;
    let good = fs::read(artifacts::misbehaving()?)?;
    let file = |name: &str, content: &[u8]| -> Result<PathBuf> {
        let path = env.scratch().join(name);
        fs::write(&path, content)?;
        Ok(path)
    };
    let directory = env.scratch().join("directory.wasm");
    fs::create_dir(&directory)?;
    let unreadable = file("not-there.wasm", b"")?;
    fs::remove_file(&unreadable)?;
    let rows = [
        (unreadable, "not-there.wasm"),
        (directory, "directory.wasm"),
        (file("empty.wasm", b"")?, "empty.wasm"),
        (file("text.wasm", b"#!/bin/sh\necho hello\n")?, "text.wasm"),
        (file("core.wasm", b"\0asm\x01\0\0\0")?, "core.wasm"),
        (file("half.wasm", &good[..good.len() / 2])?, "half.wasm"),
        (file("head.wasm", &good[..8])?, "head.wasm"),
        (file("foreign.cwasm", b"\x7fELF\x02\x01\x01 not ours")?, "foreign.cwasm"),
        (artifacts::guest("wrong-version")?, "0.2.0"),
    ];
    for (plugin, text) in rows {
        refused(env.pod(&plugin), 65, &[text]).await.with_context(|| plugin.display().to_string())?;
    }
    let mut flipped = good.clone();
    for byte in flipped.iter_mut().skip(good.len() / 3).step_by(997) {
        *byte ^= 0x55;
    }
    refused(env.pod(&file("flipped.wasm", &flipped)?), 65, &["flipped.wasm"]).await
}

#[tokio::test]
async fn a_compiled_plugin_is_accepted_unless_others_may_write_to_it() -> Result {
    let env = TestEnv::new().await?;
    let compiled = env.scratch().join("hello.cwasm");
    let mut compile = ochopod_tests::Process::command(artifacts::ochopod()?);
    compile.arg("compile").arg(artifacts::plugin("hello")?).arg("-o").arg(&compiled);
    let mut compile = ochopod_tests::Process::spawn("ochopod compile", compile)?;
    ensure!(compile.wait(DEFAULT_TIMEOUT * 2).await?.success(), "it does not compile");
    fs::set_permissions(&compiled, fs::Permissions::from_mode(0o666))?;
    refused(env.pod(&compiled), 65, &["hello.cwasm"]).await?;
    fs::set_permissions(&compiled, fs::Permissions::from_mode(0o600))?;
    let mut truncated = fs::read(&compiled)?;
    let pods = env.start_cluster(1, |env| env.pod(&compiled)).await?;
    drop(pods);
    truncated.truncate(truncated.len() / 2);
    let half = env.scratch().join("half.cwasm");
    fs::write(&half, truncated)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o600))?;
    refused(env.pod(&half), 65, &["half.cwasm"]).await
}

#[tokio::test]
async fn an_unusable_cache_stops_no_pod() -> Result {
    let env = TestEnv::new().await?;
    let hello = artifacts::plugin("hello")?;
    let file = env.scratch().join("a-file");
    fs::write(&file, "")?;
    for cache in [file.join("below"), PathBuf::from("/proc/nothing")] {
        let pod = env.pod(&hello).set("cache", cache.display()).start()?;
        pod.wait_info("process", "running").await?;
    }
    let open = env.scratch().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777))?;
    let pod = env.pod(&hello).set("cache", open.display()).start()?;
    pod.wait_info("process", "running").await?;
    Ok(())
}

#[tokio::test]
async fn garbage_in_the_cache_is_compiled_again() -> Result {
    let env = TestEnv::new().await?;
    let hello = artifacts::plugin("hello")?;
    let cache = env.scratch().join("cache");
    let first = env.pod(&hello).set("cache", cache.display()).start()?;
    first.wait_info("process", "running").await?;
    drop(first);
    let mut spoilt = 0;
    for entry in fs::read_dir(&cache)? {
        fs::write(entry?.path(), "garbage")?;
        spoilt += 1;
    }
    ensure!(spoilt > 0, "nothing was cached");
    let second = env.pod(&hello).set("cache", cache.display()).start()?;
    second.wait_info("process", "running").await?;
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_names_the_address_and_the_flag() -> Result {
    let env = TestEnv::new().await?;
    let builder = pod(&env);
    let _taken = TcpListener::bind(("127.0.0.2", env.port()))?;
    let address = format!("127.0.0.2:{}", env.port());
    let mut pod = builder.start()?;
    let code = pod.exit_code().await?;
    let console = pod.console()?;
    ensure!(code == 64, "it ended with {code}: {console}");
    ensure!(console.contains(&address) && console.contains("--listen"), "unexpected output {console}");
    ensure!(env.cluster("default").registered().await?.is_empty(), "it registered");
    Ok(())
}

#[tokio::test]
async fn a_command_that_cannot_be_started_ends_the_pod_and_reports_the_cause() -> Result {
    let env = TestEnv::new().await?;
    let nowhere = pod(&env).set("cluster", "nowhere").set("set_cwd", "/not/there").start()?;
    nowhere.wait_info("process", "dead").await?;
    nowhere.wait_log("/not/there").await?;
    let mut host = pod(&env).set("cluster", "no-path").env("PATH", "/nowhere").set("set_grace", "2");
    host = host.command("exec redis-server-that-is-not-there");
    let pod = host.set("set_check_every", "1").start()?;
    eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await).await?;
    pod.client().info().await?;
    Ok(())
}

#[tokio::test]
async fn only_granted_programs_run_with_exec() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).set("cluster", "denied").flags(["--exec", "redis-server"]).start()?;
    pod.wait_info("process", "dead").await?;
    ensure!(pod.starts()?.is_empty(), "it was started");
    pod.wait_log("--exec").await?;
    let granted = env.pod(&artifacts::plugin("hello")?).set("cluster", "granted").flags(["--exec", "sleep"]).start()?;
    granted.wait_info("process", "running").await?;
    Ok(())
}

#[tokio::test]
async fn limited_programs_get_only_variables_that_the_plugin_declares() -> Result {
    let env = TestEnv::new().await?;
    let (program, proof) = (env.scratch().join("wrapper"), env.scratch().join("proof"));
    fs::write(&program, format!("#!/bin/bash\nenv > {}\nexec sleep 86400\n", proof.display()))?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = program.display().to_string();
    let limited = |cluster: &str, sets: &str| {
        let pod = pod(&env).set("cluster", cluster).set("test_program", &path).set("test_sets", sets);
        pod.set("test_variables", "ROLE,BASH_ENV,LD_PRELOAD").flags(["--exec", &path])
    };
    for (number, name) in ["BASH_ENV", "BASH_FUNC_sleep%%", "LD_PRELOAD", "PATH", "FOO"].into_iter().enumerate() {
        let pod = limited(&format!("denied-{number}"), &format!("ROLE,{name}")).start()?;
        pod.wait_info("process", "dead").await?;
        pod.wait_log(&format!("variable {name} not allowed with --exec")).await?;
    }
    ensure!(!proof.exists(), "it was started");
    let granted = limited("granted", "ROLE").start()?;
    granted.wait_info("process", "running").await?;
    eventually("it says its environment", DEFAULT_TIMEOUT, async || {
        ensure!(fs::read_to_string(&proof)?.lines().any(|line| line == "ROLE=x"), "the variable is not set");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn credentials_that_zookeeper_refuses_end_the_host() -> Result {
    let zookeeper = ZooKeeper::own().await?;
    let env = TestEnv::with_zookeeper(zookeeper.into()).await?;
    let zk = format!("zk://nobody:{}@{}", "x", env.store().connect_string());
    // The server accepts any digest; it rejects a node of another user.
    let cluster = env.cluster("default");
    cluster.store().create_for("kit", "secret", &cluster.path("pods")).await?;
    let mut pod = pod(&env).set("zk", zk).start()?;
    let ended = pod.wait(DEFAULT_TIMEOUT).await;
    let console = pod.console()?;
    let code = ended.with_context(|| console.clone())?.code();
    ensure!(code == Some(69), "it ended with {code:?}: {console}");
    Ok(())
}

#[tokio::test]
async fn check_names_the_requests_of_a_plugin_and_the_flags() -> Result {
    let env = TestEnv::new().await?;
    let run = async |plugin: PathBuf, flags: &[&str]| -> Result<(Option<i32>, String)> {
        let output = env.scratch().join("check");
        let mut check = ochopod_tests::Process::command(artifacts::ochopod()?);
        check.arg("check").arg(plugin).args(flags).stdout(fs::File::create(&output)?);
        check.stderr(fs::OpenOptions::new().append(true).open(&output)?);
        let mut check = ochopod_tests::Process::spawn("ochopod check", check)?;
        let status = check.wait(DEFAULT_TIMEOUT * 2).await?;
        Ok((status.code(), fs::read_to_string(output)?))
    };
    let (code, said) = run(artifacts::plugin("redis")?, &[]).await?;
    ensure!(code == Some(0), "it ended with {code:?}: {said}");
    let texts = [
        "ochopod:pod",
        "0.1.0",
        "--net peers",
        "--dir",
        "::/data",
        "loopback   6379",
        "check_every=5 checks=3 cwd=none",
        "probe_every=5 ",
    ];
    for text in texts {
        ensure!(said.contains(text), "{text:?} is not in {said}");
    }
    for debug in ["Settings {", "None", "Some(", "[]", "0ns"] {
        ensure!(!said.contains(debug), "{debug:?} is in {said}");
    }
    let (code, said) = run(PathBuf::from("/etc/passwd"), &[]).await?;
    ensure!(code == Some(65) && said.contains("/etc/passwd"), "it ended with {code:?}: {said}");
    Ok(())
}

#[tokio::test]
async fn signals_that_mean_nothing_change_nothing() -> Result {
    let env = TestEnv::new().await?;
    // Without a terminal WINCH stops the pod.
    let pods = env.start_cluster(1, |env| pod(env).on_terminal()).await?;
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE, Signal::SIGWINCH] {
        pods[0].signal(signal)?;
    }
    consistently("it runs", Duration::from_secs(1), async || {
        ensure!(pods[0].client().info().await?["process"] == "running", "it is not running");
        Ok(())
    })
    .await
}
