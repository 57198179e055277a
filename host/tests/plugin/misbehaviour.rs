//! Every callback with every misbehaviour: the deadline is kept, the failure is told apart, and nothing else is held up.

use std::{
    fs,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use ochopod::{
    plugin::{Plugin, PluginError, Pod, Services, Uploads},
    settings::Grants,
    telemetry::{Gauges, Metrics},
};
use tokio::sync::watch;

use crate::kit::{INIT, LONG, SHORT, misbehaving, services, view};

/// Every callback that requests, time or the end of a pod lead to.
const CALLBACKS: [&str; 10] = [
    "initialize",
    "can-configure",
    "configure",
    "configured",
    "sanity-check",
    "signaled",
    "tear-down",
    "finalize",
    "probe",
    "run",
];

/// What a callback never comes back from.
const ENDLESS: [&str; 10] = [
    "spin",
    "sleep",
    "wait-socket",
    "wait-request",
    "flood-log:1000000000",
    "flood-out",
    "flood-error",
    "exec:sleep 86312",
    "exec:yes",
    "exec:timeout 86312 sleep 86312",
];

/// What costs an instance, and a part of what is said of it.
const FATAL: [(&str, &str); 9] = [
    ("trap", "unreachable"),
    ("panic:out of cheese", "out of cheese"),
    ("exit", "exit(1)"),
    ("stack", "out of bounds"),
    ("huge", "too much data"),
    ("allocate", "256"),
    ("leak-sockets", "no free keys"),
    ("leak-pollables", "no free keys"),
    ("leak-requests", "no free keys"),
];

/// How late the end of a call may be told: a fifth of its limit, and what a timer is off.
const LATEST: Duration = Duration::from_millis(600 + 10);
/// A loaded machine is late now and then; a host that is late is so each time.
const TRIES: usize = 3;

/// A plugin whose callbacks all do this, where `address` belongs to a server that never answers.
async fn told(what: &str, address: &str) -> (Plugin, Pod) {
    let variables: Vec<String> =
        CALLBACKS.iter().map(|name| format!("ochopod_test_{}", name.replace('-', "_"))).collect();
    let path = std::env::var("PATH").unwrap();
    let mut environment: Vec<(&str, &str)> = variables.iter().map(|name| (name.as_str(), what)).collect();
    environment.extend([("ochopod_test_address", address), ("PATH", path.as_str())]);
    let programs = ["sleep", "yes", "timeout"].map(str::to_owned).to_vec();
    let services = services(&environment, Grants { programs, ..Grants::default() });
    let pod = Pod::new(Services { init: Some(INIT.clone()), ..services });
    (misbehaving(&pod).await, pod)
}

/// Calls a callback of a fresh instance.
async fn call(plugin: &Plugin, pod: &Pod, callback: &str, limit: Duration) -> Result<(), PluginError> {
    let lifecycle = plugin.lifecycle(pod);
    match callback {
        "initialize" => lifecycle.initialize(limit).await,
        "can-configure" => lifecycle.can_configure(&view(), limit).await,
        "configure" => lifecycle.configure(&view(), limit).await.map(drop),
        "configured" => lifecycle.configured(&view(), limit).await,
        "sanity-check" => lifecycle.sanity_check(1, limit).await.map(drop),
        "signaled" => lifecycle.signaled(None, None, limit).await.map(drop),
        "tear-down" => lifecycle.tear_down(1, limit).await,
        "finalize" => lifecycle.finalize(limit).await,
        "probe" => plugin.model(pod).probe(&view(), limit).await.map(drop),
        "run" => {
            let run = plugin.run_tool(pod, "report".to_owned(), Vec::new(), Uploads::default(), limit);
            run.await.map(drop)
        }
        other => panic!("no such callback: {other}"),
    }
}

#[tokio::test]
async fn guarantee_5_every_callback_is_over_at_its_deadline_whatever_it_does() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for what in ENDLESS {
        let (plugin, pod) = told(what, &address).await;
        let mut latest = Duration::MAX;
        for _ in 0..TRIES {
            let calls = CALLBACKS.map(|callback| {
                let (plugin, pod) = (&plugin, &pod);
                async move {
                    let begin = Instant::now();
                    let result = call(plugin, pod, callback, SHORT).await;
                    let took = begin.elapsed();
                    // A program that is run ends with the call, and its end may be told to the guest just in time.
                    let rejected = what.starts_with("exec") && matches!(result, Err(PluginError::Rejected(_)));
                    let over = result == Err(PluginError::DeadlineExceeded(SHORT)) || rejected;
                    assert!(over && took >= SHORT, "{callback} {what}: {result:?} after {took:?}");
                    took
                }
            });
            latest = join_all(calls).await.into_iter().max().unwrap_or_default().min(latest);
            if latest < LATEST {
                break;
            }
        }
        eprintln!("{what}: at most {latest:?} of {SHORT:?}");
        assert!(latest < LATEST, "{what} was told after {latest:?}");
    }
    let begin = Instant::now();
    while runs(b"86312") {
        assert!(begin.elapsed() < LONG, "a program outlives the call that ran it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether any process has this among its arguments.
fn runs(argument: &[u8]) -> bool {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    processes.into_iter().any(|line| line.split(|byte| *byte == 0).any(|word| word == argument))
}

#[tokio::test]
async fn guarantee_5_every_callback_may_fail_in_every_way_and_the_next_call_is_served() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for (what, part) in FATAL {
        let (plugin, pod) = told(what, &address).await;
        for callback in CALLBACKS {
            let error = call(&plugin, &pod, callback, LONG).await.unwrap_err();
            assert!(
                matches!(error, PluginError::Trapped(_) | PluginError::Exhausted(_)),
                "{callback} {what}: {error:?}"
            );
            assert!(error.to_string().contains(part), "{callback} {what}: {error}");
        }
    }
}

#[tokio::test]
async fn what_only_takes_its_time_or_says_too_much_costs_nothing() {
    for what in ["flood-line", "flood-log:20000", "wait-input", "sleep:0.1"] {
        let (plugin, pod) = told(what, "").await;
        for callback in CALLBACKS {
            // There is no sub-process to tear down, which is what it says after.
            let result = call(&plugin, &pod, callback, LONG).await;
            assert!(result.is_ok() || callback == "tear-down", "{callback} {what}: {result:?}");
        }
    }
}

#[tokio::test]
async fn failures_are_counted_by_instance_and_callback_and_a_suspended_instance_is_told() {
    let (report, metrics) = (watch::Sender::default(), Arc::<Metrics>::default());
    let reports = report.subscribe();
    let environment =
        [("ochopod_test_initialize", "trap"), ("ochopod_test_probe", "spin"), ("ochopod_test_run", "panic")];
    let services = services(&environment, Grants::default());
    let pod = Pod::new(Services { report, metrics: Arc::clone(&metrics), ..services });
    let plugin = misbehaving(&pod).await;
    let (lifecycle, model) = (plugin.lifecycle(&pod), plugin.model(&pod));
    for _ in 0..12 {
        lifecycle.initialize(LONG).await.unwrap_err();
    }
    model.probe(&view(), SHORT).await.unwrap_err();
    let run = plugin.run_tool(&pod, "report".to_owned(), Vec::new(), Uploads::default(), LONG);
    run.await.unwrap_err();
    let page = metrics.page(Gauges::default());
    for line in [
        r#"ochopod_plugin_traps_total{instance="lifecycle",callback="initialize"} 11"#,
        r#"ochopod_plugin_traps_total{instance="tool",callback="run"} 1"#,
        r#"ochopod_plugin_deadlines_total{instance="model",callback="probe"} 1"#,
        r#"ochopod_plugin_rebuilds_total{instance="lifecycle"} 10"#,
        r#"ochopod_plugin_rebuilds_total{instance="model"} 0"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
    }
    let now = Instant::now();
    let (suspended, status) = (reports.borrow().is_suspended("lifecycle", now), reports.borrow().status(now));
    assert!(suspended && status.contains("lifecycle failed too often"), "{status:?}");
    assert!(!reports.borrow().is_suspended("model", now));
}
