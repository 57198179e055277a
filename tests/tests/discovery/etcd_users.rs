//! etcd with authentication: users, and tokens that expire.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use hyper::Method;
use ochopod_discovery::{
    EtcdAddress, EtcdVersion, Registry, RegistryConfig, RegistryConfigError, RegistryError, ServiceRegistration,
    TlsFiles,
};
use ochopod_tests::{Etcd, eventually};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{DEFAULT_TIMEOUT, etcd::address, find, found, listed, query, registration, settled_index};

const PREFIX: &str = "/containerpilot";
const PASSWORD: &str = "hunter2";
const TIMEOUT: Duration = Duration::from_mins(1);

/// Writes a file with a user's credentials.
fn file(directory: &TempDir, user: &str, password: &str) -> PathBuf {
    let path = directory.path().join(user);
    fs::write(&path, format!("{user}:{password}\n")).unwrap();
    path
}

fn open(server: &Etcd, credentials: Option<PathBuf>) -> Result<Arc<dyn Registry>, RegistryConfigError> {
    RegistryConfig::Etcd(EtcdAddress { credentials, ..address(&[server.url()], PREFIX, TlsFiles::default()) }).open()
}

/// Creates the users `web`, with access to the prefix, and `other`, without it, and enables authentication.
async fn enable(server: &Etcd) {
    let client = server.client().unwrap();
    client.add_user("web", PASSWORD, PREFIX).await.unwrap();
    client.add_user("other", PASSWORD, "/elsewhere").await.unwrap();
    client.enable_authentication(PASSWORD).await.unwrap();
}

#[tokio::test]
async fn users_have_their_permissions_and_no_others() {
    let (server, directory) = (Etcd::own().await.unwrap(), TempDir::new().unwrap());
    enable(&server).await;
    let (web, services) = (registration("web", "a", 8080), query("web"));
    let registry = open(&server, Some(file(&directory, "web", PASSWORD))).unwrap();
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
    found(&*registry, &services, &["web-a at 10.0.0.1:8080"]).await;
    let mark = settled_index(&*registry, &services).await;
    let waiting = registry.instances(&services, Some(mark), TIMEOUT);
    let (waited, failed) = tokio::join!(timeout(DEFAULT_TIMEOUT, waiting), registry.fail(&web, "no"));
    failed.unwrap();
    assert_eq!(waited.expect("it waits on").unwrap().instances, []);
    registry.deregister(&web).await.unwrap();

    for (user, credentials, expected) in [
        ("nobody", None, "user name is empty"),
        ("a stranger", Some(file(&directory, "stranger", PASSWORD)), "authentication failed"),
        ("another user", Some(file(&directory, "other", PASSWORD)), "permission denied"),
        ("a wrong password", Some(file(&directory, "web", "wr0ng")), "authentication failed"),
    ] {
        let registry = open(&server, credentials).unwrap();
        let list = registry.instances(&services, None, Duration::ZERO).await.map(drop);
        for answer in [list, registry.register(&web).await] {
            let Err(RegistryError::Rejected(reason)) = answer else { panic!("{user}: {answer:?}") };
            assert!(reason.contains(expected), "{user}: {reason}");
            assert!(!reason.contains(PASSWORD) && !reason.contains("wr0ng"), "{reason}");
        }
    }
}

#[tokio::test]
async fn restarted_server_issues_a_new_token() {
    let (server, directory) = (Etcd::own().await.unwrap(), TempDir::new().unwrap());
    enable(&server).await;
    let registry = open(&server, Some(file(&directory, "web", PASSWORD))).unwrap();
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    for _ in 0..2 {
        server.stop().unwrap();
        server.start().await.unwrap();
        eventually("it is let in", DEFAULT_TIMEOUT * 5, async || Ok(registry.pass(&web).await?)).await.unwrap();
        assert_eq!(listed(&*registry, &query("web")).await, ["web-a at 10.0.0.1:8080"]);
    }
}

