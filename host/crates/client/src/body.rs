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
pub struct RequestBody {
    frames: VecDeque<Bytes>,
    is_compressed: bool,
}

impl RequestBody {
    /// Creates a body of frames that are members of a gzip file. The request says so in its `Content-Encoding`.
    #[must_use]
    pub fn gzip<const N: usize>(members: [Bytes; N]) -> Self {
        Self { is_compressed: true, ..Self::from(members) }
    }

    /// Returns the frames that are not sent yet.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(|bytes| &**bytes)
    }

    /// Returns whether the frames are compressed.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

impl<const N: usize> From<[Bytes; N]> for RequestBody {
    fn from(frames: [Bytes; N]) -> Self {
        Self { frames: frames.into_iter().filter(|frame| !frame.is_empty()).collect(), is_compressed: false }
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
        Poll::Ready(self.frames.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.frames.iter().map(|bytes| bytes.len() as u64).sum())
    }
}
