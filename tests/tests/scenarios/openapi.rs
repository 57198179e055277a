//! `docs/openapi.json` describes the control API as the server implements it.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::{Method, header::ALLOW};
use ochopod_tests::{Reply, Result};
use regex::Regex;
use serde_json::Value;

use crate::follower::Follower;

/// Requests that end the pod, or its session: sent last.
const SENT_LAST: [&str; 3] = ["/reset", "/control/kill", "/control/kill/{seconds}"];

fn specification() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Follows `$ref`.
fn resolve<'s>(root: &'s Value, value: &'s Value) -> Result<&'s Value> {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').context("a reference into another document")?;
            resolve(root, root.pointer(pointer).with_context(|| format!("no {reference}"))?)
        }
        None => Ok(value),
    }
}

/// Validates a value by the keywords of JSON Schema that the document uses.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str) -> Result {
    let schema = resolve(root, schema)?;
    if let Some(types) = schema.get("type") {
        let types = types.as_array().cloned().unwrap_or_else(|| vec![types.clone()]);
        let is = |name: &Value| match name.as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("null") => value.is_null(),
            _ => false,
        };
        ensure!(types.iter().any(is), "{at}: {value} is not of type {types:?}");
    }
    if let Some(expected) = schema.get("const") {
        ensure!(value == expected, "{at}: {value} is not {expected}");
    }
    if let Some(values) = schema["enum"].as_array() {
        ensure!(values.contains(value), "{at}: {value} is not one of {values:?}");
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        ensure!(Regex::new(pattern)?.is_match(text), "{at}: {text:?} does not match {pattern}");
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        ensure!(value.get(name).is_some(), "{at}: no {name} in {value}");
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let path = format!("{at}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => validate(root, schema, member, &path)?,
            (None, Some(Value::Bool(false))) => anyhow::bail!("{path} is not documented"),
            (None, _) => {}
        }
    }
    if let Some(items) = schema.get("items") {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            validate(root, items, item, &format!("{at}[{index}]"))?;
        }
    }
    Ok(())
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
