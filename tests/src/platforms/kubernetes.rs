//! The Kubernetes API as a service account sees it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Behaviour, RecordedCall};
use crate::{CertificateAuthority, CertificateFiles, Result};

/// The directory of a service account, with links that are replaced whole as the kubelet does.
#[derive(Debug)]
pub struct ServiceAccount {
    directory: TempDir,
    authority: CertificateAuthority,
}

impl ServiceAccount {
    /// Creates an account of the namespace `shop` with this token.
    ///
    /// # Errors
    /// If no directory can be made.
    pub fn new(token: &str) -> Result<Self> {
        let account = Self {
            directory: tempfile::Builder::new().prefix("ochopod-account-").tempdir()?,
            authority: CertificateAuthority::new()?,
        };
        let link = |name: &str| std::os::unix::fs::symlink(Path::new("..data").join(name), account.path().join(name));
        ["token", "ca.crt", "namespace"].into_iter().try_for_each(link)?;
        rotate(&account.path(), token)?;
        fs::copy(account.authority.certificate(), account.path().join("..data/ca.crt"))?;
        Ok(account)
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Creates a certificate of the API server at 127.0.0.1.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn server(&self) -> Result<CertificateFiles> {
        self.authority.certify("api", &["127.0.0.1"])
    }

    /// Returns a function that replaces the token.
    pub fn rotation(&self, token: &str) -> impl Fn() -> bool + Send + use<> {
        let (path, token) = (self.path(), token.to_owned());
        move || rotate(&path, &token).is_ok()
    }
}

/// Replaces the whole content of a service account by a link.
fn rotate(account: &Path, token: &str) -> Result {
    let version = account.join(format!("..{}", uuid::Uuid::new_v4()));
    fs::create_dir(&version)?;
    fs::write(version.join("token"), token)?;
    fs::write(version.join("namespace"), "shop")?;
    let old = account.join("..data/ca.crt");
    if old.exists() {
        fs::copy(old, version.join("ca.crt"))?;
    }
    let next = account.join("..data_tmp");
    std::os::unix::fs::symlink(version.file_name().unwrap_or_default(), &next)?;
    fs::rename(next, account.join("..data"))?;
    Ok(())
}

/// Answers like an API server with the pod `web-7d4b9c-x2x` of the deployment `web` on the node `node-3`, and the pod
/// `ocho-proxy`. Requests without this token are answered with 401.
pub fn kubernetes_api(token: &str, pod_ip: &str) -> impl FnMut(&RecordedCall) -> Behaviour + Send + use<> {
    let credentials = format!("Bearer {token}");
    let owner =
        |kind: &str, name: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true }]);
    let pod = object(
        "Pod",
        json!({
            "name": "web-7d4b9c-x2x", "namespace": "shop", "labels": { "app": "web", "pod-template-hash": "7d4b9c" },
            "ownerReferences": owner("ReplicaSet", "web-7d4b9c"),
        }),
        json!({ "nodeName": "node-3", "terminationGracePeriodSeconds": 90, "containers": [{ "name": "main" }] }),
        json!({ "phase": "Running", "podIP": pod_ip, "podIPs": [{ "ip": pod_ip }] }),
    );
    let set = object(
        "ReplicaSet",
        json!({ "name": "web-7d4b9c", "ownerReferences": owner("Deployment", "web") }),
        json!({ "replicas": 3 }),
        json!({ "replicas": 3 }),
    );
    let addresses = json!([
        { "type": "InternalIP", "address": "192.168.0.3" },
        { "type": "ExternalIP", "address": "54.0.0.3" },
        { "type": "Hostname", "address": "node-3" },
    ]);
    let node = object("Node", json!({ "name": "node-3" }), json!({}), json!({ "addresses": addresses }));
    let store = object("Pod", json!({ "name": "ocho-proxy" }), json!({}), json!({ "podIP": "10.2.0.99" }));
    move |call: &RecordedCall| {
        if call.headers.get("authorization") != Some(&credentials) {
            return Behaviour::status(401);
        }
        match call.path.as_str() {
            "/api/v1/namespaces/shop/pods/web-7d4b9c-x2x" => Behaviour::json(&pod),
            "/apis/apps/v1/namespaces/shop/replicasets/web-7d4b9c" => Behaviour::json(&set),
            "/api/v1/nodes/node-3" => Behaviour::json(&node),
            "/api/v1/namespaces/shop/pods/ocho-proxy" => Behaviour::json(&store),
            _ => Behaviour::status(404),
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "values are made for it")]
fn object(kind: &str, metadata: Value, spec: Value, status: Value) -> Value {
    json!({ "kind": kind, "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status })
}