#[tokio::test]
async fn expired_token_is_replaced_by_any_request() {
    let directory = TempDir::new().unwrap();
    let key = directory.path().join("key");
    fs::write(&key, "a key of the kit that signs tokens").unwrap();
    let tokens = format!("--auth-token=jwt,sign-method=HS256,priv-key={},ttl=1s", key.display());
    let server = Etcd::with_options(&[&tokens]).await.unwrap();
    enable(&server).await;
    let registry = open(&server, Some(file(&directory, "web", PASSWORD))).unwrap();
    let (web, services) = (registration("web", "a", 8080), query("web"));
    registry.register(&web).await.unwrap();
    let expired = async || sleep(Duration::from_millis(1500)).await;
    expired().await;
    registry.pass(&web).await.unwrap();
    expired().await;
    let before = find(&*registry, &services).await;
    assert_eq!(before.instances.len(), 1);
    expired().await;
    registry.register(&ServiceRegistration { port: 9090, ..web.clone() }).await.unwrap();
    expired().await;
    let changed =
        timeout(DEFAULT_TIMEOUT * 2, registry.instances(&services, before.index, TIMEOUT)).await.expect("it waits on");
    assert_eq!(changed.unwrap().instances[0].port, 9090);
    expired().await;
    registry.deregister(&web).await.unwrap();
    found(&*registry, &services, &[]).await;
}

#[tokio::test]
async fn running_client_survives_enabled_authentication_and_changed_passwords() {
    let (server, directory) = (Etcd::own().await.unwrap(), TempDir::new().unwrap());
    let credentials = file(&directory, "web", PASSWORD);
    let registry = open(&server, Some(credentials.clone())).unwrap();
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    enable(&server).await;
    registry.pass(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;

    let root = server.client().unwrap().with_user("root", PASSWORD).await.unwrap();
    root.change_password("web", "s3cret").await.unwrap();
    fs::write(&credentials, "web:s3cret\n").unwrap();
    registry.pass(&web).await.unwrap();
    fs::remove_file(&credentials).unwrap();
    root.change_password("web", "other").await.unwrap();
    let answer = registry.pass(&web).await;
    assert!(matches!(&answer, Err(RegistryError::Rejected(reason)) if reason.contains("No such file")), "{answer:?}");
}

#[tokio::test]
async fn invalid_credentials_file_is_rejected_when_a_registry_is_opened() {
    let (server, directory) = (Etcd::shared().await.unwrap(), TempDir::new().unwrap());
    let path = directory.path().join("bad");
    fs::write(&path, "hunter2\n").unwrap();
    for version in [EtcdVersion::V2, EtcdVersion::V3] {
        for path in [path.clone(), "/nowhere".into()] {
            let address = address(&[server.url()], PREFIX, TlsFiles::default());
            let opened =
                RegistryConfig::Etcd(EtcdAddress { credentials: Some(path.clone()), version, ..address }).open();
            let error = opened.err().expect("it is taken").to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains("user:password"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn v2_keys_have_separate_users() {
    let (server, directory) = (Etcd::own().await.unwrap(), TempDir::new().unwrap());
    let (keys, none) = (server.keys().unwrap(), json!(null));
    let basic = |user: &str| {
        let both = if user == "root" { "cm9vdDpodW50ZXIy" } else { "d2ViOmh1bnRlcjI=" };
        [("Authorization", format!("Basic {both}"))]
    };
    let rights = json!({"kv": {"read": ["/*"], "write": ["/*"]}});
    for (path, body) in [
        ("users/root", json!({"user": "root", "password": PASSWORD})),
        ("roles/web", json!({"role": "web", "permissions": rights})),
        ("users/web", json!({"user": "web", "password": PASSWORD, "roles": ["web"]})),
        ("enable", none),
        ("roles/guest", json!({"role": "guest", "revoke": rights})),
    ] {
        let header = basic("root");
        let headers = header.each_ref().map(|(name, value)| (*name, value.as_str()));
        let body = body.to_string().into();
        let path = format!("/v2/auth/{path}");
        let status = keys.send(Method::PUT, &path, &headers, body).await.unwrap().status;
        assert!([200, 201].contains(&status), "{path}: {status}");
    }
    let open = |credentials| {
        let address = address(&[server.url()], PREFIX, TlsFiles::default());
        RegistryConfig::Etcd(EtcdAddress { credentials, version: EtcdVersion::V2, ..address }).open().unwrap()
    };
    let (web, services) = (registration("web", "a", 8080), query("web"));
    let registry = open(Some(file(&directory, "web", PASSWORD)));
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
    found(&*registry, &services, &["web-a at 10.0.0.1:8080"]).await;
    for stranger in [open(None), open(Some(file(&directory, "other", PASSWORD)))] {
        let answer = stranger.register(&web).await;
        assert!(matches!(answer, Err(RegistryError::Rejected(_))), "{answer:?}");
    }
    registry.deregister(&web).await.unwrap();
    found(&*registry, &services, &[]).await;
}
