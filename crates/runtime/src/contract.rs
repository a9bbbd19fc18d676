//! The embedded runtime as a [`Runtime`]: each verb goes to the room where it is carried out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_cri::{API_VERSION, Answer, Code, EventStream, Runtime, RuntimeError};
use rubelet_host::cgroup::Driver;
use rubelet_proto::cri;
use tokio::sync::broadcast::error::RecvError;

use crate::embedded::{Embedded, Engine};
use crate::verbs::{
    Refusal, create_container, exec_sync, list, pull_image, remove_container, remove_pod_sandbox, run_pod_sandbox,
    start_container, status, stop_container, stop_pod_sandbox, update_resources,
};
use crate::{stats, streams};

/// The name in `containerID: rubelet://…`.
pub const NAME: &str = "rubelet";

/// A verb that is carried out to its end, also when its caller does not wait for it.
fn whole<'a, T: Send + 'static>(
    verb: &'static str,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Answer<'a, T> {
    let task = rubelet_host::task::beside(work);
    Box::pin(async move {
        let done = task.await.unwrap_or_else(|e| Err(Refusal::internal(e.to_string())));
        done.map_err(|refusal| refusal.into_runtime(verb))
    })
}

/// A verb that is given up when its caller goes.
fn loose<'a, T: 'a>(verb: &'static str, work: impl Future<Output = Result<T, Refusal>> + Send + 'a) -> Answer<'a, T> {
    Box::pin(async move { work.await.map_err(|refusal| refusal.into_runtime(verb)) })
}

/// An answer that is known at once.
fn now<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(answer)))
}

impl Embedded {
    fn own(&self) -> Arc<Engine> {
        self.engine.clone()
    }
}

impl Runtime for Embedded {
    fn version(&self) -> Answer<'_, cri::VersionResponse> {
        now(cri::VersionResponse {
            version: API_VERSION.to_owned(),
            runtime_name: NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    fn status(&self, verbose: bool) -> Answer<'_, cri::StatusResponse> {
        let engine = self.own();
        loose("Status", async move { engine.blocking(move |engine| Ok(about(engine, verbose))).await })
    }

    fn runtime_config(&self) -> Answer<'_, cri::RuntimeConfigResponse> {
        let driver = match self.engine.cgroup_driver {
            Driver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
            Driver::Systemd => cri::CgroupDriver::Systemd,
        };
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
        now(cri::RuntimeConfigResponse { linux: Some(linux) })
    }

