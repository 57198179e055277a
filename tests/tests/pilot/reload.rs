//! SIGHUP: effects of a changed configuration.

use std::{fs, time::Duration};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{
    CertificateAuthority, Client, DEFAULT_TIMEOUT, Pilot, PilotBuilder, ResourceUsage, Result, consistently,
    consul::FakeConsul, eventually, free_port,
};
use serde_json::{Value, json};

use crate::{
    OBEDIENT, SLEEP,
    pilot_env::{PilotEnv, backend, service, sh, with},
};

/// Number of reloads that must not accumulate resources.
const RELOADS: usize = 100;

fn services(services: &[Value]) -> Value {
    json!({ "services": services })
}

#[tokio::test]
async fn only_services_that_changed_are_touched() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let [kept, moved, gone, new] = ["kept", "moved", "gone", "new"].map(|name| service(name, json!({})));
    let pilot = pilot_env.pilot(services(&[kept.clone(), moved.clone(), gone])).count_starts(SLEEP).start()?;
    for name in ["kept", "moved", "gone"] {
        pilot_env.wait_status(name, "passing").await?;
    }
    let moved = with(moved, json!({ "port": 8081, "tags": ["new"] }));
    pilot.reload(&pilot_env.with_registry(services(&[new, moved, kept])))?;
    pilot_env.wait_status("gone", "absent").await?;
    pilot_env.wait_status("new", "passing").await?;
    eventually("the other is moved", DEFAULT_TIMEOUT, async || {
        let registered = pilot_env.registered("moved")?;
        ensure!(registered["Port"] == 8081 && registered["Tags"] == json!(["new"]), "registered is {registered}");
        pilot_env.is("moved", "passing")
    })
    .await?;
    consistently("the services stay", Duration::from_secs(2), async || {
        ["kept", "moved", "new"].iter().try_for_each(|name| pilot_env.is(name, "passing"))
    })
    .await?;
    ensure!(pilot_env.calls("/deregister/kept-").is_empty(), "the service that stays was deregistered");
    let registered = pilot_env.consul.calls();
    let registered = registered.iter().filter(|call| call.body["Name"] == "kept").count();
    ensure!(registered == 1, "the service that stays was registered {registered} times");
    ensure!(pilot.starts()?.len() == 1, "the application was started again");
    Ok(())
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_all_its_errors_are_reported() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let configuration = with(services(&[service("app", json!({ "ttl": 6 }))]), json!({ "stopTimeout": 7 }));
    let mut pilot = pilot_env.pilot(configuration).count_starts(OBEDIENT).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let bad = [
        ("{ \"consul\": ", "1:13"),
        ("{{ .NOPE", "template"),
        ("{ \"services\": [] }", "No discovery backend defined"),
        ("{ \"consul\": \"x\", \"servces\": [], \"stopTimeout\": [] }", "servces"),
    ];
    for (text, expected) in bad {
        pilot.reload_text(text)?;
        eventually(&format!("{expected} is logged"), DEFAULT_TIMEOUT, async || {
            let log = pilot.log()?;
            let last = log.to_lowercase();
            ensure!(last.contains(&expected.to_lowercase()), "it is not: {log}");
            Ok(())
        })
        .await?;
    }
    pilot.wait_log("stopTimeout").await?;
    fs::remove_file(pilot.directory().join("pilot.json5"))?;
    pilot.signal(Signal::SIGHUP)?;
    pilot.wait_log("no such file").await?;
    consistently("the old one is kept", Duration::from_secs(8), async || pilot_env.is("app", "passing")).await?;
    ensure!(pilot_env.calls("/service/register").len() == 1, "the service was registered again");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the application was not terminated");
    Ok(())
}

#[tokio::test]
async fn after_a_reload_the_application_is_stopped_by_the_new_configuration() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hooks = |which: &str| {
        let record_hook = |hook: &str| sh(&format!("echo {which} {hook} >> hooks"));
        let more = json!({ "preStop": record_hook("pre-stop"), "postStop": record_hook("post-stop"), "preStart": record_hook("pre-start") });
        with(services(&[service(which, json!({}))]), more)
    };
    let mut pilot = pilot_env.pilot(hooks("old")).count_starts(OBEDIENT).start()?;
    pilot_env.wait_status("old", "passing").await?;
    pilot.reload(&pilot_env.with_registry(hooks("new")))?;
    pilot_env.wait_status("new", "passing").await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the application was not terminated");
    let hooks = pilot.lines("hooks");
    ensure!(hooks == ["old pre-start", "new pre-stop", "new post-stop"], "hooks were {hooks:?}");
    pilot_env.is("old", "absent")?;
    pilot_env.is("new", "absent")
}

