//! Request bodies.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Body of a request: frames that several requests may share without copying.
#[derive(Debug, Clone, Default)]
pub struct RequestBody(VecDeque<Bytes>);

impl RequestBody {
    /// Returns the frames that are not sent yet.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|bytes| &**bytes)
    }
}

impl<const N: usize> From<[Bytes; N]> for RequestBody {
    fn from(frames: [Bytes; N]) -> Self {
        Self(frames.into_iter().filter(|frame| !frame.is_empty()).collect())
    }
}

impl From<Bytes> for RequestBody {
    fn from(frame: Bytes) -> Self {
        Self::from([frame])
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|bytes| bytes.len() as u64).sum())
    }
}
