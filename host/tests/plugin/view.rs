//! The view that callbacks borrow: what it costs, what it returns, and when it ends.

use std::fmt::Write as _;

use ochopod_model::PostedView;
use ochopod_plugin::{Command, Grants, Lifecycle, PluginError, PodSandbox, SandboxConfig};

use crate::kit::{LONG_TIMEOUT, SHORT_TIMEOUT, component, load, misbehaving, plain, services, view};

/// Number of pods of the large view.
const PODS: usize = 20_000;
/// Memory of the guest in bytes: less than the large view needs.
const MEMORY: usize = 4 << 20;

/// Returns a view whose pods have much text.
fn large_view() -> PostedView {
    let pods = (0..PODS).fold(String::new(), |mut pods, seq| {
        let _ = write!(pods, r#","k{seq:06}":{{"seq":{seq},"ip":"10.0.0.1","text":"{}"}}"#, "x".repeat(500));
        pods
    });
    let body = format!(r#"{{"key":"k000007","pods":{{{}}},"dependencies":{{"db":{{}}}}}}"#, &pods[1..]);
    PostedView::parse(body.as_bytes()).unwrap()
}

/// Returns a lifecycle whose callbacks read this much of their view.
async fn reading(what: &str, memory: usize) -> Lifecycle {
    let services = services(&[("ochopod_test_reads", what)], Grants::default());
    let pod = PodSandbox::new(SandboxConfig { memory, ..services });
    misbehaving(&pod).await.lifecycle(&pod)
}

async fn configured(what: &str, memory: usize, view: &PostedView) -> Result<Command, PluginError> {
    reading(what, memory).await.configure(view, LONG_TIMEOUT).await
}

#[tokio::test]
async fn callback_needs_no_memory_for_what_it_does_not_read() {
    let large = large_view();
    for what in ["nothing", "index,size,me,pod,oldest", "pages", "grep", "dependency", "beyond", "unknown"] {
        let command = configured(what, MEMORY, &large).await;
        assert!(command.is_ok(), "{what}: {command:?}");
        assert_eq!(command.unwrap().environment["OCHOPOD_TEST_INDEX"], "7");
    }
    let error = configured("pods", MEMORY, &large).await.unwrap_err();
    assert!(matches!(&error, PluginError::Exhausted(text) if text.contains("limit is 4 MiB")), "{error:?}");
    assert!(configured("pods,keys,addresses", 256 << 20, &large).await.is_ok());
}

#[tokio::test]
async fn guest_that_reads_all_pods_without_end_keeps_its_memory_and_its_deadline() {
    let lifecycle = reading("always", 64 << 20).await;
    for view in [view(), large_view()] {
        let error = lifecycle.configure(&view, SHORT_TIMEOUT).await.unwrap_err();
        assert_eq!(error, PluginError::DeadlineExceeded(SHORT_TIMEOUT));
    }
    assert_eq!(lifecycle.sanity_check(1, LONG_TIMEOUT).await.unwrap().0["calls"], 1);
}

#[tokio::test]
async fn handle_of_a_view_ends_with_the_callback_and_its_misuse_costs_one_instance() {
    let plugin = load(&component("stale-view"), &plain()).await.unwrap();
    let lifecycle = plugin.lifecycle(&plain());
    for _ in 0..2 {
        assert_eq!(lifecycle.configure(&view(), LONG_TIMEOUT).await.unwrap().arguments, ["2"]);
        let error = lifecycle.sanity_check(1, LONG_TIMEOUT).await.unwrap_err();
        assert!(matches!(&error, PluginError::Trapped(text) if text.contains("handle")), "{error:?}");
        let error = lifecycle.can_configure(&view(), LONG_TIMEOUT).await.unwrap_err();
        assert!(matches!(&error, PluginError::Trapped(text) if text.contains("handle")), "{error:?}");
        let reason = lifecycle.ready(&view(), 1, LONG_TIMEOUT).await.unwrap_err();
        assert_eq!(reason, PluginError::Rejected("1 of 2".to_owned()));
    }
}
