//! Replies of an agent.

use std::time::{Duration, Instant};

use ochopod_discovery::{ChangeIndex, RegistryError};
use serde_json::json;

use super::{agent, lines};
use crate::{DEFAULT_TIMEOUT, find, found, invalid_entries, query, registration, settled_index};

#[tokio::test]
async fn agent_without_the_instance_differs_from_a_failing_one() {
    let (agent, registry) = agent().await;
    let web = registration("web", "a", 8080);
    let forgotten = Err(RegistryError::NotRegistered("web-a".to_owned()));
    for old in [false, true] {
        if old {
            agent.use_old_api();
        }
        registry.register(&web).await.unwrap();
        agent.forget();
        assert_eq!(registry.pass(&web).await, forgotten);
        assert_eq!(registry.fail(&web, "no").await, forgotten);
        registry.deregister(&web).await.unwrap();
        found(&*registry, &query("web"), &[]).await;
    }
    agent.answer(500, "Unknown check \"web-a\"", None);
    assert_eq!(registry.pass(&web).await, forgotten);
    for (code, text) in [(500, "No cluster leader"), (503, ""), (429, "Your IP is issuing too many requests")] {
        agent.answer(code, text, None);
        let errors = [
            registry.register(&web).await,
            registry.pass(&web).await,
            registry.deregister(&web).await,
            registry.instances(&query("web"), None, Duration::ZERO).await.map(|_| ()),
        ];
        for answer in errors {
            let Err(RegistryError::Unavailable(reason)) = answer else { panic!("{code}: {answer:?}") };
            assert!(reason.contains(&code.to_string()) && reason.contains(text), "{reason}");
        }
    }
}

