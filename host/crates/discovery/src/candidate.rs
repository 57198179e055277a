//! Validation of entries: any client with write access to the registry decides what they contain.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use ochopod_model::PeerHost;
use tracing::warn;

use super::ServiceInstance;

/// Most ids whose entries are logged: a registry full of invalid entries fills neither log nor memory.
const MAX_LOGGED: usize = 1000;
/// Most characters of an entry's text that are logged.
const MAX_SHOWN: usize = 80;

/// An entry as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) port: i64,
}

impl Candidate {
    /// Returns the instance, unless no connection could be made to it. Texts of addresses are rendered into
    /// configuration files and variables, so they hold nothing but an IP address or a host name.
    fn into_instance(self) -> Result<ServiceInstance, Self> {
        let is_address = PeerHost::parse(&self.address).is_some();
        match u16::try_from(self.port) {
            Ok(port @ 1..) if is_address => Ok(ServiceInstance { id: self.id, address: self.address, port }),
            _ => Err(self),
        }
    }
}

/// Turns entries into instances and logs each id once whose entry is skipped.
#[derive(Debug, Default)]
pub(super) struct InstanceFilter {
    logged: Mutex<BTreeSet<String>>,
}

impl InstanceFilter {
    /// Returns the valid instances, sorted by id.
    pub(super) fn instances(&self, candidates: impl IntoIterator<Item = Candidate>) -> Vec<ServiceInstance> {
        let accept = |candidate: Candidate| candidate.into_instance().map_err(|invalid| self.log(&invalid)).ok();
        let mut instances: Vec<_> = candidates.into_iter().filter_map(accept).collect();
        instances.sort_unstable();
        instances
    }

    fn log(&self, Candidate { id, address, port }: &Candidate) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < MAX_LOGGED && logged.insert(id.clone()) {
            let (id, address) = (excerpt(id), excerpt(address));
            warn!(
                "registry entry {id:?} skipped: invalid address {address:?} or port {port}, \
                 expected an IP address or a host name and a port from 1 to 65535"
            );
        }
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: &str, address: &str, port: i64) -> Candidate {
        Candidate { id: id.to_owned(), address: address.to_owned(), port }
    }

    #[test]
    fn only_addresses_of_one_machine_and_real_ports_become_instances() {
        let filter = InstanceFilter::default();
        for good in ["10.0.0.1", "fd00::1", "[fd00::1]", "db-1.example.com", "web_1", "localhost"] {
            let expected = ServiceInstance { id: "i0".to_owned(), address: good.to_owned(), port: 5432 };
            assert_eq!(filter.instances([candidate("i0", good, 5432)]), [expected]);
        }
        for bad in [
            "10.0.0.1;}\nevil {\n",
            "10.0.0.1,10.9.9.9",
            "",
            "a b",
            "10.0.0.1:80",
            "fe80::1%eth0",
            "0.0.0.0",
            "-x",
            "10.0.0.1\u{202e}",
            "h\0",
            "$(id)",
            "{{.}}",
        ] {
            assert_eq!(filter.instances([candidate("i0", bad, 5432)]), [], "{bad:?}");
        }
        for bad in [i64::MIN, -1, 0, 65536, i64::MAX] {
            assert_eq!(filter.instances([candidate("i0", "h", bad)]), [], "{bad}");
        }
    }

    #[test]
    fn each_skipped_id_is_remembered_once_and_not_without_end() {
        let filter = InstanceFilter::default();
        let count = || filter.logged.lock().unwrap().len();
        for _ in 0..3 {
            assert_eq!(
                filter.instances([candidate("a", "", 1), candidate("b", "h", 0), candidate("c", "h", 1)]).len(),
                1
            );
            assert_eq!(count(), 2);
        }
        filter.instances((0..5000).map(|number| candidate(&number.to_string(), "", 1)));
        assert_eq!(count(), MAX_LOGGED);
    }
}
