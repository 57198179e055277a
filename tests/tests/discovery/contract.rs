//! Contract of all registries, verified against each of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_discovery::{QueryResult, Registry, RegistryError, ServiceQuery, ServiceRegistration};
use tokio::time::{sleep, timeout};

use crate::{DEFAULT_TIMEOUT, Server, find, found, found_within, listed, query, registration, settled_index};

/// Each condition as a test: `alone` of the module of that name returns a registry that no other test uses, and its
/// server.
macro_rules! kept {
    ($registry:ident if $there:path: $($promise:ident)*; $($fault:ident)*) => {
        mod $registry {
            $(#[tokio::test] async fn $promise() {
                if !$there() {
                    return;
                }
                let (_server, registry) = crate::$registry::alone(stringify!($promise)).await;
                super::$promise(registry).await;
            })*
            $(#[tokio::test] async fn $fault() {
                if !$there() {
                    return;
                }
                super::$fault::<crate::$registry::TestServer>().await;
            })*
        }
    };
}

/// `timed` applies to registries with a `ttl`, `tagged` to those with tags, `cased` to those that distinguish names by
/// case, `caseless` to the others, `servers` to those that have a server.
macro_rules! contract {
    (
        places: $($any:ident)*; timed: $($timed:ident)*; tagged: $($tagged:ident)*; cased: $($cased:ident)*;
        caseless: $($caseless:ident)*; servers: $($fault:ident)*;
    ) => {
        kept! { consul if crate::contract::always: $($any)* $($timed)* $($tagged)* $($caseless)*; $($fault)* }
        kept! {
            consul_agent if crate::consul_agent::is_there: $($any)* $($timed)* $($tagged)* $($caseless)*; $($fault)*
        }
        kept! { etcd if crate::contract::always: $($any)* $($timed)* $($tagged)* $($cased)*; $($fault)* }
        kept! { etcd_v2 if crate::contract::always: $($any)* $($timed)* $($cased)*; $($fault)* }
        kept! { zookeeper if crate::contract::always: $($any)* $($tagged)* $($cased)*; $($fault)* }
        kept! { embedded if crate::contract::always: $($any)* $($tagged)* $($cased)*; }
    };
}

/// Returns true, for registries that are always available.
fn always() -> bool {
    true
}

contract! {
    places:
        registered_instance_is_found_immediately
        registering_again_replaces_an_instance
        registering_again_makes_an_instance_healthy
        pass_of_an_unregistered_instance_is_an_error
        passing_instance_stays_registered
        failed_instance_is_not_found_until_it_passes
        deregistered_instance_is_gone_and_deregistering_again_succeeds
        query_returns_instances_of_the_name_sorted_by_id
        odd_names_are_accepted
        wait_ends_soon_after_a_change_and_not_before
        wait_ends_after_its_limit
        wait_for_a_missing_service_ends_when_it_is_registered
        concurrent_waits_are_independent
        dropped_calls_do_no_harm
    ;
    timed:
        instance_without_pass_within_its_ttl_is_removed
    ;
    tagged:
        query_returns_instances_with_the_tag
    ;
    cased:
        names_and_ids_that_differ_in_case_are_different
    ;
    caseless:
        names_and_tags_match_in_any_case_and_case_variants_of_ids_are_rejected
    ;
    servers:
        stopped_registry_is_unavailable_until_it_restarts
        frozen_registry_is_unavailable_in_time_until_it_thaws
    ;
}

/// Time limit of a call that does not wait for changes.
const DEADLINE: Duration = Duration::from_secs(15);

async fn registered_instance_is_found_immediately(registry: Arc<dyn Registry>) {
    let web = query("web");
    assert!(listed(&*registry, &web).await.is_empty());
    registry.register(&registration("web", "a", 8080)).await.unwrap();
    found(&*registry, &web, &["web-a at 10.0.0.1:8080"]).await;
    let six = ServiceRegistration { address: "fd00::1".parse().unwrap(), ..registration("web", "b", 65535) };
    registry.register(&six).await.unwrap();
    found(&*registry, &web, &["web-a at 10.0.0.1:8080", "web-b at fd00::1:65535"]).await;
}

