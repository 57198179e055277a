//! Bodies of a leader's requests.

use ochopod_model::{ClusterName, ClusterView, Digest, PodView, PostedView, StoredHash, View, ViewError};
use serde_json::Value;

use crate::assert_error;

/// Checks that a view is parsed as it was printed, its digest does not depend on the order of keys or on any `status`,
/// and an invalid one is rejected with a position in it.
pub fn view(bytes: &[u8]) {
    stored(bytes);
    let posted = match PostedView::parse(bytes) {
        Ok(posted) => posted,
        Err(error) => {
            assert_error(&error);
            let placed = matches!(error, ViewError::Key(_)) || error.to_string().contains(" at line ");
            return assert!(placed, "{error}");
        }
    };
    let json = serde_json::to_value(&posted).expect("a view is JSON");
    assert_eq!(PostedView::parse(json.to_string().as_bytes()).as_ref(), Ok(&posted), "printed, it is another");
    assert_eq!(posted.own(), posted.view.pods.get(&posted.key).map(AsRef::as_ref));
    assert_eq!(posted.view.pods.keys().nth(posted.index()), Some(&posted.key));

    queries(&posted);

    let digest = Digest::of(&posted.view);
    let turned = PostedView::parse(reversed(&json).as_bytes()).expect("it has the same keys");
    assert_eq!(Digest::of(&turned.view), digest, "the order of keys counts");
    let dead = posted.view.pods.iter().map(|(id, pod)| (id.clone(), pod.with_status("dead").into()));
    let dead = View { pods: dead.collect(), dependencies: posted.view.dependencies.clone() };
    assert_eq!(Digest::of(&dead), digest, "the status counts");
}

/// Checks that a plugin reads the same pods by each method, and queries of anything return a result.
fn queries(posted: &PostedView) {
    let name = ClusterName::default();
    let view = ClusterView::new(&name, posted);
    let keys: Vec<_> = view.pods().map(PodView::key).collect();
    assert_eq!((keys.len(), keys[view.index()]), (view.size(), view.key()));
    assert_eq!(view.me().map(PodView::seq), Some(view.seq()));
    for (index, pod) in view.pods().enumerate() {
        let found = view.pod(pod.key().as_str()).into_iter().chain(view.range(index, usize::MAX).take(1));
        assert!(found.map(PodView::key).eq([pod.key(); 2]));
        assert!(view.oldest().is_some_and(|oldest| oldest.seq() <= pod.seq()));
        assert!(pod.settings().all(|(key, _)| key != "ip" && key != "seq"));
    }
    assert_eq!(view.range(usize::MAX, usize::MAX).count(), 0);
    for port in [0, 80, 8080, u16::MAX] {
        assert_eq!(view.addresses(port, false).map_or(keys.len(), |addresses| addresses.len()), keys.len());
        for dependency in view.dependencies().chain(["", "unknown"]) {
            let declared = view.dependency(dependency);
            assert_eq!(
                view.grep(dependency, port, true).is_ok_and(|text| text.is_empty()),
                declared.is_some_and(|pods| pods.len() == 0)
            );
        }
    }
}

/// Checks that the `hash` node contains the written value.
fn stored(bytes: &[u8]) {
    let stored = StoredHash::parse(bytes);
    assert_eq!(StoredHash::parse(stored.content().as_bytes()), stored);
}

/// Returns JSON text with the keys of each object in descending order.
fn reversed(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let entries =
                fields.iter().rev().map(|(key, value)| format!("{}:{}", Value::from(&**key), reversed(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(reversed).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}
