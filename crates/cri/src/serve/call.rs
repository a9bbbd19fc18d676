//! One gRPC call as the server sees it: a message in, a deadline, messages and a status out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::Message;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use super::verbs::{self, Reply};
use crate::remote::wire::MESSAGE_BYTES_MAX;
use crate::{Code, Runtime, RuntimeError};

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
const CONTENT_TYPE: &str = "application/grpc";

/// Messages to come, the status after them.
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Answers one call; what fails is in the answer.
pub(super) async fn answer(runtime: Arc<dyn Runtime>, request: Request<Incoming>) -> Response<Answers> {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(CONTENT_TYPE.as_bytes());
    if request.method() != Method::POST || !request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        let mut response = Response::new(Answers::none());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let reply = match deadline(request.headers()) {
        Ok(None) => ask(runtime, request).await.map(messages),
        Ok(Some(deadline)) => match timeout_at(deadline, ask(runtime, request)).await {
            Ok(reply) => reply.map(|reply| until(deadline, messages(reply))),
            Err(_) => Err(deadline_exceeded()),
        },
        Err(status) => Err(status),
    };
    let mut response = match reply {
        Ok(messages) => Response::new(Answers { messages: Some(messages) }),
        Err(status) => {
            let mut response = Response::new(Answers::none());
            *response.headers_mut() = trailers(&status);
            response
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

async fn ask(runtime: Arc<dyn Runtime>, request: Request<Incoming>) -> Result<Reply, Status> {
    let path = request.uri().path().to_owned();
    let body = message(request.into_body()).await?;
    verbs::carry_out(runtime.as_ref(), &path, body).await
}

/// The one message of a request.
async fn message(mut body: Incoming) -> Result<Bytes, Status> {
    let mut read = BytesMut::new();
    let mut length = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(error.to_string()))?;
        let Ok(piece) = frame.into_data() else { continue };
        read.extend_from_slice(&piece);
        if length.is_none() && read.len() >= PREFIX_BYTES {
            length = Some(prefixed(read.split_to(PREFIX_BYTES))?);
        }
        if length.is_some_and(|length| read.len() > length) {
            return Err(Status::internal("grpc: more than one message in the request"));
        }
    }
    match length {
        Some(length) if read.len() == length => Ok(read.freeze()),
        Some(_) | None => Err(Status::internal("unexpected EOF")),
    }
}

/// Length of the message that follows.
fn prefixed(mut prefix: BytesMut) -> Result<usize, Status> {
    let is_compressed = prefix.get_u8() != 0;
    let length = prefix.get_u32() as usize;
    if is_compressed {
        return Err(Status::unimplemented("grpc: compressed messages are not taken"));
    }
    if length > MESSAGE_BYTES_MAX {
        let text = format!("grpc: received message larger than max ({length} vs. {MESSAGE_BYTES_MAX})");
        return Err(Status::resource_exhausted(text));
    }
    Ok(length)
}

/// When the client will have given up; `None`: never.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    match value.to_str().ok().and_then(patience) {
        // Beyond what the clock can say is never.
        Some(patience) => Ok(Instant::now().checked_add(patience)),
        None => Err(Status::internal(format!("malformed grpc-timeout: {value:?}"))),
    }
}

/// gRPC's form: at most eight digits and a unit.
pub(super) fn patience(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn messages(reply: Reply) -> Messages {
    match reply {
        Reply::One(message) => Box::pin(stream::iter([Ok(message)])),
        Reply::Pieces(pieces) => Box::pin(stream::iter(pieces.into_iter().map(Ok))),
        Reply::Events(events) => Box::pin(events.map(|item| match item {
            Ok(event) => Ok(event.encode_to_vec().into()),
            Err(error) => Err(status(&error)),
        })),
    }
}

/// The same messages, ended at the deadline.
fn until(deadline: Instant, messages: Messages) -> Messages {
    let end = stream::once(sleep_until(deadline)).map(|()| Err(deadline_exceeded()));
    // What ended by itself needs no deadline: `None` tells, and ends both.
    let marked = messages.map(Some).chain(stream::iter([None]));
    let all = stream::select(marked, end.map(Some));
    Box::pin(all.take_while(|item| std::future::ready(item.is_some())).filter_map(std::future::ready))
}

fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// A failure of the contract as gRPC tells it; one without a code is of code `Unknown`.
pub(super) fn status(error: &RuntimeError) -> Status {
    let code = match error.code().unwrap_or(Code::Unknown) {
        Code::Canceled => tonic::Code::Cancelled,
        Code::Unknown => tonic::Code::Unknown,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Aborted => tonic::Code::Aborted,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::DataLoss => tonic::Code::DataLoss,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
    };
    Status::new(code, error.message())
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A message that fits into no header is left out, its code is not.
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// The answer's body.
pub(super) struct Answers {
    /// `None` when the status was told.
    messages: Option<Messages>,
}

impl Answers {
    fn none() -> Self {
        Self { messages: None }
    }
}

impl Body for Answers {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(messages) = self.messages.as_mut() else { return Poll::Ready(None) };
        let item = ready!(messages.poll_next_unpin(context));
        let frame = match item.map(|item| item.and_then(framed)) {
            Some(Ok(frame)) => Frame::data(frame),
            Some(Err(status)) => {
                self.messages = None;
                Frame::trailers(trailers(&status))
            }
            None => {
                self.messages = None;
                Frame::trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.messages.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

fn framed(message: Bytes) -> Result<Bytes, Status> {
    let length = message.len();
    let too_large = || {
        let text = format!("trying to send message larger than max ({length} vs. {MESSAGE_BYTES_MAX})");
        Status::resource_exhausted(text)
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(too_large());
    }
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).map_err(|_| too_large())?);
    frame.put_slice(&message);
    Ok(frame.freeze())
}
