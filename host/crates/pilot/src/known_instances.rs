//! Known instances of a backend, to detect changes.

use std::collections::BTreeSet;

use ochopod_discovery::ServiceInstance;

use super::{
    change::{Change, Endpoint},
    config::{Backend, BackendTemplate},
};

/// Known instances of one backend. Empty at first: instances of the first query are a change, as in ContainerPilot. IDs do not
/// count: an instance that replaces another one at the same address and port is not a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KnownInstances {
    /// Addresses and ports of the last query, ordered by ID.
    seen: Vec<(String, u16)>,
    /// Whether there is a change without a reaction yet.
    pub(super) change_pending: bool,
    /// Instances of the last query.
    instances: Vec<ServiceInstance>,
    /// Endpoints of the last reaction that succeeded.
    reported: BTreeSet<Endpoint>,
    /// Whether there was any change so far.
    has_changed: bool,
    /// The template of the file that was rendered last.
    rendered: Option<BackendTemplate>,
}

impl KnownInstances {
    /// Stores the result of a query. Returns whether it is a change.
    pub(super) fn update(&mut self, mut instances: Vec<ServiceInstance>) -> bool {
        instances.sort();
        let seen: Vec<_> = instances.iter().map(|instance| (instance.address.clone(), instance.port)).collect();
        let has_changed = seen != self.seen;
        self.change_pending |= has_changed;
        self.has_changed |= has_changed;
        self.seen = seen;
        self.instances = instances;
        has_changed
    }

    /// Continues after a reload, which may have changed the backend. A template that was not rendered makes a reaction pending.
    pub(super) fn succeed(&mut self, backend: &Backend) {
        self.change_pending |= self.has_changed && backend.template.is_some() && self.rendered != backend.template;
    }

    /// Returns the input of a reaction.
    pub(super) fn change(&self, backend: &Backend) -> Change {
        Change::new(backend, self.instances.clone(), &self.reported)
    }

    /// Records the template that was rendered; none if that failed.
    pub(super) fn rendered(&mut self, template: Option<BackendTemplate>) {
        self.rendered = template;
    }

    /// Records the endpoints of a reaction that succeeded.
    pub(super) fn reacted(&mut self, reported: BTreeSet<Endpoint>) {
        self.reported = reported;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::Value;

    use super::*;

    /// Id, address and port.
    type InstanceTuple = (&'static str, &'static str, u16);

    fn instance((id, address, port): (&str, &str, u16)) -> ServiceInstance {
        ServiceInstance { id: id.to_owned(), address: address.to_owned(), port }
    }

    /// Returns for each query whether it is a change.
    fn changes(queries: &[&[InstanceTuple]]) -> Vec<bool> {
        let mut known = KnownInstances::default();
        let query = |update: &&[InstanceTuple]| {
            known.update(update.iter().copied().map(instance).collect());
            std::mem::take(&mut known.change_pending)
        };
        queries.iter().map(query).collect()
    }

    #[test]
    fn changes_are_those_of_containerpilot() {
        let (a, b) = (("a", "10.0.0.1", 80), ("b", "10.0.0.2", 80));
        // As observed with a real Consul: an instance that is critical or warns is not found.
        let steps: [(&[InstanceTuple], bool); 11] = [
            (&[], false),
            (&[a], true),
            (&[a], false),
            (&[("a", "10.0.0.1", 81)], true),
            (&[("a", "10.0.0.9", 81)], true),
            (&[("a", "10.0.0.9", 81), b], true),
            (&[("a", "10.0.0.9", 81)], true),
            (&[("c", "10.0.0.9", 81)], false),
            (&[], true),
            (&[], false),
            (&[a], true),
        ];
        let (queries, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        assert_eq!(changes(&queries), expected);
        assert_eq!(changes(&[&[a]]), [true], "started with one instance");
        assert_eq!(changes(&[&[a, b], &[b, a]]), [true, false], "the order of the answer does not count");
        assert_eq!(changes(&[&[a, b], &[("a", "10.0.0.2", 80), ("b", "10.0.0.1", 80)]]), [true, true]);
    }

    #[test]
    fn containerpilot_vectors_pass() {
        let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/discovery.json")).unwrap();
        let (none, instance): (&[_], &[_]) = (&[], &[("x", "127.0.0.1", 80)]);
        let queries = |word: &str| match word {
            "check backend (none)" | "TTL 1 s expires" => vec![none],
            "heartbeat x2" | "check again" => vec![instance],
            _ => Vec::new(),
        };
        let steps: Vec<&Value> =
            vectors["unit"].as_array().unwrap().iter().filter(|s| s.get("seq").is_some()).collect();
        assert_eq!(steps.len(), 4);
        let words = steps.iter().flat_map(|step| step["seq"].as_array().unwrap()).map(|word| word.as_str().unwrap());
        let expected: Vec<bool> = steps.iter().map(|step| step["changed"][0].as_bool().unwrap()).collect();
        let update: Vec<_> = words.flat_map(queries).collect();
        assert_eq!(changes(&update), expected);
    }

    #[test]
    fn change_stays_pending_until_a_reaction() {
        let mut known = KnownInstances::default();
        for _ in 0..2 {
            known.update(vec![instance(("a", "10.0.0.1", 80))]);
            assert!(known.change_pending);
        }
    }

    proptest! {
        #[test]
        fn only_different_endpoints_in_the_order_of_ids_are_a_change(
            one in vec((0..4_u16, 0..3_u16), 0..4), other in vec((0..4_u16, 0..3_u16), 0..4),
        ) {
            let instances = |places: &[(u16, u16)], letter: &str| -> Vec<ServiceInstance> {
                let id = |index| format!("{letter}{index}");
                let all = places.iter().enumerate();
                all.map(|(index, (host, port))| instance((&id(index), &format!("10.0.0.{host}"), *port))).collect()
            };
            let mut known = KnownInstances::default();
            known.update(instances(&one, "a"));
            prop_assert_eq!(std::mem::take(&mut known.change_pending), !one.is_empty());
            let mut shuffled = instances(&other, "b");
            shuffled.reverse();
            known.update(shuffled);
            prop_assert_eq!(known.change_pending, one != other);
        }
    }
}
