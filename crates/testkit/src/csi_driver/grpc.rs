//! gRPC on a unix socket, one message each way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

use super::Driver;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Why a call is not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// gRPC's number.
    pub(super) code: u32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { code: 13, message: message.into() }
    }

    pub(super) fn unimplemented(method: &str) -> Self {
        Self { code: 12, message: format!("unknown method {method}") }
    }
}

/// Answers, for ever.
pub(super) async fn serve(listener: UnixListener, driver: Arc<Driver>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let driver = driver.clone();
        let service = hyper::service::service_fn(move |request| one(driver.clone(), request));
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        connections.spawn(async move {
            // How a connection ends is the client's affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn one(driver: Arc<Driver>, request: Request<Incoming>) -> Result<Response<Framed>, Infallible> {
    let path = request.uri().path().to_owned();
    let answer = match request.into_body().collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            let work = move || driver.answer(&path, body.get(PREFIX_BYTES..).unwrap_or_default());
            match tokio::task::spawn_blocking(work).await {
                Ok(answer) => answer,
                Err(error) => Err(Refusal::internal(error.to_string())),
            }
        }
        Err(error) => Err(Refusal::invalid(error.to_string())),
    };
    Ok(response(answer))
}

fn response(answer: Result<Vec<u8>, Refusal>) -> Response<Framed> {
    let mut trailers = HeaderMap::new();
    let message = match answer {
        Ok(message) => {
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
            framed.put_u8(0);
            framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            framed.put_slice(&message);
            Some(framed.freeze())
        }
        Err(refusal) => {
            trailers.insert("grpc-status", HeaderValue::from(refusal.code));
            let plain: String = refusal.message.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
            if let Ok(said) = HeaderValue::from_str(&plain) {
                trailers.insert("grpc-message", said);
            }
            None
        }
    };
    let mut response = Response::new(Framed { message, trailers: Some(trailers) });
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A message, then trailers.
struct Framed {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Framed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.message.take() {
            Some(message) => Some(Frame::data(message)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }
}
