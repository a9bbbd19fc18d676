//! The state that the connection's task shares with the ends of its streams.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::lane::{Directions, Lane, ReadEnd, Reply};
use super::{Reader, Stream, Writer};

/// Replies (to pings and the like) that may wait to be written; a peer that asks for more and reads none is cut off.
const REPLIES_MAX: usize = 256;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams open at the same time.
    pub streams: usize,
    /// Unread bytes of one stream before the connection is no longer read.
    pub stream_bytes: usize,
    /// Unread bytes of all streams before the connection is no longer read; also the bytes of all streams that wait to be written before
    /// writers wait.
    pub total_bytes: usize,
    /// Bytes of one stream that wait to be written before its writer waits.
    pub write_bytes: usize,
}

impl Default for Limits {
    /// What kubelet 1.36 holds at most before it stops: 50 frames of 32 KiB for a stream, five times that for a connection.
    fn default() -> Self {
        Self { streams: 1024, stream_bytes: 1600 * 1024, total_bytes: 8000 * 1024, write_bytes: 64 * 1024 }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One of the two closed it: readers see the end of their stream.
    Closed,
    /// It broke: readers see an error.
    Lost,
}

/// What waits to be written.
#[derive(Debug)]
pub(crate) enum Out {
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// The end of our direction of a stream.
    Finish(u32),
    /// The end of a stream at once, with the protocol's number for the reason.
    Reset(u32, u32),
    /// A frame that is encoded already, and the stream that it is about.
    Raw(Option<u32>, Bytes),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) lanes: BTreeMap<u32, Lane>,
    out: VecDeque<Out>,
    replies: usize,
    /// Bytes of streams that wait to be written.
    pub(super) unwritten: usize,
    /// Bytes of streams that wait to be read.
    pub(super) unread: usize,
    out_waker: Option<Waker>,
    room_waker: Option<Waker>,
    pub(super) is_closing: bool,
    pub(super) end: Option<End>,
    last_traffic: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    state: Mutex<State>,
    limits: Limits,
    over: watch::Sender<bool>,
    closing: Notify,
}

