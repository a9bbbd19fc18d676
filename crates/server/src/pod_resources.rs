//! The socket `pod-resources/kubelet.sock`: which devices, CPUs and memory each container has, over gRPC (v1, and v1alpha1
//! as far as that goes). Only root reaches it.
//!
//! Devices are those of plugins, and what is had by resource claims. There is nothing yet that gives containers CPUs or memory of their own, so these lists are empty,
//! as upstream's are with its default policies.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rubelet_api::v1;
use rubelet_cri::AnyAuthority;
use rubelet_proto::podresources::{
    ContainerResources, GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesResponse, PodResources,
};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::View;
use frames::{Answer, Status};

mod frames;
#[cfg(test)]
mod tests;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// kubelet 1.36: calls each second, and how many at once.
const CALLS_PER_SEC: f64 = 100.0;
const CALLS_AT_ONCE: f64 = 10.0;

/// Binds the socket, in place of one that was left behind.
///
/// # Errors
/// The system's.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}

/// Answers, for ever.
pub(crate) async fn serve(listener: UnixListener, view: Arc<dyn View>) {
    let asked = Arc::new(Lister { view, calls: Mutex::new(Calls { left: CALLS_AT_ONCE, at: Instant::now() }) });
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let asked = asked.clone();
                let service = hyper::service::service_fn(move |request| {
                    let asked = asked.clone();
                    async move { Ok::<_, Infallible>(frames::response(asked.answer(request).await)) }
                });
                let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                http.max_concurrent_streams(CONNECTIONS_MAX as u32).max_header_list_size(16 << 10);
                connections.spawn(async move {
                    // How a connection ended is the client's affair.
                    let _ = http.serve_connection(TokioIo::new(AnyAuthority::new(stream)), service).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection to the podresources socket");
                tokio::time::sleep(crate::listen::ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

struct Lister {
    view: Arc<dyn View>,
    calls: Mutex<Calls>,
}

/// How many more calls there may be.
struct Calls {
    left: f64,
    at: Instant,
}

impl Calls {
    fn may(&mut self) -> bool {
        let now = Instant::now();
        let more = (now - self.at).as_secs_f64() * CALLS_PER_SEC;
        (self.left, self.at) = ((self.left + more).min(CALLS_AT_ONCE), now);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

impl Lister {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        if !self.calls.lock().unwrap_or_else(PoisonError::into_inner).may() {
            return Err(Status::exhausted("rejected by rate limit"));
        }
        let answer = match path.as_str() {
            "/v1.PodResourcesLister/List" | "/v1alpha1.PodResourcesLister/List" => Ok(frames::encode(&self.list())),
            "/v1.PodResourcesLister/GetAllocatableResources" => Ok(frames::encode(&self.view.allocatable())),
            "/v1.PodResourcesLister/Get" => {
                let found = frames::message(request).await.and_then(|asked| self.get(asked));
                found.map(|found| frames::encode(&found))
            }
            path => Err(Status::unimplemented(format!("unknown method {path}"))),
        };
        self.view.http().pod_resources.called(&path, answer.is_ok());
        answer
    }

    /// kubelet 1.36: of the pods that have not ended.
    fn list(&self) -> ListPodResourcesResponse {
        let pods = self.view.pods();
        let has_ended = |pod: &v1::Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        ListPodResourcesResponse {
            pod_resources: pods.iter().filter(|pod| !has_ended(pod)).map(|pod| self.resources(pod)).collect(),
        }
    }

    fn get(&self, asked: GetPodResourcesRequest) -> Result<GetPodResourcesResponse, Status> {
        let pods = self.view.pods();
        let is_it = |pod: &&Arc<v1::Pod>| {
            pod.metadata.name.as_ref() == Some(&asked.pod_name)
                && pod.metadata.namespace.as_ref() == Some(&asked.pod_namespace)
        };
        let found = pods.iter().find(is_it).map(|pod| self.resources(pod));
        match found {
            Some(found) => Ok(GetPodResourcesResponse { pod_resources: Some(found) }),
            None => {
                let GetPodResourcesRequest { pod_name, pod_namespace } = asked;
                Err(Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found")))
            }
        }
    }

    /// kubelet 1.36: sidecars first, then the containers; init containers that end have nothing of their own.
    fn resources(&self, pod: &v1::Pod) -> PodResources {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let containers = pod.spec.iter().flat_map(|spec| {
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            sidecars.chain(&spec.containers)
        });
        PodResources {
            name: pod.metadata.name.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            containers: containers
                .map(|container| ContainerResources {
                    name: container.name.clone(),
                    dynamic_resources: self.view.dynamic_resources(pod, container),
                    ..self.view.allocated(uid, &container.name)
                })
                .collect(),
        }
    }
}
