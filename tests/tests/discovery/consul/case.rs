//! Agents distinguish ids by case, their servers do not: the fake agent behaves like a real one.

use std::time::Duration;

use hyper::Method;
use ochopod_tests::{Client, Consul, Result, eventually};
use serde_json::{Value, json};

use crate::consul_agent;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

async fn put(client: &Client, path: &str, body: &Value) -> Result {
    client.send(Method::PUT, path, &[], body.to_string().into()).await?.is(200)
}

/// Returns the ids of a query, each with its port.
async fn found(client: &Client, name: &str) -> Result<Vec<(String, u64)>> {
    let entries: Value =
        serde_json::from_slice(&client.get(&format!("/v1/health/service/{name}?passing=1")).await?.body)?;
    let service = |entry: &Value| {
        let service = &entry["Service"];
        (service["ID"].as_str().unwrap_or_default().to_owned(), service["Port"].as_u64().unwrap_or_default())
    };
    Ok(entries.as_array().into_iter().flatten().map(service).collect())
}

async fn soon(client: &Client, expected: &[(&str, u64)]) -> Result {
    eventually("the servers know", DEFAULT_TIMEOUT, async || {
        let found = found(client, "WEB").await?;
        let is_so = found.iter().map(|(id, port)| (id.as_str(), *port)).eq(expected.iter().copied());
        anyhow::ensure!(is_so, "they know {found:?} instead of {expected:?}");
        Ok(())
    })
    .await
}

async fn of_two_ids_that_differ_in_case_the_last_that_changed_is_known(consul: Consul) -> Result {
    let client = Client::new(consul.address());
    let register = async |id: &str, port: u64| {
        let check = json!({"CheckID": id, "TTL": "30s", "Status": "passing"});
        let body = json!({"ID": id, "Name": "web", "Port": port, "Address": "10.0.0.1", "Check": check});
        put(&client, "/v1/agent/service/register", &body).await
    };
    register("web-a", 1).await?;
    soon(&client, &[("web-a", 1)]).await?;
    register("web-A", 2).await?;
    soon(&client, &[("web-A", 2)]).await?;
    for id in ["web-a", "web-A"] {
        put(&client, &format!("/v1/agent/check/pass/{id}"), &Value::Null).await?;
    }
    soon(&client, &[("web-A", 2)]).await?;
    put(&client, "/v1/agent/check/fail/web-a", &Value::Null).await?;
    soon(&client, &[]).await?;
    put(&client, "/v1/agent/check/pass/web-a", &Value::Null).await?;
    soon(&client, &[("web-a", 1)]).await?;
    put(&client, "/v1/agent/service/deregister/web-A", &Value::Null).await?;
    soon(&client, &[]).await?;
    let services: Value = serde_json::from_slice(&client.get("/v1/agent/services").await?.body)?;
    anyhow::ensure!(services["web-a"].is_object(), "the agent knows {services}");
    Ok(())
}

#[tokio::test]
async fn fake_consul_keeps_the_last_of_two_ids_that_differ_in_case() -> Result {
    of_two_ids_that_differ_in_case_the_last_that_changed_is_known(Consul::fake().await?).await
}

#[tokio::test]
async fn real_agent_keeps_the_last_of_two_ids_that_differ_in_case() -> Result {
    if !consul_agent::is_there() {
        return Ok(());
    }
    of_two_ids_that_differ_in_case_the_last_that_changed_is_known(Consul::agent().await?).await
}
