//! Agents behind TLS, or at a socket.

use std::{fs, sync::Arc, time::Duration};

use ochopod_discovery::{ConsulAddress, Registry, RegistryConfigError, RegistryError, Scheme, TlsFiles};
use ochopod_tests::{CertificateAuthority, CertificateFiles, consul::FakeConsul};

use super::{address, open};
use crate::{found, query, registration};

async fn works(registry: &dyn Registry) {
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    found(registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
    registry.deregister(&web).await.unwrap();
}

async fn refusal(registry: &dyn Registry) -> String {
    match registry.instances(&query("web"), None, Duration::ZERO).await {
        Err(RegistryError::Rejected(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn trusting(authority: &CertificateAuthority) -> TlsFiles {
    TlsFiles { ca: Some(authority.certificate()), ..TlsFiles::default() }
}

fn presenting(files: TlsFiles, certified: CertificateFiles) -> TlsFiles {
    TlsFiles { certificate: Some(certified.certificate), key: Some(certified.key), ..files }
}

fn by_tls(agent: &FakeConsul, tls: TlsFiles) -> Result<Arc<dyn Registry>, RegistryConfigError> {
    open(ConsulAddress { scheme: Scheme::Https, tls, ..address(&agent.address()) })
}

#[tokio::test]
async fn agent_is_reached_at_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("consul http.sock");
    let mut agent = FakeConsul::start_at(socket.clone()).await.unwrap();
    let registry = open(address(&agent.address())).unwrap();
    works(&*registry).await;
    agent.refuse().await;
    let answer = registry.pass(&registration("web", "a", 1)).await;
    let Err(RegistryError::Unavailable(reason)) = answer else { panic!("{answer:?}") };
    assert!(reason.contains(socket.to_str().unwrap()), "{reason}");
    agent.open().await.unwrap();
    works(&*registry).await;
}

#[tokio::test]
async fn agent_certificate_must_be_signed_and_issued_for_its_name() {
    let (authority, other) = (CertificateAuthority::new().unwrap(), CertificateAuthority::new().unwrap());
    let here = authority.certify("here", &["127.0.0.1"]).unwrap();
    let agent = FakeConsul::start_with_tls(&here, None).await.unwrap();
    works(&*by_tls(&agent, trusting(&authority)).unwrap()).await;
    let stranger = by_tls(&agent, trusting(&other)).unwrap();
    let reason = refusal(&*stranger).await;
    assert!(reason.contains(&agent.address()) && reason.contains("UnknownIssuer"), "{reason}");
    let system = by_tls(&agent, TlsFiles::default());
    // A system without any authorities is reported first.
    if let Ok(system) = system {
        assert!(refusal(&*system).await.contains("UnknownIssuer"));
    }

    let elsewhere = authority.certify("elsewhere", &["server.dc1.consul"]).unwrap();
    let agent = FakeConsul::start_with_tls(&elsewhere, None).await.unwrap();
    let reason = refusal(&*by_tls(&agent, trusting(&authority)).unwrap()).await;
    assert!(reason.contains("not valid for name"), "{reason}");
    let named = |name: &str| TlsFiles { server_name: Some(name.to_owned()), ..trusting(&authority) };
    works(&*by_tls(&agent, named("server.dc1.consul")).unwrap()).await;
    assert!(matches!(by_tls(&agent, named("no name")), Err(RegistryConfigError::Address { .. })));
    works(&*by_tls(&agent, TlsFiles { verify: false, ..TlsFiles::default() }).unwrap()).await;
}

#[tokio::test]
async fn client_certificate_is_sent_to_the_agent() {
    let (authority, clients) = (CertificateAuthority::new().unwrap(), CertificateAuthority::new().unwrap());
    let here = authority.certify("here", &["127.0.0.1"]).unwrap();
    let agent = FakeConsul::start_with_tls(&here, Some(&clients)).await.unwrap();
    let trusting = trusting(&authority);
    let client = clients.certify("client", &["client"]).unwrap();
    works(&*by_tls(&agent, presenting(trusting.clone(), client)).unwrap()).await;
    let reason = refusal(&*by_tls(&agent, trusting.clone()).unwrap()).await;
    assert!(reason.contains("CertificateRequired"), "{reason}");
    let foreign = authority.certify("foreign", &["client"]).unwrap();
    let reason = refusal(&*by_tls(&agent, presenting(trusting, foreign)).unwrap()).await;
    assert!(reason.contains("received fatal alert"), "{reason}");
}

#[tokio::test]
async fn tls_and_plain_text_are_not_mixed_up() {
    let authority = CertificateAuthority::new().unwrap();
    let here = authority.certify("here", &["127.0.0.1"]).unwrap();
    let secure = FakeConsul::start_with_tls(&here, None).await.unwrap();
    let plain = open(address(&secure.address())).unwrap();
    let answer = plain.pass(&registration("web", "a", 1)).await;
    assert!(matches!(&answer, Err(RegistryError::Unavailable(_) | RegistryError::InvalidResponse(_))), "{answer:?}");
    let agent = FakeConsul::start().await.unwrap();
    let reason = refusal(&*by_tls(&agent, trusting(&authority)).unwrap()).await;
    assert!(reason.starts_with("TLS with"), "{reason}");
}

#[tokio::test]
async fn files_are_read_when_a_registry_is_opened_and_errors_name_them() {
    let authority = CertificateAuthority::new().unwrap();
    let (one, two) = (authority.certify("one", &["a"]).unwrap(), authority.certify("two", &["b"]).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (absent, empty) = (directory.path().join("absent.pem"), file("empty.pem", ""));
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    let trusting = trusting(&authority);
    let bad = [
        (TlsFiles { ca: Some(absent.clone()), ..TlsFiles::default() }, "absent.pem: No such file"),
        (TlsFiles { ca: Some(empty.clone()), ..TlsFiles::default() }, "empty.pem: no PEM block found"),
        (TlsFiles { ca: Some(broken.clone()), ..TlsFiles::default() }, "broken.pem: "),
        (TlsFiles { ca: Some(one.key.clone()), ..TlsFiles::default() }, "one.key.pem: no PEM block found"),
        (
            presenting(trusting.clone(), CertificateFiles { certificate: absent, ..one.clone() }),
            "absent.pem: No such file",
        ),
        (presenting(trusting.clone(), CertificateFiles { key: empty, ..one.clone() }), "empty.pem: no PEM block found"),
        (presenting(trusting.clone(), CertificateFiles { key: two.key, ..one.clone() }), "one.certificate.pem: "),
        (
            TlsFiles { certificate: Some(one.certificate.clone()), ..trusting.clone() },
            "one.certificate.pem without key",
        ),
        (TlsFiles { key: Some(one.key.clone()), ..trusting.clone() }, "one.key.pem without certificate"),
    ];
    for (tls, expected) in bad {
        let error =
            open(ConsulAddress { scheme: Scheme::Https, tls, ..address("127.0.0.1:1") }).err().unwrap().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
    let good = presenting(trusting, one);
    assert!(open(ConsulAddress { scheme: Scheme::Https, tls: good, ..address("127.0.0.1:1") }).is_ok());
    // Unused files are not read.
    let tls = TlsFiles { ca: Some(broken), ..TlsFiles::default() };
    assert!(open(ConsulAddress { tls, ..address("127.0.0.1:1") }).is_ok());
}
