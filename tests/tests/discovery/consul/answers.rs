//! What an agent may answer.

use std::time::{Duration, Instant};

use ochopod::discovery::{DiscoveryError, Mark};

use super::{agent, lines};
use crate::{SOON, found, look, mark, registration, sought};

#[tokio::test]
async fn an_agent_that_forgot_is_told_from_one_that_is_in_trouble() {
    let (agent, place) = agent().await;
    let web = registration("web", "a", 8080);
    let forgotten = Err(DiscoveryError::Forgotten("web-a".to_owned()));
    for old in [false, true] {
        if old {
            agent.grow_old();
        }
        place.register(&web).await.unwrap();
        agent.forget();
        assert_eq!(place.pass(&web).await, forgotten);
        assert_eq!(place.fail(&web, "no").await, forgotten);
        place.deregister(&web).await.unwrap();
        found(&*place, &sought("web"), &[]).await;
    }
    agent.answer(500, "Unknown check \"web-a\"", None);
    assert_eq!(place.pass(&web).await, forgotten);
    for (code, text) in [(500, "No cluster leader"), (503, ""), (429, "Your IP is issuing too many requests")] {
        agent.answer(code, text, None);
        let errors = [
            place.register(&web).await,
            place.pass(&web).await,
            place.deregister(&web).await,
            place.instances(&sought("web"), None, Duration::ZERO).await.map(|_| ()),
        ];
        for answer in errors {
            let Err(DiscoveryError::Unavailable(reason)) = answer else { panic!("{code}: {answer:?}") };
            assert!(reason.contains(&code.to_string()) && reason.contains(text), "{reason}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_registration_is_told() {
    let (_agent, place) = agent().await;
    let mut web = registration("web", "a", 8080);
    web.address = [0, 0, 0, 0].into();
    let refused = place.register(&web).await;
    assert!(
        matches!(&refused, Err(DiscoveryError::Refused(reason)) if reason.contains("Invalid service address")),
        "{refused:?}"
    );
    web.address = [10, 0, 0, 1].into();
    web.deregister_critical_service_after = Some("soon".to_owned());
    let refused = place.register(&web).await;
    assert!(
        matches!(&refused, Err(DiscoveryError::Refused(reason)) if reason.contains("Invalid check")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_no_agent_answers_is_an_error_and_no_more() {
    let (agent, place) = agent().await;
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
        let answer = place.instances(&sought("web"), None, Duration::ZERO).await;
        let Err(DiscoveryError::Unexpected(reason)) = answer else { panic!("{shown}: {answer:?}") };
        assert!(reason.contains(&agent.address()) && reason.len() < 300, "{reason}");
    }
    for code in [204, 301, 404, 418] {
        agent.answer(code, "", None);
        let answer = place.instances(&sought("web"), None, Duration::ZERO).await;
        let refused = matches!(answer, Err(DiscoveryError::Refused(_)));
        assert_eq!(refused, code == 418, "{code}: {answer:?}");
        assert!(refused || matches!(answer, Err(DiscoveryError::Unexpected(_))), "{code}: {answer:?}");
    }
    agent.answer(404, "<html>Not Found</html>".repeat(1000), None);
    let answer = place.register(&web).await;
    assert!(matches!(answer, Err(DiscoveryError::Unexpected(_))), "{answer:?}");
    agent.answer(400, "x".repeat(1024 * 1024), None);
    let answer = place.register(&web).await;
    assert!(matches!(answer, Err(DiscoveryError::Unexpected(_))), "{answer:?}");
    agent.obey();
    place.register(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn an_index_that_goes_back_is_begun_anew() {
    let (agent, place) = agent().await;
    let (web, sought) = (registration("web", "a", 8080), sought("web"));
    for port in 1..=20 {
        place.register(&registration("web", "a", port)).await.unwrap();
    }
    place.register(&web).await.unwrap();
    let high = mark(&*place, &sought).await;
    agent.rewind(3);
    let patience = Duration::from_secs(1);
    let anew = place.instances(&sought, Some(high), patience).await.unwrap();
    assert_eq!(anew.instances.len(), 1);
    let begin = Instant::now();
    let low = place.instances(&sought, anew.mark, Duration::from_secs(20)).await.unwrap();
    assert!(begin.elapsed() < SOON, "it asks at once");
    assert_eq!(low.mark, Some(Mark(3)));
    assert!(!lines(&agent.asked()).last().unwrap().contains("index"), "{:?}", lines(&agent.asked()).last());
    let waiting = place.instances(&sought, low.mark, Duration::from_secs(20));
    let (changed, failed) = tokio::join!(tokio::time::timeout(SOON, waiting), place.fail(&web, "no"));
    failed.unwrap();
    assert!(changed.expect("it waits on").unwrap().instances.is_empty());
}

#[tokio::test]
async fn an_index_that_is_none_is_no_reason_to_hurry() {
    let (agent, place) = agent().await;
    for (index, expected) in [(Some(0), Some(Mark(1))), (None, None)] {
        agent.answer(200, "[]", index);
        assert_eq!(look(&*place, &sought("web")).await.mark, expected);
    }
}
