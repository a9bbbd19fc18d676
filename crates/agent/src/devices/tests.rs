//! With a plugin on a real socket.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::BoxStream;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rubelet_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse, RegisterRequest,
};
use tokio::net::{UnixListener, UnixStream};
use tonic::Status;
use tonic_prost::ProstCodec;

use super::*;
use rubelet_core::resources::Refusal;

use crate::allocation::{Allocation, AllocationSettings};
use crate::life::LifeEnd;

const DONGLE: &str = "example.com/dongle";

/// A plugin that has what it is told to have, until it is dropped.
struct Played {
    lists: watch::Sender<Vec<Device>>,
    allocations: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn devices(of: &[(&str, &str)]) -> Vec<Device> {
    of.iter().map(|(id, health)| Device { id: (*id).into(), health: (*health).into(), topology: None }).collect()
}

/// One method of the plugin.
#[derive(Clone)]
struct Answering {
    lists: watch::Receiver<Vec<Device>>,
    allocations: Arc<AtomicUsize>,
}

impl tonic::server::UnaryService<Empty> for Answering {
    type Response = DevicePluginOptions;
    type Future = std::future::Ready<Result<tonic::Response<DevicePluginOptions>, Status>>;

    fn call(&mut self, _: tonic::Request<Empty>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(DevicePluginOptions::default())))
    }
}

impl tonic::server::UnaryService<AllocateRequest> for Answering {
    type Response = AllocateResponse;
    type Future = std::future::Ready<Result<tonic::Response<AllocateResponse>, Status>>;

    fn call(&mut self, asked: tonic::Request<AllocateRequest>) -> Self::Future {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let one = |ids: Vec<String>| ContainerAllocateResponse {
            envs: [("DONGLES".to_owned(), ids.join(","))].into(),
            ..ContainerAllocateResponse::default()
        };
        let container_responses =
            asked.into_inner().container_requests.into_iter().map(|request| one(request.devices_ids)).collect();
        std::future::ready(Ok(tonic::Response::new(AllocateResponse { container_responses })))
    }
}

impl tonic::server::ServerStreamingService<Empty> for Answering {
    type Response = ListAndWatchResponse;
    type ResponseStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: tonic::Request<Empty>) -> Self::Future {
        let lists = self.lists.clone();
        let stream = futures_util::stream::unfold((lists, true), |(mut lists, is_first)| async move {
            if !is_first {
                lists.changed().await.ok()?;
            }
            let devices = lists.borrow_and_update().clone();
            Some((Ok(ListAndWatchResponse { devices }), (lists, false)))
        });
        std::future::ready(Ok(tonic::Response::new(Box::pin(stream))))
    }
}

fn play(dir: &Path, first: Vec<Device>) -> Played {
    let listener = UnixListener::bind(dir.join("dongle.sock")).unwrap();
    let lists = watch::Sender::new(first);
    let allocations = Arc::<AtomicUsize>::default();
    let answering = Answering { lists: lists.subscribe(), allocations: allocations.clone() };
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answering = answering.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answering = answering.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    Ok::<_, Infallible>(match path.rsplit('/').next() {
                        Some("GetDevicePluginOptions") => {
                            let codec = ProstCodec::<DevicePluginOptions, Empty>::default();
                            tonic::server::Grpc::new(codec).unary(answering, request).await
                        }
                        Some("Allocate") => {
                            let codec = ProstCodec::<AllocateResponse, AllocateRequest>::default();
                            tonic::server::Grpc::new(codec).unary(answering, request).await
                        }
                        Some("ListAndWatch") => {
                            let codec = ProstCodec::<ListAndWatchResponse, Empty>::default();
                            tonic::server::Grpc::new(codec).server_streaming(answering, request).await
                        }
                        Some(_) | None => Status::unimplemented(path).into_http(),
                    })
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(async move { drop(http.serve_connection(TokioIo::new(stream), service).await) });
        }
    });
    Played { lists, allocations, task }
}

struct Stage {
    devices: Arc<Devices>,
    allocation: Allocation,
    life: Life,
    _end: LifeEnd,
    folder: tempfile::TempDir,
}

impl Stage {
    fn begin() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    fn on(folder: tempfile::TempDir) -> Self {
        let (life, end) = Life::new();
        let devices = Arc::new(Devices::open(folder.path(), Clock::start(), Arc::default()));
        registration::take_registrations(&life, &devices);
        let plain = AllocationSettings { topology_policy: "none".to_owned(), ..AllocationSettings::default() };
        let allocation = Allocation::open(&plain, folder.path(), devices.clone(), Arc::default()).unwrap();
        Self { devices, allocation, life, _end: end, folder }
    }

    /// The agent ends and begins again.
    fn again(self) -> Self {
        let Self { folder, devices, .. } = self;
        drop(devices);
        Self::on(folder)
    }

