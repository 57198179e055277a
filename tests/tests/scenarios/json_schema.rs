//! Validation of JSON by schemas.

use anyhow::{Context, ensure};
use ochopod_tests::Result;
use regex::Regex;
use serde_json::Value;

/// Follows `$ref`.
pub(crate) fn resolve<'s>(root: &'s Value, value: &'s Value) -> Result<&'s Value> {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').context("a reference into another document")?;
            resolve(root, root.pointer(pointer).with_context(|| format!("no {reference}"))?)
        }
        None => Ok(value),
    }
}

/// Validates a value by the keywords of JSON Schema that the documents here use.
pub(crate) fn validate(root: &Value, schema: &Value, value: &Value, at: &str) -> Result {
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
    if let Some(choices) = schema["oneOf"].as_array() {
        let matching = choices.iter().filter(|choice| validate(root, choice, value, at).is_ok()).count();
        ensure!(matching == 1, "{at}: {value} matches {matching} of {choices:?}");
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
