//! Every callback with every misbehaviour: the deadline is kept, the failure is identified, and nothing else is
//! delayed.

use std::{
    fs,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use ochopod_plugin::{Grants, Plugin, PluginError, PodSandbox, SandboxConfig, Uploads};
use ochopod_telemetry::{Gauges, Metrics};
use tokio::sync::watch;

use crate::kit::{INIT, LONG_TIMEOUT, SHORT_TIMEOUT, misbehaving, services, view};

/// Every callback that a request, a timer or the end of a pod causes.
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

/// Misbehaviours from which a callback never returns.
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

/// Misbehaviours that discard an instance, and a part of the reported error.
const FATAL: [(&str, &str); 10] = [
    ("trap", "unreachable"),
    ("panic:out of cheese", "out of cheese"),
    ("exit", "exit(1)"),
    ("stack", "out of bounds"),
    ("huge", "too much data"),
    ("allocate", "256"),
    ("leak-bodies", "no free keys"),
    ("leak-sockets", "no free keys"),
    ("leak-pollables", "no free keys"),
    ("leak-requests", "no free keys"),
];

/// Maximum delay of the reported end of a call: a fifth of its limit, and the inaccuracy of a timer.
const MAX_DELAY: Duration = Duration::from_millis(600 + 10);
/// Number of attempts: a loaded machine is late occasionally, a defective host each time.
const MAX_ATTEMPTS: usize = 20;

/// Returns a plugin whose callbacks all execute this, where `address` belongs to a server that never answers.
async fn misbehaving_plugin(what: &str, address: &str) -> (Plugin, PodSandbox) {
    let variables: Vec<String> =
        CALLBACKS.iter().map(|name| format!("ochopod_test_{}", name.replace('-', "_"))).collect();
    let path = std::env::var("PATH").unwrap();
    let mut environment: Vec<(&str, &str)> = variables.iter().map(|name| (name.as_str(), what)).collect();
    environment.extend([("ochopod_test_address", address), ("PATH", path.as_str())]);
    let programs = ["sleep", "yes", "timeout"].map(str::to_owned).to_vec();
    let services = services(&environment, Grants { programs, ..Grants::default() });
    let pod = PodSandbox::new(SandboxConfig { init: Some(INIT.clone()), ..services });
    (misbehaving(&pod).await, pod)
}

/// Calls a callback of a fresh instance.
async fn call(plugin: &Plugin, pod: &PodSandbox, callback: &str, limit: Duration) -> Result<(), PluginError> {
    let lifecycle = plugin.lifecycle(pod);
    match callback {
        "initialize" => lifecycle.initialize(limit).await,
        "can-configure" => lifecycle.can_configure(&view(), limit).await,
        "configure" => lifecycle.configure(&view(), limit).await.map(drop),
        "configured" => lifecycle.configured(&view(), limit).await.map(drop),
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
        let (plugin, pod) = misbehaving_plugin(what, &address).await;
        let mut latest = Duration::MAX;
        for _ in 0..MAX_ATTEMPTS {
            let calls = CALLBACKS.map(|callback| {
                let (plugin, pod) = (&plugin, &pod);
                async move {
                    let begin = Instant::now();
                    let result = call(plugin, pod, callback, SHORT_TIMEOUT).await;
                    let took = begin.elapsed();
                    // A program that is run ends with the call, and its end may be reported to the guest just in time.
                    let rejected = what.starts_with("exec") && matches!(result, Err(PluginError::Rejected(_)));
                    let over = result == Err(PluginError::DeadlineExceeded(SHORT_TIMEOUT)) || rejected;
                    assert!(over && took >= SHORT_TIMEOUT, "{callback} {what}: {result:?} after {took:?}");
                    took
                }
            });
            latest = join_all(calls).await.into_iter().max().unwrap_or_default().min(latest);
            if latest < MAX_DELAY {
                break;
            }
        }
        eprintln!("{what}: at most {latest:?} of {SHORT_TIMEOUT:?}");
        assert!(latest < MAX_DELAY, "{what} was reported after {latest:?}");
    }
    let begin = Instant::now();
    while runs(b"86312") {
        assert!(begin.elapsed() < LONG_TIMEOUT, "a program outlives the call that ran it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns whether any process has this among its arguments.
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
        let (plugin, pod) = misbehaving_plugin(what, &address).await;
        for callback in CALLBACKS {
            let error = call(&plugin, &pod, callback, LONG_TIMEOUT).await.unwrap_err();
            assert!(
                matches!(error, PluginError::Trapped(_) | PluginError::Exhausted(_)),
                "{callback} {what}: {error:?}"
            );
            assert!(error.to_string().contains(part), "{callback} {what}: {error}");
        }
    }
}

#[tokio::test]
async fn guarantee_5_the_host_holds_little_of_the_request_bodies_of_a_guest() {
    let (plugin, pod) = misbehaving_plugin("fill-body:65536", "").await;
    plugin.lifecycle(&pod).initialize(LONG_TIMEOUT).await.unwrap();
    let (plugin, pod) = misbehaving_plugin("fill-body:1024", "").await;
    let error = plugin.lifecycle(&pod).initialize(LONG_TIMEOUT).await.unwrap_err();
    assert!(error.to_string().contains("more than 1024 bytes"), "{error}");
}

#[tokio::test]
async fn slow_or_verbose_callbacks_discard_no_instance() {
    for what in ["flood-line", "flood-log:20000", "wait-input", "sleep:0.1"] {
        let (plugin, pod) = misbehaving_plugin(what, "").await;
        for callback in CALLBACKS {
            // It has no sub-process to tear down, which it reports afterwards.
            let result = call(&plugin, &pod, callback, LONG_TIMEOUT).await;
            assert!(result.is_ok() || callback == "tear-down", "{callback} {what}: {result:?}");
        }
    }
}

#[tokio::test]
async fn failures_are_counted_by_instance_and_callback_and_a_suspended_instance_is_reported() {
    let (report, metrics) = (watch::Sender::default(), Arc::<Metrics>::default());
    let reports = report.subscribe();
    let environment =
        [("ochopod_test_initialize", "trap"), ("ochopod_test_probe", "spin"), ("ochopod_test_run", "panic")];
    let services = services(&environment, Grants::default());
    let pod = PodSandbox::new(SandboxConfig { report, metrics: Arc::clone(&metrics), ..services });
    let plugin = misbehaving(&pod).await;
    let (lifecycle, model) = (plugin.lifecycle(&pod), plugin.model(&pod));
    for _ in 0..12 {
        lifecycle.initialize(LONG_TIMEOUT).await.unwrap_err();
    }
    model.probe(&view(), SHORT_TIMEOUT).await.unwrap_err();
    let run = plugin.run_tool(&pod, "report".to_owned(), Vec::new(), Uploads::default(), LONG_TIMEOUT);
    run.await.unwrap_err();
    let page = metrics.render(Gauges::default());
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
    assert!(suspended && status.contains("lifecycle suspended after repeated failures"), "{status:?}");
    assert!(!reports.borrow().is_suspended("model", now));
}
