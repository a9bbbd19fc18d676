//! One connection: requests in, answers out, and an end when nothing moves any more.
//!
//! What a client may make us keep before it is answered: 64 KiB of a request's head (and what TLS and HTTP keep, some
//! 40 KiB) on each connection, up to 1 MiB on 32 of a listener's. With the connections that a listener takes
//! that makes some 250 MiB in all, if someone tries.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::respond::Reply;

mod metered;

#[cfg(test)]
pub(crate) use metered::LARGE_HEADS_MAX;
pub(crate) use metered::LargeHeads;
use metered::Metered;

#[cfg(test)]
mod tests;

/// kubelet 1.36: connections without a request are closed after 90 s. We also close those whose client takes nothing.
const IDLE: Duration = Duration::from_secs(90);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// kubelet 1.36 takes headers up to 1 MiB.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// HTTP/2 has many requests at a time, whose heads come compressed: each is to be small.
const HTTP2_HEADER_BYTES_MAX: u32 = 64 << 10;
const STREAMS_MAX: u32 = 100;
/// How much of an answer may wait for a slow client, for each HTTP/2 stream.
const SEND_BYTES_MAX: usize = 64 << 10;

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// An answer in the making.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Reply>> + Send>>;

/// Answers one request; what the connection is for.
pub(crate) trait Answers: Send + Sync + 'static {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering;
}

/// Answers requests until the client goes, or nothing has moved for a while. A client that waits for us (an answer in
/// the making, a log that is followed) is not idle. An upgraded connection is its new owner's.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    answers: Arc<impl Answers>,
    room: LargeHeads,
) {
    let moved =
        Moved(Arc::new(Mutex::new(Motion { last: Instant::now(), owed: 0, answered: 0, is_given_away: false })));
    // With HTTP/1.1, what is asked for may only fill a buffer: what is written counts. With HTTP/2, what is written may be
    // no part of an answer, and no more is asked for than the client has room for.
    let is_taken_when_asked = protocol == Protocol::Http2;
    let service = {
        let moved = moved.clone();
        hyper::service::service_fn(move |request| {
            let (moved, answering) = (moved.clone(), answers.clone().answer(request));
            async move {
                let owed = moved.owe();
                let response = answering.await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    moved.give_away();
                }
                drop(owed);
                Ok::<_, Infallible>(response.map(|reply| Watched { reply, moved, owed: None, is_taken_when_asked }))
            }
        })
    };
    let stream = TokioIo::new(Metered::new(stream, moved.clone(), room, !is_taken_when_asked));
    // How a connection ended is the client's affair; a broken one has nobody to tell.
    match protocol {
        Protocol::Http1 => {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEADER_BYTES_MAX);
            let mut connection = pin!(http.serve_connection(stream, service).with_upgrades());
            let ended = until_idle(connection.as_mut(), &moved).await;
            if ended.is_none() {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(GOODBYE, connection).await;
            }
        }
        Protocol::Http2 => {
            let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HTTP2_HEADER_BYTES_MAX)
                .max_send_buf_size(SEND_BYTES_MAX);
            let mut connection = pin!(http.serve_connection(stream, service));
            let ended = until_idle(connection.as_mut(), &moved).await;
            if ended.is_none() {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(GOODBYE, connection).await;
            }
        }
    }
}

/// `None`: nothing has moved for a while, and it is not us who are waited for.
async fn until_idle<T>(mut connection: Pin<&mut impl Future<Output = T>>, moved: &Moved) -> Option<T> {
    loop {
        let idle_at = moved.last() + IDLE;
        tokio::select! {
            // What the client did counts before the clock.
            biased;
            ended = connection.as_mut() => return Some(ended),
            () = tokio::time::sleep_until(idle_at) => {
                if moved.last() + IDLE <= idle_at {
                    return None;
                }
            }
        }
    }
}

/// When something last moved on a connection.
#[derive(Clone)]
struct Moved(Arc<Mutex<Motion>>);

struct Motion {
    last: Instant,
    /// Answers and bodies that the client waits for.
    owed: usize,
    /// Requests that came so far.
    answered: u64,
    /// The connection speaks another protocol now.
    is_given_away: bool,
}

impl Moved {
    fn now(&self) {
        self.lock().last = Instant::now();
    }

    /// Now, while we owe something.
    fn last(&self) -> Instant {
        let motion = self.lock();
        if motion.owed > 0 { Instant::now() } else { motion.last }
    }

    /// Until it is dropped, the client waits for us.
    fn owe(&self) -> Owed {
        let mut motion = self.lock();
        motion.owed += 1;
        motion.answered += 1;
        drop(motion);
        Owed(self.clone())
    }

    fn give_away(&self) {
        self.lock().is_given_away = true;
    }

    /// How many requests came before what comes now; `None`: what comes now is no request's head.
    fn expected(&self) -> Option<u64> {
        let motion = self.lock();
        (motion.owed == 0 && !motion.is_given_away).then_some(motion.answered)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Motion> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that we owe the client.
struct Owed(Moved);

impl Drop for Owed {
    fn drop(&mut self) {
        let mut motion = self.0.lock();
        motion.owed -= 1;
        motion.last = Instant::now();
    }
}

/// A body that tells when it waits, and when more of it is asked for.
struct Watched {
    reply: Reply,
    moved: Moved,
    is_taken_when_asked: bool,
    /// While there is nothing to take.
    owed: Option<Owed>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let watched = self.get_mut();
        if watched.is_taken_when_asked {
            watched.moved.now();
        }
        let polled = Pin::new(&mut watched.reply).poll_frame(context);
        match polled {
            Poll::Pending if watched.owed.is_none() => watched.owed = Some(watched.moved.owe()),
            Poll::Pending => {}
            Poll::Ready(_) => watched.owed = None,
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
