//! What is known of one stream.

use std::task::Waker;

use bytes::BytesMut;

/// A buffer that once held more than this is given back when it is empty.
const KEPT_CAPACITY: usize = 16 * 1024;

/// In which directions a stream carries bytes, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directions {
    /// Both.
    Both,
    /// The peer writes, we read.
    In,
    /// We write, the peer reads.
    Out,
}

/// How far the peer's direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    Open,
    Finished,
    Reset,
}

/// Who opened the stream, and the peer's answer if it was us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    NotNeeded,
    Awaited,
    Came,
}

/// One stream. Owned by the link; readers and writers reach it by its number.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) incoming: BytesMut,
    pub(super) read_end: ReadEnd,
    pub(super) is_read_dropped: bool,
    pub(super) is_write_open: bool,
    /// What waits to be written is no longer wanted.
    pub(super) is_cancelled: bool,
    /// Bytes that wait to be written.
    pub(super) queued: usize,
    /// Entries of the queue that name this stream.
    pub(super) pending: usize,
    /// Readers and writers in other hands.
    pub(super) handles: u8,
    pub(super) reply: Reply,
    pub(super) read_waker: Option<Waker>,
    pub(super) write_waker: Option<Waker>,
    pub(super) reply_waker: Option<Waker>,
}

impl Lane {
    pub(super) fn new(directions: Directions, reply: Reply) -> Self {
        Self {
            incoming: BytesMut::new(),
            read_end: if directions == Directions::Out { ReadEnd::Finished } else { ReadEnd::Open },
            is_read_dropped: false,
            is_write_open: directions != Directions::In,
            is_cancelled: false,
            queued: 0,
            pending: 0,
            handles: 2,
            reply,
            read_waker: None,
            write_waker: None,
            reply_waker: None,
        }
    }

    /// Moves up to `room` bytes out of what has arrived.
    pub(super) fn take(&mut self, room: usize) -> BytesMut {
        let taken = self.incoming.split_to(room.min(self.incoming.len()));
        self.give_back();
        taken
    }

    pub(super) fn give_back(&mut self) {
        if self.incoming.is_empty() && self.incoming.capacity() > KEPT_CAPACITY {
            self.incoming = BytesMut::new();
        }
    }

    pub(super) fn wake_all(&mut self) {
        for waker in [self.read_waker.take(), self.write_waker.take(), self.reply_waker.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.handles == 0 && self.pending == 0
    }
}
