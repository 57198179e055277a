use proptest::{collection::btree_map, prelude::*};

use super::*;
use crate::testing::{cluster, pod};

fn kafka(pods: impl IntoIterator<Item = Pod>) -> Cluster<'static> {
    cluster([pod(0)]).dependency("kafka", pods).view_of(0)
}

#[test]
fn grep_returns_addresses_in_seq_order_with_remapped_ports() {
    let first = Pod { key: "z".into(), ip: "10.0.0.1".into(), public: "54.1.1.1".into(), ..pod(1) };
    let second = Pod { key: "a".into(), ip: "10.0.0.2".into(), ports: [(9092, 31000)].into(), ..pod(2) };
    let view = kafka([second, first]);
    assert_eq!(view.grep("kafka", 9092, false).unwrap(), "10.0.0.1:9092,10.0.0.2:31000");
    assert_eq!((view.dependencies(), view.dependency_size("kafka").unwrap()), (vec!["kafka".to_owned()], 2));
}

#[test]
fn undeclared_dependency_is_named_by_every_method() {
    let view = kafka([]);
    let texts = [
        view.grep("zookeeper", 2181, false).unwrap_err(),
        view.dependency("zookeeper").unwrap_err(),
        view.dependency_size("zookeeper").unwrap_err(),
    ];
    for text in texts {
        assert_eq!(text.to_string(), "undeclared dependency \"zookeeper\": add it to `depends_on`");
    }
}

#[test]
fn iteration_visits_every_pod_once_beyond_a_page() {
    let seqs: Vec<u64> = (0..=2 * PAGE as u64).collect();
    let view = cluster(seqs.iter().copied().map(pod)).view_of(7);
    assert_eq!(view.iter().map(|pod| pod.seq).collect::<Vec<_>>(), seqs);
    assert_eq!((&view).into_iter().count(), view.size());
    assert_eq!(view.range(usize::MAX, usize::MAX), []);
}

#[test]
fn an_ipv6_address_is_bracketed() {
    let pod = Pod { ip: "fd00::1".into(), ..pod(1) };
    assert_eq!(pod.address(80, false).unwrap(), "[fd00::1]:80");
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let address = || prop_oneof!["", "10\\.0\\.0\\.[1-9]", "fd00::[1-9]", "\\[fd00::1\\]", "[a-c]{1,3}"];
    let ports = btree_map(1_u16..4, 1_u16..9, 0..3);
    let texts = ("[a-b]?", "[a-b]?", "[a-b]?", "(dead)?", "(primary)?");
    let settings = btree_map("x[a-c]", "[\"{}a1]{0,4}", 0..3);
    (0..9_u64, address(), address(), ports, texts, any::<u16>(), any::<bool>(), settings).prop_map(
        |(seq, ip, public, ports, (node, application, task, status, role), port, started, settings)| {
            let key = format!("pod-{seq}");
            Pod { key, seq, ip, public, node, application, task, status, role, started, port, ports, settings }
        },
    )
}

proptest! {
    /// `Pod::address` and the view must return the same address.
    #[test]
    fn a_pod_has_the_address_that_the_view_has(pod in any_pod(), port in 1_u16..5, public: bool) {
        let view = cluster([pod.clone()]).dependency("d", [pod.clone()]).view_of(pod.seq);
        let own = pod.address(port, public).map_err(|error| error.to_string());
        prop_assert_eq!(view.addresses(port, public).map_err(|error| error.to_string()), own.clone().map(|own| vec![own]));
        prop_assert_eq!(view.grep("d", port, public).map_err(|error| error.to_string()), own);
    }

    #[test]
    fn a_pod_of_a_test_is_in_the_view_unchanged(pod in any_pod()) {
        let view = cluster([pod.clone()]).dependency("d", [pod.clone()]).view_of(pod.seq);
        let seen = [view.me().unwrap(), view.pod(&pod.key).unwrap(), view.oldest().unwrap()];
        prop_assert!(seen.iter().all(|seen| *seen == pod), "{:?}", seen);
        prop_assert_eq!((view.pods(), view.by_seq()), (vec![pod.clone()], vec![pod.clone()]));
        prop_assert_eq!((view.keys(), view.roles()), (vec![pod.key.clone()], vec![pod.role.clone()]));
        prop_assert_eq!(view.dependency("d").unwrap(), [Pod { started: false, ..pod }]);
    }
}
