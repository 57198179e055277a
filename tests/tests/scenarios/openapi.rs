//! `docs/openapi.json` describes the control API as the server implements it.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::{Method, header::ALLOW};
use ochopod_tests::{Reply, Result};
use serde_json::Value;

use crate::{
    follower::Follower,
    json_schema::{resolve, validate},
};

/// Requests that end the pod, or its session: sent last.
const SENT_LAST: [&str; 3] = ["/reset", "/control/kill", "/control/kill/{seconds}"];

fn specification() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Checks status and body of a reply against its operation.
fn documented(root: &Value, operation: &Value, reply: &Reply, what: &str) -> Result {
    let status = reply.status;
    let response = operation["responses"].get(status.to_string());
    let response = resolve(root, response.with_context(|| format!("{what}: {status} is not documented"))?)?;
    if let Some(schema) = response.pointer("/content/application~1json/schema") {
        return validate(root, schema, &serde_json::from_slice(&reply.body)?, what);
    }
    let is_other_text = response["content"].is_object();
    ensure!(is_other_text || reply.body.is_empty(), "{what}: the body of {status} is not documented");
    Ok(())
}

#[tokio::test]
async fn every_documented_request_is_answered_as_documented() -> Result {
    let root = specification()?;
    let follower = Follower::new().await?;
    let view = Bytes::from(follower.view.to_string());
    let paths = root["paths"].as_object().context("no paths")?;
    let (last, first): (Vec<_>, Vec<_>) = paths.iter().partition(|(path, _)| SENT_LAST.contains(&path.as_str()));
    for (path, operations) in first.into_iter().chain(last) {
        let target = path.replace("{seconds}", "5");
        let operations = operations.as_object().context("no operations")?;
        let methods: Vec<_> = operations.keys().filter(|name| *name != "parameters").collect();
        for name in &methods {
            let method = Method::from_bytes(name.to_uppercase().as_bytes())?;
            for body in [Bytes::new(), view.clone()] {
                let what = format!("{method} {target} with {} bytes", body.len());
                let reply = follower.pod.client().send(method.clone(), &target, &[], body).await?;
                documented(&root, &operations[*name], &reply, &what)?;
            }
        }
        let reply = follower.pod.client().send(Method::DELETE, &target, &[], Bytes::new()).await?;
        reply.is(405)?;
        let allowed = reply.headers.get(ALLOW).context("no Allow")?.to_str()?;
        let mut allowed: Vec<String> = allowed.split(", ").map(str::to_lowercase).collect();
        allowed.sort();
        let mut documented: Vec<String> = methods.into_iter().cloned().collect();
        documented.sort();
        ensure!(allowed == documented, "{target} allows {allowed:?}, documented are {documented:?}");
    }
    follower.pod.client().get("/nope").await?.is(404)
}
