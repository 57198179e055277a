//! How services come to be registered, and stay so.

use std::{fs, time::Duration};

use anyhow::ensure;
use ochopod_tests::{Authority, Result, consul::StandIn, namespaces, steadily};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    corner::{Corner, service, sh},
};

/// The service `app`, healthy while there is a file of that name.
fn checked() -> Value {
    json!({ "services": [service("app", json!({ "ttl": 60, "health": "test -e healthy" }))] })
}

fn requests(corner: &Corner) -> Vec<String> {
    corner.consul.asked().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
}

#[tokio::test]
async fn a_service_is_registered_together_with_its_check() -> Result {
    let corner = Corner::new().await?;
    let app = json!({
        "interfaces": "static:127.0.0.7", "tags": ["blue", "new"], "ttl": 7,
        "consul": { "enableTagOverride": true, "deregisterCriticalServiceAfter": "40m" },
    });
    let pilot = corner.pilot(json!({ "services": [service("app", app)] })).within(namespaces::init_on("web-1"));
    let _pilot = pilot.shell(SLEEP).start()?;
    corner.becomes("app", "passing").await?;

    let registered = corner.registered("app")?;
    ensure!(registered["ID"] == "app-web-1" && registered["Port"] == 8080, "registered is {registered}");
    ensure!(registered["Address"] == "127.0.0.7" && registered["Tags"] == json!(["blue", "new"]), "{registered}");
    ensure!(registered["EnableTagOverride"] == true, "registered is {registered}");
    let check = corner.consul.checks()["app-web-1"].clone();
    ensure!(check["Name"] == "app-web-1" && check["Notes"] == "TTL for app set by containerpilot", "it has {check}");

    let asked = corner.consul.asked();
    let register = asked.iter().find(|asked| asked.path == "/v1/agent/service/register");
    let check = register.map(|asked| asked.body["Check"].clone()).unwrap_or_default();
    ensure!(check["TTL"] == "7s" && check["Status"] == "passing", "the check is {check}");
    ensure!(check["DeregisterCriticalServiceAfter"] == "40m", "the check is {check}");
    ensure!(corner.asked("/check/register").is_empty(), "there is a second call: {:?}", requests(&corner));
    Ok(())
}

#[tokio::test]
async fn nothing_is_registered_before_its_health_check_says_so() -> Result {
    let corner = Corner::new().await?;
    let pilot = corner.pilot(checked()).counted(SLEEP).start()?;
    pilot.started(1).await?;
    steadily("it is not registered", Duration::from_millis(2500), async || corner.is("app", "absent")).await?;
    ensure!(corner.asked("/agent/").is_empty(), "the agent was asked {:?}", requests(&corner));
    fs::write(pilot.directory().join("healthy"), "")?;
    corner.becomes("app", "passing").await
}

#[tokio::test]
async fn a_failing_check_is_told_at_once_and_so_is_its_recovery() -> Result {
    let corner = Corner::new().await?;
    let pilot = corner.pilot(checked()).counted(SLEEP).start()?;
    pilot.started(1).await?;
    let healthy = pilot.directory().join("healthy");
    for _ in 0..2 {
        fs::write(&healthy, "")?;
        corner.becomes("app", "passing").await?;
        fs::remove_file(&healthy)?;
        corner.becomes("app", "critical").await?;
    }
    ensure!(corner.asked("/service/register").len() == 1, "it was registered again: {:?}", requests(&corner));
    ensure!(corner.asked("/deregister/").is_empty(), "it was deregistered: {:?}", requests(&corner));
    Ok(())
}

#[tokio::test]
async fn heartbeats_keep_services_healthy_beyond_their_ttl() -> Result {
    let corner = Corner::new().await?;
    let short = json!({ "ttl": 2 });
    let services = json!([service("one", short.clone()), service("two", short)]);
    let _pilot = corner.pilot(json!({ "services": services })).shell(SLEEP).start()?;
    for name in ["one", "two"] {
        corner.becomes(name, "passing").await?;
    }
    steadily("they are healthy", Duration::from_secs(5), async || {
        corner.is("one", "passing")?;
        corner.is("two", "passing")
    })
    .await?;
    ensure!(corner.asked("/service/register").len() == 2, "they were registered again: {:?}", requests(&corner));
    Ok(())
}

