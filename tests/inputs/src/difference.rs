//! Bodies of requests that name their view.

use std::sync::Arc;

use ochopod_model::{ContentDigest, DifferenceError, HeldViews, PodId, PostedView, View, ViewDifference};

use crate::assert_error;

/// The view that the pod holds.
const HELD: &[u8] =
    br#"{"key":"a","pods":{"a":{"seq":0},"b":{"seq":1,"status":"dead"}},"dependencies":{"db":{"c":{"seq":2}}}}"#;
/// Stands for the digest of the held view.
const BASE: &str = "BASE";

/// Checks that a body is rejected, or results in the named view or in one with fewer pods. The difference between the
/// held view and any other results in that one.
pub fn difference(bytes: &[u8]) {
    let held = PostedView::parse(HELD).expect("a view").view;
    let named = ContentDigest::of(&held);
    resolve(&held, bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        resolve(&held, text.replace(BASE, named.as_str()).as_bytes());
    }
    if let Ok(other) = PostedView::parse(bytes) {
        assert_turns(&held, &other.view, other.key);
        assert_turns(&other.view, &held, PodId::from("a"));
    }
}

fn resolve(held: &Arc<View>, body: &[u8]) {
    let named = ContentDigest::of(held);
    let mut views = HeldViews::default();
    views.hold(named.clone(), Arc::clone(held));
    match views.resolve(&named, PodId::from("a"), body) {
        Ok(posted) => {
            assert!(posted.view.pods.iter().all(|(id, pod)| held.pods.get(id) == Some(pod)), "another view");
            assert_eq!(posted.view.dependencies, held.dependencies);
            assert!(posted.own().is_some());
        }
        Err(error) => {
            assert_error(&error);
            let must_resend = matches!(error, DifferenceError::NotHeld(_) | DifferenceError::Mismatch(_));
            assert_eq!(error.to_string().ends_with("send the whole view"), must_resend);
        }
    }
    assert_eq!(views.newest(), Some((&named, held)), "another view is held");
}

/// Checks that the difference from one view to the other results in the other.
fn assert_turns(base: &Arc<View>, target: &Arc<View>, key: PodId) {
    let mut views = HeldViews::default();
    views.hold(ContentDigest::of(base), Arc::clone(base));
    let difference = ViewDifference::between(base, ContentDigest::of(base), target);
    let body = serde_json::to_vec(&difference).expect("a difference is JSON");
    let posted = views.resolve(&ContentDigest::of(target), key, &body).expect("the other view");
    assert_eq!(&posted.view, target);
}
