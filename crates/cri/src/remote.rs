//! The contract over a unix socket: gRPC to containerd, CRI-O or any other runtime that speaks CRI v1.

use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri;
use tonic::transport::Channel;

use crate::{Answer, Code, EventStream, Runtime, RuntimeError};

mod connect;
mod endpoint;
#[cfg(test)]
mod tests;
mod verbs;
pub(crate) mod wire;

pub use endpoint::EndpointError;

pub(crate) const RUNTIME: &str = "/runtime.v1.RuntimeService/";
pub(crate) const IMAGE: &str = "/runtime.v1.ImageService/";

/// A runtime behind a socket. Connects when first used, and again when the connection broke.
///
/// Deadlines (kubelet 1.36): the request timeout; twice that for `RunPodSandbox`; plus the grace for `StopContainer`; plus
/// the command's own for `ExecSync`, none if that is zero; none for `PullImage` and events.
#[derive(Clone, Debug)]
pub struct Remote {
    runtime: Channel,
    image: Channel,
    timeout: Duration,
}

impl Remote {
    /// A runtime at `endpoint` (`unix:///path`, or a bare path), its images at `image_endpoint` (empty: the same).
    /// Must be called within a tokio runtime; whether anyone listens shows with the first call.
    ///
    /// # Errors
    /// An endpoint that names no unix socket.
    pub fn connect(endpoint: &str, image_endpoint: &str, request_timeout: Duration) -> Result<Self, EndpointError> {
        let path = endpoint::socket_path(endpoint)?;
        let image_path = if image_endpoint.is_empty() { path.clone() } else { endpoint::socket_path(image_endpoint)? };
        let is_shared = image_path == path;
        let runtime = connect::channel(path);
        let image = if is_shared { runtime.clone() } else { connect::channel(image_path) };
        Ok(Self { runtime, image, timeout: request_timeout })
    }

    /// A call with the common deadline.
    fn ask<A: Message + Default>(
        &self,
        service: &'static str,
        verb: &'static str,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<A, RuntimeError>> + Send + use<A> {
        self.ask_within(Some(self.timeout), service, verb, body)
    }

    /// A call with its own deadline.
    fn ask_within<A: Message + Default>(
        &self,
        deadline: Option<Duration>,
        service: &'static str,
        verb: &'static str,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<A, RuntimeError>> + Send + use<A> {
        let channel = if service == IMAGE { self.image.clone() } else { self.runtime.clone() };
        let call = wire::Call { service, verb, body: body.into(), deadline };
        async move { decode(verb, wire::unary(channel, call).await?) }
    }
}

async fn events(
    channel: Channel,
) -> Result<impl Stream<Item = Result<cri::ContainerEventResponse, RuntimeError>>, RuntimeError> {
    let verb = "GetContainerEvents";
    let body = cri::GetEventsRequest {}.encode_to_vec().into();
    let call = wire::Call { service: RUNTIME, verb, body, deadline: None };
    let events = wire::stream(channel, call).await?;
    Ok(events.map(move |item| item.and_then(|bytes| decode(verb, bytes))))
}

fn decode<A: Message + Default>(verb: &'static str, bytes: bytes::Bytes) -> Result<A, RuntimeError> {
    A::decode(bytes).map_err(|error| RuntimeError::Rpc {
        verb,
        code: Code::Internal,
        message: format!("grpc: failed to unmarshal the received message: {error}"),
    })
}

/// An answer that breaks the contract.
fn broken(verb: &'static str, message: impl Into<String>) -> RuntimeError {
    RuntimeError::Plain { verb, message: message.into() }
}
