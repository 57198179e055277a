//! Deadlines, failures and log bursts: consequences of a misbehaving callback.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use ochopod_plugin::{Grants, PluginError};

use crate::kit::{LONG_TIMEOUT, SHORT_TIMEOUT, attempt, lifecycle, misbehaving, plain, pod};

#[tokio::test]
async fn a_call_is_over_at_its_deadline_whether_it_computes_or_waits() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = format!("wait-socket:{}", silent.local_addr().unwrap());
    for behaviour in ["spin", "sleep", &waiting] {
        let lifecycle = lifecycle(&plain()).await;
        lifecycle.initialize(LONG_TIMEOUT).await.unwrap();
        let start = Instant::now();
        let error = attempt(&lifecycle, "act", behaviour, SHORT_TIMEOUT).await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error, PluginError::DeadlineExceeded(SHORT_TIMEOUT), "{behaviour}");
        assert!(took >= SHORT_TIMEOUT && took < LONG_TIMEOUT / 2, "{behaviour} ended after {took:?}");
        let (again, _) = lifecycle.sanity_check(1, LONG_TIMEOUT).await.unwrap();
        assert_eq!(again["calls"], 1, "{behaviour}: the instance was not rebuilt");
    }
}

#[tokio::test]
async fn a_failure_discards_one_instance_and_reports_its_kind() {
    let lifecycle = lifecycle(&plain()).await;
    let fails = [
        ("panic:out of cheese", "out of cheese"),
        ("trap", "unreachable"),
        ("exit", "exit(1)"),
        ("stack", "out of bounds"),
        ("huge", "too much data"),
    ];
    for (behaviour, part) in fails {
        let error = attempt(&lifecycle, "act", behaviour, LONG_TIMEOUT).await.unwrap_err();
        assert!(matches!(error, PluginError::Trapped(_)), "{behaviour}: {error:?}");
        assert!(error.to_string().contains(part), "{behaviour}: {error}");
        assert_eq!(lifecycle.sanity_check(1, LONG_TIMEOUT).await.unwrap().0["calls"], 1, "{behaviour}");
    }
    let error = attempt(&lifecycle, "act", "allocate", LONG_TIMEOUT).await.unwrap_err();
    assert!(matches!(&error, PluginError::Exhausted(text) if text.contains("256")), "{error:?}");
    let error = attempt(&lifecycle, "act", "reject:not today", LONG_TIMEOUT).await.unwrap_err();
    assert_eq!(error, PluginError::Rejected("not today".to_owned()));
    assert_eq!(lifecycle.sanity_check(1, LONG_TIMEOUT).await.unwrap().0["calls"], 2, "a refusal cost the instance");
}

#[tokio::test]
async fn an_instance_that_keeps_failing_is_rebuilt_ten_times_and_then_not() {
    let lifecycle = lifecycle(&pod(&[("ochopod_test_initialize", "panic:again")], Grants::default())).await;
    for _ in 0..11 {
        assert!(matches!(lifecycle.initialize(LONG_TIMEOUT).await, Err(PluginError::Trapped(_))));
    }
    let error = lifecycle.initialize(LONG_TIMEOUT).await.unwrap_err();
    assert!(matches!(&error, PluginError::Unavailable(text) if text.contains("again")), "{error:?}");
}

#[tokio::test]
async fn giving_a_call_up_ends_it_and_costs_no_budget() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let waiting = format!("wait-socket:{}", silent.local_addr().unwrap());
    let lifecycle = lifecycle(&plain()).await;
    for _ in 0..20 {
        // Kept open: a guest that saw it closed could return before it is abandoned.
        let _connection = tokio::select! {
            ended = attempt(&lifecycle, "act", &waiting, LONG_TIMEOUT) => panic!("{ended:?}"),
            accepted = silent.accept() => accepted.unwrap(),
        };
        let start = Instant::now();
        assert_eq!(lifecycle.sanity_check(1, LONG_TIMEOUT).await.unwrap().0["calls"], 1);
        assert!(start.elapsed() < LONG_TIMEOUT / 2, "the next call waited for the abandoned one");
    }
}

#[tokio::test]
async fn spinning_guests_hold_up_neither_the_host_nor_each_other() {
    let pod = plain();
    let plugin = misbehaving(&pod).await;
    let spinning: Vec<_> = (0..6).map(|_| plugin.lifecycle(&pod)).collect();
    let spins =
        futures_util::future::join_all(spinning.iter().map(|one| attempt(one, "act", "spin", 5 * SHORT_TIMEOUT)));
    let other = plugin.lifecycle(&pod);
    let work = async {
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        while start.elapsed() < 2 * SHORT_TIMEOUT {
            let begin = Instant::now();
            other.initialize(LONG_TIMEOUT).await.unwrap();
            slowest = slowest.max(begin.elapsed());
        }
        slowest
    };
    let (spins, slowest) = tokio::join!(spins, work);
    assert!(spins.iter().all(|spin| *spin == Err(PluginError::DeadlineExceeded(5 * SHORT_TIMEOUT))), "{spins:?}");
    // A loaded machine is slow, but never so slow that a call would have had to wait for their end.
    assert!(slowest < 5 * SHORT_TIMEOUT, "a call among spinning guests took {slowest:?}");
}

#[tokio::test]
async fn a_flood_of_log_lines_ends_soon() {
    let lifecycle = lifecycle(&plain()).await;
    let start = Instant::now();
    attempt(&lifecycle, "act", "flood-log:100000", LONG_TIMEOUT).await.unwrap();
    assert!(start.elapsed() < LONG_TIMEOUT / 2, "{:?}", start.elapsed());
}
