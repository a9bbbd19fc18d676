//! Talking to one plugin on its socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rubelet_host::chain;
use rubelet_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerPreferredAllocationRequest,
    DevicePluginOptions, Empty, ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse,
};
use tokio::net::UnixStream;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// kubelet 1.36: how long a plugin that registered may take to be there.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);

/// A plugin that has said how it wants to be used.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    channel: Channel,
    pub(super) options: DevicePluginOptions,
}

/// As gRPC for Go prints it.
pub(super) fn words(status: &Status) -> String {
    let code = match status.code() {
        tonic::Code::Ok => "OK".to_owned(),
        tonic::Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

impl Plugin {
    /// Connects to a plugin and asks how it wants to be used.
    ///
    /// # Errors
    /// In upstream's words.
    pub(super) async fn dial(socket: &Path) -> Result<Self, String> {
        let socket: Arc<Path> = socket.into();
        let dial = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(&*socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let connecting = endpoint.connect_with_connector(dial);
        let channel = match tokio::time::timeout(DIAL_PATIENCE, connecting).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(e)) => return Err(format!("failed to dial device plugin: {}", chain(&e))),
            Err(_) => return Err("failed to dial device plugin: context deadline exceeded".to_owned()),
        };
        let plugin = Self { channel, options: DevicePluginOptions::default() };
        let asked = plugin.call("/v1beta1.DevicePlugin/GetDevicePluginOptions", Empty {}, DIAL_PATIENCE).await;
        let options = asked.map_err(|status| format!("failed to get device plugin options: {}", words(&status)))?;
        Ok(Self { options, ..plugin })
    }

    pub(super) async fn list_and_watch(&self) -> Result<Streaming<ListAndWatchResponse>, String> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|e| chain(&e))?;
        let path = PathAndQuery::from_static("/v1beta1.DevicePlugin/ListAndWatch");
        let codec = ProstCodec::<Empty, ListAndWatchResponse>::default();
        let answer = grpc.server_streaming(tonic::Request::new(Empty {}), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| words(&status))
    }

    pub(super) async fn prefers(
        &self,
        available: Vec<String>,
        must: Vec<String>,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<String>, String> {
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: available,
                must_include_device_ids: must,
                allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
            }],
        };
        let path = "/v1beta1.DevicePlugin/GetPreferredAllocation";
        let answer: PreferredAllocationResponse = self.call(path, request, patience).await.map_err(|status| {
            format!("device plugin GetPreferredAllocation rpc failed with err: {}", words(&status))
        })?;
        Ok(answer.container_responses.into_iter().next().map(|one| one.device_ids).unwrap_or_default())
    }

    pub(super) async fn allocate(&self, ids: Vec<String>, patience: Duration) -> Result<AllocateResponse, String> {
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids: ids }] };
        self.call("/v1beta1.DevicePlugin/Allocate", request, patience).await.map_err(|status| words(&status))
    }

    pub(super) async fn pre_start(&self, ids: Vec<String>, patience: Duration) -> Result<(), String> {
        let request = PreStartContainerRequest { devices_ids: ids };
        let answer: Result<PreStartContainerResponse, Status> =
            self.call("/v1beta1.DevicePlugin/PreStartContainer", request, patience).await;
        let failed =
            |status: Status| format!("device plugin PreStartContainer rpc failed with err: {}", words(&status));
        answer.map(drop).map_err(failed)
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q, patience: Duration) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let asked = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|e| Status::unavailable(chain(&e)))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await;
            answer.map(tonic::Response::into_inner)
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
        }
    }
}
