//! Bounded reading of request bodies.

use std::{
    io::{self, Read},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_ENCODING, EXPECT, HeaderMap},
};
use ochopod_model::wire;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{reply::ApiError, request_limiter::RequestPermit};

/// Maximum size of a body, before and after decompression.
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The same for requests of leaders, which contain the views of large clusters.
const MAX_LEADER_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that are decompressed at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes by which a compressed body may be ahead of its content: those of a chunk that cannot be compressed, and some that were
/// read in advance.
const MAX_AHEAD_BYTES: usize = CHUNK_BYTES + 2 * INPUT_BYTES;
/// Bytes that are read from a compressed body at a time.
const INPUT_BYTES: usize = 2 * 1024;
/// Time for which a body that is too large is read and dropped, so that a client that still sends sees the reply.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for a body to arrive.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A body and its share of the buffers.
pub(super) struct BufferedBody<'a> {
    pub(super) bytes: Bytes,
    permit: &'a RequestPermit<'a>,
}

impl BufferedBody<'_> {
    /// Decompresses the body if the headers say that it is compressed.
    ///
    /// # Errors
    /// 415 for any encoding other than gzip; 400 if it cannot be decompressed; 413 if it is too large then; 503 if other bodies
    /// leave no buffer for it in time.
    pub(super) async fn decompress(
        &mut self,
        headers: &HeaderMap,
        arrived: Instant,
        limit: Duration,
    ) -> Result<(), ApiError> {
        match header(headers, CONTENT_ENCODING.as_str())? {
            None => return Ok(()),
            Some(wire::GZIP) => {}
            Some(other) => {
                let error = format!("unknown content encoding {other:?}: expected {}", wire::GZIP);
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
            }
        }
        let most = max_bytes(headers);
        let mut decoder = MultiGzDecoder::new(CompressedBody { rest: &self.bytes, ahead: 0 });
        let (mut bytes, mut chunk) = (BytesMut::new(), vec![0; CHUNK_BYTES]);
        loop {
            // Other requests are served between two chunks.
            yield_now().await;
            let read = decoder.read(&mut chunk);
            let read = read.map_err(|error| ApiError::bad_request(format!("cannot decompress body: {error}")))?;
            let Some(read) = chunk.get(..read).filter(|read| !read.is_empty()) else { break };
            if bytes.len() + read.len() > most {
                return Err(too_large(most));
            }
            reserve(self.permit, read.len(), arrived + limit).await?;
            bytes.extend_from_slice(read);
            let input = decoder.get_mut();
            input.ahead = input.ahead.saturating_sub(read.len());
        }
        self.bytes = bytes.freeze();
        Ok(())
    }
}

/// A compressed body that is not much longer than its content. Without this bound a body of empty blocks or members would take
/// seconds without any output.
struct CompressedBody<'a> {
    rest: &'a [u8],
    /// Bytes read without content so far.
    ahead: usize,
}

impl Read for CompressedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead > MAX_AHEAD_BYTES {
            return Err(io::Error::other("it is longer than its content"));
        }
        let size = buffer.len().min(INPUT_BYTES);
        let read = self.rest.read(buffer.get_mut(..size).unwrap_or_default())?;
        self.ahead += read;
        Ok(read)
    }
}

/// Returns the maximum size of the body of a control request with these headers.
pub(super) fn max_bytes(headers: &HeaderMap) -> usize {
    if headers.contains_key(wire::EPOCH) { MAX_LEADER_BODY_BYTES } else { MAX_BODY_BYTES }
}

fn too_large(most: usize) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body too large: limit is {most} bytes"))
}

async fn reserve(permit: &RequestPermit<'_>, size: usize, deadline: Instant) -> Result<(), ApiError> {
    let reserved = timeout_at(deadline, permit.reserve(size)).await;
    reserved.map_err(|_| ApiError::unavailable("body buffers full: try again later"))
}

impl Drop for BufferedBody<'_> {
    fn drop(&mut self) {
        self.permit.release();
    }
}

/// Reads a body of at most this many bytes completely, within the time limit since the request arrived and at most 30 s.
///
/// # Errors
/// 413 if it is too large, declared or not; 400 if it is incomplete; 408 if it does not arrive in time; 503 if other bodies
/// leave no buffer for it in time, or it has to yield to another.
pub(super) async fn read<'a>(
    permit: &'a RequestPermit<'a>,
    (body, most): (&mut Incoming, usize),
    arrived: Instant,
    limit: Duration,
) -> Result<BufferedBody<'a>, ApiError> {
    tokio::select! {
        biased;
        () = permit.gave_way() => Err(ApiError::unavailable("body too slow, others were waiting: try again later")),
        body_read = collect(permit, (body, most), arrived, limit.min(READ_TIMEOUT)) => {
            permit.complete();
            body_read
        }
    }
}

async fn collect<'a>(
    permit: &'a RequestPermit<'a>,
    (body, most): (&mut Incoming, usize),
    arrived: Instant,
    limit: Duration,
) -> Result<BufferedBody<'a>, ApiError> {
    if body.size_hint().lower() > most as u64 {
        return Err(too_large(most));
    }
    let mut bytes = BytesMut::new();
    // Releases the buffer if the body does not become complete.
    let mut body_read = BufferedBody { bytes: Bytes::new(), permit };
    loop {
        let frame = timeout_at(arrived + limit, body.frame()).await;
        let Some(frame) = frame.map_err(|_| ApiError::timed_out(limit, "request not started"))? else { break };
        let frame = frame.map_err(|error| ApiError::bad_request(format!("cannot read body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_large(most));
        }
        reserve(permit, data.len(), arrived + limit).await?;
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
