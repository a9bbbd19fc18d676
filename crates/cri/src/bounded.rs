//! A runtime whose calls end in time, whatever is behind it: no answer is an answer, too.
//!
//! [`Remote`](crate::Remote) keeps these deadlines by itself; a runtime in this process has them from here. A call that is
//! out of time is dropped; whether it had an effect must be looked at, as with a socket. All calls pass here: they are counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri;

use crate::{Answer, Code, EventStream, Runtime, RuntimeCounts, RuntimeError};

/// Holds every verb of a runtime to kubelet 1.36's deadlines.
pub struct Bounded {
    inner: Arc<dyn Runtime>,
    timeout: Duration,
    counts: Arc<RuntimeCounts>,
}

impl Bounded {
    /// `timeout`: `runtimeRequestTimeout`.
    pub fn new(inner: Arc<dyn Runtime>, timeout: Duration, counts: Arc<RuntimeCounts>) -> Self {
        Self { inner, timeout, counts }
    }

    fn soon<'a, T: Send + 'a>(&'a self, verb: &'static str, answer: Answer<'a, T>) -> Answer<'a, T> {
        self.within(self.timeout, verb, answer)
    }

    fn within<'a, T: Send + 'a>(&'a self, limit: Duration, verb: &'static str, answer: Answer<'a, T>) -> Answer<'a, T> {
        let out_of_time = move || RuntimeError::Rpc {
            verb,
            code: Code::DeadlineExceeded,
            message: "context deadline exceeded".to_owned(),
        };
        let answer = async move { tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(out_of_time())) };
        Box::pin(self.counted(verb, answer))
    }

    async fn counted<T>(
        &self,
        verb: &'static str,
        answer: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let operation = operation(verb);
        self.counts.begins(operation);
        let since = Instant::now();
        let answer = answer.await;
        self.counts.ended(operation, since.elapsed(), answer.is_ok());
        answer
    }
}

/// kubelet 1.36: what its metrics call a verb.
fn operation(verb: &'static str) -> &'static str {
    match verb {
        "Version" => "version",
        "Status" => "status",
        "RuntimeConfig" => "runtime_config",
        "UpdateRuntimeConfig" => "update_runtime_config",
        "RunPodSandbox" => "run_podsandbox",
        "StopPodSandbox" => "stop_podsandbox",
        "RemovePodSandbox" => "remove_podsandbox",
        "PodSandboxStatus" => "podsandbox_status",
        "ListPodSandbox" => "list_podsandbox",
        "UpdatePodSandboxResources" => "update_podsandbox_resources",
        "CreateContainer" => "create_container",
        "StartContainer" => "start_container",
        "StopContainer" => "stop_container",
        "RemoveContainer" => "remove_container",
        "ListContainers" => "list_containers",
        "ContainerStatus" => "container_status",
        "UpdateContainerResources" => "update_container",
        "ReopenContainerLog" => "reopen_container_log",
        "CheckpointContainer" => "checkpoint_container",
        "ExecSync" => "exec_sync",
        "Exec" => "exec",
        "Attach" => "attach",
        "PortForward" => "port_forward",
        "ContainerStats" => "container_stats",
        "ListContainerStats" => "list_container_stats",
        "PodSandboxStats" => "podsandbox_stats",
        "ListPodSandboxStats" => "list_podsandbox_stats",
        "ListMetricDescriptors" => "list_metric_descriptors",
        "ListPodSandboxMetrics" => "list_podsandbox_metrics",
        "ListImages" => "list_images",
        "ImageStatus" => "image_status",
        "PullImage" => "pull_image",
        "RemoveImage" => "remove_image",
        "ImageFsInfo" => "image_fs_info",
        other => other,
    }
}

fn secs(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

impl Runtime for Bounded {
    fn version(&self) -> Answer<'_, cri::VersionResponse> {
        self.soon("Version", self.inner.version())
    }

    fn status(&self, verbose: bool) -> Answer<'_, cri::StatusResponse> {
        self.soon("Status", self.inner.status(verbose))
    }

    fn runtime_config(&self) -> Answer<'_, cri::RuntimeConfigResponse> {
        self.soon("RuntimeConfig", self.inner.runtime_config())
    }

