//! A runtime that answers what it was told to answer, and notes what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use prost::Message;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri::*;
use tokio::sync::mpsc;

use crate::{Answer, EventStream, Runtime, RuntimeError};

/// What it does with a verb.
pub(super) enum Script {
    Answers(Vec<u8>),
    Fails(RuntimeError),
    /// Takes forever; tells the channel `begun`, and `dropped` when the call is.
    Never(mpsc::UnboundedSender<&'static str>),
}

#[derive(Default)]
pub(super) struct Echo {
    pub(super) scripts: Mutex<BTreeMap<&'static str, Arc<Script>>>,
    /// Of each verb the last request, encoded.
    pub(super) asked: Mutex<BTreeMap<&'static str, Vec<u8>>>,
}

/// Tells when a call is dropped.
struct Dropped(mpsc::UnboundedSender<&'static str>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

impl Echo {
    pub(super) fn will(&self, verb: &'static str, script: Script) {
        self.scripts.lock().unwrap().insert(verb, Arc::new(script));
    }

    fn ask<M: Message + Default + 'static, T: Send + 'static>(
        &self,
        verb: &'static str,
        request: impl Message,
        part: fn(M) -> T,
    ) -> Answer<'static, T> {
        self.asked.lock().unwrap().insert(verb, request.encode_to_vec());
        let script = self.scripts.lock().unwrap().get(verb).cloned();
        Box::pin(async move {
            match script.as_deref() {
                Some(Script::Answers(bytes)) => Ok(part(M::decode(bytes.as_slice()).unwrap())),
                Some(Script::Fails(error)) => Err(error.clone()),
                Some(Script::Never(told)) => {
                    let dropped = Dropped(told.clone());
                    let _ = told.send("begun");
                    std::future::pending::<()>().await;
                    drop(dropped);
                    unreachable!("it never ends")
                }
                None => Ok(part(M::default())),
            }
        })
    }
}

impl Runtime for Echo {
    fn version(&self) -> Answer<'_, VersionResponse> {
        self.ask("Version", VersionRequest { version: crate::API_VERSION.to_owned() }, |a: VersionResponse| a)
    }

