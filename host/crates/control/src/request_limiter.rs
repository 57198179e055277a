//! Limits for requests in progress: their number, and the bytes of their bodies, per client and in total.
//!
//! A client is an address; signed requests count separately, so that a leader does not share with other clients at its
//! address. If all permits or buffers are taken, a request whose body is still being read yields: the oldest of the client that
//! holds most, if that client holds more than the new one. So slow bodies, from however many addresses, block no other client.
//! A request whose body is complete never yields.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ochopod_http::{ConnectionInfo, max_connections};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Maximum number of requests of one client at a time.
const MAX_REQUESTS_PER_CLIENT: usize = 128;
/// Maximum number of bytes of bodies that are read at a time.
const BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// The same for one client.
const BUFFER_BYTES_PER_CLIENT: usize = 16 * 1024 * 1024;

/// Client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Whether the request is signed by a leader.
    pub(super) signed: bool,
}

impl Client {
    /// Returns whether requests of another client may have to yield to this one: signed ones not to unsigned ones.
    pub(super) fn may_displace(self, other: Self) -> bool {
        self != other && (self.signed || !other.signed)
    }
}

/// Limits requests with a body or an effect. The other connections remain for read-only requests.
#[derive(Default)]
pub(super) struct RequestLimiter {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    last: u64,
    held: BTreeMap<u64, Held>,
    bytes: usize,
}

struct Held {
    client: Client,
    bytes: usize,
    /// While its body is read: cancelled when it has to yield.
    reading: Option<CancellationToken>,
}

/// Permit of one request, released on drop.
pub(super) struct RequestPermit<'a> {
    limiter: &'a RequestLimiter,
    pub(super) connection: &'a ConnectionInfo,
    pub(super) client: Client,
    id: u64,
    gave_way: CancellationToken,
}

impl RequestLimiter {
    /// Returns a permit, if there is one for this client.
    pub(super) fn acquire<'a>(&'a self, connection: &'a ConnectionInfo, signed: bool) -> Option<RequestPermit<'a>> {
        let client = Client { address: connection.address, signed };
        let mut state = self.state();
        let own = state.held.values().filter(|held| held.client == client).count();
        if own >= MAX_REQUESTS_PER_CLIENT {
            return None;
        }
        // Fewer than connections: one with a permit is not closed for a new one.
        let most = max_connections();
        if state.held.len() >= most - most / 8 && !state.make_way(client, |_| 1) {
            return None;
        }
        let gave_way = CancellationToken::new();
        state.last += 1;
        let id = state.last;
        state.held.insert(id, Held { client, bytes: 0, reading: Some(gave_way.clone()) });
        connection.hold();
        Some(RequestPermit { limiter: self, connection, client, id, gave_way })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cancels a request for one of this client. False if none has to yield.
    fn make_way(&mut self, client: Client, weight: impl Fn(&Held) -> usize) -> bool {
        let mut totals: HashMap<Client, usize> = HashMap::new();
        for held in self.held.values() {
            *totals.entry(held.client).or_default() += weight(held);
        }
        let total = |client: Client| totals.get(&client).copied().unwrap_or_default();
        let reading = self.held.iter().filter(|(_, held)| held.reading.is_some() && weight(held) > 0);
        let larger = reading.filter(|(_, held)| client.may_displace(held.client) && total(held.client) > total(client));
        let Some(id) = larger.max_by_key(|(id, held)| (total(held.client), Reverse(**id))).map(|(id, _)| *id) else {
            return false;
        };
        self.remove(id)
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        self.bytes -= held.bytes;
        if let Some(reading) = held.reading {
            reading.cancel();
        }
        true
    }

    /// Reserves buffers for a request. False if it has to wait. The oldest body of a client, and the oldest of all, may exceed the
    /// limit: otherwise bodies that are read concurrently would wait for each other.
    fn reserve(&mut self, id: u64, size: usize) -> bool {
        let Some(client) = self.held.get(&id).map(|held| held.client) else { return false };
        let mut older = self.held.range(..id).map(|(_, held)| held).filter(|held| held.reading.is_some());
        let is_oldest = older.clone().next().is_none();
        let is_oldest_of_client = !older.any(|held| held.client == client);
        let own: usize = self.held.values().filter(|held| held.client == client).map(|held| held.bytes).sum();
        if own + size > BUFFER_BYTES_PER_CLIENT && !is_oldest_of_client {
            return false;
        }
        while self.bytes + size > BUFFER_BYTES {
            if !self.make_way(client, |held| held.bytes) {
                if is_oldest {
                    break;
                }
                return false;
            }
        }
        let Some(held) = self.held.get_mut(&id) else { return false };
        held.bytes += size;
        self.bytes += size;
        true
    }
}

impl RequestPermit<'_> {
    /// Waits for buffers for this many bytes more.
    ///
    /// # Cancellation safety
    /// Dropping the future reserves nothing.
    pub(super) async fn reserve(&self, size: usize) {
        loop {
            let mut freed = std::pin::pin!(self.limiter.freed.notified());
            freed.as_mut().enable();
            if self.limiter.state().reserve(self.id, size) {
                return;
            }
            freed.await;
        }
    }

