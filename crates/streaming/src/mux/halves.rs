//! The ends of a stream that others hold.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lane::ReadEnd;
use super::link::{End, Limits, Link, Out};

/// Bytes of one frame that we write, as kubelet 1.36's copies have it.
const CHUNK: usize = 32 * 1024;

/// What the peer writes to a stream.
///
/// Ends when the peer ends its direction or closes the connection, and for a stream that we opened also when the peer gives it up: servers
/// end all streams like that. Errors: `ConnectionReset` if the peer gave up a stream of its own,
/// `ConnectionAborted` if the connection broke. Dropping it throws away what still comes.
#[derive(Debug)]
pub struct Reader {
    link: Arc<Link>,
    id: u32,
}

/// What the peer reads from a stream.
///
/// `flush` waits until all is on its way to the connection. `shutdown` and dropping end this direction of the stream; the other may go
/// on. Error: `BrokenPipe` if the peer gave the stream up or the connection is over.
#[derive(Debug)]
pub struct Writer {
    link: Arc<Link>,
    id: u32,
}

/// Both directions of a stream.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

impl Stream {
    pub(super) fn new(reader: Reader, writer: Writer) -> Self {
        Self { reader, writer }
    }

    /// The two directions apart.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Gives the stream up in both directions.
    pub fn reset(&mut self) {
        self.writer.reset();
    }
}

impl Reader {
    pub(super) fn new(link: Arc<Link>, id: u32) -> Self {
        Self { link, id }
    }
}

impl Writer {
    pub(super) fn new(link: Arc<Link>, id: u32) -> Self {
        Self { link, id }
    }

    /// Gives the stream up in both directions.
    pub fn reset(&mut self) {
        self.reset_with(crate::spdy::CANCEL);
    }

    pub(crate) fn reset_with(&mut self, status: u32) {
        let mut state = self.link.lock();
        let Some(lane) = state.lanes.get_mut(&self.id) else { return };
        if lane.read_end == ReadEnd::Reset {
            return;
        }
        lane.read_end = ReadEnd::Reset;
        lane.is_write_open = false;
        lane.is_cancelled = true;
        lane.wake_all();
        state.push(Out::Reset(self.id, status));
    }

    fn poll_written(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.link.lock();
        let is_over = state.end.is_some();
        let Some(lane) = state.lanes.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        if lane.pending == 0 {
            return Poll::Ready(Ok(()));
        }
        if lane.is_cancelled || is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        lane.write_waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.link.lock();
        let end = state.end;
        let Some(lane) = state.lanes.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let taken = lane.take(buffer.remaining());
        if !taken.is_empty() {
            buffer.put_slice(&taken);
            state.unread -= taken.len();
            state.room_made();
            return Poll::Ready(Ok(()));
        }
        match (lane.read_end, end) {
            (ReadEnd::Finished, _) | (ReadEnd::Open, Some(End::Closed)) => Poll::Ready(Ok(())),
            (ReadEnd::Reset, _) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            (ReadEnd::Open, Some(End::Lost)) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            (ReadEnd::Open, None) => {
                lane.read_waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let Limits { write_bytes, total_bytes, .. } = *self.link.limits();
        let mut state = self.link.lock();
        let is_full = state.unwritten >= total_bytes;
        let is_over = state.end.is_some() || state.is_closing;
        let Some(lane) = state.lanes.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if is_over || !lane.is_write_open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if is_full || lane.queued >= write_bytes {
            lane.write_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let len = buffer.len().min(CHUNK);
        state.push(Out::Data(self.id, Bytes::copy_from_slice(&buffer[..len])));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        end_writing(&self.link, self.id);
        self.poll_written(context)
    }
}

fn end_writing(link: &Link, id: u32) {
    let mut state = link.lock();
    let is_over = state.end.is_some() || state.is_closing;
    if let Some(lane) = state.lanes.get_mut(&id)
        && std::mem::take(&mut lane.is_write_open)
        && !is_over
    {
        state.push(Out::Finish(id));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        if let Some(lane) = state.lanes.get_mut(&self.id) {
            lane.is_read_dropped = true;
            lane.handles -= 1;
            let unread = lane.take(usize::MAX).len();
            lane.give_back();
            state.unread -= unread;
        }
        state.forget(self.id);
        state.room_made();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        end_writing(&self.link, self.id);
        let mut state = self.link.lock();
        if let Some(lane) = state.lanes.get_mut(&self.id) {
            lane.handles -= 1;
        }
        state.forget(self.id);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().writer).poll_write(context, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_shutdown(context)
    }
}
