//! Detects clients that disconnect while their request waits.
//!
//! A client that has sent its request may still expect the reply, so that the server does not read on while it handles the
//! request, and does not notice a disconnect. While a request waits, the connection is read ahead here: its end withdraws a
//! request that has not started.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::ConnectionInfo;

/// Maximum number of bytes that are read ahead: a client that sends more is connected.
const MAX_AHEAD_BYTES: usize = 16 * 1024;

/// A connection that can be read ahead. Clones share it.
pub(super) struct ReadAhead<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    ahead: Vec<u8>,
    ended: bool,
}

impl<S> Clone for ReadAhead<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> ReadAhead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, ahead: Vec::new(), ended: false })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    /// Completes when the client disconnects while the connection is watched. To be polled by the task that serves the
    /// connection, after that was.
    pub(super) async fn disconnected(&self, connection: &ConnectionInfo) {
        poll_fn(|cx| if connection.is_watched() { self.lock().poll_end(cx) } else { Poll::Pending }).await;
    }
}

impl<S: AsyncRead + Unpin> Inner<S> {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended && self.ahead.len() < MAX_AHEAD_BYTES {
            let mut bytes = [0; 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            self.ended = read.is_err() || buffer.filled().is_empty();
            self.ahead.extend(buffer.filled());
        }
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if !inner.ahead.is_empty() {
            let size = inner.ahead.len().min(buffer.remaining());
            let rest = inner.ahead.split_off(size);
            let read = std::mem::replace(&mut inner.ahead, rest);
            buffer.put_slice(&read);
            return Poll::Ready(Ok(()));
        }
        if inner.ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}