#[tokio::test]
async fn a_service_that_the_agent_forgot_is_registered_again() -> Result {
    let corner = Corner::new().await?;
    let services = json!([service("one", json!({})), service("two", json!({ "health": "true" }))]);
    let mut pilot = corner.pilot(json!({ "services": services })).shell(SLEEP).start()?;
    for _ in 0..3 {
        for name in ["one", "two"] {
            corner.becomes(name, "passing").await?;
        }
        corner.consul.forget();
    }
    ensure!(pilot.is_up()?, "it ended");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_was_away_or_comes_late_is_told_all_again() -> Result {
    let mut corner = Corner::new().await?;
    corner.consul.refuse().await;
    let mut pilot = corner.pilot(json!({ "services": [service("app", json!({}))] })).counted(SLEEP).start()?;
    pilot.started(1).await?;
    for _ in 0..2 {
        steadily("it runs on", Duration::from_millis(2500), async || {
            ensure!(pilot.is_up()?, "it ended");
            Ok(())
        })
        .await?;
        corner.consul.open().await?;
        corner.becomes("app", "passing").await?;
        corner.consul.refuse().await;
        corner.consul.forget();
    }
    ensure!(pilot.starts()?.len() == 1, "the application was started again");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_hangs_stops_no_checks_and_does_not_delay_the_end() -> Result {
    let corner = Corner::new().await?;
    let check = json!({ "health": sh("echo . >> checks") });
    let mut pilot = corner.pilot(json!({ "services": [service("app", check)] })).shell(SLEEP).start()?;
    corner.becomes("app", "passing").await?;
    corner.consul.stall();
    let checked = pilot.lines("checks").len();
    pilot.wrote("checks", checked + 2).await?;
    pilot.term()?;
    let ended = pilot.wait(Duration::from_secs(5)).await?;
    ensure!(ended.code() == Some(143), "it ended with {ended}");
    pilot.leaves_nothing().await
}

#[tokio::test]
async fn the_token_is_shown_with_every_request() -> Result {
    let corner = Corner::new().await?;
    corner.consul.require("a-token");
    let configuration = json!({
        "consul": { "address": corner.consul.address(), "token": "not-this-one" },
        "services": [service("app", json!({}))],
    });
    let pilot = corner.pilot(configuration).env("CONSUL_HTTP_TOKEN", "a-token").shell("env > seen; exec sleep 86400");
    let pilot = pilot.start()?;
    corner.becomes("app", "passing").await?;
    ensure!(!pilot.log()?.contains("a-token"), "the log tells it");
    Ok(())
}

#[tokio::test]
async fn an_agent_is_reached_by_tls_and_at_a_unix_socket() -> Result {
    let mut corner = Corner::new().await?;
    let authority = Authority::new()?;
    let [server, client] = ["consul", "client"].map(|name| authority.certify(name, &["127.0.0.1"]));
    let (server, client) = (server?, client?);
    let tls = StandIn::start_with_tls(&server, Some(&authority)).await?;
    let files = json!({ "cafile": authority.certificate(), "clientcert": client.certificate, "clientkey": client.key });
    let by_tls = json!({ "address": tls.address(), "scheme": "https", "tls": files });
    let socket = StandIn::start_at(corner.scratch().join("consul.sock")).await?;
    let at_socket = json!(socket.address());
    for (agent, address) in [(tls, by_tls), (socket, at_socket)] {
        corner.consul = agent;
        let configuration = json!({ "consul": address, "services": [service("app", json!({}))] });
        let mut pilot =
            corner.pilot_in(&format!("pilot-{}", address.is_string()), configuration).shell(SLEEP).start()?;
        corner.becomes("app", "passing").await?;
        pilot.term()?;
        pilot.exit_code().await?;
        corner.is("app", "absent")?;
    }
    Ok(())
}
