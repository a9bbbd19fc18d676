//! The verbs: which request each makes, and what is checked of its answer.

use super::*;

impl Runtime for Remote {
    fn version(&self) -> Answer<'_, cri::VersionResponse> {
        let request = cri::VersionRequest { version: crate::API_VERSION.to_owned() };
        Box::pin(self.ask(RUNTIME, "Version", request.encode_to_vec()))
    }

    fn status(&self, verbose: bool) -> Answer<'_, cri::StatusResponse> {
        let answer = self.ask::<cri::StatusResponse>(RUNTIME, "Status", cri::StatusRequest { verbose }.encode_to_vec());
        Box::pin(async move {
            let answer = answer.await?;
            // kubelet 1.36: both conditions must be told.
            match &answer.status {
                Some(status) if status.conditions.len() >= 2 => Ok(answer),
                Some(_) | None => Err(broken("Status", "RuntimeReady or NetworkReady condition are not set")),
            }
        })
    }

    fn runtime_config(&self) -> Answer<'_, cri::RuntimeConfigResponse> {
        Box::pin(self.ask(RUNTIME, "RuntimeConfig", cri::RuntimeConfigRequest {}.encode_to_vec()))
    }

    fn update_runtime_config(&self, config: cri::RuntimeConfig) -> Answer<'_, ()> {
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        let answer =
            self.ask::<cri::UpdateRuntimeConfigResponse>(RUNTIME, "UpdateRuntimeConfig", request.encode_to_vec());
        Box::pin(async move { answer.await.map(drop) })
    }

    fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, runtime_handler: &str) -> Answer<'_, SandboxId> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        let verb = "RunPodSandbox";
        let deadline = Some(self.timeout.saturating_mul(2));
        let answer = self.ask_within::<cri::RunPodSandboxResponse>(deadline, RUNTIME, verb, request.encode_to_vec());
        Box::pin(async move {
            let id = answer.await?.pod_sandbox_id;
            if id.is_empty() { Err(broken(verb, "PodSandboxId is not set")) } else { Ok(SandboxId::from(id)) }
        })
    }

    fn stop_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        let answer = self.ask::<cri::StopPodSandboxResponse>(RUNTIME, "StopPodSandbox", request.encode_to_vec());
        Box::pin(async move { gone(answer.await.map(drop)) })
    }

    fn remove_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        let answer = self.ask::<cri::RemovePodSandboxResponse>(RUNTIME, "RemovePodSandbox", request.encode_to_vec());
        Box::pin(async move { gone(answer.await.map(drop)) })
    }

    fn pod_sandbox_status(&self, id: &SandboxId, verbose: bool) -> Answer<'_, cri::PodSandboxStatusResponse> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose };
        Box::pin(self.ask(RUNTIME, "PodSandboxStatus", request.encode_to_vec()))
    }

    fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Answer<'_, Vec<cri::PodSandbox>> {
        let request = cri::ListPodSandboxRequest { filter };
        let answer = self.ask::<cri::ListPodSandboxResponse>(RUNTIME, "ListPodSandbox", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.items) })
    }

    fn update_pod_sandbox_resources(&self, request: cri::UpdatePodSandboxResourcesRequest) -> Answer<'_, ()> {
        let verb = "UpdatePodSandboxResources";
        let answer = self.ask::<cri::UpdatePodSandboxResourcesResponse>(RUNTIME, verb, request.encode_to_vec());
        Box::pin(async move { answer.await.map(drop) })
    }

    fn create_container(
        &self,
        sandbox: &SandboxId,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Answer<'_, ContainerId> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_string(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let answer = self.ask::<cri::CreateContainerResponse>(RUNTIME, "CreateContainer", request.encode_to_vec());
        Box::pin(async move {
            let id = answer.await?.container_id;
            if id.is_empty() {
                Err(broken("CreateContainer", "ContainerId is not set"))
            } else {
                Ok(ContainerId::from(id))
            }
        })
    }

    fn start_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        let request = cri::StartContainerRequest { container_id: id.to_string() };
        let answer = self.ask::<cri::StartContainerResponse>(RUNTIME, "StartContainer", request.encode_to_vec());
        Box::pin(async move { answer.await.map(drop) })
    }

    fn stop_container(&self, id: &ContainerId, grace_secs: i64) -> Answer<'_, ()> {
        let request = cri::StopContainerRequest { container_id: id.to_string(), timeout: grace_secs };
        let grace = Duration::from_secs(u64::try_from(grace_secs).unwrap_or(0));
        let deadline = Some(self.timeout.saturating_add(grace));
        let body = request.encode_to_vec();
        let answer = self.ask_within::<cri::StopContainerResponse>(deadline, RUNTIME, "StopContainer", body);
        Box::pin(async move { gone(answer.await.map(drop)) })
    }

    fn remove_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        let request = cri::RemoveContainerRequest { container_id: id.to_string() };
        let answer = self.ask::<cri::RemoveContainerResponse>(RUNTIME, "RemoveContainer", request.encode_to_vec());
        Box::pin(async move { gone(answer.await.map(drop)) })
    }

    fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Answer<'_, Vec<cri::Container>> {
        let request = cri::ListContainersRequest { filter };
        let answer = self.ask::<cri::ListContainersResponse>(RUNTIME, "ListContainers", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.containers) })
    }

    fn container_status(&self, id: &ContainerId, verbose: bool) -> Answer<'_, cri::ContainerStatusResponse> {
        let request = cri::ContainerStatusRequest { container_id: id.to_string(), verbose };
        Box::pin(self.ask(RUNTIME, "ContainerStatus", request.encode_to_vec()))
    }

    fn update_container_resources(&self, request: cri::UpdateContainerResourcesRequest) -> Answer<'_, ()> {
        let verb = "UpdateContainerResources";
        let answer = self.ask::<cri::UpdateContainerResourcesResponse>(RUNTIME, verb, request.encode_to_vec());
        Box::pin(async move { answer.await.map(drop) })
    }

    fn reopen_container_log(&self, id: &ContainerId) -> Answer<'_, ()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_string() };
        let answer =
            self.ask::<cri::ReopenContainerLogResponse>(RUNTIME, "ReopenContainerLog", request.encode_to_vec());
        Box::pin(async move { answer.await.map(drop) })
    }

    fn checkpoint_container(&self, mut request: cri::CheckpointContainerRequest) -> Answer<'_, ()> {
        // kubelet 1.36: the longer of the request's own and the common timeout is asked for and waited.
        let own = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        let deadline = own.max(self.timeout);
        request.timeout = i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX);
        let (verb, body) = ("CheckpointContainer", request.encode_to_vec());
        let answer = self.ask_within::<cri::CheckpointContainerResponse>(Some(deadline), RUNTIME, verb, body);
        Box::pin(async move { answer.await.map(drop) })
    }

    fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
    ) -> Answer<'_, cri::ExecSyncResponse> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_string(),
            cmd: command,
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        let deadline = (!timeout.is_zero()).then(|| self.timeout.saturating_add(timeout));
        let answer = self.ask_within(deadline, RUNTIME, "ExecSync", request.encode_to_vec());
        Box::pin(async move {
            answer.await.map_err(|error: RuntimeError| {
                if error.is_deadline_exceeded() {
                    RuntimeError::CommandTimedOut { command: request.cmd.join(" "), timeout }
                } else {
                    error
                }
            })
        })
    }

    fn exec(&self, request: cri::ExecRequest) -> Answer<'_, String> {
        let answer = self.ask::<cri::ExecResponse>(RUNTIME, "Exec", request.encode_to_vec());
        Box::pin(async move { url("Exec", answer.await?.url) })
    }

    fn attach(&self, request: cri::AttachRequest) -> Answer<'_, String> {
        let answer = self.ask::<cri::AttachResponse>(RUNTIME, "Attach", request.encode_to_vec());
        Box::pin(async move { url("Attach", answer.await?.url) })
    }

    fn port_forward(&self, request: cri::PortForwardRequest) -> Answer<'_, String> {
        let answer = self.ask::<cri::PortForwardResponse>(RUNTIME, "PortForward", request.encode_to_vec());
        Box::pin(async move { url("PortForward", answer.await?.url) })
    }

    fn container_stats(&self, id: &ContainerId) -> Answer<'_, Option<cri::ContainerStats>> {
        let request = cri::ContainerStatsRequest { container_id: id.to_string() };
        let answer = self.ask::<cri::ContainerStatsResponse>(RUNTIME, "ContainerStats", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.stats) })
    }

    fn list_container_stats(&self, filter: Option<cri::ContainerStatsFilter>) -> Answer<'_, Vec<cri::ContainerStats>> {
        let request = cri::ListContainerStatsRequest { filter };
        let answer =
            self.ask::<cri::ListContainerStatsResponse>(RUNTIME, "ListContainerStats", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.stats) })
    }

    fn pod_sandbox_stats(&self, id: &SandboxId) -> Answer<'_, Option<cri::PodSandboxStats>> {
        let request = cri::PodSandboxStatsRequest { pod_sandbox_id: id.to_string() };
        let answer = self.ask::<cri::PodSandboxStatsResponse>(RUNTIME, "PodSandboxStats", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.stats) })
    }

    fn list_pod_sandbox_stats(
        &self,
        filter: Option<cri::PodSandboxStatsFilter>,
    ) -> Answer<'_, Vec<cri::PodSandboxStats>> {
        let request = cri::ListPodSandboxStatsRequest { filter };
        let answer =
            self.ask::<cri::ListPodSandboxStatsResponse>(RUNTIME, "ListPodSandboxStats", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.stats) })
    }

    fn list_metric_descriptors(&self) -> Answer<'_, Vec<cri::MetricDescriptor>> {
        let request = cri::ListMetricDescriptorsRequest {};
        let answer =
            self.ask::<cri::ListMetricDescriptorsResponse>(RUNTIME, "ListMetricDescriptors", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.descriptors) })
    }

    fn list_pod_sandbox_metrics(&self) -> Answer<'_, Vec<cri::PodSandboxMetrics>> {
        let request = cri::ListPodSandboxMetricsRequest {};
        let answer =
            self.ask::<cri::ListPodSandboxMetricsResponse>(RUNTIME, "ListPodSandboxMetrics", request.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.pod_metrics) })
    }

    fn container_events(&self) -> EventStream {
        // Runtimes answer the call itself with the first event only: the call is part of the stream.
        Box::pin(futures_util::stream::once(events(self.runtime.clone())).try_flatten())
    }

    fn list_images(&self, filter: Option<cri::ImageFilter>) -> Answer<'_, Vec<cri::Image>> {
        let answer =
            self.ask::<cri::ListImagesResponse>(IMAGE, "ListImages", cri::ListImagesRequest { filter }.encode_to_vec());
        Box::pin(async move { Ok(answer.await?.images) })
    }

    fn image_status(&self, image: cri::ImageSpec, verbose: bool) -> Answer<'_, cri::ImageStatusResponse> {
        let request = cri::ImageStatusRequest { image: Some(image), verbose };
        let answer = self.ask::<cri::ImageStatusResponse>(IMAGE, "ImageStatus", request.encode_to_vec());
        Box::pin(async move {
            let answer = answer.await?;
            match &answer.image {
                Some(found) if found.id.is_empty() || found.size == 0 => {
                    let name = request.image.map(|spec| spec.image).unwrap_or_default();
                    Err(broken("ImageStatus", format!("Id or size of image {name:?} is not set")))
                }
                Some(_) | None => Ok(answer),
            }
        })
    }

    fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Answer<'_, String> {
        let name = image.image.clone();
        let request = cri::PullImageRequest { image: Some(image), auth, sandbox_config };
        let answer = self.ask_within::<cri::PullImageResponse>(None, IMAGE, "PullImage", request.encode_to_vec());
        Box::pin(async move {
            let reference = answer.await.map_err(without_unknown)?.image_ref;
            if reference.is_empty() {
                return Err(broken("PullImage", format!("imageRef of image {name:?} is not set")));
            }
            Ok(reference)
        })
    }

    fn remove_image(&self, image: cri::ImageSpec) -> Answer<'_, ()> {
        let request = cri::RemoveImageRequest { image: Some(image) };
        let answer = self.ask::<cri::RemoveImageResponse>(IMAGE, "RemoveImage", request.encode_to_vec());
        Box::pin(async move { gone(answer.await.map(drop)) })
    }

    fn image_fs_info(&self) -> Answer<'_, cri::ImageFsInfoResponse> {
        Box::pin(self.ask(IMAGE, "ImageFsInfo", cri::ImageFsInfoRequest {}.encode_to_vec()))
    }
}

/// What is not there needs no stopping or removing. Runtimes differ in whether they say so.
fn gone(outcome: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome,
    }
}

fn url(verb: &'static str, url: String) -> Result<String, RuntimeError> {
    if url.is_empty() { Err(broken(verb, "URL is not set")) } else { Ok(url) }
}

/// A pull that failed for a reason without a code is shown without one, so that reasons such as
/// `RegistryUnavailable` are found at the text's start (kubelet 1.36: the same).
fn without_unknown(error: RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::Rpc { verb, code: Code::Unknown, message } => RuntimeError::Plain { verb, message },
        error @ (RuntimeError::Rpc { .. } | RuntimeError::Plain { .. } | RuntimeError::CommandTimedOut { .. }) => error,
    }
}
