//! A connection with streams, for both roles.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::encode::data_head;
use super::{Decoder, Encoder, Event, Frame, Headers, PROTOCOL_ERROR, REFUSED_STREAM, StreamId};
use crate::mux::{Directions, Flow, HangUp, Inbound, Limits, Link, Out, Outbound, Stream, drive};

/// How a connection behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The connection ends when nothing came or went for so long.
    pub idle: Duration,
    /// How long the peer may take to accept a stream.
    pub reply: Duration,
    /// What it may hold.
    pub limits: Limits,
}

impl Default for Options {
    /// containerd's and kubelet 1.36's: four hours idle, 30 s for a reply.
    fn default() -> Self {
        Self { idle: Duration::from_hours(4), reply: Duration::from_secs(30), limits: Limits::default() }
    }
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection is ending, or has as many streams as it may have.
    #[error("open stream: the connection takes no more")]
    Closed,
    /// The peer refused, or is gone.
    #[error("open stream: the peer refused it or is gone")]
    Refused,
    /// The peer did not answer.
    #[error("open stream: no reply in {} s", .0.as_secs())]
    Timeout(Duration),
}

/// A SPDY connection. Dropping it closes it: what waits is still written.
#[derive(Debug)]
pub struct Connection {
    link: Arc<Link>,
    sender: Arc<Sender>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    task: JoinHandle<()>,
    reply: Duration,
}

/// A stream that the peer wants to open. Dropping it rejects it.
#[derive(Debug)]
pub struct Incoming {
    id: StreamId,
    headers: Headers,
    stream: Option<Stream>,
    link: Arc<Link>,
    sender: Arc<Sender>,
}

/// Encodes and queues frames in one order.
#[derive(Debug)]
struct Sender {
    encoder: Mutex<Encoder>,
    /// The next stream of ours.
    next: AtomicU32,
    /// The last stream of the peer.
    last: AtomicU32,
}

impl Sender {
    fn reply(&self, link: &Link, id: StreamId) {
        let mut encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        link.send(id, encoder.frame(&Frame::SynReply { id, is_fin: false, headers: Headers::new() }).into());
    }

    fn go_away(&self) -> Bytes {
        let last_good = self.last.load(Ordering::Relaxed);
        Encoder::new().frame(&Frame::GoAway { last_good, status: 0 }).into()
    }
}

impl Connection {
    /// The server's side: the peer opens streams with odd numbers.
    pub fn server<T>(io: T, options: Options) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start(io, options, 2)
    }

    /// The client's side.
    pub fn client<T>(io: T, options: Options) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start(io, options, 1)
    }

    fn start<T>(io: T, options: Options, first: StreamId) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let link = Link::new(options.limits);
        let sender = Arc::new(Sender {
            encoder: Mutex::new(Encoder::new()),
            next: AtomicU32::new(first),
            last: AtomicU32::new(0),
        });
        // Bounded by the number of streams.
        let (found, incoming) = mpsc::unbounded_channel();
        let receiver = Receiver { decoder: Decoder::new(), parity: 1 - first % 2, found, sender: sender.clone() };
        let task = tokio::spawn(drive(io, link.clone(), receiver, Frames, options.idle));
        Self { link, sender, incoming, task, reply: options.reply }
    }

    /// The next stream that the peer wants to open; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let mut over = self.link.hang_up();
        tokio::select! {
            biased;
            incoming = self.incoming.recv() => incoming,
            () = over.wait() => self.incoming.try_recv().ok(),
        }
    }

    /// Opens a stream and waits for the peer to accept it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, headers: Headers) -> Result<Stream, OpenError> {
        let (id, mut stream) = {
            // One lock for number and place in the queue: numbers have to rise on the wire.
            let mut encoder = self.sender.encoder.lock().unwrap_or_else(PoisonError::into_inner);
            let id = self.sender.next.fetch_add(2, Ordering::Relaxed);
            let stream = self.link.ask(id).ok_or(OpenError::Closed)?;
            let (associated, priority, is_fin, is_unidirectional) = (0, 0, false, false);
            let frame = Frame::SynStream { id, associated, priority, is_fin, is_unidirectional, headers };
            self.link.send(id, encoder.frame(&frame).into());
            (id, stream)
        };
        match timeout(self.reply, self.link.accepted(id)).await {
            Ok(true) => Ok(stream),
            Ok(false) => Err(OpenError::Refused),
            Err(_) => {
                stream.reset();
                Err(OpenError::Timeout(self.reply))
            }
        }
    }

    /// Tells when the connection is over.
    pub fn hang_up(&self) -> HangUp {
        self.link.hang_up()
    }

    /// Writes what waits, says goodbye and closes. Streams can be written no more; what arrived can still be read.
    pub async fn close(mut self) {
        self.link.close(Some(self.sender.go_away()));
        // An error would be a panic of the task; there is nothing to add to it.
        _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.close(Some(self.sender.go_away()));
    }
}

