//! Reading what comes with a request, within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
    header::{EXPECT, HeaderMap},
};

use super::reply::Refusal;

/// Most bytes of a body.
const LIMIT: usize = 4 * 1024 * 1024;
/// How long what is too large is read and dropped: a client that still sends would not see the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads a body whole.
///
/// # Errors
/// 413 when it is too large, declared or not; 400 when it breaks off.
pub(super) async fn read(body: &mut Incoming) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body exceeds {LIMIT} bytes"));
    if body.size_hint().lower() > LIMIT as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::bad(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > LIMIT {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
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