    fn status(&self, verbose: bool) -> Answer<'_, StatusResponse> {
        self.ask("Status", StatusRequest { verbose }, |a: StatusResponse| a)
    }

    fn runtime_config(&self) -> Answer<'_, RuntimeConfigResponse> {
        self.ask("RuntimeConfig", RuntimeConfigRequest {}, |a: RuntimeConfigResponse| a)
    }

    fn update_runtime_config(&self, config: RuntimeConfig) -> Answer<'_, ()> {
        self.ask(
            "UpdateRuntimeConfig",
            UpdateRuntimeConfigRequest { runtime_config: Some(config) },
            |_: UpdateRuntimeConfigResponse| (),
        )
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Answer<'_, SandboxId> {
        self.ask(
            "RunPodSandbox",
            RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() },
            |a: RunPodSandboxResponse| a.pod_sandbox_id.into(),
        )
    }

    fn stop_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        self.ask(
            "StopPodSandbox",
            StopPodSandboxRequest { pod_sandbox_id: id.to_string() },
            |_: StopPodSandboxResponse| (),
        )
    }

    fn remove_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        self.ask(
            "RemovePodSandbox",
            RemovePodSandboxRequest { pod_sandbox_id: id.to_string() },
            |_: RemovePodSandboxResponse| (),
        )
    }

    fn pod_sandbox_status(&self, id: &SandboxId, verbose: bool) -> Answer<'_, PodSandboxStatusResponse> {
        self.ask(
            "PodSandboxStatus",
            PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose },
            |a: PodSandboxStatusResponse| a,
        )
    }

    fn list_pod_sandbox(&self, filter: Option<PodSandboxFilter>) -> Answer<'_, Vec<PodSandbox>> {
        self.ask("ListPodSandbox", ListPodSandboxRequest { filter }, |a: ListPodSandboxResponse| a.items)
    }

    fn update_pod_sandbox_resources(&self, request: UpdatePodSandboxResourcesRequest) -> Answer<'_, ()> {
        self.ask("UpdatePodSandboxResources", request, |_: UpdatePodSandboxResourcesResponse| ())
    }

    fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
        pod: PodSandboxConfig,
    ) -> Answer<'_, ContainerId> {
        self.ask(
            "CreateContainer",
            CreateContainerRequest {
                pod_sandbox_id: sandbox.to_string(),
                config: Some(config),
                sandbox_config: Some(pod),
            },
            |a: CreateContainerResponse| a.container_id.into(),
        )
    }

    fn start_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        self.ask(
            "StartContainer",
            StartContainerRequest { container_id: id.to_string() },
            |_: StartContainerResponse| (),
        )
    }

    fn stop_container(&self, id: &ContainerId, grace_secs: i64) -> Answer<'_, ()> {
        self.ask(
            "StopContainer",
            StopContainerRequest { container_id: id.to_string(), timeout: grace_secs },
            |_: StopContainerResponse| (),
        )
    }

    fn remove_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        self.ask(
            "RemoveContainer",
            RemoveContainerRequest { container_id: id.to_string() },
            |_: RemoveContainerResponse| (),
        )
    }

    fn list_containers(&self, filter: Option<ContainerFilter>) -> Answer<'_, Vec<Container>> {
        self.ask("ListContainers", ListContainersRequest { filter }, |a: ListContainersResponse| a.containers)
    }

    fn container_status(&self, id: &ContainerId, verbose: bool) -> Answer<'_, ContainerStatusResponse> {
        self.ask(
            "ContainerStatus",
            ContainerStatusRequest { container_id: id.to_string(), verbose },
            |a: ContainerStatusResponse| a,
        )
    }

    fn update_container_resources(&self, request: UpdateContainerResourcesRequest) -> Answer<'_, ()> {
        self.ask("UpdateContainerResources", request, |_: UpdateContainerResourcesResponse| ())
    }

    fn reopen_container_log(&self, id: &ContainerId) -> Answer<'_, ()> {
        self.ask(
            "ReopenContainerLog",
            ReopenContainerLogRequest { container_id: id.to_string() },
            |_: ReopenContainerLogResponse| (),
        )
    }

    fn checkpoint_container(&self, request: CheckpointContainerRequest) -> Answer<'_, ()> {
        self.ask("CheckpointContainer", request, |_: CheckpointContainerResponse| ())
    }

    fn exec_sync(&self, id: &ContainerId, cmd: Vec<String>, timeout: Duration) -> Answer<'_, ExecSyncResponse> {
        self.ask(
            "ExecSync",
            ExecSyncRequest { container_id: id.to_string(), cmd, timeout: i64::try_from(timeout.as_secs()).unwrap() },
            |a: ExecSyncResponse| a,
        )
    }

    fn exec(&self, request: ExecRequest) -> Answer<'_, String> {
        self.ask("Exec", request, |a: ExecResponse| a.url)
    }

    fn attach(&self, request: AttachRequest) -> Answer<'_, String> {
        self.ask("Attach", request, |a: AttachResponse| a.url)
    }

    fn port_forward(&self, request: PortForwardRequest) -> Answer<'_, String> {
        self.ask("PortForward", request, |a: PortForwardResponse| a.url)
    }

    fn container_stats(&self, id: &ContainerId) -> Answer<'_, Option<ContainerStats>> {
        self.ask(
            "ContainerStats",
            ContainerStatsRequest { container_id: id.to_string() },
            |a: ContainerStatsResponse| a.stats,
        )
    }

    fn list_container_stats(&self, filter: Option<ContainerStatsFilter>) -> Answer<'_, Vec<ContainerStats>> {
        self.ask("ListContainerStats", ListContainerStatsRequest { filter }, |a: ListContainerStatsResponse| a.stats)
    }

    fn pod_sandbox_stats(&self, id: &SandboxId) -> Answer<'_, Option<PodSandboxStats>> {
        self.ask(
            "PodSandboxStats",
            PodSandboxStatsRequest { pod_sandbox_id: id.to_string() },
            |a: PodSandboxStatsResponse| a.stats,
        )
    }

    fn list_pod_sandbox_stats(&self, filter: Option<PodSandboxStatsFilter>) -> Answer<'_, Vec<PodSandboxStats>> {
        self.ask("ListPodSandboxStats", ListPodSandboxStatsRequest { filter }, |a: ListPodSandboxStatsResponse| a.stats)
    }

    fn list_metric_descriptors(&self) -> Answer<'_, Vec<MetricDescriptor>> {
        self.ask("ListMetricDescriptors", ListMetricDescriptorsRequest {}, |a: ListMetricDescriptorsResponse| {
            a.descriptors
        })
    }

    fn list_pod_sandbox_metrics(&self) -> Answer<'_, Vec<PodSandboxMetrics>> {
        self.ask("ListPodSandboxMetrics", ListPodSandboxMetricsRequest {}, |a: ListPodSandboxMetricsResponse| {
            a.pod_metrics
        })
    }

    fn list_images(&self, filter: Option<ImageFilter>) -> Answer<'_, Vec<Image>> {
        self.ask("ListImages", ListImagesRequest { filter }, |a: ListImagesResponse| a.images)
    }

    fn image_status(&self, image: ImageSpec, verbose: bool) -> Answer<'_, ImageStatusResponse> {
        self.ask("ImageStatus", ImageStatusRequest { image: Some(image), verbose }, |a: ImageStatusResponse| a)
    }

    fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Answer<'_, String> {
        self.ask("PullImage", PullImageRequest { image: Some(image), auth, sandbox_config }, |a: PullImageResponse| {
            a.image_ref
        })
    }

    fn remove_image(&self, image: ImageSpec) -> Answer<'_, ()> {
        self.ask("RemoveImage", RemoveImageRequest { image: Some(image) }, |_: RemoveImageResponse| ())
    }

    fn image_fs_info(&self) -> Answer<'_, ImageFsInfoResponse> {
        self.ask("ImageFsInfo", ImageFsInfoRequest {}, |a: ImageFsInfoResponse| a)
    }

    fn container_events(&self) -> EventStream {
        let script = self.scripts.lock().unwrap().get("GetContainerEvents").cloned();
        match script.as_deref() {
            Some(Script::Answers(bytes)) => {
                let event = ContainerEventResponse::decode(bytes.as_slice()).unwrap();
                Box::pin(stream::iter([Ok(event.clone()), Ok(event)]))
            }
            Some(Script::Fails(error)) => Box::pin(stream::iter([Err(error.clone())])),
            Some(Script::Never(told)) => {
                let (dropped, told) = (Dropped(told.clone()), told.clone());
                let first = stream::once(async move {
                    let _ = told.send("begun");
                    Ok(ContainerEventResponse::default())
                });
                let rest = stream::once(async move {
                    std::future::pending::<()>().await;
                    drop(dropped);
                    Ok(ContainerEventResponse::default())
                });
                first.chain(rest).boxed()
            }
            None => Box::pin(stream::empty()),
        }
    }
}
