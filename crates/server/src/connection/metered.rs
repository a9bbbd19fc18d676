//! Counts what comes before a request is complete, so that heads of requests cannot fill the memory, and sees that answers are taken.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Moved;

/// What every connection may send of a request's head; from there on it counts as large.
const SMALL_HEAD_BYTES: usize = 64 << 10;
/// Requests with a large head that come in at a time, on all connections of a listener.
pub(crate) const LARGE_HEADS_MAX: usize = 32;

/// Room for large heads, of all connections of a listener.
#[derive(Clone, Debug)]
pub(crate) struct LargeHeads(Arc<Semaphore>);

impl Default for LargeHeads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_HEADS_MAX)))
    }
}

#[cfg(test)]
impl LargeHeads {
    /// No room is left while this is kept.
    pub(super) fn take_all(&self) -> OwnedSemaphorePermit {
        self.0.clone().try_acquire_many_owned(LARGE_HEADS_MAX as u32).unwrap()
    }
}

/// A stream that fails when too many have a large head under way.
pub(super) struct Metered<S> {
    stream: S,
    moved: Moved,
    room: LargeHeads,
    /// Whether all that is written is an answer.
    writes_answers: bool,
    /// The number of the request whose head comes.
    request: u64,
    head_bytes: usize,
    large: Option<OwnedSemaphorePermit>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, moved: Moved, room: LargeHeads, writes_answers: bool) -> Self {
        Self { stream, moved, room, writes_answers, request: 0, head_bytes: 0, large: None }
    }

    /// The client took something.
    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.writes_answers && matches!(polled, Poll::Ready(Ok(1..))) {
            self.moved.now();
        }
        polled
    }

    fn count(&mut self, bytes: usize) -> io::Result<()> {
        let request = self.moved.expected();
        if request != Some(self.request) {
            self.large = None;
            self.head_bytes = 0;
            self.request = request.unwrap_or(self.request);
        }
        if request.is_none() {
            return Ok(());
        }
        self.head_bytes += bytes;
        if self.head_bytes > SMALL_HEAD_BYTES && self.large.is_none() {
            let busy = |_| io::Error::new(io::ErrorKind::QuotaExceeded, "too many large requests at a time");
            self.large = Some(self.room.0.clone().try_acquire_owned().map_err(busy)?);
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let metered = self.get_mut();
        let before = into.filled().len();
        match Pin::new(&mut metered.stream).poll_read(context, into) {
            Poll::Ready(Ok(())) => Poll::Ready(metered.count(into.filled().len() - before)),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let metered = self.get_mut();
        let polled = Pin::new(&mut metered.stream).poll_write(context, bytes);
        metered.written(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let metered = self.get_mut();
        let polled = Pin::new(&mut metered.stream).poll_write_vectored(context, pieces);
        metered.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
