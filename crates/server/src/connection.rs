//! One connection: requests in, answers out, and an end when nothing moves any more.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::respond::Reply;

#[cfg(test)]
mod tests;

/// kubelet 1.36: connections without a request are closed after 90 s. We also close those whose client takes nothing.
const IDLE: Duration = Duration::from_secs(90);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// kubelet 1.36 takes headers up to 1 MiB.
const HEADER_BYTES_MAX: usize = 1 << 20;
const STREAMS_MAX: u32 = 100;
/// How much of an answer may wait for a slow client, for each HTTP/2 stream.
const SEND_BYTES_MAX: usize = 64 << 10;

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Answers one request; what the connection is for.
pub(crate) trait Answers: Send + Sync + 'static {
    fn answer(&self, request: &Request<Incoming>) -> Response<Reply>;
}

/// Answers requests until the client goes, or nothing has moved for a while.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    answers: Arc<impl Answers>,
) {
    let moved = Moved(Arc::new(Mutex::new(Instant::now())));
    let service = {
        let moved = moved.clone();
        hyper::service::service_fn(move |request| {
            moved.now();
            let body = answers.answer(&request).map(|reply| Watched { reply, moved: moved.clone() });
            std::future::ready(Ok::<_, Infallible>(body))
        })
    };
    let stream = TokioIo::new(stream);
    // How a connection ended is the client's affair; a broken one has nobody to tell.
    match protocol {
        Protocol::Http1 => {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEADER_BYTES_MAX);
            let mut connection = pin!(http.serve_connection(stream, service));
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
                .max_header_list_size(HEADER_BYTES_MAX as u32)
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

/// `None`: nothing has moved for a while.
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
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that tells when the client takes of it.
struct Watched {
    reply: Reply,
    moved: Moved,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let watched = self.get_mut();
        watched.moved.now();
        Pin::new(&mut watched.reply).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
