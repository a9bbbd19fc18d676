//! The verbs: which of the contract's methods each is, what of its request the method takes, what its answer becomes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri::*;
use tonic::Status;

use super::call::status;
use crate::remote::{IMAGE, RUNTIME};
use crate::{Answer, EventStream, Runtime};

/// A list that comes in pieces: about so many bytes in each.
const PIECE_BYTES: usize = 1 << 20;

/// What a verb answers.
pub(super) enum Reply {
    One(Bytes),
    /// A list in pieces: none when it is empty.
    Pieces(Vec<Bytes>),
    Events(EventStream),
}

/// Carries out the verb that `path` names.
pub(super) async fn carry_out(runtime: &dyn Runtime, path: &str, body: Bytes) -> Result<Reply, Status> {
    if let Some(verb) = path.strip_prefix(IMAGE) {
        return image(runtime, verb, body).await;
    }
    let Some(verb) = path.strip_prefix(RUNTIME) else {
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        return Err(Status::unimplemented(format!("unknown service {service}")));
    };
    match verb {
        "GetContainerEvents" => Ok(Reply::Events(runtime.container_events())),
        _ if verb.contains("Stats") || verb.contains("Metric") => usage(runtime, verb, body).await,
        _ if verb.contains("PodSandbox") => sandbox(runtime, verb, body).await,
        _ if verb.contains("Container") => container(runtime, verb, body).await,
        _ => other(runtime, verb, body).await,
    }
}

fn unknown(verb: &str, service: &str) -> Status {
    Status::unimplemented(format!("unknown method {verb} for service {}", service.trim_matches('/')))
}

fn read<M: Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// A request that lacks what it is about.
fn required<T>(part: Option<T>, what: &str) -> Result<T, Status> {
    part.ok_or_else(|| Status::invalid_argument(format!("{what} is not set")))
}

async fn one<T, M: Message>(answer: Answer<'_, T>, render: impl FnOnce(T) -> M) -> Result<Reply, Status> {
    match answer.await {
        Ok(value) => Ok(Reply::One(render(value).encode_to_vec().into())),
        Err(error) => Err(status(&error)),
    }
}

async fn pieces<T: Message, M: Message>(
    answer: Answer<'_, Vec<T>>,
    render: impl Fn(Vec<T>) -> M,
) -> Result<Reply, Status> {
    let items = answer.await.map_err(|error| status(&error))?;
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for item in items {
        bytes += item.encoded_len();
        piece.push(item);
        if bytes >= PIECE_BYTES {
            pieces.push(render(std::mem::take(&mut piece)).encode_to_vec().into());
            bytes = 0;
        }
    }
    if !piece.is_empty() {
        pieces.push(render(piece).encode_to_vec().into());
    }
    Ok(Reply::Pieces(pieces))
}

async fn other(runtime: &dyn Runtime, verb: &str, body: Bytes) -> Result<Reply, Status> {
    match verb {
        "Version" => one(runtime.version(), |answer| answer).await,
        "Status" => one(runtime.status(read::<StatusRequest>(body)?.verbose), |answer| answer).await,
        "RuntimeConfig" => one(runtime.runtime_config(), |answer| answer).await,
        "UpdateRuntimeConfig" => {
            let config = read::<UpdateRuntimeConfigRequest>(body)?.runtime_config.unwrap_or_default();
            one(runtime.update_runtime_config(config), |()| UpdateRuntimeConfigResponse {}).await
        }
        "ExecSync" => {
            let request: ExecSyncRequest = read(body)?;
            let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
            one(runtime.exec_sync(&request.container_id.into(), request.cmd, timeout), |answer| answer).await
        }
        "Exec" => one(runtime.exec(read(body)?), |url| ExecResponse { url }).await,
        "Attach" => one(runtime.attach(read(body)?), |url| AttachResponse { url }).await,
        "PortForward" => one(runtime.port_forward(read(body)?), |url| PortForwardResponse { url }).await,
        verb => Err(unknown(verb, RUNTIME)),
    }
}

