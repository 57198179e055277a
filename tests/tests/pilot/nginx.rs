//! The example of ContainerPilot's own documentation: an nginx whose upstream servers are the instances of a service, each a
//! pilot with an nginx of its own on a host of its own.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use ochopod_tests::{Client, Nginx, Pilot, PilotBuilder, Result, SOON, eventually, free_port, namespaces};
use serde_json::json;

use crate::corner::{Corner, sh};

/// Writes the file of servers anew from what the agent tells of a service, and lets the nginx that runs, if any, know.
const RENDER: &str = r#"#!/bin/sh
servers=$(curl --fail -s "http://$CONSUL/v1/health/service/$1?passing=1" | grep -o '"Port":[0-9]*' | cut -d: -f2)
[ -n "$servers" ] || servers="1 down"
printf '%s\n' "$servers" | sed 's/^\([0-9]*\)\(.*\)$/server 127.0.0.1:\1\2 max_fails=0;/' > "$SERVERS.next"
mv "$SERVERS.next" "$SERVERS"
[ "$2" != reload ] || exec $RELOAD
"#;

/// How often the front is asked to see who all answers.
const QUESTIONS: usize = 12;

fn script(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The nginx in front, to be started, and the port of its telemetry.
fn front(corner: &Corner) -> Result<(PilotBuilder, Nginx, u16)> {
    let (port, telemetry) = (free_port()?, free_port()?);
    let servers = corner.scratch().join("servers");
    let nginx = Nginx::passing(&corner.scratch().join("front-nginx"), port, &servers)?;
    let render = script(corner.scratch(), "render.sh", RENDER)?;
    let render = render.display();
    // The words of the document, with other addresses.
    let text = format!(
        r#"{{
            "consul": "{{{{ .CONSUL }}}}",
            "onStart": "{render} {{{{.UPSTREAM}}}}",
            "logging": {{ "level": "INFO", "format": "default", "output": "stdout" }},
            "stopTimeout": 5,
            "preStop": "touch preStop",
            "postStop": "touch postStop",
            "services": [
                {{
                    "name": "nginx",
                    "port": {port},
                    "health": ["/usr/bin/curl", "--fail", "-s", "http://127.0.0.1:{port}/health"],
                    "interfaces": ["eth42", "eth42[1]", "127.0.0.0/8", "2001:db8::/64", "inet"],
                    "poll": 1,
                    "ttl": 30,
                    "tags": ["tag1"]
                }}
            ],
            "backends": [
                {{ "name": "app", "poll": 1, "onChange": "{render} {{{{.UPSTREAM}}}} reload" }}
            ],
            "telemetry": {{
                "port": {telemetry},
                "interfaces": "lo",
                "sensors": [
                    {{ "name": "metric_id", "help": "help text", "type": "counter", "poll": 1, "check": ["echo", "1"] }}
                ]
            }}
        }}"#
    );
    let pilot = PilotBuilder::new(&corner.scratch().join("front")).written(&text).application(nginx.command());
    let pilot = pilot.env("CONSUL", corner.consul.address()).env("UPSTREAM", "app").env("SERVERS", servers.display());
    Ok((pilot.env("RELOAD", nginx.reload().join(" ")), nginx, telemetry))
}

/// An instance of the service `app`, which answers with the name of its host. It is sick while there is a file of that name.
fn instance(corner: &Corner, host: &str) -> Result<Pilot> {
    let port = free_port()?;
    let nginx = Nginx::answering(&corner.scratch().join(format!("{host}-nginx")), port, host)?;
    let health = format!("[ ! -e sick ] && exec curl --fail -s http://127.0.0.1:{port}/");
    let configuration = json!({
        "preStop": "sleep 1",
        "services": [{
            "name": "app", "port": port, "poll": 1, "ttl": 3, "interfaces": "lo", "health": sh(&health),
        }],
    });
    let pilot = corner.pilot_in(host, configuration).within(namespaces::init_on(host));
    pilot.application(nginx.command()).start()
}

/// Waits until the front is answered by exactly these.
async fn answered_by(front: &Nginx, hosts: &[&str]) -> Result {
    eventually(&format!("{hosts:?} answer"), SOON, async || {
        let mut answers = BTreeSet::new();
        for _ in 0..QUESTIONS {
            answers.insert(ask(front).await?);
        }
        ensure!(answers.iter().eq(hosts), "{answers:?} do");
        Ok(())
    })
    .await
}

async fn ask(front: &Nginx) -> Result<String> {
    let reply = front.get().await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    Ok(if reply.status == 200 { text } else { reply.status.to_string() })
}

#[tokio::test]
async fn requests_reach_exactly_the_instances_that_are_registered_while_they_come_and_go() -> Result {
    let corner = Corner::new().await?;
    let (front, nginx, telemetry) = front(&corner)?;
    let mut front = front.start()?;
    corner.becomes("nginx", "passing").await?;
    answered_by(&nginx, &["502"]).await?;

    let one = instance(&corner, "web-1")?;
    answered_by(&nginx, &["web-1"]).await?;
    let mut two = instance(&corner, "web-2")?;
    let mut three = instance(&corner, "web-3")?;
    answered_by(&nginx, &["web-1", "web-2", "web-3"]).await?;

    // One that leaves in order, and one that is sick for a while, cost no request.
    let failed = asking(&nginx, async || {
        two.term()?;
        answered_by(&nginx, &["web-1", "web-3"]).await?;
        ensure!(two.exit_code().await? == 0, "the code is not that of nginx");
        fs::write(one.directory().join("sick"), "")?;
        answered_by(&nginx, &["web-3"]).await?;
        fs::remove_file(one.directory().join("sick"))?;
        answered_by(&nginx, &["web-1", "web-3"]).await
    })
    .await?;
    ensure!(failed.is_empty(), "these failed: {failed:?}");

    // One that crashes is gone after its time to live.
    three.kill9().await?;
    answered_by(&nginx, &["web-1"]).await?;
    let _again = instance(&corner, "web-2")?;
    answered_by(&nginx, &["web-1", "web-2"]).await?;

    let page = Client::new(format!("127.0.0.1:{telemetry}")).get("/metrics").await?;
    let page = String::from_utf8(page.body.to_vec())?;
    ensure!(page.contains("# HELP metric_id help text\n# TYPE metric_id counter\nmetric_id "), "the page is {page}");
    front.term()?;
    ensure!(front.exit_code().await? == 0, "the code is not that of nginx");
    corner.is("nginx", "absent")?;
    for hook in ["preStop", "postStop"] {
        ensure!(front.directory().join(hook).exists(), "{hook} did not run");
    }
    front.leaves_nothing().await
}

/// Asks all the time while something is done, and gives the answers that were not right.
async fn asking(front: &Nginx, act: impl AsyncFnOnce() -> Result) -> Result<Vec<String>> {
    let over = Arc::new(AtomicBool::new(false));
    let (nginx, stop) = (front.clone(), over.clone());
    let asker = tokio::spawn(async move {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let answer = ask(&nginx).await.unwrap_or_else(|error| format!("{error:#}"));
            if !answer.starts_with("web-") {
                failed.push(answer);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        failed
    });
    let done = act().await;
    over.store(true, Ordering::Relaxed);
    let failed = asker.await.context("the asker ended")?;
    done.map(|()| failed)
}