impl Link {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let state = State {
            lanes: BTreeMap::new(),
            out: VecDeque::new(),
            replies: 0,
            unwritten: 0,
            unread: 0,
            out_waker: None,
            room_waker: None,
            is_closing: false,
            end: None,
            last_traffic: Instant::now(),
        };
        Arc::new(Self { state: Mutex::new(state), limits, over: watch::Sender::new(false), closing: Notify::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A stream that is open at once. `None`: there are too many, the number is taken, or the connection is ending.
    pub(crate) fn open(self: &Arc<Self>, id: u32, directions: Directions) -> Option<Stream> {
        self.add(id, directions, Reply::NotNeeded)
    }

    /// A stream that the peer has yet to accept, see [`Link::reply`] and [`Link::accepted`].
    pub(crate) fn ask(self: &Arc<Self>, id: u32) -> Option<Stream> {
        self.add(id, Directions::Both, Reply::Awaited)
    }

    fn add(self: &Arc<Self>, id: u32, directions: Directions, reply: Reply) -> Option<Stream> {
        let mut state = self.lock();
        let is_full = state.lanes.len() >= self.limits.streams;
        if is_full || state.is_closing || state.end.is_some() || state.lanes.contains_key(&id) {
            return None;
        }
        state.lanes.insert(id, Lane::new(directions, reply));
        drop(state);
        Some(Stream::new(Reader::new(self.clone(), id), Writer::new(self.clone(), id)))
    }

    /// Bytes came for a stream. What nobody waits for is dropped.
    pub(crate) fn deliver(&self, id: u32, bytes: &[u8]) {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(&id) else { return };
        if lane.is_read_dropped || lane.read_end != ReadEnd::Open || bytes.is_empty() {
            return;
        }
        lane.incoming.extend_from_slice(bytes);
        let waker = lane.read_waker.take();
        state.unread += bytes.len();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The peer ended its direction of a stream.
    pub(crate) fn finish(&self, id: u32) {
        self.change(id, |lane| {
            if lane.read_end == ReadEnd::Open {
                lane.read_end = ReadEnd::Finished;
            }
        });
    }

    /// The peer ended a stream at once. For one that we opened it is the end of what it writes: kubelet 1.36's and containerd's servers end
    /// all streams like that when they are done.
    pub(crate) fn reset(&self, id: u32) {
        self.change(id, |lane| {
            lane.read_end = match lane.reply {
                Reply::Came => ReadEnd::Finished,
                Reply::NotNeeded | Reply::Awaited => ReadEnd::Reset,
            };
            lane.is_write_open = false;
            lane.is_cancelled = true;
        });
    }

    /// The peer accepted a stream.
    pub(crate) fn reply(&self, id: u32) {
        self.change(id, |lane| lane.reply = Reply::Came);
    }

    fn change(&self, id: u32, change: impl FnOnce(&mut Lane)) {
        if let Some(lane) = self.lock().lanes.get_mut(&id) {
            change(lane);
            lane.wake_all();
        }
    }

    /// Waits until the peer has answered; `false` if it refused or is gone.
    pub(crate) async fn accepted(&self, id: u32) -> bool {
        poll_fn(|context| {
            let mut state = self.lock();
            let is_over = state.end.is_some();
            let Some(lane) = state.lanes.get_mut(&id) else { return Poll::Ready(false) };
            match lane.reply {
                Reply::Came | Reply::NotNeeded => Poll::Ready(true),
                Reply::Awaited if is_over || lane.read_end == ReadEnd::Reset => Poll::Ready(false),
                Reply::Awaited => {
                    lane.reply_waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Queues a frame about a stream. The stream counts as open until it is written.
    pub(crate) fn send(&self, id: u32, frame: Bytes) {
        self.lock().push(Out::Raw(Some(id), frame));
    }

    /// Queues an answer that the peer provoked. `false`: too many wait already.
    #[must_use]
    pub(crate) fn answer(&self, frame: Bytes) -> bool {
        let mut state = self.lock();
        if state.replies >= REPLIES_MAX {
            return false;
        }
        state.push(Out::Raw(None, frame));
        true
    }

    /// Writes what waits, then `last`, then ends the connection. Writers can write no more.
    pub(crate) fn close(&self, last: Option<Bytes>) {
        let mut state = self.lock();
        if state.is_closing {
            return;
        }
        last.into_iter().for_each(|frame| state.push(Out::Raw(None, frame)));
        state.is_closing = true;
        state.wake_all();
        drop(state);
        self.closing.notify_one();
    }

    /// The connection is over.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        state.wake_all();
        drop(state);
        self.over.send_replace(true);
    }

    /// Tells when the connection is over.
    pub(crate) fn hang_up(&self) -> HangUp {
        HangUp(self.over.subscribe())
    }

    /// Waits until the connection may be read.
    pub(super) async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            let is_full = state.unread >= self.limits.total_bytes
                || state.lanes.values().any(|lane| lane.incoming.len() >= self.limits.stream_bytes);
            if !is_full {
                return Poll::Ready(());
            }
            state.room_waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The next entry to be written; `None` once the connection is closing and all is written.
    pub(super) async fn next_out(&self) -> Option<Out> {
        poll_fn(|context| self.lock().poll_out(context, self.limits.total_bytes)).await
    }

    /// The next entry, if one waits.
    pub(super) fn waiting_out(&self) -> Option<Out> {
        self.lock().pop(self.limits.total_bytes)
    }

    pub(super) fn touch(&self) {
        self.lock().last_traffic = Instant::now();
    }

    pub(super) fn last_traffic(&self) -> (Instant, bool) {
        let state = self.lock();
        (state.last_traffic, state.is_closing)
    }

    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }
}

impl State {
    pub(super) fn push(&mut self, out: Out) {
        match &out {
            Out::Raw(None, _) => self.replies += 1,
            Out::Data(id, bytes) => {
                self.unwritten += bytes.len();
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.queued += bytes.len();
                    lane.pending += 1;
                }
            }
            Out::Finish(id) | Out::Reset(id, _) | Out::Raw(Some(id), _) => {
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.pending += 1;
                }
            }
        }
        self.out.push_back(out);
        self.out_waker.take().into_iter().for_each(Waker::wake);
    }

    fn poll_out(&mut self, context: &mut Context<'_>, total_bytes: usize) -> Poll<Option<Out>> {
        if let Some(out) = self.pop(total_bytes) {
            return Poll::Ready(Some(out));
        }
        if self.is_closing {
            return Poll::Ready(None);
        }
        self.out_waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes entries until one is still wanted. Writers that waited for there to be less than `total_bytes` are woken.
    fn pop(&mut self, total_bytes: usize) -> Option<Out> {
        let was_full = self.unwritten >= total_bytes;
        let out = self.pop_wanted();
        if was_full && self.unwritten < total_bytes {
            for lane in self.lanes.values_mut() {
                lane.write_waker.take().into_iter().for_each(Waker::wake);
            }
        }
        out
    }

    fn pop_wanted(&mut self) -> Option<Out> {
        while let Some(out) = self.out.pop_front() {
            let (id, len) = match &out {
                Out::Raw(None, _) => {
                    self.replies -= 1;
                    return Some(out);
                }
                Out::Data(id, bytes) => (*id, bytes.len()),
                Out::Finish(id) | Out::Reset(id, _) | Out::Raw(Some(id), _) => (*id, 0),
            };
            self.unwritten -= len;
            let mut is_wanted = true;
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.pending -= 1;
                lane.queued -= len;
                lane.write_waker.take().into_iter().for_each(Waker::wake);
                is_wanted = !lane.is_cancelled || matches!(out, Out::Reset(..) | Out::Raw(..));
            }
            self.forget(id);
            if is_wanted {
                return Some(out);
            }
        }
        None
    }

    /// Drops a stream that nobody holds and for which nothing waits.
    pub(super) fn forget(&mut self, id: u32) {
        if self.lanes.get(&id).is_some_and(Lane::is_over) {
            self.lanes.remove(&id);
        }
    }

    pub(super) fn room_made(&mut self) {
        self.room_waker.take().into_iter().for_each(Waker::wake);
    }

    fn wake_all(&mut self) {
        self.lanes.values_mut().for_each(Lane::wake_all);
        self.out_waker.take().into_iter().for_each(Waker::wake);
    }
}

/// Tells when the client's connection is over.
#[derive(Clone, Debug)]
pub struct HangUp(watch::Receiver<bool>);

impl HangUp {
    /// Waits for the end of the connection.
    pub async fn wait(&mut self) {
        // An error means that the connection itself was dropped: it is over as well.
        _ = self.0.wait_for(|is_over| *is_over).await;
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
