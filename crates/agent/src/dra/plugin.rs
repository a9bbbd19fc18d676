//! Talking to one plugin of a driver on its socket, over a connection that is kept for as long as the plugin is registered.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Connection, SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rubelet_host::chain;
use rubelet_proto::dra::{
    Claim, NodePrepareResourcesRequest, NodePrepareResourcesResponse, NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
};
use rubelet_proto::dra_health::{NodeWatchResourcesRequest, NodeWatchResourcesResponse};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::Streaming;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::metrics::Metrics;

/// kubelet 1.36: how long a plugin may take for a call.
const PATIENCE: Duration = Duration::from_secs(45);

/// A plugin that has registered. Clones share its connection.
#[derive(Clone)]
pub(super) struct Plugin {
    pub(super) driver: Arc<str>,
    pub(super) endpoint: Arc<Path>,
    /// `v1` or `v1beta1`: messages are the same, as far as we read them.
    version: &'static str,
    link: Arc<Mutex<Link>>,
}

/// The connection, or why there is none.
enum Link {
    Up(SendRequest<Body>),
    Down(String),
}

/// What drives a connection; it ends with it.
pub(super) type Driving = Connection<TokioIo<UnixStream>, Body, TokioExecutor>;

/// As gRPC for Go prints it.
pub(super) fn words(status: &Status) -> String {
    format!("rpc error: code = {} desc = {}", code(status.code()), status.message())
}

fn code(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

impl Plugin {
    /// By the service that it is to be called by.
    pub(super) fn new(driver: &str, endpoint: PathBuf, service: &'static str) -> Self {
        let version = service.split('.').next().unwrap_or(service);
        let link = Link::Down("transport: not connected yet".to_owned());
        Self { driver: driver.into(), endpoint: endpoint.into(), version, link: Arc::new(Mutex::new(link)) }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(&*self.link(), Link::Up(sender) if !sender.is_closed())
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects; calls go over this connection for as long as it is driven.
    pub(super) async fn connect(&self) -> Result<Driving, ()> {
        let failed = |why: String| {
            let endpoint = self.endpoint.display();
            *self.link() = Link::Down(format!("transport: Error while dialing: dial unix {endpoint}: {why}"));
        };
        let stream = UnixStream::connect(&*self.endpoint).await.map_err(|e| failed(format!("connect: {e}")))?;
        let (sender, driving) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| failed(chain(&e)))?;
        *self.link() = Link::Up(sender);
        Ok(driving)
    }

    /// The connection is over.
    pub(super) fn lost(&self) {
        *self.link() = Link::Down("transport: the connection was closed".to_owned());
    }

    fn grpc(&self) -> Result<Grpc<Sender>, Status> {
        match &*self.link() {
            Link::Up(sender) => Ok(Grpc::with_origin(Sender(sender.clone()), Uri::from_static("http://localhost"))),
            Link::Down(why) => Err(Status::unavailable(format!("connection error: desc = {why:?}"))),
        }
    }

    pub(super) async fn prepare(
        &self,
        claims: Vec<Claim>,
        metrics: &Metrics,
    ) -> Result<NodePrepareResourcesResponse, Status> {
        self.call("NodePrepareResources", NodePrepareResourcesRequest { claims }, metrics).await
    }

    pub(super) async fn unprepare(
        &self,
        claims: Vec<Claim>,
        metrics: &Metrics,
    ) -> Result<NodeUnprepareResourcesResponse, Status> {
        self.call("NodeUnprepareResources", NodeUnprepareResourcesRequest { claims }, metrics).await
    }

    /// The driver says how its devices are, again and again.
    pub(super) async fn watch(&self) -> Result<Streaming<NodeWatchResourcesResponse>, Status> {
        let path = PathAndQuery::from_static("/v1alpha1.DRAResourceHealth/NodeWatchResources");
        let codec = ProstCodec::<NodeWatchResourcesRequest, NodeWatchResourcesResponse>::default();
        let request = tonic::Request::new(NodeWatchResourcesRequest {});
        self.grpc()?.server_streaming(request, path, codec).await.map(tonic::Response::into_inner)
    }

    async fn call<Q, A>(&self, method: &str, request: Q, metrics: &Metrics) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = format!("/k8s.io.kubelet.pkg.apis.dra.{}.DRAPlugin/{method}", self.version);
        let since = Instant::now();
        let asked = async {
            let target = PathAndQuery::try_from(path.as_str()).map_err(|e| Status::internal(e.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = self.grpc()?.unary(tonic::Request::new(request), target, codec).await;
            answer.map(tonic::Response::into_inner)
        };
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
        };
        let code = code(answer.as_ref().err().map_or(Code::Ok, Status::code));
        let took = since.elapsed().as_secs_f64();
        metrics.node.claim_calls.of(&[&self.driver, &code, &path]).observe(took);
        answer
    }
}

/// A connection as gRPC's client wants it.
struct Sender(SendRequest<Body>);

impl GrpcService<Body> for Sender {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