    fn update_runtime_config(&self, config: cri::RuntimeConfig) -> Answer<'_, ()> {
        let engine = self.own();
        let cidr = config.network_config.map(|n| n.pod_cidr).unwrap_or_default();
        whole("UpdateRuntimeConfig", async move { engine.blocking(move |engine| engine.set_pod_cidr(&cidr)).await })
    }

    fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, runtime_handler: &str) -> Answer<'_, SandboxId> {
        let (engine, handler) = (self.own(), runtime_handler.to_owned());
        whole("RunPodSandbox", async move { run_pod_sandbox::run_pod_sandbox(&engine, config, handler).await })
    }

    fn stop_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        let (engine, id) = (self.own(), id.clone());
        whole("StopPodSandbox", async move { stop_pod_sandbox::stop_pod_sandbox(&engine, id.as_str()).await })
    }

    fn remove_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        let (engine, id) = (self.own(), id.clone());
        whole("RemovePodSandbox", async move { remove_pod_sandbox::remove_pod_sandbox(&engine, id.as_str()).await })
    }

    fn pod_sandbox_status(&self, id: &SandboxId, verbose: bool) -> Answer<'_, cri::PodSandboxStatusResponse> {
        let answer = status::pod_sandbox_status(&self.engine, id.as_str(), verbose);
        loose("PodSandboxStatus", std::future::ready(answer))
    }

    fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Answer<'_, Vec<cri::PodSandbox>> {
        now(list::sandboxes(&self.engine, filter.as_ref()))
    }

    fn update_pod_sandbox_resources(&self, request: cri::UpdatePodSandboxResourcesRequest) -> Answer<'_, ()> {
        let engine = self.own();
        whole("UpdatePodSandboxResources", async move {
            update_resources::update_pod_sandbox_resources(&engine, request).await
        })
    }

    fn create_container(
        &self,
        sandbox: &SandboxId,
        config: cri::ContainerConfig,
        _sandbox_config: cri::PodSandboxConfig,
    ) -> Answer<'_, ContainerId> {
        let (engine, sandbox) = (self.own(), sandbox.clone());
        whole(
            "CreateContainer",
            async move { create_container::create_container(&engine, sandbox.as_str(), config).await },
        )
    }

    fn start_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        let (engine, id) = (self.own(), id.clone());
        whole("StartContainer", async move { start_container::start_container(&engine, id.as_str()).await })
    }

    fn stop_container(&self, id: &ContainerId, grace_secs: i64) -> Answer<'_, ()> {
        let (engine, id) = (self.own(), id.clone());
        // Given up when the caller goes: who asks again with less grace is not held up.
        loose("StopContainer", async move { stop_container::stop_container(&engine, id.as_str(), grace_secs).await })
    }

    fn remove_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        let (engine, id) = (self.own(), id.clone());
        whole("RemoveContainer", async move { remove_container::remove_container(&engine, id.as_str()).await })
    }

    fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Answer<'_, Vec<cri::Container>> {
        now(list::containers(&self.engine, filter.as_ref()))
    }

    fn container_status(&self, id: &ContainerId, verbose: bool) -> Answer<'_, cri::ContainerStatusResponse> {
        let answer = status::container_status(&self.engine, id.as_str(), verbose);
        loose("ContainerStatus", std::future::ready(answer))
    }

    fn update_container_resources(&self, request: cri::UpdateContainerResourcesRequest) -> Answer<'_, ()> {
        let engine = self.own();
        whole("UpdateContainerResources", async move {
            update_resources::update_container_resources(&engine, request).await
        })
    }

    fn reopen_container_log(&self, id: &ContainerId) -> Answer<'_, ()> {
        let (engine, id) = (self.own(), id.clone());
        whole("ReopenContainerLog", async move { streams::reopen_log(&engine, id.as_str()).await })
    }

    fn checkpoint_container(&self, _request: cri::CheckpointContainerRequest) -> Answer<'_, ()> {
        let refusal = Refusal::new(Code::Unimplemented, "the embedded runtime does not write checkpoints");
        loose("CheckpointContainer", std::future::ready(Err(refusal)))
    }

    fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
    ) -> Answer<'_, cri::ExecSyncResponse> {
        let (engine, id) = (self.own(), id.clone());
        Box::pin(async move { exec_sync::exec_sync(&engine, id.as_str(), command, timeout).await })
    }

    fn exec(&self, request: cri::ExecRequest) -> Answer<'_, String> {
        loose("Exec", std::future::ready(streams::exec(&self.engine, request)))
    }

    fn attach(&self, request: cri::AttachRequest) -> Answer<'_, String> {
        loose("Attach", std::future::ready(streams::attach(&self.engine, request)))
    }

    fn port_forward(&self, request: cri::PortForwardRequest) -> Answer<'_, String> {
        loose("PortForward", std::future::ready(streams::port_forward(&self.engine, request)))
    }

    fn container_stats(&self, id: &ContainerId) -> Answer<'_, Option<cri::ContainerStats>> {
        let (engine, id) = (self.own(), id.clone());
        loose("ContainerStats", async move {
            let found = engine.pods().container(id.as_str()).ok_or_else(|| Refusal::no_container(id.as_str()))?;
            engine.blocking(move |engine| Ok(stats::container(engine, &found))).await
        })
    }

    fn list_container_stats(&self, filter: Option<cri::ContainerStatsFilter>) -> Answer<'_, Vec<cri::ContainerStats>> {
        let engine = self.own();
        loose("ListContainerStats", async move {
            engine.blocking(move |engine| Ok(stats::containers(engine, filter.as_ref()))).await
        })
    }

    fn pod_sandbox_stats(&self, id: &SandboxId) -> Answer<'_, Option<cri::PodSandboxStats>> {
        let (engine, id) = (self.own(), id.clone());
        loose("PodSandboxStats", async move {
            let found = engine.pods().sandbox(id.as_str()).ok_or_else(|| Refusal::no_sandbox(id.as_str()))?;
            engine.blocking(move |engine| Ok(Some(stats::sandbox(engine, &found)))).await
        })
    }

    fn list_pod_sandbox_stats(
        &self,
        filter: Option<cri::PodSandboxStatsFilter>,
    ) -> Answer<'_, Vec<cri::PodSandboxStats>> {
        let engine = self.own();
        loose("ListPodSandboxStats", async move {
            engine.blocking(move |engine| Ok(stats::sandboxes(engine, filter.as_ref()))).await
        })
    }

    fn list_metric_descriptors(&self) -> Answer<'_, Vec<cri::MetricDescriptor>> {
        now(stats::metrics::descriptors())
    }

    fn list_pod_sandbox_metrics(&self) -> Answer<'_, Vec<cri::PodSandboxMetrics>> {
        let engine = self.own();
        loose("ListPodSandboxMetrics", async move {
            engine.blocking(move |engine| Ok(stats::metrics::of_all(engine))).await
        })
    }

    fn container_events(&self) -> EventStream {
        let news = self.engine.news.subscribe();
        Box::pin(stream::unfold(Some(news), |news| async move {
            let mut news = news?;
            match news.recv().await {
                Ok(event) => Some((Ok(event), Some(news))),
                Err(RecvError::Closed) => None,
                // The stream ends: the listener looks at everything and listens anew.
                Err(RecvError::Lagged(missed)) => {
                    let message = format!("{missed} events were missed");
                    let verb = "GetContainerEvents";
                    Some((Err(RuntimeError::Rpc { verb, code: Code::ResourceExhausted, message }), None))
                }
            }
        }))
    }

    fn list_images(&self, filter: Option<cri::ImageFilter>) -> Answer<'_, Vec<cri::Image>> {
        now(self.engine.images.list(filter.as_ref()))
    }

    fn image_status(&self, image: cri::ImageSpec, verbose: bool) -> Answer<'_, cri::ImageStatusResponse> {
        let engine = self.own();
        Box::pin(async move {
            let answer = engine.images.image_status(&image.image, verbose).await;
            answer.map_err(|e| e.into_runtime("ImageStatus"))
        })
    }

    fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        _sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Answer<'_, String> {
        let engine = self.own();
        Box::pin(async move { pull_image::pull_image(&engine, image, auth).await })
    }

    fn remove_image(&self, image: cri::ImageSpec) -> Answer<'_, ()> {
        let engine = self.own();
        Box::pin(async move {
            let removed = engine.images.remove(&image.image).await;
            removed.map(drop).map_err(|e| e.into_runtime("RemoveImage"))
        })
    }

    fn image_fs_info(&self) -> Answer<'_, cri::ImageFsInfoResponse> {
        let engine = self.own();
        Box::pin(async move { engine.images.fs_info().await.map_err(|e| e.into_runtime("ImageFsInfo")) })
    }
}

/// Conditions, handlers and features.
fn about(engine: &Engine, verbose: bool) -> cri::StatusResponse {
    let condition = |kind: &str, problem: Option<(&str, String)>| cri::RuntimeCondition {
        r#type: kind.to_owned(),
        status: problem.is_none(),
        reason: problem.as_ref().map(|(reason, _)| (*reason).to_owned()).unwrap_or_default(),
        message: problem.map(|(_, message)| message).unwrap_or_default(),
    };
    let network = engine.network.ready().err().map(|message| ("NetworkPluginNotReady", message));
    let conditions = vec![condition("RuntimeReady", None), condition("NetworkReady", network)];
    let mut info = std::collections::BTreeMap::new();
    if verbose {
        info.insert("config".to_owned(), engine.describe().to_string());
    }
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        info,
        runtime_handlers: engine.handlers.shown(),
        features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }),
    }
}