#[tokio::test]
async fn a_reload_during_pre_start_counts() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let hook = json!({ "preStart": sh("echo . >> pre; while [ ! -e go ]; do sleep 0.05; done") });
    let pilot =
        pilot_env.pilot(with(services(&[service("old", json!({}))]), hook.clone())).count_starts(SLEEP).start()?;
    pilot.wait_lines("pre", 1).await?;
    pilot.reload(&pilot_env.with_registry(with(services(&[service("new", json!({}))]), hook)))?;
    pilot.wait_log("configuration reloaded").await?;
    fs::write(pilot.directory().join("go"), "")?;
    pilot.started(1).await?;
    pilot_env.wait_status("new", "passing").await?;
    ensure!(pilot_env.status("old") == "absent" && pilot.lines("pre").len() == 1, "the old one counted");
    Ok(())
}

#[tokio::test]
async fn a_configuration_text_is_rendered_again() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text =
        pilot_env.with_registry(json!({ "preStart": "echo {{ .WHAT }}", "services": [service("app", json!({}))] }));
    let pilot =
        PilotBuilder::new(&pilot_env.scratch().join("pilot")).env("CONTAINERPILOT", text).env("WHAT", "printed");
    let pilot = pilot.count_starts(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    pilot.signal(Signal::SIGHUP)?;
    pilot.wait_log("configuration reloaded").await?;
    pilot_env.consul.forget();
    pilot_env.wait_status("app", "passing").await?;
    ensure!(pilot.output()?.matches("printed").count() == 1, "preStart ran again");
    Ok(())
}

#[tokio::test]
async fn backends_tasks_and_coprocesses_that_stay_are_not_disturbed() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.add("a", "db", json!({})).await?;
    let coprocess_json =
        |name: &str| json!({ "name": name, "command": sh(&format!("echo $$ >> {name}; exec sleep 86400")) });
    let configuration = |coprocesses: &[&str], backends: &[&str]| {
        let backends = backends.iter().map(|name| backend(name, &format!("echo . >> {name}")));
        json!({
            "backends": backends.collect::<Value>(),
            "coprocesses": coprocesses.iter().map(|name| coprocess_json(name)).collect::<Value>(),
            "tasks": [{ "command": sh("echo . >> task"), "frequency": "500ms" }],
        })
    };
    let pilot = pilot_env.pilot(configuration(&["kept", "gone"], &["db"])).count_starts(SLEEP).start()?;
    for file in ["kept", "gone", "db", "task"] {
        pilot.wait_lines(file, 1).await?;
    }
    pilot.reload(&pilot_env.with_registry(configuration(&["kept", "new"], &["db", "other"])))?;
    pilot.wait_lines("new", 1).await?;
    let gone: i32 = pilot.lines("gone")[0].parse()?;
    eventually("a removed coprocess exits", DEFAULT_TIMEOUT, async || {
        ensure!(!ochopod_tests::alive(gone), "it is alive");
        Ok(())
    })
    .await?;
    pilot_env.add("o", "other", json!({})).await?;
    pilot.wait_lines("other", 1).await?;
    let tasks = pilot.lines("task").len();
    pilot.wait_lines("task", tasks + 2).await?;
    ensure!(pilot.lines("kept").len() == 1, "a coprocess that stays was started again");
    ensure!(pilot.lines("db").len() == 1, "a reload was taken for a change of a backend");
    pilot_env.add("b", "db", json!({ "Port": 1001 })).await?;
    pilot.wait_lines("db", 2).await?;
    Ok(())
}