    /// Releases the buffers of the body.
    pub(super) fn release(&self) {
        let mut state = self.limiter.state();
        let bytes = state.held.get_mut(&self.id).map_or(0, |held| std::mem::take(&mut held.bytes));
        state.bytes -= bytes;
        drop(state);
        self.limiter.freed.notify_waiters();
    }

    /// Marks the body as complete: the request never yields from now on.
    pub(super) fn complete(&self) {
        if let Some(held) = self.limiter.state().held.get_mut(&self.id) {
            held.reading = None;
        }
    }

    /// Completes when the request has to yield to another.
    pub(super) async fn gave_way(&self) {
        self.gave_way.cancelled().await;
    }
}

impl Drop for RequestPermit<'_> {
    fn drop(&mut self) {
        self.connection.touch();
        self.limiter.state().remove(self.id);
        self.limiter.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(host: u8) -> ConnectionInfo {
        ConnectionInfo::new(IpAddr::from([10, 0, 0, host]))
    }

    #[test]
    fn request_whose_body_is_complete_never_yields() {
        let limiter = RequestLimiter::default();
        let connections: Vec<ConnectionInfo> = (0..10).map(connection).collect();
        let mut taken = Vec::new();
        while let Some(permit) = connections.iter().find_map(|connection| limiter.acquire(connection, false)) {
            permit.complete();
            taken.push(permit);
        }
        assert_eq!(taken.len(), max_connections() - max_connections() / 8);
        assert!(limiter.acquire(&connection(99), true).is_none());
        taken.pop();
        assert!(limiter.acquire(&connection(99), true).is_some());
    }

    #[test]
    fn bodies_that_are_read_concurrently_do_not_wait_for_each_other() {
        let (limiter, connection) = (RequestLimiter::default(), connection(1));
        let taken: Vec<_> = (0..24).filter_map(|_| limiter.acquire(&connection, false)).collect();
        let reserve = |permit: &RequestPermit<'_>| limiter.state().reserve(permit.id, 1 << 20);
        assert_eq!(taken.iter().filter(|permit| reserve(permit)).count(), 16);
        assert!(!reserve(&taken[1]) && reserve(&taken[0]));
        taken[0].complete();
        assert!(reserve(&taken[1]), "the next is the oldest now");
    }

    #[test]
    fn oldest_body_of_the_client_that_holds_most_yields_to_a_client_that_holds_less() {
        let limiter = RequestLimiter::default();
        let connections: Vec<ConnectionInfo> = (0..10).map(connection).collect();
        let mut taken = Vec::new();
        while let Some(permit) =
            connections.iter().find_map(|connection| (taken.len() < 896).then(|| limiter.acquire(connection, false))?)
        {
            taken.push(permit);
        }
        let newcomer = connection(99);
        let permit = limiter.acquire(&newcomer, false).expect("a permit for a new client");
        let gone: Vec<_> = taken.iter().enumerate().filter(|(_, permit)| permit.gave_way.is_cancelled()).collect();
        assert_eq!(gone.len(), 1);
        assert_eq!((gone[0].0, gone[0].1.client.address), (0, connections[0].address));
        drop(permit);
    }
}
