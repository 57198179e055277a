//! Registration of services, and its renewal.

use std::{fs, time::Duration};

use anyhow::ensure;
use ochopod_tests::{
    CertificateAuthority, DEFAULT_TIMEOUT, Result, consistently, consul::FakeConsul, eventually, namespaces,
};
use serde_json::{Value, json};

use crate::{
    SLEEP,
    pilot_env::{PilotEnv, service, sh},
};

/// Returns the service `app`, healthy while a file of that name exists.
fn checked() -> Value {
    json!({ "services": [service("app", json!({ "ttl": 60, "health": "test -e healthy" }))] })
}

fn requests(pilot_env: &PilotEnv) -> Vec<String> {
    pilot_env.consul.calls().iter().map(|call| format!("{} {}", call.method, call.path)).collect()
}

#[tokio::test]
async fn a_service_is_registered_together_with_its_check() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let app = json!({
        "interfaces": "static:127.0.0.7", "tags": ["blue", "new"], "ttl": 7,
        "consul": { "enableTagOverride": true, "deregisterCriticalServiceAfter": "40m" },
    });
    let pilot = pilot_env.pilot(json!({ "services": [service("app", app)] })).within(namespaces::init_on("web-1"));
    let _pilot = pilot.shell(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;

    let registered = pilot_env.registered("app")?;
    ensure!(registered["ID"] == "app-web-1" && registered["Port"] == 8080, "registered is {registered}");
    ensure!(registered["Address"] == "127.0.0.7" && registered["Tags"] == json!(["blue", "new"]), "{registered}");
    ensure!(registered["EnableTagOverride"] == true, "registered is {registered}");
    let check = pilot_env.consul.checks()["app-web-1"].clone();
    ensure!(check["Name"] == "app-web-1" && check["Notes"] == "TTL for app set by containerpilot", "it has {check}");

    let calls = pilot_env.consul.calls();
    let register = calls.iter().find(|call| call.path == "/v1/agent/service/register");
    let check = register.map(|call| call.body["Check"].clone()).unwrap_or_default();
    ensure!(check["TTL"] == "7s" && check["Status"] == "passing", "the check is {check}");
    ensure!(check["DeregisterCriticalServiceAfter"] == "40m", "the check is {check}");
    // The next check is reported, so the registration is complete.
    eventually("the next check is reported", DEFAULT_TIMEOUT, async || {
        ensure!(pilot_env.calls("/check/pass/").len() >= 2, "it is not: {:?}", requests(&pilot_env));
        Ok(())
    })
    .await?;
    ensure!(pilot_env.calls("/check/register").is_empty(), "there is a second call: {:?}", requests(&pilot_env));
    Ok(())
}

#[tokio::test]
async fn no_service_is_registered_before_its_health_check_passes() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = pilot_env.pilot(checked()).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    consistently("it is not registered", Duration::from_millis(2500), async || pilot_env.is("app", "absent")).await?;
    ensure!(pilot_env.calls("/agent/").is_empty(), "the agent received {:?}", requests(&pilot_env));
    fs::write(pilot.directory().join("healthy"), "")?;
    pilot_env.wait_status("app", "passing").await
}

#[tokio::test]
async fn a_failing_check_and_its_recovery_are_reported_immediately() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let pilot = pilot_env.pilot(checked()).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    let healthy = pilot.directory().join("healthy");
    for _ in 0..2 {
        fs::write(&healthy, "")?;
        pilot_env.wait_status("app", "passing").await?;
        fs::remove_file(&healthy)?;
        pilot_env.wait_status("app", "critical").await?;
    }
    ensure!(pilot_env.calls("/service/register").len() == 1, "it was registered again: {:?}", requests(&pilot_env));
    ensure!(pilot_env.calls("/deregister/").is_empty(), "it was deregistered: {:?}", requests(&pilot_env));
    Ok(())
}

#[tokio::test]
async fn heartbeats_keep_services_healthy_beyond_their_ttl() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let short = json!({ "ttl": 5 });
    let services = json!([service("one", short.clone()), service("two", short)]);
    let _pilot = pilot_env.pilot(json!({ "services": services })).shell(SLEEP).start()?;
    for name in ["one", "two"] {
        pilot_env.wait_status(name, "passing").await?;
    }
    consistently("they are healthy", Duration::from_secs(8), async || {
        pilot_env.is("one", "passing")?;
        pilot_env.is("two", "passing")
    })
    .await?;
    ensure!(pilot_env.calls("/service/register").len() == 2, "they were registered again: {:?}", requests(&pilot_env));
    Ok(())
}