#[tokio::test]
async fn telemetry_moves_with_its_port_and_keeps_what_was_counted() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let count =
        json!({ "name": "kit_count", "help": "of the kit", "type": "counter", "poll": 1, "check": sh("echo 1") });
    let at = |port: u16| json!({ "telemetry": { "port": port, "interfaces": "lo", "sensors": [count] } });
    let [first, second] = [free_port()?, free_port()?];
    let page = |port: u16| Client::new(format!("127.0.0.1:{port}"));
    let pilot = pilot_env.pilot(at(first)).count_starts(SLEEP).start()?;
    eventually("something is counted", DEFAULT_TIMEOUT, async || {
        let text = String::from_utf8(page(first).get("/metrics").await?.body.to_vec())?;
        let count = text.lines().find_map(|line| line.strip_prefix("kit_count ")).unwrap_or("0");
        ensure!(count.parse::<f64>()? >= 2.0, "it counts {count}");
        Ok(())
    })
    .await?;
    pilot.reload(&pilot_env.with_registry(at(second)))?;
    eventually("the page moves", DEFAULT_TIMEOUT, async || {
        let text = String::from_utf8(page(second).get("/metrics").await?.body.to_vec())?;
        let count = text.lines().find_map(|line| line.strip_prefix("kit_count ")).unwrap_or("0");
        ensure!(count.parse::<f64>()? >= 2.0, "it counts {count}");
        ensure!(page(first).get("/metrics").await.is_err(), "it is still there");
        Ok(())
    })
    .await?;
    eventually("it is advertised there", DEFAULT_TIMEOUT, async || {
        ensure!(pilot_env.registered("containerpilot")?["Port"] == second, "registered with another port");
        Ok(())
    })
    .await?;
    pilot.reload(&pilot_env.with_registry(json!({})))?;
    pilot_env.wait_status("containerpilot", "absent").await?;
    eventually("the page is closed", DEFAULT_TIMEOUT, async || {
        ensure!(page(second).get("/metrics").await.is_err(), "it is still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_bad_configuration() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = |port: u16| json!({ "telemetry": { "port": port, "interfaces": "lo" }, "services": [] });
    let port = free_port()?;
    let page = Client::new(format!("127.0.0.1:{port}"));
    let pilot = pilot_env.pilot(at(port)).count_starts(SLEEP).start()?;
    eventually("the page is there", DEFAULT_TIMEOUT, async || page.get("/metrics").await?.is(200)).await?;
    let bad = with(at(taken.local_addr()?.port()), services(&[service("app", json!({}))]));
    pilot.reload(&pilot_env.with_registry(bad))?;
    pilot.wait_log("cannot serve telemetry").await?;
    consistently("the old page is there", Duration::from_secs(2), async || {
        page.get("/metrics").await?.is(200)?;
        pilot_env.is("app", "absent")
    })
    .await
}

#[tokio::test]
async fn services_move_with_their_registry() -> Result {
    let [pilot_env, other] = [PilotEnv::new().await?, PilotEnv::new().await?];
    let configuration =
        json!({ "services": [service("app", json!({}))], "backends": [backend("db", "echo . >> changes")] });
    let pilot = pilot_env.pilot(configuration.clone()).count_starts(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    pilot.reload(&other.with_registry(configuration))?;
    other.wait_status("app", "passing").await?;
    pilot_env.wait_status("app", "absent").await?;
    other.add("a", "db", json!({})).await?;
    pilot.wait_lines("changes", 1).await?;
    ensure!(pilot.starts()?.len() == 1, "the application was started again");
    Ok(())
}

#[tokio::test]
async fn logging_changes_with_the_configuration() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let logged = |logging: Value| json!({ "logging": logging, "tasks": [{ "command": ["echo", "printed"], "frequency": "100ms" }] });
    let pilot = pilot_env.pilot(logged(json!({ "format": "text" }))).shell(SLEEP).start()?;
    eventually("lines are texts", DEFAULT_TIMEOUT, async || {
        ensure!(pilot.output()?.contains("level=info msg=printed"), "they are {}", pilot.output()?);
        Ok(())
    })
    .await?;
    pilot.reload(&pilot_env.with_registry(logged(json!({ "format": "json", "output": "stderr" }))))?;
    eventually("lines are JSON, elsewhere", DEFAULT_TIMEOUT, async || {
        let line = pilot.console()?.lines().rfind(|line| line.contains("printed")).unwrap_or_default().to_owned();
        ensure!(serde_json::from_str::<Value>(&line)?["msg"] == "printed", "it is {line}");
        Ok(())
    })
    .await?;
    pilot.reload(&pilot_env.with_registry(logged(json!({ "level": "ERROR", "output": "stderr" }))))?;
    eventually("nothing is reported any longer", DEFAULT_TIMEOUT, async || {
        let before = pilot.console()?.len();
        tokio::time::sleep(Duration::from_millis(400)).await;
        ensure!(pilot.console()?.len() == before, "the console has new lines");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reloads_without_number_leave_the_pilot_as_it_was() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let [first, second] = [free_port()?, free_port()?];
    let configuration = |which: &str, port: u16| {
        let sensor = json!({ "name": which, "help": "h", "type": "gauge", "poll": 1, "check": ["echo", "1"] });
        pilot_env.with_registry(json!({
            "services": [service("kept", json!({})), service(which, json!({ "health": "true" }))],
            "backends": [backend("db", "true"), backend(which, "true")],
            "tasks": [{ "name": which, "command": "true", "frequency": "1h" }],
            "coprocesses": [{ "name": which, "command": sh(&format!("true {which}; exec sleep 86400")) }],
            "telemetry": { "port": port, "interfaces": "lo", "sensors": [sensor] },
        }))
    };
    let [first, second] = [configuration("one", first), configuration("two", second)];
    let mut pilot = pilot_env.pilot(first.clone()).count_starts(SLEEP).start()?;
    pilot_env.wait_status("one", "passing").await?;
    let before = held(&pilot).await?;
    ensure!(before.threads <= 4, "resources: {before:?}");

    for _ in 0..RELOADS {
        pilot.signal(Signal::SIGHUP)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    wait_resources(&pilot, before).await?;
    for turn in 0..RELOADS {
        pilot.reload(if turn % 2 == 0 { &second } else { &first })?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pilot_env.wait_status("two", "absent").await?;
    pilot_env.wait_status("one", "passing").await?;
    wait_resources(&pilot, before).await?;
    ensure!(pilot.is_up()? && pilot.starts()?.len() == 1, "the application was disturbed");
    for _ in 0..RELOADS {
        pilot.signal(Signal::SIGHUP)?;
    }
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    pilot_env.is("one", "absent")?;
    pilot.assert_clean().await
}

/// Returns the minimum resources of a pilot within a while, in which each check exits.
async fn held(pilot: &Pilot) -> Result<ResourceUsage> {
    let mut least = pilot.holdings()?;
    for _ in 0..150 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let ResourceUsage { threads, descriptors, children } = pilot.holdings()?;
        least.threads = least.threads.min(threads);
        least.descriptors = least.descriptors.min(descriptors);
        least.children = least.children.min(children);
    }
    Ok(least)
}

/// Waits until a pilot has no more resources than before, except for a few connections kept for the next request.
async fn wait_resources(pilot: &Pilot, before: ResourceUsage) -> Result {
    eventually("resources are as before", DEFAULT_TIMEOUT, async || {
        let now = held(pilot).await?;
        ensure!(now.descriptors <= before.descriptors + 3, "resources: {now:?}, before {before:?}");
        // An idle thread for files ends after a while.
        let is_same = now.threads <= before.threads && now.children == before.children;
        ensure!(is_same, "resources: {now:?}, before {before:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn on_change_that_a_reload_terminates_runs_again_whatever_its_exit_code() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let interrupted = "trap 'exit 0' TERM; echo . >> interrupted; while :; do sleep 0.05; done";
    pilot_env.add("a", "db", json!({})).await?;
    let configuration =
        |on_change: &str| json!({ "backends": [with(backend("db", on_change), json!({ "timeout": 60 }))] });
    let pilot = pilot_env.pilot(configuration(interrupted)).count_starts(SLEEP).start()?;
    pilot.wait_lines("interrupted", 1).await?;
    // A change during the run. The second query after it is sent once the change is known.
    pilot_env.add("b", "db", json!({ "Port": 1001 })).await?;
    let queries = || pilot_env.calls("/v1/health/service/db").len();
    let before = queries();
    eventually("the change is known", DEFAULT_TIMEOUT, async || {
        ensure!(queries() >= before + 2, "there were {} queries", queries());
        Ok(())
    })
    .await?;
    pilot.reload(&pilot_env.with_registry(configuration("echo $OCHOPOD_ADDED >> changes")))?;
    let changes = pilot.wait_lines("changes", 1).await?;
    ensure!(changes == ["127.0.0.1:1000,127.0.0.1:1001"], "it received {changes:?}");
    Ok(())
}

#[tokio::test]
async fn tls_files_are_read_again_and_services_stay_registered() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let (authority, other) = (CertificateAuthority::new()?, CertificateAuthority::new()?);
    let agent = FakeConsul::start_with_tls(&authority.certify("here", &["127.0.0.1"])?, None).await?;
    let trusted = pilot_env.scratch().join("trusted.pem");
    let consul = json!({ "address": agent.address(), "scheme": "https", "tls": { "cafile": trusted } });
    let configuration = with(services(&[service("app", json!({}))]), json!({ "consul": consul }));
    fs::copy(other.certificate(), &trusted)?;
    let pilot = pilot_env.pilot(configuration).count_starts(SLEEP).start()?;
    pilot.wait_log("cannot update service app").await?;
    let count = |path: &str| agent.calls().iter().filter(|call| call.path.contains(path)).count();
    let wait_registered = async |times: usize| {
        eventually("it is registered with the current files", DEFAULT_TIMEOUT, async || {
            ensure!(count("/service/register") == times, "it was registered {} times", count("/service/register"));
            Ok(())
        })
        .await
    };
    let both = fs::read_to_string(authority.certificate())? + &fs::read_to_string(other.certificate())?;
    for (times, text) in [(1, fs::read_to_string(authority.certificate())?), (2, both)] {
        fs::write(&trusted, text)?;
        pilot.signal(Signal::SIGHUP)?;
        wait_registered(times).await?;
    }
    ensure!(count("/service/deregister/") == 0, "it was deregistered");

    // Files that did not change renew nothing.
    pilot.signal(Signal::SIGHUP)?;
    eventually("it is reloaded again", DEFAULT_TIMEOUT, async || {
        ensure!(pilot.count_log("configuration reloaded")? == 3, "it is not");
        Ok(())
    })
    .await?;
    consistently("it is not registered again", Duration::from_secs(2), async || {
        ensure!(count("/service/register") == 2, "it was");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_left_at_the_end_has_the_stop_timeout_of_the_current_configuration() -> Result {
    let pilot_env = PilotEnv::new().await?;
    // A daemon of the hook, in its own session: it takes a moment to exit.
    let daemon = "trap 'sleep 4; echo . > ended; exit 0' TERM; echo . > up; while :; do sleep 0.05; done";
    let hook = json!({ "preStart": ["setsid", "--fork", "sh", "-c", daemon] });
    let mut pilot = pilot_env.pilot(with(hook.clone(), json!({ "stopTimeout": 1 }))).count_starts(OBEDIENT).start()?;
    pilot.started(1).await?;
    pilot.wait_lines("up", 1).await?;
    pilot.reload(&pilot_env.with_registry(with(hook, json!({ "stopTimeout": 60 }))))?;
    pilot.wait_log("configuration reloaded").await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the application was not terminated");
    ensure!(pilot.lines("ended") == ["."], "the daemon was killed after the former stopTimeout");
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_becomes_a_pipe_holds_up_neither_a_reload_nor_the_end() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let mut pilot = pilot_env.pilot(services(&[service("app", json!({}))])).count_starts(OBEDIENT).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let file = pilot.directory().join("pilot.json5");
    fs::remove_file(&file)?;
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU)?;
    pilot.signal(Signal::SIGHUP)?;
    pilot.wait_log("not a regular file but a pipe").await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "it did not end with the application's code");
    let mut pilot = PilotBuilder::new(&pilot_env.scratch().join("second"));
    pilot = pilot.flags(["-config".to_owned(), format!("file://{}", file.display())]).shell("true");
    ensure!(pilot.start()?.exit_code().await? == 64, "a pipe is taken for a configuration");
    Ok(())
}
