//! What any container runtime must do for the agent: CRI v1's verbs, one method each.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri;

use crate::RuntimeError;

/// A call under way. Dropping it cancels the call.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, RuntimeError>> + Send + 'a>>;

/// What happened to containers and sandboxes, as it happens. Ends, with an error or without, when the runtime goes away.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, RuntimeError>> + Send>>;

/// A container runtime and its images.
///
/// Verbs that stop or remove are idempotent: an object that is not there is no error. A verb that the runtime does not know fails with `Unimplemented`.
pub trait Runtime: Send + Sync + 'static {
    /// Name and versions of the runtime. See [`check_version`](crate::check_version).
    fn version(&self) -> Answer<'_, cri::VersionResponse>;
    /// Conditions (`RuntimeReady`, `NetworkReady`), runtime handlers and features; debugging details if `verbose`.
    fn status(&self, verbose: bool) -> Answer<'_, cri::StatusResponse>;
    /// The runtime's own settings, e.g. its cgroup driver.
    fn runtime_config(&self) -> Answer<'_, cri::RuntimeConfigResponse>;
    /// Tells the runtime the node's pod CIDR.
    fn update_runtime_config(&self, config: cri::RuntimeConfig) -> Answer<'_, ()>;

    /// Makes and starts a sandbox; it is ready on success.
    fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, runtime_handler: &str) -> Answer<'_, SandboxId>;
    /// Stops what runs in the sandbox and gives its network back.
    fn stop_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()>;
    /// Removes the sandbox and its containers, by force if need be.
    fn remove_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()>;
    /// Status of one sandbox. `NotFound` if there is none.
    fn pod_sandbox_status(&self, id: &SandboxId, verbose: bool) -> Answer<'_, cri::PodSandboxStatusResponse>;
    /// All sandboxes that match; `None`: all.
    fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Answer<'_, Vec<cri::PodSandbox>>;
    /// Changes a living sandbox's resources.
    fn update_pod_sandbox_resources(&self, request: cri::UpdatePodSandboxResourcesRequest) -> Answer<'_, ()>;

    /// Makes a container in a sandbox, not started.
    fn create_container(
        &self,
        sandbox: &SandboxId,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Answer<'_, ContainerId>;
    /// Starts a created container.
    fn start_container(&self, id: &ContainerId) -> Answer<'_, ()>;
    /// Sends the stop signal, and SIGKILL after `grace_secs`; answers when the container has ended.
    fn stop_container(&self, id: &ContainerId, grace_secs: i64) -> Answer<'_, ()>;
    /// Removes a container, by force if it runs.
    fn remove_container(&self, id: &ContainerId) -> Answer<'_, ()>;
    /// All containers that match; `None`: all.
    fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Answer<'_, Vec<cri::Container>>;
    /// Status of one container. `NotFound` if there is none.
    fn container_status(&self, id: &ContainerId, verbose: bool) -> Answer<'_, cri::ContainerStatusResponse>;
    /// Changes a living container's resources.
    fn update_container_resources(&self, request: cri::UpdateContainerResourcesRequest) -> Answer<'_, ()>;
    /// Opens the log file anew after a rotation.
    fn reopen_container_log(&self, id: &ContainerId) -> Answer<'_, ()>;
    /// Writes a checkpoint of a container.
    fn checkpoint_container(&self, request: cri::CheckpointContainerRequest) -> Answer<'_, ()>;

    /// Runs a command in a container and waits for its end; a non-zero exit code is an answer, no error.
    /// Whole seconds of `timeout` count; zero: no limit.
    fn exec_sync(&self, id: &ContainerId, command: Vec<String>, timeout: Duration)
    -> Answer<'_, cri::ExecSyncResponse>;
    /// URL at which a command's streams can be had.
    fn exec(&self, request: cri::ExecRequest) -> Answer<'_, String>;
    /// URL at which a running container's streams can be had.
    fn attach(&self, request: cri::AttachRequest) -> Answer<'_, String>;
    /// URL at which ports of a sandbox can be had.
    fn port_forward(&self, request: cri::PortForwardRequest) -> Answer<'_, String>;

    /// Usage of one container.
    fn container_stats(&self, id: &ContainerId) -> Answer<'_, Option<cri::ContainerStats>>;
    /// Usage of all containers that match.
    fn list_container_stats(&self, filter: Option<cri::ContainerStatsFilter>) -> Answer<'_, Vec<cri::ContainerStats>>;
    /// Usage of one sandbox.
    fn pod_sandbox_stats(&self, id: &SandboxId) -> Answer<'_, Option<cri::PodSandboxStats>>;
    /// Usage of all sandboxes that match.
    fn list_pod_sandbox_stats(
        &self,
        filter: Option<cri::PodSandboxStatsFilter>,
    ) -> Answer<'_, Vec<cri::PodSandboxStats>>;
    /// Names and kinds of the metrics that `list_pod_sandbox_metrics` gives.
    fn list_metric_descriptors(&self) -> Answer<'_, Vec<cri::MetricDescriptor>>;
    /// Metrics of all sandboxes.
    fn list_pod_sandbox_metrics(&self) -> Answer<'_, Vec<cri::PodSandboxMetrics>>;
    /// Events from now on. The first item may be long in coming; a runtime without events says so in the first item.
    fn container_events(&self) -> EventStream;

    /// All images that match; `None`: all.
    fn list_images(&self, filter: Option<cri::ImageFilter>) -> Answer<'_, Vec<cri::Image>>;
    /// An image that is on the node; without `image` in the answer if it is not.
    fn image_status(&self, image: cri::ImageSpec, verbose: bool) -> Answer<'_, cri::ImageStatusResponse>;
    /// Pulls an image; the answer is the reference to create containers from.
    fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Answer<'_, String>;
    /// Removes an image; one that is not there is no error.
    fn remove_image(&self, image: cri::ImageSpec) -> Answer<'_, ()>;
    /// Use of the file systems that hold images and writable layers.
    fn image_fs_info(&self) -> Answer<'_, cri::ImageFsInfoResponse>;
}
