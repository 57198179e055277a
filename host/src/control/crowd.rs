//! Who is connected, and who gives way when it gets crowded.
//!
//! A newcomer is always let in. When all connections are taken, one that has nothing under way gives way to it: of the
//! address that holds most of them, the one that was quiet for longest. So a flood from one address closes its own
//! connections only, and one from many addresses those that are idle; a client that sends its request at once is served.
//! A connection never gives way while it holds a [`Place`]; there are fewer of those than connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Semaphore,
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};
use tracing::Instrument as _;

/// Most connections at a time.
pub(super) const CONNECTIONS: usize = 1024;
/// Most requests at a time that come with a body or have the pod do something.
const PLACES: usize = CONNECTIONS - 128;
/// Most of them for one address.
const PLACES_EACH: usize = 128;
/// Most bytes of the bodies that are read at a time for one address.
const ROOM_EACH: usize = 16 * 1024 * 1024;

/// All connections.
#[derive(Default)]
pub(super) struct Crowd {
    connections: JoinSet<()>,
    seats: HashMap<Id, (Arc<Seat>, AbortHandle)>,
}

/// What is known of one connection.
pub(crate) struct Seat {
    pub(super) address: IpAddr,
    /// None while it holds a place.
    quiet_since: Mutex<Option<Instant>>,
}

impl Crowd {
    /// Carries a connection until it ends, or gives way to another.
    pub(super) fn admit<F>(&mut self, address: IpAddr, connection: impl FnOnce(Arc<Seat>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.seats.len() >= CONNECTIONS
            && let Some((_, connection)) = self.who_gives_way().and_then(|id| self.seats.remove(&id))
        {
            connection.abort();
        }
        let address = address.to_canonical();
        let seat = Arc::new(Seat { address, quiet_since: Mutex::new(Some(Instant::now())) });
        let connection = self.connections.spawn(connection(Arc::clone(&seat)).in_current_span());
        self.seats.insert(connection.id(), (seat, connection));
    }

    /// Completes when a connection has ended; never when there is none.
    ///
    /// # Cancellation safety
    /// Nothing is lost when it is dropped.
    pub(super) async fn ended(&mut self) {
        match self.connections.join_next_with_id().await {
            Some(Ok((id, ()))) => _ = self.seats.remove(&id),
            Some(Err(error)) => _ = self.seats.remove(&error.id()),
            None => std::future::pending().await,
        }
    }

    /// Completes when all connections have ended.
    pub(super) async fn dispersed(mut self) {
        while self.connections.join_next().await.is_some() {}
    }

    fn who_gives_way(&self) -> Option<Id> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for (seat, _) in self.seats.values() {
            *held.entry(seat.address).or_default() += 1;
        }
        let quiet = self.seats.iter().filter_map(|(id, (seat, _))| {
            let since = (*seat.quiet_since())?;
            Some((held.get(&seat.address).copied(), std::cmp::Reverse(since), *id))
        });
        quiet.max_by_key(|(held, since, _)| (*held, *since)).map(|(_, _, id)| id)
    }
}

impl Seat {
    /// A request has come.
    pub(crate) fn heard(&self) {
        *self.quiet_since() = Some(Instant::now());
    }

    fn quiet_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests that come with a body or have the pod do something: so many at a time, and for each address. The connections
/// that are left are for those who only look.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<IpAddr, Guest>>);

#[derive(Clone)]
struct Guest {
    places: usize,
    room: Arc<Semaphore>,
}

/// The place of one such request.
pub(super) struct Place<'a> {
    places: &'a Places,
    seat: &'a Seat,
    /// Room for the bodies of this address.
    pub(super) room: Arc<Semaphore>,
}

impl Places {
    /// A place, if there is one for this address.
    pub(super) fn take<'a>(&'a self, seat: &'a Seat) -> Option<Place<'a>> {
        let mut guests = self.guests();
        let all: usize = guests.values().map(|guest| guest.places).sum();
        let new = || Guest { places: 0, room: Arc::new(Semaphore::new(ROOM_EACH)) };
        let guest = guests.get(&seat.address).cloned().unwrap_or_else(new);
        if all >= PLACES || guest.places >= PLACES_EACH {
            return None;
        }
        let room = Arc::clone(&guest.room);
        guests.insert(seat.address, Guest { places: guest.places + 1, ..guest });
        *seat.quiet_since() = None;
        Some(Place { places: self, seat, room })
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<IpAddr, Guest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.seat.heard();
        let mut guests = self.places.guests();
        if let Some(guest) = guests.get_mut(&self.seat.address) {
            guest.places -= 1;
            if guest.places == 0 {
                guests.remove(&self.seat.address);
            }
        }
    }
}