impl Incoming {
    /// The stream's number.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// What the peer says that it is for.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Accepts the stream.
    pub fn accept(mut self) -> Stream {
        self.sender.reply(&self.link, self.id);
        // Only this and `drop` take it, and both end `self`.
        self.stream.take().unwrap_or_else(|| unreachable!("a stream is accepted once"))
    }

    /// Rejects the stream.
    pub fn reject(self) {
        drop(self);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.reset();
        }
    }
}

struct Receiver {
    decoder: Decoder,
    /// Of the peer's streams.
    parity: u32,
    found: mpsc::UnboundedSender<Incoming>,
    sender: Arc<Sender>,
}

impl Inbound for Receiver {
    fn take(&mut self, mut input: &[u8], link: &Arc<Link>) -> Result<Flow, String> {
        while let Some(event) = self.decoder.next(&mut input).map_err(|error| error.to_string())? {
            match event {
                Event::Data { id, bytes, is_fin } => {
                    link.deliver(id, bytes);
                    if is_fin {
                        link.finish(id);
                    }
                }
                Event::Frame(frame) => self.frame(frame, link)?,
            }
        }
        Ok(Flow::More)
    }
}

impl Receiver {
    fn frame(&mut self, frame: Frame, link: &Arc<Link>) -> Result<(), String> {
        match frame {
            Frame::SynStream { id, is_fin, is_unidirectional, headers, .. } => {
                if id % 2 != self.parity || id <= self.sender.last.load(Ordering::Relaxed) {
                    return Err(format!("spdy: the peer may not open stream {id}"));
                }
                self.sender.last.store(id, Ordering::Relaxed);
                let directions = if is_unidirectional { Directions::In } else { Directions::Both };
                let Some(stream) = link.open(id, directions) else {
                    return self.answer(link, &Frame::RstStream { id, status: REFUSED_STREAM });
                };
                if is_fin {
                    link.finish(id);
                }
                let (link, sender) = (link.clone(), self.sender.clone());
                // Nobody listens: dropping what could not be sent rejects it.
                _ = self.found.send(Incoming { id, headers, stream: Some(stream), link, sender });
                Ok(())
            }
            Frame::SynReply { id, is_fin, .. } => {
                if id % 2 == self.parity {
                    return self.answer(link, &Frame::RstStream { id, status: PROTOCOL_ERROR });
                }
                link.reply(id);
                if is_fin {
                    link.finish(id);
                }
                Ok(())
            }
            Frame::RstStream { id, .. } => {
                link.reset(id);
                Ok(())
            }
            Frame::Headers { id, is_fin, .. } => {
                if is_fin {
                    link.finish(id);
                }
                Ok(())
            }
            Frame::Ping { id } if id % 2 == self.parity => self.answer(link, &Frame::Ping { id }),
            // Answers to pings that we do not send, and what the peers of this trade do not act on.
            Frame::Ping { .. } | Frame::Settings { .. } | Frame::WindowUpdate { .. } | Frame::GoAway { .. } => Ok(()),
        }
    }

    /// None of these has headers, so that any encoder will do.
    fn answer(&self, link: &Link, frame: &Frame) -> Result<(), String> {
        if link.answer(Encoder::new().frame(frame).into()) {
            return Ok(());
        }
        Err("spdy: the peer asks faster than it reads".to_owned())
    }
}

/// Puts entries of the queue on the wire.
struct Frames;

impl Outbound for Frames {
    fn put(&mut self, out: Out, buffer: &mut BytesMut) {
        match out {
            Out::Data(id, bytes) => {
                buffer.put_slice(&data_head(id, bytes.len(), false));
                buffer.put_slice(&bytes);
            }
            Out::Finish(id) => buffer.put_slice(&data_head(id, 0, true)),
            Out::Reset(id, status) => buffer.put_slice(&Encoder::new().frame(&Frame::RstStream { id, status })),
            Out::Raw(_, bytes) => buffer.put_slice(&bytes),
        }
    }
}