#[tokio::test]
async fn rejected_registration_reports_the_reason() {
    let (_agent, registry) = agent().await;
    let mut web = registration("web", "a", 8080);
    web.address = [0, 0, 0, 0].into();
    let refused = registry.register(&web).await;
    assert!(
        matches!(&refused, Err(RegistryError::Rejected(reason)) if reason.contains("Invalid service address")),
        "{refused:?}"
    );
    web.address = [10, 0, 0, 1].into();
    web.deregister_critical_service_after = Some("soon".to_owned());
    let refused = registry.register(&web).await;
    assert!(
        matches!(&refused, Err(RegistryError::Rejected(reason)) if reason.contains("Invalid check")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn invalid_responses_are_errors() {
    let (agent, registry) = agent().await;
    let web = registration("web", "a", 8080);
    let entry = |node: &str, service: &str| format!("[{{\"Node\": {node}, \"Service\": {service}}}]");
    let node = r#"{"Address": "10.0.0.1"}"#;
    let bodies = [
        String::new(),
        "<html>Welcome to nginx!</html>".to_owned(),
        "{}".to_owned(),
        "true".to_owned(),
        "[1]".to_owned(),
        "[[".repeat(10_000),
        "[{}]".to_owned(),
        entry("null", r#"{"ID": "a", "Address": "", "Port": 1}"#),
        entry(node, r#"{"ID": 1, "Address": "", "Port": 1}"#),
        entry(node, r#"{"ID": "a", "Address": [], "Port": 1}"#),
        entry(node, r#"{"ID": "a", "Address": "", "Port": "1"}"#),
        entry(node, r#"{"ID": "a", "Address": "", "Port": 1e99}"#),
        entry(r#"{"Address": 7}"#, r#"{"ID": "a", "Address": "", "Port": 1}"#),
        format!("[{}]", " ".repeat(9 * 1024 * 1024)),
    ];
    for body in bodies {
        let shown: String = body.chars().take(60).collect();
        agent.answer(200, body, Some(5));
        let answer = registry.instances(&query("web"), None, Duration::ZERO).await;
        let Err(RegistryError::InvalidResponse(reason)) = answer else { panic!("{shown}: {answer:?}") };
        assert!(reason.contains(&agent.address()) && reason.len() < 300, "{reason}");
    }
    for code in [204, 301, 404, 418] {
        agent.answer(code, "", None);
        let answer = registry.instances(&query("web"), None, Duration::ZERO).await;
        let refused = matches!(answer, Err(RegistryError::Rejected(_)));
        assert_eq!(refused, code == 418, "{code}: {answer:?}");
        assert!(refused || matches!(answer, Err(RegistryError::InvalidResponse(_))), "{code}: {answer:?}");
    }
    agent.answer(404, "<html>Not Found</html>".repeat(1000), None);
    let answer = registry.register(&web).await;
    assert!(matches!(answer, Err(RegistryError::InvalidResponse(_))), "{answer:?}");
    agent.answer(400, "x".repeat(1024 * 1024), None);
    let answer = registry.register(&web).await;
    assert!(matches!(answer, Err(RegistryError::InvalidResponse(_))), "{answer:?}");
    agent.recover();
    registry.register(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn entries_with_invalid_addresses_are_skipped() {
    let (agent, registry) = agent().await;
    let entry = |content: &String| {
        let entry: serde_json::Value = serde_json::from_str(content).unwrap();
        let service = json!({"ID": entry["id"], "Address": entry["address"], "Port": entry["port"]});
        json!({"Node": {"Address": "node;\n"}, "Service": service})
    };
    let good = json!({"Node": {"Address": "10.0.0.1"}, "Service": {"ID": "db-a", "Address": "", "Port": 5432}});
    let entries: Vec<_> = invalid_entries().iter().map(entry).chain([good]).collect();
    agent.answer(200, json!(entries).to_string(), Some(5));
    found(&*registry, &query("db"), &["db-a at 10.0.0.1:5432"]).await;
}

#[tokio::test]
async fn index_that_decreases_restarts_the_wait() {
    let (agent, registry) = agent().await;
    let (web, query) = (registration("web", "a", 8080), query("web"));
    for port in 1..=20 {
        registry.register(&registration("web", "a", port)).await.unwrap();
    }
    registry.register(&web).await.unwrap();
    let high = settled_index(&*registry, &query).await;
    agent.rewind(3);
    let patience = Duration::from_secs(1);
    let restarted = registry.instances(&query, Some(high), patience).await.unwrap();
    assert_eq!(restarted.instances.len(), 1);
    let begin = Instant::now();
    let low = registry.instances(&query, restarted.index, Duration::from_secs(20)).await.unwrap();
    assert!(begin.elapsed() < DEFAULT_TIMEOUT, "it queries immediately");
    assert_eq!(low.index, Some(ChangeIndex(3)));
    assert!(!lines(&agent.calls()).last().unwrap().contains("index"), "{:?}", lines(&agent.calls()).last());
    let waiting = registry.instances(&query, low.index, Duration::from_secs(20));
    let (changed, failed) = tokio::join!(tokio::time::timeout(DEFAULT_TIMEOUT, waiting), registry.fail(&web, "no"));
    failed.unwrap();
    assert!(changed.expect("it waits on").unwrap().instances.is_empty());
}

#[tokio::test]
async fn invalid_index_does_not_cause_a_busy_loop() {
    let (agent, registry) = agent().await;
    for (index, expected) in [(Some(0), Some(ChangeIndex(1))), (None, None)] {
        agent.answer(200, "[]", index);
        assert_eq!(find(&*registry, &query("web")).await.index, expected);
    }
}

#[tokio::test]
async fn response_without_a_leader_is_not_trusted() {
    let (agent, registry) = agent().await;
    let query = query("web");
    registry.register(&registration("web", "a", 8080)).await.unwrap();
    let mark = settled_index(&*registry, &query).await;
    for body in ["[]", r#"[{"Node": {"Address": "h"}, "Service": {"ID": "a", "Address": "", "Port": 1}}]"#] {
        agent.answer(200, body, Some(mark.0 + 1));
        agent.lose_leader();
        for since in [None, Some(mark)] {
            let answer = registry.instances(&query, since, Duration::from_secs(1)).await;
            let Err(RegistryError::Unavailable(reason)) = answer else { panic!("{body} {since:?}: {answer:?}") };
            assert!(reason.contains("no leader") && reason.contains(&agent.address()), "{reason}");
        }
    }
    agent.recover();
    found(&*registry, &query, &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn instances_that_vanish_when_the_index_decreases_are_kept() {
    let (agent, registry) = agent().await;
    let (web, query) = (registration("web", "a", 8080), query("web"));
    for port in 1..=20 {
        registry.register(&registration("web", "a", port)).await.unwrap();
    }
    registry.register(&web).await.unwrap();
    let mark = settled_index(&*registry, &query).await;
    agent.forget();
    // Whether it was waited for, or the connection was gone meanwhile.
    for since in [Some(mark), None, None] {
        let answer = registry.instances(&query, since, Duration::from_secs(1)).await;
        let Err(RegistryError::Unavailable(reason)) = answer else { panic!("{since:?}: {answer:?}") };
        assert!(reason.contains("earlier index") && reason.contains("web"), "{reason}");
    }
    assert_eq!(registry.pass(&web).await, Err(RegistryError::NotRegistered("web-a".to_owned())));
    registry.register(&web).await.unwrap();
    found(&*registry, &query, &["web-a at 10.0.0.1:8080"]).await;
    registry.deregister(&web).await.unwrap();
    found(&*registry, &query, &[]).await;
}
