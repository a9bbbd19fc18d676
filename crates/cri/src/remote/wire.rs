//! One gRPC call: bytes out, bytes in, a deadline, and a status as our error.
//!
//! Messages are encoded before and decoded after, so that gRPC's machinery is compiled once, not once for each verb.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::Instrument;
use tracing::field::Empty;

use crate::{Code, RuntimeError};

/// kubelet 1.36: the biggest answer taken. containerd: the biggest message, either way.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One call to be made.
pub(super) struct Call {
    /// `/runtime.v1.RuntimeService/` or `/runtime.v1.ImageService/`.
    pub(super) service: &'static str,
    pub(super) verb: &'static str,
    pub(super) body: Bytes,
    /// `None`: it may take as long as it takes.
    pub(super) deadline: Option<Duration>,
}

/// Makes the call and waits for its one answer.
pub(super) async fn unary(channel: Channel, call: Call) -> Result<Bytes, RuntimeError> {
    let (service, verb) = (call.service.trim_matches('/'), call.verb);
    // kubelet 1.36: the same names and attributes.
    let span = tracing::info_span!(
        target: "trace", "call", otel.name = format!("{service}/{verb}"), otel.kind = "client", otel.error = Empty,
        rpc.system.name = "grpc", rpc.method = format!("{service}/{verb}"), rpc.response.status_code = Empty
    );
    let answer = in_time(channel, call).instrument(span.clone()).await;
    match &answer {
        Ok(_) => _ = span.record("rpc.response.status_code", "OK"),
        Err(error) => {
            span.record("otel.error", tracing::field::display(error));
            if let RuntimeError::Rpc { code, .. } = error {
                span.record("rpc.response.status_code", code.to_string());
            }
        }
    }
    answer
}

async fn in_time(channel: Channel, call: Call) -> Result<Bytes, RuntimeError> {
    let verb = call.verb;
    let Some(deadline) = call.deadline else {
        return ask(channel, call).await;
    };
    match tokio::time::timeout(deadline, ask(channel, call)).await {
        Ok(answer) => answer,
        Err(_) => Err(deadline_exceeded(verb)),
    }
}

async fn ask(channel: Channel, call: Call) -> Result<Bytes, RuntimeError> {
    let verb = call.verb;
    let mut grpc = ready(channel, verb).await?;
    let mut request = Request::new(call.body);
    if let Some(deadline) = call.deadline {
        request.set_timeout(deadline);
    }
    let answer = grpc.unary(request, path(call.service, verb)?, BytesCodec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| from_status(verb, &status))
}

/// Makes the call; the answers come one by one.
pub(super) async fn stream(
    channel: Channel,
    call: Call,
) -> Result<impl Stream<Item = Result<Bytes, RuntimeError>> + Send + use<>, RuntimeError> {
    let verb = call.verb;
    let mut grpc = ready(channel, verb).await?;
    let answers = grpc.server_streaming(Request::new(call.body), path(call.service, verb)?, BytesCodec).await;
    let answers = answers.map_err(|status| from_status(verb, &status))?.into_inner();
    Ok(answers.map(move |item| item.map_err(|status| from_status(verb, &status))))
}

async fn ready(channel: Channel, verb: &'static str) -> Result<Grpc<Channel>, RuntimeError> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    match grpc.ready().await {
        Ok(()) => Ok(grpc),
        Err(error) => Err(RuntimeError::Rpc { verb, code: Code::Unavailable, message: error.to_string() }),
    }
}

fn path(service: &str, verb: &'static str) -> Result<PathAndQuery, RuntimeError> {
    PathAndQuery::try_from(format!("{service}{verb}")).map_err(|error| RuntimeError::Rpc {
        verb,
        code: Code::Internal,
        message: error.to_string(),
    })
}

/// What gRPC for Go says when its own deadline passed.
fn deadline_exceeded(verb: &'static str) -> RuntimeError {
    RuntimeError::Rpc { verb, code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() }
}

fn from_status(verb: &'static str, status: &Status) -> RuntimeError {
    let message = status.message().to_owned();
    let is_from_connection = std::error::Error::source(status).is_some();
    let code = match code_of(status.code()) {
        // The channel watches the deadline too and says so in its own way.
        Code::Canceled if message == "Timeout expired" => return deadline_exceeded(verb),
        // A connection that broke: whatever the transport calls it, the runtime is away.
        Code::Unknown | Code::Internal | Code::Canceled if is_from_connection => Code::Unavailable,
        code => code,
    };
    RuntimeError::Rpc { verb, code, message }
}

fn code_of(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Cancelled => Code::Canceled,
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::Aborted => Code::Aborted,
        tonic::Code::OutOfRange => Code::OutOfRange,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Internal => Code::Internal,
        tonic::Code::Unavailable => Code::Unavailable,
        tonic::Code::DataLoss => Code::DataLoss,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        // OK is no failure; as one it says nothing.
        tonic::Code::Ok | tonic::Code::Unknown => Code::Unknown,
    }
}

/// Messages that are bytes already.
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
