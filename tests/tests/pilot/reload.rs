//! HUP: what changes with a configuration, and what does not.

use std::{fs, time::Duration};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{Client, Holdings, Pilot, PilotBuilder, Result, SOON, eventually, free_port, steadily};
use serde_json::{Value, json};

use crate::{
    OBEDIENT, SLEEP,
    corner::{Corner, backend, service, sh, with},
};

/// How often a reload is repeated where nothing may pile up.
const RELOADS: usize = 100;

fn services(services: &[Value]) -> Value {
    json!({ "services": services })
}

#[tokio::test]
async fn only_services_that_changed_are_touched() -> Result {
    let corner = Corner::new().await?;
    let [kept, moved, gone, new] = ["kept", "moved", "gone", "new"].map(|name| service(name, json!({})));
    let pilot = corner.pilot(services(&[kept.clone(), moved.clone(), gone])).counted(SLEEP).start()?;
    for name in ["kept", "moved", "gone"] {
        corner.becomes(name, "passing").await?;
    }
    let moved = with(moved, json!({ "port": 8081, "tags": ["new"] }));
    pilot.reload(&corner.with_place(services(&[new, moved, kept])))?;
    corner.becomes("gone", "absent").await?;
    corner.becomes("new", "passing").await?;
    eventually("the other is moved", SOON, async || {
        let registered = corner.registered("moved")?;
        ensure!(registered["Port"] == 8081 && registered["Tags"] == json!(["new"]), "registered is {registered}");
        corner.is("moved", "passing")
    })
    .await?;
    steadily("the services stay", Duration::from_secs(2), async || {
        ["kept", "moved", "new"].iter().try_for_each(|name| corner.is(name, "passing"))
    })
    .await?;
    ensure!(corner.asked("/deregister/kept-").is_empty(), "the service that stays was deregistered");
    let registered = corner.consul.asked();
    let registered = registered.iter().filter(|asked| asked.body["Name"] == "kept").count();
    ensure!(registered == 1, "the service that stays was registered {registered} times");
    ensure!(pilot.starts()?.len() == 1, "the application was started again");
    Ok(())
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_all_its_mistakes_are_told() -> Result {
    let corner = Corner::new().await?;
    let configuration = with(services(&[service("app", json!({ "ttl": 3 }))]), json!({ "stopTimeout": 7 }));
    let mut pilot = corner.pilot(configuration).counted(OBEDIENT).start()?;
    corner.becomes("app", "passing").await?;
    let bad = [
        ("{ \"consul\": ", "1:13"),
        ("{{ .NOPE", "template"),
        ("{ \"services\": [] }", "consul"),
        ("{ \"consul\": \"x\", \"servces\": [], \"stopTimeout\": [] }", "servces"),
    ];
    for (text, told) in bad {
        pilot.reload_text(text)?;
        eventually(&format!("{told} is told"), SOON, async || {
            let log = pilot.log()?;
            let last = log.to_lowercase();
            ensure!(last.contains(&told.to_lowercase()), "it is not: {log}");
            Ok(())
        })
        .await?;
    }
    pilot.logs("stopTimeout").await?;
    fs::remove_file(pilot.directory().join("pilot.json5"))?;
    pilot.signal(Signal::SIGHUP)?;
    pilot.logs("no such file").await?;
    steadily("the old one is kept", Duration::from_secs(4), async || corner.is("app", "passing")).await?;
    ensure!(corner.asked("/service/register").len() == 1, "the service was registered again");
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the application was not asked to end");
    Ok(())
}

#[tokio::test]
async fn after_a_reload_the_application_is_ended_as_the_new_configuration_says() -> Result {
    let corner = Corner::new().await?;
    let hooks = |which: &str| {
        let told = |hook: &str| sh(&format!("echo {which} {hook} >> hooks"));
        let more = json!({ "preStop": told("pre-stop"), "postStop": told("post-stop"), "preStart": told("pre-start") });
        with(services(&[service(which, json!({}))]), more)
    };
    let mut pilot = corner.pilot(hooks("old")).counted(OBEDIENT).start()?;
    corner.becomes("old", "passing").await?;
    pilot.reload(&corner.with_place(hooks("new")))?;
    corner.becomes("new", "passing").await?;
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 0, "the application was not asked to end");
    let hooks = pilot.lines("hooks");
    ensure!(hooks == ["old pre-start", "new pre-stop", "new post-stop"], "hooks were {hooks:?}");
    corner.is("old", "absent")?;
    corner.is("new", "absent")
}

