//! Limits for requests that wait for the lifecycle or are executed by it: their number, and the bytes of their bodies.
//!
//! A body of 4 MiB may take twenty times as much memory once it is parsed. The maximum is estimated before that, and reserved
//! until the request is answered. If a limit is reached, the newest waiting request of the client that holds most yields, if
//! that client holds more than the new one: clients cannot keep a leader out by queueing requests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use hyper::StatusCode;
use ochopod_lifecycle::Claim;

use super::{
    reply::ApiError,
    request_limiter::{Client, RequestPermit},
};

/// Maximum number of requests at a time.
const MAX_PENDING: usize = 64;
/// Maximum number of requests of one client.
const MAX_PENDING_PER_CLIENT: usize = 16;
/// Maximum memory of all bodies.
const MAX_PARSED_BYTES: usize = 128 * 1024 * 1024;
/// Maximum memory of the bodies of one client, and thus of each.
const MAX_PARSED_BYTES_PER_CLIENT: usize = MAX_PARSED_BYTES / 2;

/// Memory of an object in addition to its entries: the first node of its tree.
const OBJECT_BYTES: usize = 640;
/// Memory of a list in addition to its entries.
const LIST_BYTES: usize = 128;
/// Memory of an entry: its share of a node, its name and its text, as the allocator rounds them up.
const ENTRY_BYTES: usize = 192;

/// All requests that wait or are executed.
#[derive(Default)]
pub(super) struct PendingRequests(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    held: BTreeMap<u64, Held>,
}

struct Held {
    client: Client,
    bytes: usize,
    claim: Claim,
}

/// The share of one request, released on drop.
pub(super) struct PendingGuard<'a> {
    pending: &'a PendingRequests,
    permit: &'a RequestPermit<'a>,
    id: u64,
    pub(super) claim: Claim,
}

impl PendingRequests {
    /// Reserves the share of a request whose body takes this much memory once it is parsed.
    ///
    /// # Errors
    /// 413 if it takes more than any may; 503 if others leave no room.
    pub(super) fn admit<'a>(
        &'a self,
        permit: &'a RequestPermit<'a>,
        bytes: usize,
    ) -> Result<PendingGuard<'a>, ApiError> {
        if bytes > MAX_PARSED_BYTES_PER_CLIENT {
            let error = format!("body too complex: limit is {MAX_PARSED_BYTES_PER_CLIENT} bytes once parsed");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        let mut state = self.state();
        let client = permit.client;
        let own = state.held.values().filter(|held| held.client == client);
        let (count, size) = own.fold((0, 0), |(count, size), held| (count + 1, size + held.bytes));
        if count >= MAX_PENDING_PER_CLIENT || size + bytes > MAX_PARSED_BYTES_PER_CLIENT {
            return Err(ApiError::unavailable("too many requests of this client are pending: try again later"));
        }
        let full = || ApiError::unavailable("too many requests are pending: try again later");
        if state.held.len() >= MAX_PENDING && !state.make_way(client, |_| 1) {
            return Err(full());
        }
        while state.bytes() + bytes > MAX_PARSED_BYTES {
            if !state.make_way(client, |held| held.bytes) {
                return Err(full());
            }
        }
        let claim = Claim::new(permit.connection.gone());
        state.last += 1;
        let id = state.last;
        state.held.insert(id, Held { client, bytes, claim: claim.clone() });
        permit.connection.watch(true);
        Ok(PendingGuard { pending: self, permit, id, claim })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bytes(&self) -> usize {
        self.held.values().map(|held| held.bytes).sum()
    }

    /// Withdraws a request that has not started, for one of this client. False if none has to yield.
    fn make_way(&mut self, client: Client, weight: impl Fn(&Held) -> usize) -> bool {
        let mut totals: HashMap<Client, usize> = HashMap::new();
        for held in self.held.values() {
            *totals.entry(held.client).or_default() += weight(held);
        }
        let total = |client: Client| totals.get(&client).copied().unwrap_or_default();
        let waiting =
            self.held.iter().filter(|(_, held)| !held.claim.has_started() && client.may_displace(held.client));
        let larger = waiting.filter(|(_, held)| total(held.client) > total(client));
        let Some(id) = larger.max_by_key(|(id, held)| (total(held.client), **id)).map(|(id, _)| *id) else {
            return false;
        };
        if let Some(held) = self.held.remove(&id) {
            held.claim.withdraw();
        }
        true
    }
}

impl PendingGuard<'_> {
    /// Returns whether the request had to yield to another one.
    pub(super) fn gave_way(&self) -> bool {
        !self.pending.state().held.contains_key(&self.id)
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.permit.connection.watch(false);
        self.pending.state().held.remove(&self.id);
    }
}

