//! Client of etcd's v3 API, through the JSON gateway.

use anyhow::{Context as _, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper::Method;
use serde_json::{Value, json};

use crate::{Client, Result};

/// Client of one server, which may be another user than the host.
#[derive(Debug, Clone)]
pub struct EtcdClient {
    http: Client,
    token: Option<String>,
}

/// Value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdEntry {
    /// The value.
    pub value: Vec<u8>,
    /// Id of its lease, or 0.
    pub lease: i64,
}

impl EtcdClient {
    pub(super) fn new(http: Client) -> Self {
        Self { http, token: None }
    }

    /// Returns the same client as a user.
    ///
    /// # Errors
    /// If the server rejects the password.
    pub async fn with_user(&self, name: &str, password: &str) -> Result<Self> {
        let reply = self.call("auth/authenticate", &json!({"name": name, "password": password})).await?;
        Ok(Self { token: Some(reply["token"].as_str().context("no token")?.to_owned()), ..self.clone() })
    }

    /// Sends a request to `/v3/<path>`.
    ///
    /// # Errors
    /// If the server does not answer 200.
    pub async fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let token = self.token.as_deref().map(|token| ("authorization", token));
        let headers: Vec<_> = token.into_iter().collect();
        let reply = self.http.send(Method::POST, &format!("/v3/{path}"), &headers, body.to_string().into()).await?;
        ensure!(reply.status == 200, "{path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        serde_json::from_slice(&reply.body).with_context(|| format!("{path}: no JSON"))
    }

    /// Puts a value with a lease, or with none if that is 0. Returns the revision of the store.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn put(&self, key: &str, value: &str, lease: i64) -> Result<i64> {
        let body = json!({"key": encode(key), "value": encode(value), "lease": lease.to_string()});
        int64(&self.call("kv/put", &body).await?["header"]["revision"])
    }

    /// Returns the entry of a key.
    ///
    /// # Errors
    /// If the server rejects the request.
    pub async fn get(&self, key: &str) -> Result<Option<EtcdEntry>> {
        Ok(self.range(&json!({"key": encode(key)})).await?.into_iter().next())
    }

    /// Returns the entries of all keys that start with a prefix, which ends in `/`.
    ///
    /// # Errors
    /// If the server rejects the request.
    pub async fn get_prefix(&self, prefix: &str) -> Result<Vec<EtcdEntry>> {
        let end = prefix.strip_suffix('/').context("the prefix does not end in /")?;
        self.range(&json!({"key": encode(prefix), "range_end": encode(&format!("{end}0"))})).await
    }

    async fn range(&self, body: &Value) -> Result<Vec<EtcdEntry>> {
        let reply = self.call("kv/range", body).await?;
        let entries = reply["kvs"].as_array().into_iter().flatten().map(|entry| {
            let value = BASE64_STANDARD.decode(entry["value"].as_str().unwrap_or_default())?;
            Ok(EtcdEntry { value, lease: int64(&entry["lease"])? })
        });
        entries.collect()
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn delete(&self, key: &str) -> Result {
        self.call("kv/deleterange", &json!({"key": encode(key)})).await.map(drop)
    }

    /// Forgets the history before a revision.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn compact(&self, revision: i64) -> Result {
        self.call("kv/compaction", &json!({"revision": revision.to_string()})).await.map(drop)
    }

    /// Grants a lease for so many seconds and returns its id.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn grant(&self, ttl: i64) -> Result<i64> {
        int64(&self.call("lease/grant", &json!({"TTL": ttl.to_string()})).await?["ID"])
    }

    /// Returns the seconds for which a lease was granted.
    ///
    /// # Errors
    /// If the server rejects the request.
    pub async fn granted_ttl(&self, lease: i64) -> Result<i64> {
        let body = json!({"ID": lease.to_string()});
        int64(&self.call("lease/timetolive", &body).await?["grantedTTL"])
    }

    /// Revokes a lease.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn revoke(&self, lease: i64) -> Result {
        self.call("lease/revoke", &json!({"ID": lease.to_string()})).await.map(drop)
    }

    /// Adds a user who may do everything below a prefix.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn add_user(&self, user: &str, password: &str, prefix: &str) -> Result {
        self.call("auth/role/add", &json!({"name": user})).await?;
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let permission =
            json!({"permType": "READWRITE", "key": encode(prefix), "range_end": BASE64_STANDARD.encode(end)});
        self.call("auth/role/grant", &json!({"name": user, "perm": permission})).await?;
        self.call("auth/user/add", &json!({"name": user, "password": password})).await?;
        self.call("auth/user/grant", &json!({"user": user, "role": user})).await.map(drop)
    }

    /// Changes a user's password.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn change_password(&self, user: &str, password: &str) -> Result {
        self.call("auth/user/changepw", &json!({"name": user, "password": password})).await.map(drop)
    }

    /// Adds the user `root` and enables authentication.
    ///
    /// # Errors
    /// If the server rejects it.
    pub async fn enable_authentication(&self, password: &str) -> Result {
        self.call("auth/user/add", &json!({"name": "root", "password": password})).await?;
        self.call("auth/user/grant", &json!({"user": "root", "role": "root"})).await?;
        self.call("auth/enable", &json!({})).await.map(drop)
    }
}

fn encode(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// Reads a 64-bit integer, which is a string and left out if it is 0.
fn int64(value: &Value) -> Result<i64> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => Ok(text.parse()?),
        other => other.as_i64().with_context(|| format!("not an integer: {other}")),
    }
}