#[tokio::test]
async fn a_reload_during_pre_start_counts() -> Result {
    let corner = Corner::new().await?;
    let hook = json!({ "preStart": sh("echo . >> pre; while [ ! -e go ]; do sleep 0.05; done") });
    let pilot = corner.pilot(with(services(&[service("old", json!({}))]), hook.clone())).counted(SLEEP).start()?;
    pilot.wrote("pre", 1).await?;
    pilot.reload(&corner.with_place(with(services(&[service("new", json!({}))]), hook)))?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::write(pilot.directory().join("go"), "")?;
    pilot.started(1).await?;
    corner.becomes("new", "passing").await?;
    ensure!(corner.status("old") == "absent" && pilot.lines("pre").len() == 1, "the old one counted");
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_is_no_file_is_rendered_anew() -> Result {
    let corner = Corner::new().await?;
    let text = corner.with_place(json!({ "preStart": "echo {{ .WHAT }}", "services": [service("app", json!({}))] }));
    let pilot = PilotBuilder::new(&corner.scratch().join("pilot")).env("CONTAINERPILOT", text).env("WHAT", "told");
    let pilot = pilot.counted(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    pilot.signal(Signal::SIGHUP)?;
    pilot.logs("reloaded").await?;
    corner.consul.forget();
    corner.becomes("app", "passing").await?;
    ensure!(pilot.output()?.matches("told").count() == 1, "preStart ran again");
    Ok(())
}

#[tokio::test]
async fn backends_tasks_and_coprocesses_that_stay_are_not_disturbed() -> Result {
    let corner = Corner::new().await?;
    corner.add("a", "db", json!({})).await?;
    let told = |name: &str| json!({ "name": name, "command": sh(&format!("echo $$ >> {name}; exec sleep 86400")) });
    let configuration = |coprocesses: &[&str], backends: &[&str]| {
        let backends = backends.iter().map(|name| backend(name, &format!("echo . >> {name}")));
        json!({
            "backends": backends.collect::<Value>(),
            "coprocesses": coprocesses.iter().map(|name| told(name)).collect::<Value>(),
            "tasks": [{ "command": sh("echo . >> task"), "frequency": "500ms" }],
        })
    };
    let pilot = corner.pilot(configuration(&["kept", "gone"], &["db"])).counted(SLEEP).start()?;
    for file in ["kept", "gone", "db", "task"] {
        pilot.wrote(file, 1).await?;
    }
    pilot.reload(&corner.with_place(configuration(&["kept", "new"], &["db", "other"])))?;
    pilot.wrote("new", 1).await?;
    let gone: i32 = pilot.lines("gone")[0].parse()?;
    eventually("a coprocess that is no more ends", SOON, async || {
        ensure!(!ochopod_tests::alive(gone), "it is alive");
        Ok(())
    })
    .await?;
    corner.add("o", "other", json!({})).await?;
    pilot.wrote("other", 1).await?;
    let tasks = pilot.lines("task").len();
    pilot.wrote("task", tasks + 2).await?;
    ensure!(pilot.lines("kept").len() == 1, "a coprocess that stays was started again");
    ensure!(pilot.lines("db").len() == 1, "a reload was taken for a change of a backend");
    corner.add("b", "db", json!({ "Port": 1001 })).await?;
    pilot.wrote("db", 2).await?;
    Ok(())
}

#[tokio::test]
async fn telemetry_moves_with_its_port_and_keeps_what_was_counted() -> Result {
    let corner = Corner::new().await?;
    let count =
        json!({ "name": "kit_count", "help": "of the kit", "type": "counter", "poll": 1, "check": sh("echo 1") });
    let at = |port: u16| json!({ "telemetry": { "port": port, "interfaces": "lo", "sensors": [count] } });
    let [first, second] = [free_port()?, free_port()?];
    let page = |port: u16| Client::new(format!("127.0.0.1:{port}"));
    let pilot = corner.pilot(at(first)).counted(SLEEP).start()?;
    eventually("something is counted", SOON, async || {
        let text = String::from_utf8(page(first).get("/metrics").await?.body.to_vec())?;
        ensure!(text.contains("\nkit_count 2"), "it is not");
        Ok(())
    })
    .await?;
    pilot.reload(&corner.with_place(at(second)))?;
    eventually("the page moves", SOON, async || {
        let text = String::from_utf8(page(second).get("/metrics").await?.body.to_vec())?;
        let count = text.lines().find_map(|line| line.strip_prefix("kit_count ")).unwrap_or("0");
        ensure!(count.parse::<f64>()? >= 2.0, "it counts {count}");
        ensure!(page(first).get("/metrics").await.is_err(), "it is still there");
        Ok(())
    })
    .await?;
    eventually("it is advertised there", SOON, async || {
        ensure!(corner.registered("containerpilot")?["Port"] == second, "it is not");
        Ok(())
    })
    .await?;
    pilot.reload(&corner.with_place(json!({})))?;
    corner.becomes("containerpilot", "absent").await?;
    ensure!(page(second).get("/metrics").await.is_err(), "it is still there");
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_bad_configuration() -> Result {
    let corner = Corner::new().await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = |port: u16| json!({ "telemetry": { "port": port, "interfaces": "lo" }, "services": [] });
    let port = free_port()?;
    let page = Client::new(format!("127.0.0.1:{port}"));
    let pilot = corner.pilot(at(port)).counted(SLEEP).start()?;
    eventually("the page is there", SOON, async || page.get("/metrics").await?.is(200)).await?;
    let bad = with(at(taken.local_addr()?.port()), services(&[service("app", json!({}))]));
    pilot.reload(&corner.with_place(bad))?;
    steadily("the old page is there", Duration::from_secs(2), async || {
        page.get("/metrics").await?.is(200)?;
        corner.is("app", "absent")
    })
    .await
}

#[tokio::test]
async fn services_move_with_their_place() -> Result {
    let [corner, other] = [Corner::new().await?, Corner::new().await?];
    let configuration =
        json!({ "services": [service("app", json!({}))], "backends": [backend("db", "echo . >> changes")] });
    let pilot = corner.pilot(configuration.clone()).counted(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    pilot.reload(&other.with_place(configuration))?;
    other.becomes("app", "passing").await?;
    corner.becomes("app", "absent").await?;
    other.add("a", "db", json!({})).await?;
    pilot.wrote("changes", 1).await?;
    ensure!(pilot.starts()?.len() == 1, "the application was started again");
    Ok(())
}

#[tokio::test]
async fn logging_changes_with_the_configuration() -> Result {
    let corner = Corner::new().await?;
    let logged = |logging: Value| json!({ "logging": logging, "tasks": [{ "command": ["echo", "told"], "frequency": "100ms" }] });
    let pilot = corner.pilot(logged(json!({ "format": "text" }))).shell(SLEEP).start()?;
    eventually("lines are texts", SOON, async || {
        ensure!(pilot.output()?.contains("level=info msg=told"), "they are {}", pilot.output()?);
        Ok(())
    })
    .await?;
    pilot.reload(&corner.with_place(logged(json!({ "format": "json", "output": "stderr" }))))?;
    eventually("lines are JSON, elsewhere", SOON, async || {
        let line = pilot.console()?.lines().rfind(|line| line.contains("told")).unwrap_or_default().to_owned();
        ensure!(serde_json::from_str::<Value>(&line)?["msg"] == "told", "it is {line}");
        Ok(())
    })
    .await?;
    pilot.reload(&corner.with_place(logged(json!({ "level": "ERROR", "output": "stderr" }))))?;
    eventually("nothing is told any more", SOON, async || {
        let before = pilot.console()?.len();
        tokio::time::sleep(Duration::from_millis(400)).await;
        ensure!(pilot.console()?.len() == before, "it is");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reloads_without_number_leave_the_pilot_as_it_was() -> Result {
    let corner = Corner::new().await?;
    let [first, second] = [free_port()?, free_port()?];
    let configuration = |which: &str, port: u16| {
        let sensor = json!({ "name": which, "help": "h", "type": "gauge", "poll": 1, "check": ["echo", "1"] });
        corner.with_place(json!({
            "services": [service("kept", json!({})), service(which, json!({ "health": "true" }))],
            "backends": [backend("db", "true"), backend(which, "true")],
            "tasks": [{ "name": which, "command": "true", "frequency": "1h" }],
            "coprocesses": [{ "name": which, "command": sh(&format!("true {which}; exec sleep 86400")) }],
            "telemetry": { "port": port, "interfaces": "lo", "sensors": [sensor] },
        }))
    };
    let [first, second] = [configuration("one", first), configuration("two", second)];
    let mut pilot = corner.pilot(first.clone()).counted(SLEEP).start()?;
    corner.becomes("one", "passing").await?;
    let before = held(&pilot).await?;
    ensure!(before.threads <= 4, "it holds {before:?}");

    for _ in 0..RELOADS {
        pilot.signal(Signal::SIGHUP)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    holds(&pilot, before).await?;
    for turn in 0..RELOADS {
        pilot.reload(if turn % 2 == 0 { &second } else { &first })?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    corner.becomes("two", "absent").await?;
    corner.becomes("one", "passing").await?;
    holds(&pilot, before).await?;
    ensure!(pilot.is_up()? && pilot.starts()?.len() == 1, "the application was disturbed");
    for _ in 0..RELOADS {
        pilot.signal(Signal::SIGHUP)?;
    }
    pilot.term()?;
    ensure!(pilot.exit_code().await? == 143, "the code is not the application's");
    corner.is("one", "absent")?;
    pilot.leaves_nothing().await
}

/// The least that a pilot holds within a while, in which each check ends.
async fn held(pilot: &Pilot) -> Result<Holdings> {
    let mut least = pilot.holdings()?;
    for _ in 0..150 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Holdings { threads, descriptors, children } = pilot.holdings()?;
        least.threads = least.threads.min(threads);
        least.descriptors = least.descriptors.min(descriptors);
        least.children = least.children.min(children);
    }
    Ok(least)
}

/// Waits until a pilot holds as much as before, but for a few connections that are kept for the next request.
async fn holds(pilot: &Pilot, before: Holdings) -> Result {
    eventually("it holds as much as before", SOON, async || {
        let now = held(pilot).await?;
        ensure!(now.descriptors <= before.descriptors + 3, "it holds {now:?}, before {before:?}");
        ensure!(
            (now.threads, now.children) == (before.threads, before.children),
            "it holds {now:?}, before {before:?}"
        );
        Ok(())
    })
    .await
}