/// Returns the maximum memory of JSON once it is parsed. (Text that looks like structure is counted as such.)
pub(super) fn parsed_size(json: &[u8]) -> usize {
    json.iter().fold(json.len(), |size, byte| {
        size + match byte {
            b'{' => OBJECT_BYTES,
            b'[' => LIST_BYTES,
            b',' | b':' => ENTRY_BYTES / 2,
            _ => 0,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ochopod_http::ConnectionInfo;

    use super::*;
    use crate::request_limiter::RequestLimiter;

    const MIB: usize = 1024 * 1024;

    fn connections() -> Vec<ConnectionInfo> {
        (0..20).map(|host| ConnectionInfo::new(IpAddr::from([10, 0, 0, host]))).collect()
    }

    #[test]
    fn one_client_is_limited_by_count_and_by_size_and_leaves_room_for_others() {
        let (limiter, pending, connections) = (RequestLimiter::default(), PendingRequests::default(), connections());
        let taken: Vec<_> = (0..20).filter_map(|_| limiter.acquire(&connections[0], false)).collect();
        let held: Vec<_> = taken.iter().filter_map(|permit| pending.admit(permit, 1).ok()).collect();
        assert_eq!(held.len(), MAX_PENDING_PER_CLIENT);
        drop(held);
        let held: Vec<_> = taken.iter().filter_map(|permit| pending.admit(permit, 24 * MIB).ok()).collect();
        assert_eq!(held.len(), 2);
        let other = limiter.acquire(&connections[1], false).unwrap();
        assert!(pending.admit(&other, 64 * MIB).is_ok());
        assert!(pending.admit(&other, 64 * MIB + 1).is_err());
    }

    #[test]
    fn client_that_holds_less_displaces_waiting_but_never_started_requests() {
        let (limiter, pending, connections) = (RequestLimiter::default(), PendingRequests::default(), connections());
        let taken: Vec<_> = (0..3).filter_map(|host| limiter.acquire(&connections[host], false)).collect();
        let (started, waiting) = (pending.admit(&taken[0], 64 * MIB).ok().unwrap(), pending.admit(&taken[1], 60 * MIB));
        let waiting = waiting.ok().unwrap();
        started.claim.start();
        let leader = pending.admit(&taken[2], 50 * MIB).ok().unwrap();
        assert!(waiting.gave_way() && waiting.claim.is_withdrawn());
        assert!(!started.gave_way() && !started.claim.is_withdrawn() && !leader.gave_way());
    }

    #[test]
    fn clients_at_many_addresses_do_not_keep_a_leader_out() {
        let (limiter, pending, connections) = (RequestLimiter::default(), PendingRequests::default(), connections());
        let taken: Vec<_> = (0..64).filter_map(|n| limiter.acquire(&connections[n % 16], false)).collect();
        let held: Vec<_> = taken.iter().filter_map(|permit| pending.admit(permit, MIB).ok()).collect();
        assert_eq!(held.len(), MAX_PENDING);
        let leader = limiter.acquire(&connections[19], true).unwrap();
        assert!(pending.admit(&leader, MIB).is_ok());
        assert_eq!(held.iter().filter(|held| held.gave_way()).count(), 1);
    }

    #[test]
    fn signed_request_yields_to_no_unsigned_one() {
        let (limiter, pending, connections) = (RequestLimiter::default(), PendingRequests::default(), connections());
        let leader = limiter.acquire(&connections[0], true).unwrap();
        let taken: Vec<_> = (1..6).filter_map(|host| limiter.acquire(&connections[host], false)).collect();
        let signed = pending.admit(&leader, 60 * MIB).ok().unwrap();
        let held: Vec<_> = taken.iter().filter_map(|permit| pending.admit(permit, 30 * MIB).ok()).collect();
        assert!(!signed.gave_way());
        assert_eq!(held.iter().filter(|held| !held.gave_way()).count(), 2);
    }

    #[test]
    fn parsed_size_is_an_upper_bound() {
        for text in [r#"{"":0}"#, r#"[{"":0},{"":0},{"a":{"b":[]}}]"#, "[[],[],[]]", r#"{"a":"b","c":"d"}"#] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert!(parsed_size(text.as_bytes()) >= taken(&value), "{text}");
        }
    }

    /// Returns the memory of a value, as the standard library lays it out.
    fn taken(value: &serde_json::Value) -> usize {
        let slot = size_of::<serde_json::Value>();
        match value {
            serde_json::Value::String(text) => text.len(),
            serde_json::Value::Array(list) => list.iter().map(|value| slot + taken(value)).sum(),
            serde_json::Value::Object(object) if object.is_empty() => 0,
            serde_json::Value::Object(object) => {
                let node = 11 * (slot + size_of::<String>()) + 16;
                node * object.len().div_ceil(11) + object.iter().map(|(k, v)| k.len() + taken(v)).sum::<usize>()
            }
            _ => 0,
        }
    }
}