    /// Registers as plugins do.
    async fn register(&self, version: &str, resource: &str) -> Result<(), Status> {
        let socket: Arc<Path> = self.folder.path().join(SOCKET).into();
        let dial = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(&*socket).await.map(TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let mut grpc = tonic::client::Grpc::new(endpoint.connect_with_connector(dial).await.unwrap());
        grpc.ready().await.unwrap();
        let request = RegisterRequest {
            version: version.into(),
            endpoint: "dongle.sock".into(),
            resource_name: resource.into(),
            options: None,
        };
        let path = http::uri::PathAndQuery::from_static("/v1beta1.Registration/Register");
        let codec = ProstCodec::<RegisterRequest, Empty>::default();
        grpc.unary(tonic::Request::new(request), path, codec).await.map(drop)
    }

    async fn counts(&self, capacity: usize, allocatable: usize) {
        let wanted = rules::Count { capacity, allocatable };
        let mut counts = self.devices.counts.subscribe();
        let there = counts.wait_for(|counts| counts.get(DONGLE) == Some(&wanted));
        tokio::time::timeout(Duration::from_secs(20), there).await.expect("the count").unwrap();
    }
}

fn pod(uid: &str, count: u32) -> v1::Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "uid": uid, "name": uid, "namespace": "default" },
        "spec": { "containers": [{ "name": "app", "resources": { "limits": { DONGLE: count.to_string() } } }] }
    }))
    .unwrap()
}

#[tokio::test]
async fn a_plugin_registers_is_counted_and_ends() {
    let stage = Stage::begin();
    let played = play(stage.folder.path(), devices(&[("a", "Healthy"), ("b", "Unhealthy")]));
    let refused = stage.register("v1alpha1", DONGLE).await.unwrap_err();
    let words = r#"requested API version "v1alpha1" is not supported by kubelet. Supported version is ["v1beta1"]"#;
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Unknown, words));
    let refused = stage.register("v1beta1", "dongle").await.unwrap_err();
    assert_eq!(refused.message(), r#"the ResourceName "dongle" is invalid"#);
    stage.register("v1beta1", DONGLE).await.unwrap();
    stage.counts(2, 1).await;
    played.lists.send_replace(devices(&[("a", "Healthy"), ("b", "Healthy")]));
    stage.counts(2, 2).await;
    drop(played);
    stage.counts(2, 0).await;
}

#[tokio::test]
async fn what_a_container_has_outlives_the_agent() {
    let stage = Stage::begin();
    let played = play(stage.folder.path(), devices(&[("a", "Healthy"), ("b", "Healthy")]));
    stage.register("v1beta1", DONGLE).await.unwrap();
    stage.counts(2, 2).await;
    assert_eq!(stage.allocation.admit(&pod("p", 1), |_| true).await, Ok(true));
    let few = "requested number of devices unavailable for example.com/dongle. Requested: 2, Available: 1";
    let few = Refusal { reason: rules::UNEXPECTED, message: rules::unexpected(few) };
    assert_eq!(stage.allocation.admit(&pod("q", 2), |_| true).await, Err(few));
    let before = stage.devices.prepare(&pod("p", 1), "app").await.unwrap();
    assert_eq!(before[DONGLE].given.envs["DONGLES"], "a");
    drop(played);

    let stage = stage.again();
    assert!(!stage.folder.path().join("dongle.sock").exists(), "sockets of earlier plugins go");
    stage.counts(0, 0).await;
    let played = play(stage.folder.path(), devices(&[("a", "Healthy"), ("b", "Healthy")]));
    stage.register("v1beta1", DONGLE).await.unwrap();
    stage.counts(2, 2).await;
    assert_eq!(stage.devices.prepare(&pod("p", 1), "app").await.unwrap(), before);
    assert_eq!(played.allocations.load(Ordering::Relaxed), 0);
    // Who is gone gives back.
    assert_eq!(stage.allocation.admit(&pod("q", 2), |_| false).await, Ok(true));
    assert_eq!(stage.devices.shown(&PodUid::new("q"), "app").len(), 2);
}

#[tokio::test]
async fn a_plugin_in_the_registry_is_taken_as_one_that_registers() {
    let stage = Stage::begin();
    let _played = play(stage.folder.path(), devices(&[("a", "Healthy")]));
    let mut plugin = rubelet_volumes::csi::Plugin {
        kind: "DevicePlugin".to_owned(),
        name: DONGLE.to_owned(),
        endpoint: stage.folder.path().join("dongle.sock"),
        versions: vec!["v9".to_owned()],
    };
    let refused = stage.devices.found(&plugin, &stage.life).await.unwrap_err();
    assert_eq!(refused, "manager version, v1beta1, is not among plugin supported versions [v9]");
    plugin.versions.push("v1beta1".to_owned());
    stage.devices.found(&plugin, &stage.life).await.unwrap();
    stage.counts(1, 1).await;
    stage.devices.lost(DONGLE).await;
    stage.counts(1, 0).await;
}
