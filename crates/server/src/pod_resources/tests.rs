//! By a client of tonic's, on a real socket.

use prost::Message;
use rubelet_proto::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ClaimResource, ContainerDevices, DynamicResource,
    ListPodResourcesRequest,
};
use tonic::transport::{Endpoint, Uri};

use super::*;
use crate::view::shown::{healthy, pod};

struct Asked {
    grpc: tonic::client::Grpc<tonic::transport::Channel>,
    _folder: tempfile::TempDir,
}

impl Asked {
    async fn start(pods: Vec<Arc<v1::Pod>>) -> Self {
        Self::serve(crate::view::shown::Shown { pods, ..healthy() }).await
    }

    async fn serve(view: crate::view::shown::Shown) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod-resources/kubelet.sock");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "left behind").unwrap();
        tokio::spawn(serve(bind(&path).unwrap(), Arc::new(view)));
        let connect = connector(path);
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap();
        Self { grpc: tonic::client::Grpc::new(channel), _folder: folder }
    }

    async fn call<Q, A>(&mut self, method: &'static str, question: Q) -> Result<A, tonic::Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(method);
        self.grpc.unary(tonic::Request::new(question), path, codec).await.map(tonic::Response::into_inner)
    }
}

fn connector(
    path: std::path::PathBuf,
) -> impl tower_service::Service<Uri, Response = TokioIo<tokio::net::UnixStream>, Error = io::Error, Future: Send>
+ Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    })
}

fn with_containers(name: &str, phase: &str) -> Arc<v1::Pod> {
    let mut pod = (*pod(name)).clone();
    pod.metadata.namespace = Some("default".to_owned());
    let container = |name: &str, policy: Option<&str>| v1::Container {
        name: name.to_owned(),
        restart_policy: policy.map(str::to_owned),
        ..v1::Container::default()
    };
    let spec = pod.spec.get_or_insert_default();
    spec.init_containers = Some(vec![container("once", None), container("sidecar", Some("Always"))]);
    spec.containers = vec![container("app", None)];
    pod.status.get_or_insert_default().phase = Some(phase.to_owned());
    Arc::new(pod)
}

#[tokio::test]
async fn pods_that_run_are_listed_with_their_containers() {
    let mut asked = Asked::start(vec![with_containers("a", "Running"), with_containers("b", "Succeeded")]).await;
    for method in ["/v1.PodResourcesLister/List", "/v1alpha1.PodResourcesLister/List"] {
        let listed: ListPodResourcesResponse = asked.call(method, ListPodResourcesRequest {}).await.unwrap();
        let [only] = &listed.pod_resources[..] else { panic!("{listed:?}") };
        assert_eq!((only.name.as_str(), only.namespace.as_str()), ("a", "default"));
        let names: Vec<_> = only.containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["sidecar", "app"]);
    }
    let all: AllocatableResourcesResponse =
        asked.call("/v1.PodResourcesLister/GetAllocatableResources", AllocatableResourcesRequest {}).await.unwrap();
    assert_eq!((all.devices.len(), all.cpu_ids, all.memory.len()), (0, vec![1, 2, 3], 0));
}

#[tokio::test]
async fn devices_of_plugins_are_told() {
    let dongle = ContainerDevices {
        resource_name: "example.com/dongle".to_owned(),
        device_ids: vec!["a".to_owned()],
        topology: None,
    };
    let devices = [("app".to_owned(), vec![dongle.clone()])].into();
    let pods = vec![with_containers("a", "Running")];
    let mut asked = Asked::serve(crate::view::shown::Shown { pods, devices, ..healthy() }).await;
    let listed: ListPodResourcesResponse =
        asked.call("/v1.PodResourcesLister/List", ListPodResourcesRequest {}).await.unwrap();
    let devices: Vec<_> = listed.pod_resources[0].containers.iter().map(|c| c.devices.clone()).collect();
    assert_eq!(devices, [vec![], vec![dongle.clone()]]);
    assert_eq!(listed.pod_resources[0].containers[1].cpu_ids, [2, 3]);
    let all: AllocatableResourcesResponse =
        asked.call("/v1.PodResourcesLister/GetAllocatableResources", AllocatableResourcesRequest {}).await.unwrap();
    assert_eq!((all.devices, all.cpu_ids), (vec![dongle], vec![1, 2, 3]));
}

#[tokio::test]
async fn what_is_had_by_claims_is_told() {
    let claim = DynamicResource {
        claim_name: "gpu".to_owned(),
        claim_namespace: "default".to_owned(),
        claim_resources: vec![ClaimResource { driver_name: "d".to_owned(), ..ClaimResource::default() }],
    };
    let dynamic_resources = [("sidecar".to_owned(), vec![claim.clone()])].into();
    let pods = vec![with_containers("a", "Running")];
    let mut asked = Asked::serve(crate::view::shown::Shown { pods, dynamic_resources, ..healthy() }).await;
    let question = GetPodResourcesRequest { pod_name: "a".into(), pod_namespace: "default".into() };
    let found: GetPodResourcesResponse = asked.call("/v1.PodResourcesLister/Get", question).await.unwrap();
    let found = found.pod_resources.unwrap();
    let told: Vec<_> = found.containers.iter().map(|c| c.dynamic_resources.clone()).collect();
    assert_eq!(told, [vec![claim], vec![]]);
}

#[tokio::test]
async fn one_pod_is_found_by_its_name() {
    let mut asked = Asked::start(vec![with_containers("a", "Running")]).await;
    let question = |name: &str| GetPodResourcesRequest { pod_name: name.into(), pod_namespace: "default".into() };
    let found: GetPodResourcesResponse = asked.call("/v1.PodResourcesLister/Get", question("a")).await.unwrap();
    assert_eq!(found.pod_resources.unwrap().name, "a");
    let missing = asked.call::<_, GetPodResourcesResponse>("/v1.PodResourcesLister/Get", question("ü")).await;
    let status = missing.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "pod ü in namespace default not found"));
    let unknown = asked.call::<_, GetPodResourcesResponse>("/v1.PodResourcesLister/Nosuch", question("a")).await;
    assert_eq!(unknown.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn there_are_a_hundred_calls_a_second() {
    let mut calls = Calls { left: CALLS_AT_ONCE, at: Instant::now() };
    assert_eq!((0..50).filter(|_| calls.may()).count(), 10);
    tokio::time::advance(std::time::Duration::from_millis(50)).await;
    assert_eq!((0..50).filter(|_| calls.may()).count(), 5);
}
