//! What was seen of a backend, to tell whether it changed.

use crate::discovery::Instance;

/// Empty at first: instances that are there at the first look are a change, as with ContainerPilot. What does not count is
/// ids: an instance that replaces another at the same address and port is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Where the instances were, by the order of their ids.
    seen: Vec<(String, u16)>,
    /// Whether there was a change that nobody reacted to yet.
    pub(super) due: bool,
}

impl Memory {
    /// Takes what a look found, sorted or not. Whether that is a change.
    pub(super) fn found(&mut self, mut instances: Vec<Instance>) -> bool {
        instances.sort();
        let seen: Vec<_> = instances.into_iter().map(|instance| (instance.address, instance.port)).collect();
        let has_changed = seen != self.seen;
        self.due |= has_changed;
        self.seen = seen;
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::Value;

    use super::*;

    /// Id, address and port.
    type Place = (&'static str, &'static str, u16);

    fn instance((id, address, port): (&str, &str, u16)) -> Instance {
        Instance { id: id.to_owned(), address: address.to_owned(), port }
    }

    /// Whether each of these looks tells of a change.
    fn changes(looks: &[&[Place]]) -> Vec<bool> {
        let mut memory = Memory::default();
        let look = |found: &&[Place]| {
            memory.found(found.iter().copied().map(instance).collect());
            std::mem::take(&mut memory.due)
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn what_counts_as_a_change_is_what_counted_for_containerpilot() {
        let (a, b) = (("a", "10.0.0.1", 80), ("b", "10.0.0.2", 80));
        // As observed with a real Consul: an instance that is critical or warns is not found.
        let steps: [(&[Place], bool); 11] = [
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
        let (looks, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        assert_eq!(changes(&looks), expected);
        assert_eq!(changes(&[&[a]]), [true], "started with one instance");
        assert_eq!(changes(&[&[a, b], &[b, a]]), [true, false], "the order of the answer does not count");
        assert_eq!(changes(&[&[a, b], &[("a", "10.0.0.2", 80), ("b", "10.0.0.1", 80)]]), [true, true]);
    }

    #[test]
    fn the_vectors_of_containerpilot_hold() {
        let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/discovery.json")).unwrap();
        let (nobody, instance): (&[_], &[_]) = (&[], &[("x", "127.0.0.1", 80)]);
        let looks = |word: &str| match word {
            "check backend (none)" | "TTL 1 s expires" => vec![nobody],
            "heartbeat x2" | "check again" => vec![instance],
            _ => Vec::new(),
        };
        let steps: Vec<&Value> =
            vectors["unit"].as_array().unwrap().iter().filter(|s| s.get("seq").is_some()).collect();
        assert_eq!(steps.len(), 4);
        let words = steps.iter().flat_map(|step| step["seq"].as_array().unwrap()).map(|word| word.as_str().unwrap());
        let expected: Vec<bool> = steps.iter().map(|step| step["changed"][0].as_bool().unwrap()).collect();
        let found: Vec<_> = words.flat_map(looks).collect();
        assert_eq!(changes(&found), expected);
    }

    #[test]
    fn a_change_stays_due_until_somebody_reacts() {
        let mut memory = Memory::default();
        for _ in 0..2 {
            memory.found(vec![instance(("a", "10.0.0.1", 80))]);
            assert!(memory.due);
        }
    }

    proptest! {
        #[test]
        fn the_same_places_in_the_same_order_of_ids_are_never_a_change_and_others_always_are(
            one in vec((0..4_u16, 0..3_u16), 0..4), other in vec((0..4_u16, 0..3_u16), 0..4),
        ) {
            let instances = |places: &[(u16, u16)], letter: &str| -> Vec<Instance> {
                let id = |index| format!("{letter}{index}");
                let all = places.iter().enumerate();
                all.map(|(index, (host, port))| instance((&id(index), &format!("10.0.0.{host}"), *port))).collect()
            };
            let mut memory = Memory::default();
            memory.found(instances(&one, "a"));
            prop_assert_eq!(std::mem::take(&mut memory.due), !one.is_empty());
            let mut shuffled = instances(&other, "b");
            shuffled.reverse();
            memory.found(shuffled);
            prop_assert_eq!(memory.due, one != other);
        }
    }
}