async fn sandbox(runtime: &dyn Runtime, verb: &str, body: Bytes) -> Result<Reply, Status> {
    match verb {
        "RunPodSandbox" => {
            let request: RunPodSandboxRequest = read(body)?;
            let config = required(request.config, "config")?;
            let answer = runtime.run_pod_sandbox(config, &request.runtime_handler);
            one(answer, |id| RunPodSandboxResponse { pod_sandbox_id: id.to_string() }).await
        }
        "StopPodSandbox" => {
            let id = SandboxId::from(read::<StopPodSandboxRequest>(body)?.pod_sandbox_id);
            one(runtime.stop_pod_sandbox(&id), |()| StopPodSandboxResponse {}).await
        }
        "RemovePodSandbox" => {
            let id = SandboxId::from(read::<RemovePodSandboxRequest>(body)?.pod_sandbox_id);
            one(runtime.remove_pod_sandbox(&id), |()| RemovePodSandboxResponse {}).await
        }
        "PodSandboxStatus" => {
            let request: PodSandboxStatusRequest = read(body)?;
            one(runtime.pod_sandbox_status(&request.pod_sandbox_id.into(), request.verbose), |answer| answer).await
        }
        "ListPodSandbox" => {
            let filter = read::<ListPodSandboxRequest>(body)?.filter;
            one(runtime.list_pod_sandbox(filter), |items| ListPodSandboxResponse { items }).await
        }
        "StreamPodSandboxes" => {
            let filter = read::<StreamPodSandboxesRequest>(body)?.filter;
            let render = |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes };
            pieces(runtime.list_pod_sandbox(filter), render).await
        }
        "UpdatePodSandboxResources" => {
            let answer = runtime.update_pod_sandbox_resources(read(body)?);
            one(answer, |()| UpdatePodSandboxResourcesResponse {}).await
        }
        verb => Err(unknown(verb, RUNTIME)),
    }
}

async fn container(runtime: &dyn Runtime, verb: &str, body: Bytes) -> Result<Reply, Status> {
    match verb {
        "CreateContainer" => {
            let request: CreateContainerRequest = read(body)?;
            let config = required(request.config, "config")?;
            // It is the sandbox's own once more; a runtime knows that already.
            let pod = request.sandbox_config.unwrap_or_default();
            let answer = runtime.create_container(&request.pod_sandbox_id.into(), config, pod);
            one(answer, |id| CreateContainerResponse { container_id: id.to_string() }).await
        }
        "StartContainer" => {
            let id = ContainerId::from(read::<StartContainerRequest>(body)?.container_id);
            one(runtime.start_container(&id), |()| StartContainerResponse {}).await
        }
        "StopContainer" => {
            let request: StopContainerRequest = read(body)?;
            let answer = runtime.stop_container(&request.container_id.into(), request.timeout);
            one(answer, |()| StopContainerResponse {}).await
        }
        "RemoveContainer" => {
            let id = ContainerId::from(read::<RemoveContainerRequest>(body)?.container_id);
            one(runtime.remove_container(&id), |()| RemoveContainerResponse {}).await
        }
        "ListContainers" => {
            let filter = read::<ListContainersRequest>(body)?.filter;
            one(runtime.list_containers(filter), |containers| ListContainersResponse { containers }).await
        }
        "StreamContainers" => {
            let filter = read::<StreamContainersRequest>(body)?.filter;
            pieces(runtime.list_containers(filter), |containers| StreamContainersResponse { containers }).await
        }
        "ContainerStatus" => {
            let request: ContainerStatusRequest = read(body)?;
            one(runtime.container_status(&request.container_id.into(), request.verbose), |answer| answer).await
        }
        "UpdateContainerResources" => {
            let answer = runtime.update_container_resources(read(body)?);
            one(answer, |()| UpdateContainerResourcesResponse {}).await
        }
        "ReopenContainerLog" => {
            let id = ContainerId::from(read::<ReopenContainerLogRequest>(body)?.container_id);
            one(runtime.reopen_container_log(&id), |()| ReopenContainerLogResponse {}).await
        }
        "CheckpointContainer" => {
            one(runtime.checkpoint_container(read(body)?), |()| CheckpointContainerResponse {}).await
        }
        verb => Err(unknown(verb, RUNTIME)),
    }
}