async fn registering_again_replaces_an_instance(registry: Arc<dyn Registry>) {
    registry.register(&registration("web", "a", 8080)).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
    let moved = ServiceRegistration { address: [10, 0, 0, 2].into(), ..registration("web", "a", 9090) };
    registry.register(&moved).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.2:9090"]).await;
    registry.pass(&moved).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.2:9090"]).await;
}

async fn registering_again_makes_an_instance_healthy(registry: Arc<dyn Registry>) {
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    registry.fail(&web, "no").await.unwrap();
    found(&*registry, &query("web"), &[]).await;
    registry.register(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

async fn pass_of_an_unregistered_instance_is_an_error(registry: Arc<dyn Registry>) {
    let web = registration("web", "a", 8080);
    let forgotten = Err(RegistryError::NotRegistered("web-a".to_owned()));
    assert_eq!(registry.pass(&web).await, forgotten);
    registry.register(&registration("web", "b", 8080)).await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten, "another is registered");
    found(&*registry, &query("web"), &["web-b at 10.0.0.1:8080"]).await;
    registry.register(&web).await.unwrap();
    registry.pass(&web).await.unwrap();
    registry.deregister(&web).await.unwrap();
    assert_eq!(registry.pass(&web).await, forgotten, "no longer registered");
}

async fn instance_without_pass_within_its_ttl_is_removed(registry: Arc<dyn Registry>) {
    let web = ServiceRegistration { ttl: Duration::from_secs(4), ..registration("web", "a", 8080) };
    registry.register(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
    found_within(Duration::from_secs(20), &*registry, &query("web"), &[]).await;
    if let Err(error) = registry.pass(&web).await {
        assert_eq!(error, RegistryError::NotRegistered("web-a".to_owned()));
        registry.register(&web).await.unwrap();
    }
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

async fn passing_instance_stays_registered(registry: Arc<dyn Registry>) {
    let web = ServiceRegistration { ttl: Duration::from_secs(4), ..registration("web", "a", 8080) };
    registry.register(&web).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
    for _ in 0..12 {
        sleep(Duration::from_millis(500)).await;
        registry.pass(&web).await.unwrap();
        assert_eq!(listed(&*registry, &query("web")).await, ["web-a at 10.0.0.1:8080"]);
    }
}

async fn failed_instance_is_not_found_until_it_passes(registry: Arc<dyn Registry>) {
    let (web, other) = (registration("web", "a", 8080), registration("web", "b", 8080));
    registry.register(&web).await.unwrap();
    registry.register(&other).await.unwrap();
    let note = "exit code 1: “no space” & more?\n".repeat(1000);
    registry.fail(&web, &note).await.unwrap();
    found(&*registry, &query("web"), &["web-b at 10.0.0.1:8080"]).await;
    registry.fail(&web, "").await.unwrap();
    // If nothing is left of it, it must be registered again.
    if let Err(error) = registry.pass(&web).await {
        assert_eq!(error, RegistryError::NotRegistered("web-a".to_owned()));
        registry.register(&web).await.unwrap();
    }
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080", "web-b at 10.0.0.1:8080"]).await;
}

async fn deregistered_instance_is_gone_and_deregistering_again_succeeds(registry: Arc<dyn Registry>) {
    let web = registration("web", "a", 8080);
    registry.deregister(&web).await.unwrap();
    registry.register(&web).await.unwrap();
    registry.register(&registration("web", "b", 8080)).await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080", "web-b at 10.0.0.1:8080"]).await;
    for _ in 0..2 {
        registry.deregister(&web).await.unwrap();
        found(&*registry, &query("web"), &["web-b at 10.0.0.1:8080"]).await;
    }
}

async fn query_returns_instances_of_the_name_sorted_by_id(registry: Arc<dyn Registry>) {
    for host in ["c", "a", "b", "ä", "D"] {
        registry.register(&registration("web", host, 80)).await.unwrap();
    }
    for name in ["web2", "we", "web-a"] {
        registry.register(&registration(name, "x", 81)).await.unwrap();
    }
    let expected = ["web-D", "web-a", "web-b", "web-c", "web-ä"].map(|id| format!("{id} at 10.0.0.1:80"));
    found(&*registry, &query("web"), &expected.each_ref().map(String::as_str)).await;
    found(&*registry, &query("we"), &["we-x at 10.0.0.1:81"]).await;
    found(&*registry, &query("none"), &[]).await;
}

async fn names_and_ids_that_differ_in_case_are_different(registry: Arc<dyn Registry>) {
    for (name, host) in [("web", "b"), ("web", "B"), ("Web", "b")] {
        registry.register(&registration(name, host, 80)).await.unwrap();
    }
    found(&*registry, &query("web"), &["web-B at 10.0.0.1:80", "web-b at 10.0.0.1:80"]).await;
    found(&*registry, &query("Web"), &["Web-b at 10.0.0.1:80"]).await;
}

async fn names_and_tags_match_in_any_case_and_case_variants_of_ids_are_rejected(registry: Arc<dyn Registry>) {
    let tagged = |tag: &str| ServiceQuery { tag: Some(tag.to_owned()), ..query("WEB") };
    let web = ServiceRegistration { tags: vec!["Blue".to_owned()], ..registration("web", "a", 80) };
    registry.register(&web).await.unwrap();
    registry.register(&registration("Web", "b", 81)).await.unwrap();
    for name in ["web", "Web", "WEB"] {
        found(&*registry, &query(name), &["Web-b at 10.0.0.1:81", "web-a at 10.0.0.1:80"]).await;
    }
    found(&*registry, &tagged("bLUE"), &["web-a at 10.0.0.1:80"]).await;
    for twin in [registration("web", "A", 82), registration("Web", "a", 82), registration("web", "B", 82)] {
        let refused = registry.register(&twin).await;
        let Err(RegistryError::Rejected(reason)) = refused else { panic!("{}: {refused:?}", twin.id) };
        assert!(reason.contains(&twin.id) && reason.contains("ignores case"), "{reason}");
    }
    registry.register(&web).await.unwrap();
    found(&*registry, &query("web"), &["Web-b at 10.0.0.1:81", "web-a at 10.0.0.1:80"]).await;
}

async fn odd_names_are_accepted(registry: Arc<dyn Registry>) {
    for (name, port) in ["a b", "über/größe", "a/b?c=d&e#f", "a+b", "x/", "\"q\"", "a:b;c"].into_iter().zip(1..) {
        let odd = registration(name, "host", port);
        registry.register(&odd).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        registry.pass(&odd).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        found(&*registry, &query(name), &[&format!("{name}-host at 10.0.0.1:{port}")]).await;
        registry.fail(&odd, name).await.unwrap();
        found(&*registry, &query(name), &[]).await;
        registry.deregister(&odd).await.unwrap();
    }
}

/// Waits from an index until the instances have changed, and returns the elapsed time.
async fn changed(registry: &dyn Registry, query: &ServiceQuery, before: &QueryResult, patience: Duration) -> Duration {
    let (begin, mut since) = (Instant::now(), before.index);
    assert!(since.is_some(), "it can be waited for");
    loop {
        let found = registry.instances(query, since, patience).await.unwrap();
        if found.instances != before.instances {
            return begin.elapsed();
        }
        since = found.index;
    }
}

async fn wait_ends_soon_after_a_change_and_not_before(registry: Arc<dyn Registry>) {
    let (one, two) = (registration("web", "a", 8080), registration("web", "b", 8080));
    let moved = ServiceRegistration { port: 9090, ..one.clone() };
    registry.register(&two).await.unwrap();
    let query = query("web");
    // A failed one may be unknown afterwards.
    let changes: [(&str, BoxFuture<'_, _>); 5] = [
        ("registered", registry.register(&one)),
        ("moved", registry.register(&moved)),
        ("failed", registry.fail(&moved, "no")),
        ("registered again", registry.register(&one)),
        ("deregistered", registry.deregister(&one)),
    ];
    for (what, change) in changes {
        settled_index(&*registry, &query).await;
        let before = find(&*registry, &query).await;
        let later = Duration::from_millis(700);
        // Begins to sleep once the other waits.
        let change = async {
            sleep(later).await;
            change.await
        };
        let waited = changed(&*registry, &query, &before, Duration::from_secs(20));
        let (waited, done) = tokio::join!(timeout(DEADLINE, waited), change);
        done.unwrap();
        let waited = waited.unwrap_or_else(|_| panic!("{what}: it waits on"));
        // The wait started a little later than the change.
        assert!((later * 9 / 10..later + DEFAULT_TIMEOUT).contains(&waited), "{what}: seen after {waited:?}");
    }
}

async fn wait_ends_after_its_limit(registry: Arc<dyn Registry>) {
    let patience = Duration::from_secs(2);
    let found = async |name| {
        let query = query(name);
        let mark = settled_index(&*registry, &query).await;
        let begin = Instant::now();
        let found = registry.instances(&query, Some(mark), patience).await.unwrap();
        assert!(begin.elapsed() < patience + DEFAULT_TIMEOUT, "{:?}", begin.elapsed());
        assert!(begin.elapsed() > patience / 2, "{:?}", begin.elapsed());
        found.instances.len()
    };
    assert_eq!(found("none").await, 0);
    registry.register(&registration("web", "a", 8080)).await.unwrap();
    assert_eq!(found("web").await, 1);
}

async fn wait_for_a_missing_service_ends_when_it_is_registered(registry: Arc<dyn Registry>) {
    let query = query("late");
    settled_index(&*registry, &query).await;
    let before = find(&*registry, &query).await;
    let late = registration("late", "a", 8080);
    let appear = async {
        sleep(Duration::from_millis(300)).await;
        registry.register(&registration("other", "a", 8080)).await.unwrap();
        sleep(Duration::from_millis(400)).await;
        registry.register(&late).await.unwrap();
    };
    let waited = timeout(DEADLINE, changed(&*registry, &query, &before, Duration::from_secs(20)));
    let (waited, ()) = tokio::join!(waited, appear);
    let waited = waited.expect("it waits on");
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_millis(700) + DEFAULT_TIMEOUT, "{waited:?}");
}

async fn concurrent_waits_are_independent(registry: Arc<dyn Registry>) {
    let names: Vec<_> = (0..10).map(|number| format!("web{number}")).collect();
    for name in &names {
        registry.register(&registration(name, "a", 1)).await.unwrap();
        settled_index(&*registry, &query(name)).await;
    }
    let mut waiting = Vec::new();
    for name in &names {
        let (registry, query) = (registry.clone(), query(name));
        let before = find(&*registry, &query).await;
        waiting.push(tokio::spawn(async move { changed(&*registry, &query, &before, Duration::from_secs(20)).await }));
    }
    sleep(Duration::from_millis(300)).await;
    for (name, waiting) in names.iter().zip(waiting) {
        assert!(!waiting.is_finished(), "{name}");
        let web = registration(name, "a", 2);
        timeout(DEFAULT_TIMEOUT, registry.register(&web))
            .await
            .expect("waiting requests delay no other request")
            .unwrap();
        timeout(DEFAULT_TIMEOUT, waiting).await.expect("it waits on").unwrap();
    }
}

async fn dropped_calls_do_no_harm(registry: Arc<dyn Registry>) {
    let web = registration("web", "a", 8080);
    registry.register(&web).await.unwrap();
    let mark = settled_index(&*registry, &query("web")).await;
    for micros in [0, 50, 200, 1000, 5000, 20_000] {
        let (limit, patience) = (Duration::from_micros(micros), Duration::from_secs(20));
        _ = timeout(limit, registry.pass(&web)).await;
        _ = timeout(limit, registry.fail(&web, "no")).await;
        _ = timeout(limit, registry.instances(&query("web"), Some(mark), patience)).await;
        _ = timeout(limit, registry.deregister(&web)).await;
        _ = timeout(limit, registry.register(&web)).await;
    }
    // A request in flight when it was dropped may still be executed.
    let registered = ochopod_tests::eventually("it is registered", DEADLINE, async || {
        registry.register(&web).await?;
        sleep(Duration::from_millis(200)).await;
        let listed = listed(&*registry, &query("web")).await;
        anyhow::ensure!(listed == ["web-a at 10.0.0.1:8080"], "there are {listed:?}");
        Ok(())
    });
    registered.await.unwrap();
    found(&*registry, &query("web"), &["web-a at 10.0.0.1:8080"]).await;
}

async fn query_returns_instances_with_the_tag(registry: Arc<dyn Registry>) {
    for (host, tags) in [("a", &["x", "y"][..]), ("b", &["y"]), ("c", &[]), ("d", &["x y", "ä/&"])] {
        let tags = tags.iter().map(ToString::to_string).collect();
        registry.register(&ServiceRegistration { tags, ..registration("web", host, 80) }).await.unwrap();
    }
    for (tag, hosts) in [("x", &["a"][..]), ("y", &["a", "b"]), ("z", &[]), ("x y", &["d"]), ("ä/&", &["d"])] {
        let expected: Vec<_> = hosts.iter().map(|host| format!("web-{host} at 10.0.0.1:80")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        found(&*registry, &ServiceQuery { tag: Some(tag.to_owned()), ..query("web") }, &expected).await;
    }
    registry
        .register(&ServiceRegistration { tags: vec!["z".to_owned()], ..registration("web", "a", 80) })
        .await
        .unwrap();
    found(&*registry, &ServiceQuery { tag: Some("x".to_owned()), ..query("web") }, &[]).await;
    assert_eq!(find(&*registry, &query("web")).await.instances.len(), 4);
}

/// Checks that all calls fail within their limit, because the registry is unreachable.
async fn is_unavailable(registry: &dyn Registry, limit: Duration) {
    // A server that only hangs executes these requests later: they are for a service that no other step uses.
    let (web, query) = (registration("late", "a", 8080), query("late"));
    let waits = registry.instances(&query, None, Duration::ZERO).map(|found| found.map(|_| ()));
    let calls: [(&str, BoxFuture<'_, _>); 5] = [
        ("register", registry.register(&web)),
        ("pass", registry.pass(&web)),
        ("fail", registry.fail(&web, "no")),
        ("deregister", registry.deregister(&web)),
        ("instances", waits.boxed()),
    ];
    let calls = calls.map(|(what, call)| async move {
        let answer = timeout(limit, call).await.unwrap_or_else(|_| panic!("{what}: it does not return"));
        let Err(RegistryError::Unavailable(reason)) = answer else { panic!("{what}: {answer:?}") };
        assert!(!reason.is_empty(), "{what}");
    });
    futures_util::future::join_all(calls).await;
}

/// Checks that it works again for the same client, even after a loss of state.
async fn works_again(registry: &dyn Registry) {
    let (web, query) = (registration("web", "a", 8080), query("web"));
    let registered =
        ochopod_tests::eventually("it can be registered", DEADLINE, async || Ok(registry.register(&web).await?));
    registered.await.unwrap();
    found(registry, &query, &["web-a at 10.0.0.1:8080"]).await;
    registry.pass(&web).await.unwrap();
    registry.fail(&web, "no").await.unwrap();
    found(registry, &query, &[]).await;
    registry.deregister(&web).await.unwrap();
}

async fn stopped_registry_is_unavailable_until_it_restarts<S: Server>() {
    let mut server = S::start().await;
    let registry = server.registry().open().unwrap();
    for _ in 0..2 {
        works_again(&*registry).await;
        let mark = settled_index(&*registry, &query("web")).await;
        let waiting = tokio::spawn({
            let registry = registry.clone();
            async move { registry.instances(&query("web"), Some(mark), Duration::from_secs(8)).await }
        });
        sleep(Duration::from_millis(100)).await;
        server.stop().await;
        is_unavailable(&*registry, DEADLINE).await;
        let waited = timeout(DEADLINE, waiting).await.expect("it waits on").unwrap();
        assert!(matches!(waited, Err(RegistryError::Unavailable(_))), "{waited:?}");
        server.restart().await;
    }
    works_again(&*registry).await;
    server.stop().await;
    let fresh = server.registry().open().unwrap();
    is_unavailable(&*fresh, DEADLINE).await;
    server.restart().await;
    works_again(&*fresh).await;
}

async fn frozen_registry_is_unavailable_in_time_until_it_thaws<S: Server>() {
    let server = S::start().await;
    let registry = server.registry().open().unwrap();
    works_again(&*registry).await;
    server.freeze();
    is_unavailable(&*registry, DEADLINE).await;
    server.thaw();
    works_again(&*registry).await;
    server.freeze();
    let fresh = server.registry().open().unwrap();
    is_unavailable(&*fresh, DEADLINE).await;
    server.thaw();
    works_again(&*fresh).await;
}
