//! Bounded reading of request bodies.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
    header::{EXPECT, HeaderMap},
};
use tokio::time::{Instant, timeout_at};

use super::{reply::ApiError, request_limiter::RequestPermit};

/// Maximum size of a body.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Time for which a body that is too large is read and dropped, so that a client that still sends sees the reply.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for a body to arrive.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A body and its share of the buffers.
pub(super) struct BufferedBody<'a> {
    pub(super) bytes: Bytes,
    permit: &'a RequestPermit<'a>,
}

impl Drop for BufferedBody<'_> {
    fn drop(&mut self) {
        self.permit.release();
    }
}

/// Reads a body completely, within the time limit since the request arrived and at most 30 s.
///
/// # Errors
/// 413 if it is too large, declared or not; 400 if it is incomplete; 408 if it does not arrive in time; 503 if other bodies
/// leave no buffer for it in time, or it has to yield to another.
pub(super) async fn read<'a>(
    permit: &'a RequestPermit<'a>,
    body: &mut Incoming,
    arrived: Instant,
    limit: Duration,
) -> Result<BufferedBody<'a>, ApiError> {
    tokio::select! {
        biased;
        () = permit.gave_way() => Err(ApiError::unavailable("body too slow, others were waiting: try again later")),
        body_read = collect(permit, body, arrived, limit.min(READ_TIMEOUT)) => {
            permit.complete();
            body_read
        }
    }
}

async fn collect<'a>(
    permit: &'a RequestPermit<'a>,
    body: &mut Incoming,
    arrived: Instant,
    limit: Duration,
) -> Result<BufferedBody<'a>, ApiError> {
    let too_large =
        || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body too large: limit is {MAX_BODY_BYTES} bytes"));
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    // Releases the buffer if the body does not become complete.
    let mut body_read = BufferedBody { bytes: Bytes::new(), permit };
    loop {
        let frame = timeout_at(arrived + limit, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ApiError::timed_out(limit, "request not started"))? else { break };
        let frame = frame.map_err(|error| ApiError::bad_request(format!("cannot read body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        let reserved = timeout_at(arrived + limit, permit.reserve(data.len())).await;
        reserved.map_err(|_| ApiError::unavailable("body buffers full: try again later"))?;
        bytes.extend_from_slice(&data);
    }
    body_read.bytes = bytes.freeze();
    Ok(body_read)
}

/// Reads and drops the rest of a body for a while: a client that still sends would not see the reply.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Incoming) {
    // A client that expects a 100 does not send: reading would invite it to.
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
}

/// Returns a header's text.
///
/// # Errors
/// 400 if it is duplicate or not visible ASCII.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::bad_request(format!("duplicate header {name}")));
    }
    let text = first.to_str().map_err(|_| ApiError::bad_request(format!("non-ASCII header {name}")))?;
    Ok(Some(text))
}
