//! What all places promise, each promise held against each of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod::discovery::{Discovery, DiscoveryError, Registration, Sought};
use tokio::time::{sleep, timeout};

use crate::{SOON, Server, found, found_within, look, mark, registration, shown, sought};

/// Each promise as a test: `alone` of the module of that name gives a place that nobody else uses, and what it is at.
macro_rules! kept {
    ($place:ident: $($promise:ident)*; $($fault:ident)*) => {
        mod $place {
            $(#[tokio::test] async fn $promise() {
                let (_server, place) = crate::$place::alone(stringify!($promise)).await;
                super::$promise(place).await;
            })*
            $(#[tokio::test] async fn $fault() {
                super::$fault::<crate::$place::Own>().await;
            })*
        }
    };
}

/// `timed` hold of places that know a `ttl`, `tagged` of ones that know tags, `servers` of ones that have a server.
macro_rules! contract {
    (places: $($any:ident)*; timed: $($timed:ident)*; tagged: $($tagged:ident)*; servers: $($fault:ident)*;) => {
        kept! { consul: $($any)* $($timed)* $($tagged)*; $($fault)* }
        kept! { etcd: $($any)* $($timed)* $($tagged)*; $($fault)* }
        kept! { etcd_v2: $($any)* $($timed)*; $($fault)* }
        kept! { zookeeper: $($any)* $($tagged)*; $($fault)* }
        kept! { embedded: $($any)* $($tagged)*; }
    };
}

contract! {
    places:
        what_is_registered_is_found_at_once
        what_is_registered_again_replaces_what_was
        what_is_registered_again_is_healthy_again
        who_is_not_registered_cannot_pass_and_is_told_so
        who_passes_in_time_is_found_on
        who_fails_is_not_found_until_it_passes
        what_is_deregistered_is_not_found_and_may_be_deregistered_again
        only_instances_of_the_name_are_found_sorted_by_id
        odd_names_are_names
        a_wait_ends_soon_after_a_change_and_not_before
        a_wait_ends_after_its_patience
        a_wait_for_what_is_not_there_ends_when_it_is
        several_wait_at_once
        what_is_dropped_half_way_does_no_harm
    ;
    timed:
        who_does_not_pass_within_the_ttl_is_no_longer_found
    ;
    tagged:
        only_instances_with_the_tag_are_found
    ;
    servers:
        a_place_that_is_away_is_said_to_be_and_works_once_it_is_back
        a_place_that_is_silent_is_said_to_be_in_time_and_works_once_it_speaks
    ;
}

/// How long a call may take that does not wait for changes.
const DEADLINE: Duration = Duration::from_secs(10);

async fn what_is_registered_is_found_at_once(place: Arc<dyn Discovery>) {
    let web = sought("web");
    assert!(shown(&*place, &web).await.is_empty());
    place.register(&registration("web", "a", 8080)).await.unwrap();
    found(&*place, &web, &["web-a at 10.0.0.1:8080"]).await;
    let six = Registration { address: "fd00::1".parse().unwrap(), ..registration("web", "b", 65535) };
    place.register(&six).await.unwrap();
    found(&*place, &web, &["web-a at 10.0.0.1:8080", "web-b at fd00::1:65535"]).await;
}

async fn what_is_registered_again_replaces_what_was(place: Arc<dyn Discovery>) {
    place.register(&registration("web", "a", 8080)).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
    let moved = Registration { address: [10, 0, 0, 2].into(), ..registration("web", "a", 9090) };
    place.register(&moved).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.2:9090"]).await;
    place.pass(&moved).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.2:9090"]).await;
}