async fn usage(runtime: &dyn Runtime, verb: &str, body: Bytes) -> Result<Reply, Status> {
    match verb {
        "ContainerStats" => {
            let id = ContainerId::from(read::<ContainerStatsRequest>(body)?.container_id);
            one(runtime.container_stats(&id), |stats| ContainerStatsResponse { stats }).await
        }
        "ListContainerStats" => {
            let filter = read::<ListContainerStatsRequest>(body)?.filter;
            one(runtime.list_container_stats(filter), |stats| ListContainerStatsResponse { stats }).await
        }
        "StreamContainerStats" => {
            let filter = read::<StreamContainerStatsRequest>(body)?.filter;
            let render = |container_stats| StreamContainerStatsResponse { container_stats };
            pieces(runtime.list_container_stats(filter), render).await
        }
        "PodSandboxStats" => {
            let id = SandboxId::from(read::<PodSandboxStatsRequest>(body)?.pod_sandbox_id);
            one(runtime.pod_sandbox_stats(&id), |stats| PodSandboxStatsResponse { stats }).await
        }
        "ListPodSandboxStats" => {
            let filter = read::<ListPodSandboxStatsRequest>(body)?.filter;
            one(runtime.list_pod_sandbox_stats(filter), |stats| ListPodSandboxStatsResponse { stats }).await
        }
        "StreamPodSandboxStats" => {
            let filter = read::<StreamPodSandboxStatsRequest>(body)?.filter;
            let render = |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats };
            pieces(runtime.list_pod_sandbox_stats(filter), render).await
        }
        "ListMetricDescriptors" => {
            let render = |descriptors| ListMetricDescriptorsResponse { descriptors };
            one(runtime.list_metric_descriptors(), render).await
        }
        "ListPodSandboxMetrics" => {
            let render = |pod_metrics| ListPodSandboxMetricsResponse { pod_metrics };
            one(runtime.list_pod_sandbox_metrics(), render).await
        }
        "StreamPodSandboxMetrics" => {
            let render = |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
            pieces(runtime.list_pod_sandbox_metrics(), render).await
        }
        verb => Err(unknown(verb, RUNTIME)),
    }
}

async fn image(runtime: &dyn Runtime, verb: &str, body: Bytes) -> Result<Reply, Status> {
    match verb {
        "ListImages" => {
            let filter = read::<ListImagesRequest>(body)?.filter;
            one(runtime.list_images(filter), |images| ListImagesResponse { images }).await
        }
        "StreamImages" => {
            let filter = read::<StreamImagesRequest>(body)?.filter;
            pieces(runtime.list_images(filter), |images| StreamImagesResponse { images }).await
        }
        "ImageStatus" => {
            let request: ImageStatusRequest = read(body)?;
            let image = required(request.image, "image")?;
            one(runtime.image_status(image, request.verbose), |answer| answer).await
        }
        "PullImage" => {
            let request: PullImageRequest = read(body)?;
            let image = required(request.image, "image")?;
            let answer = runtime.pull_image(image, request.auth, request.sandbox_config);
            one(answer, |image_ref| PullImageResponse { image_ref }).await
        }
        "RemoveImage" => {
            let image = required(read::<RemoveImageRequest>(body)?.image, "image")?;
            one(runtime.remove_image(image), |()| RemoveImageResponse {}).await
        }
        "ImageFsInfo" => one(runtime.image_fs_info(), |answer| answer).await,
        verb => Err(unknown(verb, IMAGE)),
    }
}