#[tokio::test]
async fn a_service_that_the_agent_forgot_is_registered_again() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let services = json!([service("one", json!({})), service("two", json!({ "health": "true" }))]);
    let mut pilot = pilot_env.pilot(json!({ "services": services })).shell(SLEEP).start()?;
    for _ in 0..3 {
        for name in ["one", "two"] {
            pilot_env.wait_status(name, "passing").await?;
        }
        pilot_env.consul.forget();
    }
    ensure!(pilot.is_up()?, "it ended");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_was_down_or_starts_late_receives_all_registrations() -> Result {
    let mut pilot_env = PilotEnv::new().await?;
    pilot_env.consul.refuse().await;
    let mut pilot = pilot_env.pilot(json!({ "services": [service("app", json!({}))] })).count_starts(SLEEP).start()?;
    pilot.started(1).await?;
    for _ in 0..2 {
        consistently("it runs on", Duration::from_millis(2500), async || {
            ensure!(pilot.is_up()?, "it ended");
            Ok(())
        })
        .await?;
        pilot_env.consul.open().await?;
        pilot_env.wait_status("app", "passing").await?;
        pilot_env.consul.refuse().await;
        pilot_env.consul.forget();
    }
    ensure!(pilot.starts()?.len() == 1, "the application was started again");
    Ok(())
}

#[tokio::test]
async fn an_agent_that_hangs_stops_no_checks_and_does_not_delay_the_end() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let check = json!({ "health": sh("echo . >> checks") });
    let mut pilot = pilot_env.pilot(json!({ "services": [service("app", check)] })).shell(SLEEP).start()?;
    pilot_env.wait_status("app", "passing").await?;
    pilot_env.consul.stall();
    let checked = pilot.lines("checks").len();
    pilot.wait_lines("checks", checked + 2).await?;
    pilot.term()?;
    let ended = pilot.wait(DEFAULT_TIMEOUT).await?;
    ensure!(ended.code() == Some(143), "it ended with {ended}");
    pilot.assert_clean().await
}

#[tokio::test]
async fn the_token_is_shown_with_every_request() -> Result {
    let pilot_env = PilotEnv::new().await?;
    pilot_env.consul.require("a-token");
    let configuration = json!({
        "consul": { "address": pilot_env.consul.address(), "token": "not-this-one" },
        "services": [service("app", json!({}))],
    });
    let pilot =
        pilot_env.pilot(configuration).env("CONSUL_HTTP_TOKEN", "a-token").shell("env > seen; exec sleep 86400");
    let pilot = pilot.start()?;
    pilot_env.wait_status("app", "passing").await?;
    let log = pilot.wait_log("service app registered").await?;
    ensure!(!log.contains("a-token"), "the log contains it");
    Ok(())
}

#[tokio::test]
async fn an_agent_is_reached_by_tls_and_at_a_unix_socket() -> Result {
    let mut pilot_env = PilotEnv::new().await?;
    let authority = CertificateAuthority::new()?;
    let [server, client] = ["consul", "client"].map(|name| authority.certify(name, &["127.0.0.1"]));
    let (server, client) = (server?, client?);
    let tls = FakeConsul::start_with_tls(&server, Some(&authority)).await?;
    let files = json!({ "cafile": authority.certificate(), "clientcert": client.certificate, "clientkey": client.key });
    let by_tls = json!({ "address": tls.address(), "scheme": "https", "tls": files });
    let socket = FakeConsul::start_at(pilot_env.scratch().join("consul.sock")).await?;
    let at_socket = json!(socket.address());
    for (agent, address) in [(tls, by_tls), (socket, at_socket)] {
        pilot_env.consul = agent;
        let configuration = json!({ "consul": address, "services": [service("app", json!({}))] });
        let mut pilot =
            pilot_env.pilot_in(&format!("pilot-{}", address.is_string()), configuration).shell(SLEEP).start()?;
        pilot_env.wait_status("app", "passing").await?;
        pilot.term()?;
        pilot.exit_code().await?;
        pilot_env.is("app", "absent")?;
    }
    Ok(())
}