    fn update_runtime_config(&self, config: cri::RuntimeConfig) -> Answer<'_, ()> {
        self.soon("UpdateRuntimeConfig", self.inner.update_runtime_config(config))
    }

    fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, runtime_handler: &str) -> Answer<'_, SandboxId> {
        // kubelet 1.36: a sandbox may take twice as long.
        let limit = self.timeout.saturating_mul(2);
        self.within(limit, "RunPodSandbox", self.inner.run_pod_sandbox(config, runtime_handler))
    }

    fn stop_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        self.soon("StopPodSandbox", self.inner.stop_pod_sandbox(id))
    }

    fn remove_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        self.soon("RemovePodSandbox", self.inner.remove_pod_sandbox(id))
    }

    fn pod_sandbox_status(&self, id: &SandboxId, verbose: bool) -> Answer<'_, cri::PodSandboxStatusResponse> {
        self.soon("PodSandboxStatus", self.inner.pod_sandbox_status(id, verbose))
    }

    fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Answer<'_, Vec<cri::PodSandbox>> {
        self.soon("ListPodSandbox", self.inner.list_pod_sandbox(filter))
    }

    fn update_pod_sandbox_resources(&self, request: cri::UpdatePodSandboxResourcesRequest) -> Answer<'_, ()> {
        self.soon("UpdatePodSandboxResources", self.inner.update_pod_sandbox_resources(request))
    }

    fn create_container(
        &self,
        sandbox: &SandboxId,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Answer<'_, ContainerId> {
        self.soon("CreateContainer", self.inner.create_container(sandbox, config, sandbox_config))
    }

    fn start_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        self.soon("StartContainer", self.inner.start_container(id))
    }

    fn stop_container(&self, id: &ContainerId, grace_secs: i64) -> Answer<'_, ()> {
        let limit = self.timeout.saturating_add(secs(grace_secs));
        self.within(limit, "StopContainer", self.inner.stop_container(id, grace_secs))
    }

    fn remove_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        self.soon("RemoveContainer", self.inner.remove_container(id))
    }

    fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Answer<'_, Vec<cri::Container>> {
        self.soon("ListContainers", self.inner.list_containers(filter))
    }

    fn container_status(&self, id: &ContainerId, verbose: bool) -> Answer<'_, cri::ContainerStatusResponse> {
        self.soon("ContainerStatus", self.inner.container_status(id, verbose))
    }

    fn update_container_resources(&self, request: cri::UpdateContainerResourcesRequest) -> Answer<'_, ()> {
        self.soon("UpdateContainerResources", self.inner.update_container_resources(request))
    }

    fn reopen_container_log(&self, id: &ContainerId) -> Answer<'_, ()> {
        self.soon("ReopenContainerLog", self.inner.reopen_container_log(id))
    }

    fn checkpoint_container(&self, request: cri::CheckpointContainerRequest) -> Answer<'_, ()> {
        let limit = secs(request.timeout).max(self.timeout);
        self.within(limit, "CheckpointContainer", self.inner.checkpoint_container(request))
    }

    fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
    ) -> Answer<'_, cri::ExecSyncResponse> {
        let (shown, answer) = (command.join(" "), self.inner.exec_sync(id, command, timeout));
        if timeout.is_zero() {
            return Box::pin(self.counted("ExecSync", answer));
        }
        let limit = self.timeout.saturating_add(timeout);
        let answer = async move {
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(RuntimeError::CommandTimedOut { command: shown, timeout }),
            }
        };
        Box::pin(self.counted("ExecSync", answer))
    }

    fn exec(&self, request: cri::ExecRequest) -> Answer<'_, String> {
        self.soon("Exec", self.inner.exec(request))
    }

    fn attach(&self, request: cri::AttachRequest) -> Answer<'_, String> {
        self.soon("Attach", self.inner.attach(request))
    }

    fn port_forward(&self, request: cri::PortForwardRequest) -> Answer<'_, String> {
        self.soon("PortForward", self.inner.port_forward(request))
    }

    fn container_stats(&self, id: &ContainerId) -> Answer<'_, Option<cri::ContainerStats>> {
        self.soon("ContainerStats", self.inner.container_stats(id))
    }

    fn list_container_stats(&self, filter: Option<cri::ContainerStatsFilter>) -> Answer<'_, Vec<cri::ContainerStats>> {
        self.soon("ListContainerStats", self.inner.list_container_stats(filter))
    }

    fn pod_sandbox_stats(&self, id: &SandboxId) -> Answer<'_, Option<cri::PodSandboxStats>> {
        self.soon("PodSandboxStats", self.inner.pod_sandbox_stats(id))
    }

    fn list_pod_sandbox_stats(
        &self,
        filter: Option<cri::PodSandboxStatsFilter>,
    ) -> Answer<'_, Vec<cri::PodSandboxStats>> {
        self.soon("ListPodSandboxStats", self.inner.list_pod_sandbox_stats(filter))
    }

    fn list_metric_descriptors(&self) -> Answer<'_, Vec<cri::MetricDescriptor>> {
        self.soon("ListMetricDescriptors", self.inner.list_metric_descriptors())
    }

    fn list_pod_sandbox_metrics(&self) -> Answer<'_, Vec<cri::PodSandboxMetrics>> {
        self.soon("ListPodSandboxMetrics", self.inner.list_pod_sandbox_metrics())
    }

    fn container_events(&self) -> EventStream {
        self.inner.container_events()
    }

    fn list_images(&self, filter: Option<cri::ImageFilter>) -> Answer<'_, Vec<cri::Image>> {
        self.soon("ListImages", self.inner.list_images(filter))
    }

    fn image_status(&self, image: cri::ImageSpec, verbose: bool) -> Answer<'_, cri::ImageStatusResponse> {
        self.soon("ImageStatus", self.inner.image_status(image, verbose))
    }

    /// kubelet 1.36: a pull may take as long as it takes.
    fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Answer<'_, String> {
        Box::pin(self.counted("PullImage", self.inner.pull_image(image, auth, sandbox_config)))
    }

    fn remove_image(&self, image: cri::ImageSpec) -> Answer<'_, ()> {
        self.soon("RemoveImage", self.inner.remove_image(image))
    }

    fn image_fs_info(&self) -> Answer<'_, cri::ImageFsInfoResponse> {
        self.soon("ImageFsInfo", self.inner.image_fs_info())
    }
}