async fn what_is_registered_again_is_healthy_again(place: Arc<dyn Discovery>) {
    let web = registration("web", "a", 8080);
    place.register(&web).await.unwrap();
    place.fail(&web, "no").await.unwrap();
    found(&*place, &sought("web"), &[]).await;
    place.register(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}

async fn who_is_not_registered_cannot_pass_and_is_told_so(place: Arc<dyn Discovery>) {
    let web = registration("web", "a", 8080);
    let forgotten = Err(DiscoveryError::Forgotten("web-a".to_owned()));
    assert_eq!(place.pass(&web).await, forgotten);
    place.register(&registration("web", "b", 8080)).await.unwrap();
    assert_eq!(place.pass(&web).await, forgotten, "another is registered");
    found(&*place, &sought("web"), &["web-b at 10.0.0.1:8080"]).await;
    place.register(&web).await.unwrap();
    place.pass(&web).await.unwrap();
    place.deregister(&web).await.unwrap();
    assert_eq!(place.pass(&web).await, forgotten, "no more");
}

async fn who_does_not_pass_within_the_ttl_is_no_longer_found(place: Arc<dyn Discovery>) {
    let web = Registration { ttl: Duration::from_secs(2), ..registration("web", "a", 8080) };
    place.register(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
    found_within(Duration::from_secs(6), &*place, &sought("web"), &[]).await;
    if let Err(error) = place.pass(&web).await {
        assert_eq!(error, DiscoveryError::Forgotten("web-a".to_owned()));
        place.register(&web).await.unwrap();
    }
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}

async fn who_passes_in_time_is_found_on(place: Arc<dyn Discovery>) {
    let web = Registration { ttl: Duration::from_secs(2), ..registration("web", "a", 8080) };
    place.register(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
    for _ in 0..8 {
        sleep(Duration::from_millis(500)).await;
        place.pass(&web).await.unwrap();
        assert_eq!(shown(&*place, &sought("web")).await, ["web-a at 10.0.0.1:8080"]);
    }
}

async fn who_fails_is_not_found_until_it_passes(place: Arc<dyn Discovery>) {
    let (web, other) = (registration("web", "a", 8080), registration("web", "b", 8080));
    place.register(&web).await.unwrap();
    place.register(&other).await.unwrap();
    let note = "exit code 1: “no space” & more?\n".repeat(1000);
    place.fail(&web, &note).await.unwrap();
    found(&*place, &sought("web"), &["web-b at 10.0.0.1:8080"]).await;
    place.fail(&web, "").await.unwrap();
    // Where nothing is left of it, it has to be registered again.
    if let Err(error) = place.pass(&web).await {
        assert_eq!(error, DiscoveryError::Forgotten("web-a".to_owned()));
        place.register(&web).await.unwrap();
    }
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080", "web-b at 10.0.0.1:8080"]).await;
}

async fn what_is_deregistered_is_not_found_and_may_be_deregistered_again(place: Arc<dyn Discovery>) {
    let web = registration("web", "a", 8080);
    place.deregister(&web).await.unwrap();
    place.register(&web).await.unwrap();
    place.register(&registration("web", "b", 8080)).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080", "web-b at 10.0.0.1:8080"]).await;
    for _ in 0..2 {
        place.deregister(&web).await.unwrap();
        found(&*place, &sought("web"), &["web-b at 10.0.0.1:8080"]).await;
    }
}

async fn only_instances_of_the_name_are_found_sorted_by_id(place: Arc<dyn Discovery>) {
    for host in ["c", "a", "b", "ä", "B"] {
        place.register(&registration("web", host, 80)).await.unwrap();
    }
    for name in ["web2", "we", "web-a", "Web"] {
        place.register(&registration(name, "x", 81)).await.unwrap();
    }
    let expected = ["web-B", "web-a", "web-b", "web-c", "web-ä"].map(|id| format!("{id} at 10.0.0.1:80"));
    found(&*place, &sought("web"), &expected.each_ref().map(String::as_str)).await;
    found(&*place, &sought("we"), &["we-x at 10.0.0.1:81"]).await;
    found(&*place, &sought("none"), &[]).await;
}

async fn odd_names_are_names(place: Arc<dyn Discovery>) {
    for (name, port) in ["a b", "über/größe", "a/b?c=d&e#f", "a+b", "x/", "\"q\"", "a:b;c"].into_iter().zip(1..) {
        let odd = registration(name, "host", port);
        place.register(&odd).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        place.pass(&odd).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        found(&*place, &sought(name), &[&format!("{name}-host at 10.0.0.1:{port}")]).await;
        place.fail(&odd, name).await.unwrap();
        found(&*place, &sought(name), &[]).await;
        place.deregister(&odd).await.unwrap();
    }
}

/// Waits from a mark until there are other instances than before, and says how long it took.
async fn changed(place: &dyn Discovery, sought: &Sought, patience: Duration) -> Duration {
    let before = look(place, sought).await;
    let (begin, mut since) = (Instant::now(), before.mark);
    assert!(since.is_some(), "it can be waited for");
    loop {
        let found = place.instances(sought, since, patience).await.unwrap();
        if found.instances != before.instances {
            return begin.elapsed();
        }
        since = found.mark;
    }
}

async fn a_wait_ends_soon_after_a_change_and_not_before(place: Arc<dyn Discovery>) {
    let (one, two) = (registration("web", "a", 8080), registration("web", "b", 8080));
    let moved = Registration { port: 9090, ..one.clone() };
    place.register(&two).await.unwrap();
    let sought = sought("web");
    // A failed one may be unknown afterwards.
    let changes: [(&str, BoxFuture<'_, _>); 5] = [
        ("registered", place.register(&one)),
        ("moved", place.register(&moved)),
        ("failed", place.fail(&moved, "no")),
        ("registered again", place.register(&one)),
        ("deregistered", place.deregister(&one)),
    ];
    for (what, change) in changes {
        mark(&*place, &sought).await;
        let later = Duration::from_millis(700);
        let change = sleep(later).then(|()| change);
        let waited = changed(&*place, &sought, Duration::from_secs(20));
        let (waited, done) = tokio::join!(timeout(DEADLINE, waited), change);
        done.unwrap();
        let waited = waited.unwrap_or_else(|_| panic!("{what}: it waits on"));
        // It began to wait a little later than the change.
        assert!((later * 9 / 10..later + SOON).contains(&waited), "{what}: seen after {waited:?}");
    }
}

async fn a_wait_ends_after_its_patience(place: Arc<dyn Discovery>) {
    let patience = Duration::from_secs(2);
    let found = async |name| {
        let sought = sought(name);
        let mark = mark(&*place, &sought).await;
        let begin = Instant::now();
        let found = place.instances(&sought, Some(mark), patience).await.unwrap();
        assert!(begin.elapsed() < patience + SOON, "{:?}", begin.elapsed());
        assert!(begin.elapsed() > patience / 2, "{:?}", begin.elapsed());
        found.instances.len()
    };
    assert_eq!(found("none").await, 0);
    place.register(&registration("web", "a", 8080)).await.unwrap();
    assert_eq!(found("web").await, 1);
}

async fn a_wait_for_what_is_not_there_ends_when_it_is(place: Arc<dyn Discovery>) {
    let sought = sought("late");
    mark(&*place, &sought).await;
    let late = registration("late", "a", 8080);
    let appear = async {
        sleep(Duration::from_millis(300)).await;
        place.register(&registration("other", "a", 8080)).await.unwrap();
        sleep(Duration::from_millis(400)).await;
        place.register(&late).await.unwrap();
    };
    let waited = timeout(DEADLINE, changed(&*place, &sought, Duration::from_secs(20)));
    let (waited, ()) = tokio::join!(waited, appear);
    let waited = waited.expect("it waits on");
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_millis(700) + SOON, "{waited:?}");
}

async fn several_wait_at_once(place: Arc<dyn Discovery>) {
    let names: Vec<_> = (0..10).map(|number| format!("web{number}")).collect();
    for name in &names {
        place.register(&registration(name, "a", 1)).await.unwrap();
        mark(&*place, &sought(name)).await;
    }
    let waiting = names.iter().map(|name| {
        let place = place.clone();
        let sought = sought(name);
        tokio::spawn(async move { changed(&*place, &sought, Duration::from_secs(20)).await })
    });
    let waiting: Vec<_> = waiting.collect();
    sleep(Duration::from_millis(300)).await;
    for (name, waiting) in names.iter().zip(waiting) {
        assert!(!waiting.is_finished(), "{name}");
        let web = registration(name, "a", 2);
        timeout(SOON, place.register(&web)).await.expect("those who wait hold nobody up").unwrap();
        timeout(SOON, waiting).await.expect("it waits on").unwrap();
    }
}

async fn what_is_dropped_half_way_does_no_harm(place: Arc<dyn Discovery>) {
    let web = registration("web", "a", 8080);
    place.register(&web).await.unwrap();
    let mark = mark(&*place, &sought("web")).await;
    for micros in [0, 50, 200, 1000, 5000, 20_000] {
        let (limit, patience) = (Duration::from_micros(micros), Duration::from_secs(20));
        _ = timeout(limit, place.pass(&web)).await;
        _ = timeout(limit, place.fail(&web, "no")).await;
        _ = timeout(limit, place.instances(&sought("web"), Some(mark), patience)).await;
        _ = timeout(limit, place.deregister(&web)).await;
        _ = timeout(limit, place.register(&web)).await;
    }
    // What was under way when it was dropped may still be done.
    sleep(Duration::from_millis(200)).await;
    place.register(&web).await.unwrap();
    found(&*place, &sought("web"), &["web-a at 10.0.0.1:8080"]).await;
}

async fn only_instances_with_the_tag_are_found(place: Arc<dyn Discovery>) {
    for (host, tags) in [("a", &["x", "y"][..]), ("b", &["y"]), ("c", &[]), ("d", &["x y", "ä/&"])] {
        let tags = tags.iter().map(ToString::to_string).collect();
        place.register(&Registration { tags, ..registration("web", host, 80) }).await.unwrap();
    }
    for (tag, hosts) in [("x", &["a"][..]), ("y", &["a", "b"]), ("z", &[]), ("x y", &["d"]), ("ä/&", &["d"])] {
        let expected: Vec<_> = hosts.iter().map(|host| format!("web-{host} at 10.0.0.1:80")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        found(&*place, &Sought { tag: Some(tag.to_owned()), ..sought("web") }, &expected).await;
    }
    place.register(&Registration { tags: vec!["z".to_owned()], ..registration("web", "a", 80) }).await.unwrap();
    found(&*place, &Sought { tag: Some("x".to_owned()), ..sought("web") }, &[]).await;
    assert_eq!(look(&*place, &sought("web")).await.instances.len(), 4);
}

/// All that can be asked of it fails because it cannot be reached, in time.
async fn is_unavailable(place: &dyn Discovery, limit: Duration) {
    let (web, sought) = (registration("web", "a", 8080), sought("web"));
    let waits = place.instances(&sought, None, Duration::ZERO).map(|found| found.map(|_| ()));
    let asked: [(&str, BoxFuture<'_, _>); 5] = [
        ("register", place.register(&web)),
        ("pass", place.pass(&web)),
        ("fail", place.fail(&web, "no")),
        ("deregister", place.deregister(&web)),
        ("instances", waits.boxed()),
    ];
    let asked = asked.map(|(what, asked)| async move {
        let answer = timeout(limit, asked).await.unwrap_or_else(|_| panic!("{what}: it does not end"));
        let Err(DiscoveryError::Unavailable(reason)) = answer else { panic!("{what}: {answer:?}") };
        assert!(!reason.is_empty(), "{what}");
    });
    futures_util::future::join_all(asked).await;
}

/// It works again for the same client, whatever it forgot.
async fn works_again(place: &dyn Discovery) {
    let (web, sought) = (registration("web", "a", 8080), sought("web"));
    let registered =
        ochopod_tests::eventually("it can be registered", DEADLINE, async || Ok(place.register(&web).await?));
    registered.await.unwrap();
    found(place, &sought, &["web-a at 10.0.0.1:8080"]).await;
    place.pass(&web).await.unwrap();
    place.fail(&web, "no").await.unwrap();
    found(place, &sought, &[]).await;
    place.deregister(&web).await.unwrap();
}

async fn a_place_that_is_away_is_said_to_be_and_works_once_it_is_back<S: Server>() {
    let mut server = S::start().await;
    let place = server.place().open().unwrap();
    for _ in 0..2 {
        works_again(&*place).await;
        let mark = mark(&*place, &sought("web")).await;
        let waiting = tokio::spawn({
            let place = place.clone();
            async move { place.instances(&sought("web"), Some(mark), Duration::from_secs(3)).await }
        });
        sleep(Duration::from_millis(100)).await;
        server.stop().await;
        is_unavailable(&*place, DEADLINE).await;
        let waited = timeout(DEADLINE, waiting).await.expect("it waits on").unwrap();
        assert!(matches!(waited, Err(DiscoveryError::Unavailable(_))), "{waited:?}");
        server.restart().await;
    }
    works_again(&*place).await;
    server.stop().await;
    let fresh = server.place().open().unwrap();
    is_unavailable(&*fresh, DEADLINE).await;
    server.restart().await;
    works_again(&*fresh).await;
}

async fn a_place_that_is_silent_is_said_to_be_in_time_and_works_once_it_speaks<S: Server>() {
    let server = S::start().await;
    let place = server.place().open().unwrap();
    works_again(&*place).await;
    server.freeze();
    is_unavailable(&*place, DEADLINE).await;
    server.thaw();
    works_again(&*place).await;
    server.freeze();
    let fresh = server.place().open().unwrap();
    is_unavailable(&*fresh, DEADLINE).await;
    server.thaw();
    works_again(&*fresh).await;
}
