//! gRPC's frames, as far as one message each way needs them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use prost::Message;

/// Of a request: two names.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const SAID: HeaderName = HeaderName::from_static("grpc-message");

/// A message, framed, or what went wrong.
pub(super) type Answer = Result<Bytes, Status>;

/// What went wrong, by gRPC's code.
#[derive(Debug)]
pub(super) struct Status {
    code: &'static str,
    message: String,
}

impl Status {
    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self { code: "2", message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "3", message: message.into() }
    }

    pub(super) fn exhausted(message: impl Into<String>) -> Self {
        Self { code: "8", message: message.into() }
    }

    pub(super) fn unimplemented(message: impl Into<String>) -> Self {
        Self { code: "12", message: message.into() }
    }
}

/// The message with its prefix.
pub(super) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    // A node's pods are far from 4 GiB.
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.put_slice(&message.encode_to_vec());
    framed.freeze()
}

/// The one message of a request.
pub(super) async fn message<M: Message + Default>(request: Request<Incoming>) -> Result<M, Status> {
    let body = Limited::new(request.into_body(), PREFIX_BYTES + MESSAGE_BYTES_MAX);
    let all = body.collect().await.map_err(|error| Status::invalid(error.to_string()))?.to_bytes();
    let malformed = || Status::invalid("malformed message");
    let (prefix, message) = all.split_at_checked(PREFIX_BYTES).ok_or_else(malformed)?;
    let length = usize::try_from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]));
    if prefix[0] != 0 || length != Ok(message.len()) {
        return Err(malformed());
    }
    M::decode(message).map_err(|error| Status::invalid(error.to_string()))
}

pub(super) fn response(answer: Answer) -> Response<Framed> {
    let (message, trailers) = match answer {
        Ok(message) => (Some(message), trailers("0", "")),
        Err(Status { code, message }) => (None, trailers(code, &message)),
    };
    let mut response = Response::new(Framed { message, trailers: Some(trailers) });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(code: &'static str, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static(code));
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    let escaped: String = message
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if let Some(value) = HeaderValue::from_str(&escaped).ok().filter(|value| !value.is_empty()) {
        trailers.insert(SAID, value);
    }
    trailers
}

/// A message, then trailers.
pub(super) struct Framed {
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

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}
