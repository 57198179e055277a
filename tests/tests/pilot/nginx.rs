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
use ochopod_tests::{Client, DEFAULT_TIMEOUT, Nginx, Pilot, PilotBuilder, Result, eventually, free_port, namespaces};
use serde_json::json;

use crate::pilot_env::{PilotEnv, sh};

/// Writes the file of servers again from what the agent reports of a service, and notifies the running nginx, if any.
const RENDER: &str = r#"#!/bin/sh
servers=$(curl --fail -s "http://$CONSUL/v1/health/service/$1?passing=1" | grep -o '"Port":[0-9]*' | cut -d: -f2)
[ -n "$servers" ] || servers="1 down"
printf '%s\n' "$servers" | sed 's/^\([0-9]*\)\(.*\)$/server 127.0.0.1:\1\2 max_fails=0;/' > "$SERVERS.next"
mv "$SERVERS.next" "$SERVERS"
[ "$2" != reload ] || exec $RELOAD
"#;

/// Number of requests to the front that reach every instance.
const REQUESTS: usize = 12;

fn script(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Returns the nginx in front, before it is started, and the port of its telemetry.
fn front(pilot_env: &PilotEnv) -> Result<(PilotBuilder, Nginx, u16)> {
    let (port, telemetry) = (free_port()?, free_port()?);
    let servers = pilot_env.scratch().join("servers");
    let nginx = Nginx::passing(&pilot_env.scratch().join("front-nginx"), port, &servers)?;
    let render = script(pilot_env.scratch(), "render.sh", RENDER)?;
    let render = render.display();
    // The text of the document, with other addresses.
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
    let pilot = PilotBuilder::new(&pilot_env.scratch().join("front")).written(&text).application(nginx.command());
    let pilot =
        pilot.env("CONSUL", pilot_env.consul.address()).env("UPSTREAM", "app").env("SERVERS", servers.display());
    Ok((pilot.env("RELOAD", nginx.reload().join(" ")), nginx, telemetry))
}

/// Returns an instance of the service `app`, which answers with the name of its host. It is unhealthy while a file of
/// that name exists.
fn instance(pilot_env: &PilotEnv, host: &str) -> Result<Pilot> {
    let port = free_port()?;
    let nginx = Nginx::answering(&pilot_env.scratch().join(format!("{host}-nginx")), port, host)?;
    let health = format!("[ ! -e sick ] && exec curl --fail -s http://127.0.0.1:{port}/");
    let configuration = json!({
        "preStop": "sleep 1",
        "services": [{
            "name": "app", "port": port, "poll": 1, "ttl": 8, "interfaces": "lo", "health": sh(&health),
            "timeout": "5s",
        }],
    });
    let pilot = pilot_env.pilot_in(host, configuration).within(namespaces::init_on(host));
    pilot.application(nginx.command()).start()
}

/// Waits until exactly these answer through the front.
async fn answered_by(front: &Nginx, hosts: &[&str]) -> Result {
    eventually(&format!("{hosts:?} answer"), DEFAULT_TIMEOUT, async || {
        let mut answers = BTreeSet::new();
        for _ in 0..REQUESTS {
            answers.insert(request(front).await?);
        }
        ensure!(answers.iter().eq(hosts), "{answers:?} do");
        Ok(())
    })
    .await
}

async fn request(front: &Nginx) -> Result<String> {
    let reply = front.get().await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    Ok(if reply.status == 200 { text } else { reply.status.to_string() })
}

#[tokio::test]
async fn requests_reach_exactly_the_registered_instances_while_they_change() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let (front, nginx, telemetry) = front(&pilot_env)?;
    let mut front = front.start()?;
    pilot_env.wait_status("nginx", "passing").await?;
    answered_by(&nginx, &["502"]).await?;

    let one = instance(&pilot_env, "web-1")?;
    answered_by(&nginx, &["web-1"]).await?;
    let mut two = instance(&pilot_env, "web-2")?;
    let mut three = instance(&pilot_env, "web-3")?;
    answered_by(&nginx, &["web-1", "web-2", "web-3"]).await?;

    // An instance that shuts down, and one that is unhealthy for a while, cause no failed request.
    let failed = failed_requests(&nginx, async || {
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

    // One that crashes is gone after its TTL.
    three.kill9().await?;
    answered_by(&nginx, &["web-1"]).await?;
    let _again = instance(&pilot_env, "web-2")?;
    answered_by(&nginx, &["web-1", "web-2"]).await?;

    let page = Client::new(format!("127.0.0.1:{telemetry}")).get("/metrics").await?;
    let page = String::from_utf8(page.body.to_vec())?;
    ensure!(page.contains("# HELP metric_id help text\n# TYPE metric_id counter\nmetric_id "), "the page is {page}");
    front.term()?;
    ensure!(front.exit_code().await? == 0, "the code is not that of nginx");
    pilot_env.is("nginx", "absent")?;
    for hook in ["preStop", "postStop"] {
        ensure!(front.directory().join(hook).exists(), "{hook} did not run");
    }
    front.assert_clean().await
}

/// Sends requests continuously during an action, and returns the failed replies.
async fn failed_requests(front: &Nginx, act: impl AsyncFnOnce() -> Result) -> Result<Vec<String>> {
    let over = Arc::new(AtomicBool::new(false));
    let (nginx, stop) = (front.clone(), over.clone());
    let asker = tokio::spawn(async move {
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let answer = request(&nginx).await.unwrap_or_else(|error| format!("{error:#}"));
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
