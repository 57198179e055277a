//! Deadlines, failures and floods: what a callback costs when it misbehaves.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use ochopod::{plugin::PluginError, settings::Grants};

use crate::kit::{LONG, SHORT, attempt, lifecycle, misbehaving, plain, pod};

#[tokio::test]
async fn a_call_is_over_at_its_deadline_whether_it_computes_or_waits() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = format!("wait-socket:{}", silent.local_addr().unwrap());
    for told in ["spin", "sleep", &waiting] {
        let lifecycle = lifecycle(&plain()).await;
        lifecycle.initialize(LONG).await.unwrap();
        let start = Instant::now();
        let error = attempt(&lifecycle, "act", told, SHORT).await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error, PluginError::DeadlineExceeded(SHORT), "{told}");
        assert!(took >= SHORT && took < SHORT.mul_f64(1.2), "{told} ended after {took:?}");
        let again = lifecycle.sanity_check(1, LONG).await.unwrap();
        assert_eq!(again["calls"], 1, "{told}: the instance was not rebuilt");
    }
}

#[tokio::test]
async fn a_failure_costs_one_instance_and_is_told_apart_by_kind() {
    let lifecycle = lifecycle(&plain()).await;
    let fails = [
        ("panic:out of cheese", "out of cheese"),
        ("trap", "unreachable"),
        ("exit", "exit(1)"),
        ("stack", "out of bounds"),
        ("huge", "too much data"),
    ];
    for (told, part) in fails {
        let error = attempt(&lifecycle, "act", told, LONG).await.unwrap_err();
        assert!(matches!(error, PluginError::Trapped(_)), "{told}: {error:?}");
        assert!(error.to_string().contains(part), "{told}: {error}");
        assert_eq!(lifecycle.sanity_check(1, LONG).await.unwrap()["calls"], 1, "{told}");
    }
    let error = attempt(&lifecycle, "act", "allocate", LONG).await.unwrap_err();
    assert!(matches!(&error, PluginError::Exhausted(text) if text.contains("256")), "{error:?}");
    let error = attempt(&lifecycle, "act", "reject:not today", LONG).await.unwrap_err();
    assert_eq!(error, PluginError::Rejected("not today".to_owned()));
    assert_eq!(lifecycle.sanity_check(1, LONG).await.unwrap()["calls"], 2, "a refusal cost the instance");
}

#[tokio::test]
async fn an_instance_that_keeps_failing_is_rebuilt_ten_times_and_then_not() {
    let lifecycle = lifecycle(&pod(&[("ochopod_test_initialize", "panic:again")], Grants::default())).await;
    for _ in 0..11 {
        assert!(matches!(lifecycle.initialize(LONG).await, Err(PluginError::Trapped(_))));
    }
    let error = lifecycle.initialize(LONG).await.unwrap_err();
    assert!(matches!(&error, PluginError::Unavailable(text) if text.contains("again")), "{error:?}");
}

#[tokio::test]
async fn giving_a_call_up_ends_it_and_costs_no_budget() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let waiting = format!("wait-socket:{}", silent.local_addr().unwrap());
    let lifecycle = lifecycle(&plain()).await;
    for _ in 0..20 {
        // Held open: a guest that saw it closed could end well before it is given up.
        let _connection = tokio::select! {
            ended = attempt(&lifecycle, "act", &waiting, LONG) => panic!("{ended:?}"),
            begun = silent.accept() => begun.unwrap(),
        };
        let start = Instant::now();
        assert_eq!(lifecycle.sanity_check(1, LONG).await.unwrap()["calls"], 1);
        assert!(start.elapsed() < LONG / 2, "the next call waited for the one that was given up");
    }
}

#[tokio::test]
async fn spinning_guests_hold_up_neither_the_host_nor_each_other() {
    let pod = plain();
    let plugin = misbehaving(&pod).await;
    let spinning: Vec<_> = (0..6).map(|_| plugin.lifecycle(&pod)).collect();
    let spins = futures_util::future::join_all(spinning.iter().map(|one| attempt(one, "act", "spin", 3 * SHORT)));
    let other = plugin.lifecycle(&pod);
    let work = async {
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        while start.elapsed() < 2 * SHORT {
            let begun = Instant::now();
            other.initialize(LONG).await.unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let (spins, slowest) = tokio::join!(spins, work);
    assert!(spins.iter().all(|spin| *spin == Err(PluginError::DeadlineExceeded(3 * SHORT))), "{spins:?}");
    // A loaded machine is slow, but never so slow that a call would have had to wait for their end.
    assert!(slowest < 3 * SHORT, "a call among spinning guests took {slowest:?}");
}

#[tokio::test]
async fn a_flood_of_log_lines_ends_soon() {
    let lifecycle = lifecycle(&plain()).await;
    let start = Instant::now();
    attempt(&lifecycle, "act", "flood-log:100000", LONG).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
