//! Reading what comes with a request, within bounds.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
    header::{EXPECT, HeaderMap},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{crowd::Place, reply::Refusal};

/// Most bytes of a body.
const LIMIT: usize = 4 * 1024 * 1024;
/// How long what is too large is read and dropped: a client that still sends would not see the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest that a body may take to come.
pub(super) const SLOWEST: Duration = Duration::from_secs(30);
/// Most bytes of all bodies that are read at a time: four times what one address may take.
const ROOM: usize = 64 * 1024 * 1024;

/// Room for the bodies that are being read, shared by all connections.
pub(super) struct Bodies(Arc<Semaphore>);

/// A body, and the room that it takes.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _room: Option<Room>,
}

/// Of the room of all, and of that of its address.
struct Room {
    shared: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }

    /// Reads a body whole, within the limit since the request arrived, and never longer than half a minute.
    ///
    /// # Errors
    /// 413 when it is too large, declared or not; 400 when it breaks off; 408 when it does not come in time; 503 when other
    /// bodies leave no room for it in time.
    pub(super) async fn read(
        &self,
        place: &Place<'_>,
        body: &mut Incoming,
        arrived: Instant,
        limit: Duration,
    ) -> Result<Whole, Refusal> {
        let limit = limit.min(SLOWEST);
        let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body exceeds {LIMIT} bytes"));
        if body.size_hint().lower() > LIMIT as u64 {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        let mut taken: Option<Room> = None;
        loop {
            let frame = timeout_at(arrived + limit, body.frame()).await;
            let Some(frame) = frame.map_err(|_| Refusal::late(limit, "nothing was begun"))? else { break };
            let frame = frame.map_err(|error| Refusal::bad(format!("the body cannot be read: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > LIMIT {
                return Err(too_large());
            }
            let size = u32::try_from(data.len()).map_err(|_| too_large())?;
            let room = timeout_at(arrived + limit, self.room(place, size)).await.ok().flatten();
            let room = room.ok_or_else(|| Refusal::busy("there is no room for the body: try again"))?;
            match &mut taken {
                Some(taken) => {
                    taken.shared.merge(room.shared);
                    taken.own.merge(room.own);
                }
                None => taken = Some(room),
            }
            whole.extend_from_slice(&data);
        }
        Ok(Whole { bytes: whole.freeze(), _room: taken })
    }

    async fn room(&self, place: &Place<'_>, size: u32) -> Option<Room> {
        let own = Arc::clone(&place.room).acquire_many_owned(size).await.ok()?;
        let shared = Arc::clone(&self.0).acquire_many_owned(size).await.ok()?;
        Some(Room { shared, own })
    }
}

/// Reads and drops what is left of a body, for a while: a client that still sends would not see the answer.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Incoming) {
    // Who asks first does not send: reading would invite it to.
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    _ = tokio::time::timeout(PATIENCE, rest).await;
}

/// A header's text.
///
/// # Errors
/// 400 when it is there twice, or holds more than visible ASCII.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::bad(format!("the header {name} is there twice")));
    }
    let text = first.to_str().map_err(|_| Refusal::bad(format!("the header {name} is not plain text")))?;
    Ok(Some(text))
}
