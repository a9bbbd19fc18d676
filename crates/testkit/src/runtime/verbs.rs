//! The contract's verbs.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use futures_util::stream;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_cri::{Answer, Code, EventStream, Runtime, RuntimeError};
use rubelet_proto::cri;

use super::state::{Container, Sandbox, pod_path};
use super::{FakeRuntime, Script};

fn error(verb: &'static str, code: Code, message: impl Into<String>) -> RuntimeError {
    RuntimeError::Rpc { verb, code, message: message.into() }
}

/// A number that looks random and follows from its arguments.
fn chance(seed: u64, count: u64) -> u32 {
    let mut hasher = std::hash::DefaultHasher::new();
    (seed, count).hash(&mut hasher);
    u32::try_from(hasher.finish() >> 33).unwrap_or(0)
}

/// A request that was sent is carried out, whether or not somebody still waits for the answer.
fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Answer<'static, T> {
    let task = tokio::spawn(work);
    Box::pin(async move { task.await.unwrap_or_else(|e| Err(error("", Code::Internal, e.to_string()))) })
}

fn not_found(verb: &'static str, id: &str) -> RuntimeError {
    error(verb, Code::NotFound, format!("{id} is not here"))
}

impl FakeRuntime {
    /// Every verb takes its time, then may fail as told.
    async fn enter(&self, verb: &'static str) -> Result<(), RuntimeError> {
        let count = {
            let mut state = self.lock();
            state.count += 1;
            state.count
        };
        tokio::time::sleep(self.temper.latency * (1 + chance(self.temper.seed, count) % 4)).await;
        if self.lock().must_fail(verb) {
            return Err(error(verb, Code::Unknown, format!("{verb} fails as told")));
        }
        Ok(())
    }

    /// The same for a verb about one sandbox or container, which may hang.
    async fn enter_at(&self, verb: &'static str, id: &str) -> Result<(), RuntimeError> {
        let pod = self.lock().pod_of(id);
        self.panic_at(verb, &pod);
        self.hang_on(verb, pod).await;
        self.enter(verb).await
    }

    /// Panics in the caller's own task if it must.
    fn panic_at(&self, verb: &'static str, pod: &str) {
        let must = self.lock().panicking.contains(&(verb, pod.to_owned()));
        assert!(!must, "{verb} of {pod} panics as told");
    }

    async fn hang_on(&self, verb: &'static str, pod: String) {
        let place = (verb, pod);
        while self.lock().hanging.contains(&place) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn run_sandbox(self, config: cri::PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        self.hang_on("RunPodSandbox", pod_path(&config)).await;
        self.enter("RunPodSandbox").await?;
        let mut state = self.lock();
        if state.has_sandbox(&config) {
            let message = format!("failed to reserve sandbox name {:?}: name is reserved", config.metadata);
            return Err(error("RunPodSandbox", Code::Unknown, message));
        }
        state.call("RunPodSandbox", pod_path(&config));
        state.check_new_sandbox(&config);
        let number = state.fresh_id();
        let id = SandboxId::new(format!("s{number}"));
        let created_at = state.time();
        let ip = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        state.sandboxes.insert(id.clone(), Sandbox { config, is_ready: true, created_at, ip });
        Ok(id)
    }

    async fn stop_sandbox(self, id: SandboxId) -> Result<(), RuntimeError> {
        self.enter_at("StopPodSandbox", id.as_str()).await?;
        let live: Vec<ContainerId> = {
            let mut state = self.lock();
            let Some(sandbox) = state.sandboxes.get_mut(&id) else { return Ok(()) };
            sandbox.is_ready = false;
            let path = pod_path(&sandbox.config);
            state.call("StopPodSandbox", path);
            state.check_stop(&id);
            state
                .containers
                .iter()
                .filter(|(_, c)| c.sandbox == id && c.is_running())
                .map(|(id, _)| id.clone())
                .collect()
        };
        for id in live {
            self.ended(&id, 137);
        }
        Ok(())
    }

    async fn create(self, sandbox: SandboxId, config: cri::ContainerConfig) -> Result<ContainerId, RuntimeError> {
        self.enter_at("CreateContainer", sandbox.as_str()).await?;
        let mut state = self.lock();
        let Some(pod) = state.sandboxes.get(&sandbox).map(|s| pod_path(&s.config)) else {
            return Err(not_found("CreateContainer", sandbox.as_str()));
        };
        if state.has_container(&sandbox, &config) {
            let message = format!("failed to reserve container name {:?}: name is reserved", config.metadata);
            return Err(error("CreateContainer", Code::Unknown, message));
        }
        let id = ContainerId::new(format!("c{}", state.fresh_id()));
        let created_at = state.time();
        let container = Container { config, sandbox, pod, created_at, started_at: 0, ended: None };
        state.call("CreateContainer", container.path());
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start(self, id: ContainerId) -> Result<(), RuntimeError> {
        self.enter_at("StartContainer", id.as_str()).await?;
        let script = {
            let mut state = self.lock();
            let now = state.time();
            let Some(container) = state.containers.get(&id) else {
                return Err(not_found("StartContainer", id.as_str()));
            };
            if container.started_at != 0 || container.ended.is_some() {
                let message = format!("container {id} is not in created state");
                return Err(error("StartContainer", Code::Unknown, message));
            }
            if !state.sandboxes.get(&container.sandbox).is_some_and(|s| s.is_ready) {
                return Err(error("StartContainer", Code::Unknown, format!("sandbox of {id} is not running")));
            }
            write_log(&state.log_path(container));
            state.check_start(&id);
            let Some(container) = state.containers.get_mut(&id) else {
                return Err(not_found("StartContainer", id.as_str()));
            };
            container.started_at = now;
            let (path, script) = (container.path(), container.script());
            state.call("StartContainer", path);
            script
        };
        if let Script::Exits { after, code } = script {
            let runtime = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                runtime.ended(&id, code);
            });
        }
        Ok(())
    }

    async fn stop(self, id: ContainerId, grace_secs: i64) -> Result<(), RuntimeError> {
        self.enter_at("StopContainer", id.as_str()).await?;
        let script = {
            let mut state = self.lock();
            let Some(container) = state.containers.get(&id) else {
                return Err(not_found("StopContainer", id.as_str()));
            };
            let (path, script, is_running) = (container.path(), container.script(), container.is_running());
            state.call("StopContainer", format_args!("{path} {grace_secs}"));
            if !is_running {
                return Ok(());
            }
            script
        };
        let code = match script {
            Script::Runs | Script::Exits { .. } => 0,
            Script::Stubborn => {
                tokio::time::sleep(Duration::from_secs(u64::try_from(grace_secs).unwrap_or(0))).await;
                137
            }
        };
        self.ended(&id, code);
        Ok(())
    }

    async fn remove(self, id: ContainerId) -> Result<(), RuntimeError> {
        self.enter_at("RemoveContainer", id.as_str()).await?;
        let mut state = self.lock();
        if let Some(path) = state.containers.get(&id).filter(|c| c.is_running()).map(Container::path) {
            state.violations.push(format!("{path} is removed while it runs"));
        }
        if let Some(container) = state.containers.remove(&id) {
            let path = container.path();
            state.call("RemoveContainer", path);
        }
        Ok(())
    }
}

/// As a real runtime: the log is there as soon as the container runs, in the directory that the agent made.
fn write_log(path: &std::path::Path) {
    if let Err(e) = std::fs::write(path, b"") {
        // An agent that forgot the directory is found by tests of logs.
        drop(e);
    }
}

fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A verb that this runtime does not have.
fn unimplemented<'a, T: Send + 'a>(verb: &'static str) -> Answer<'a, T> {
    Box::pin(async move { Err(error(verb, Code::Unimplemented, format!("unknown method {verb}"))) })
}

impl Runtime for FakeRuntime {
    fn version(&self) -> Answer<'_, cri::VersionResponse> {
        Box::pin(async {
            self.enter("Version").await?;
            Ok(cri::VersionResponse {
                version: "0.1.0".into(),
                runtime_name: "fake".into(),
                runtime_version: "1".into(),
                runtime_api_version: "v1".into(),
            })
        })
    }

    fn status(&self, _verbose: bool) -> Answer<'_, cri::StatusResponse> {
        Box::pin(async {
            self.enter("Status").await?;
            let ready = |kind: &str| cri::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
            let status = cri::RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] };
            Ok(cri::StatusResponse { status: Some(status), ..Default::default() })
        })
    }

    fn runtime_config(&self) -> Answer<'_, cri::RuntimeConfigResponse> {
        unimplemented("RuntimeConfig")
    }

    fn update_runtime_config(&self, _config: cri::RuntimeConfig) -> Answer<'_, ()> {
        unimplemented("UpdateRuntimeConfig")
    }

    fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, _runtime_handler: &str) -> Answer<'_, SandboxId> {
        self.panic_at("RunPodSandbox", &pod_path(&config));
        detached(self.clone().run_sandbox(config))
    }

    fn stop_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        detached(self.clone().stop_sandbox(id.clone()))
    }

    fn remove_pod_sandbox(&self, id: &SandboxId) -> Answer<'_, ()> {
        let (id, this) = (id.clone(), self.clone());
        detached(async move {
            this.clone().stop_sandbox(id.clone()).await?;
            let mut state = this.lock();
            if let Some(sandbox) = state.sandboxes.remove(&id) {
                state.call("RemovePodSandbox", pod_path(&sandbox.config));
            }
            state.containers.retain(|_, c| c.sandbox != id);
            Ok(())
        })
    }

    fn pod_sandbox_status(&self, id: &SandboxId, _verbose: bool) -> Answer<'_, cri::PodSandboxStatusResponse> {
        let id = id.clone();
        Box::pin(async move {
            self.enter_at("PodSandboxStatus", id.as_str()).await?;
            let status = self.lock().sandbox_status(&id).ok_or_else(|| not_found("PodSandboxStatus", id.as_str()))?;
            let config = self.lock().sandboxes.get(&id).map(|s| s.config.clone());
            let info = serde_json::json!({ "config": config }).to_string();
            let info = BTreeMap::from([("info".to_owned(), info)]);
            Ok(cri::PodSandboxStatusResponse { status: Some(status), info, ..Default::default() })
        })
    }

    fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Answer<'_, Vec<cri::PodSandbox>> {
        Box::pin(async {
            let filter = filter.unwrap_or_default();
            self.enter("ListPodSandbox").await?;
            let state = self.lock();
            let row = |id: &SandboxId, s: &Sandbox| cri::PodSandbox {
                id: id.to_string(),
                metadata: s.config.metadata.clone(),
                state: i32::from(!s.is_ready),
                created_at: s.created_at,
                labels: s.config.labels.clone(),
                annotations: s.config.annotations.clone(),
                ..Default::default()
            };
            let fits = |id: &SandboxId, s: &Sandbox| {
                has_labels(&s.config.labels, &filter.label_selector)
                    && (filter.id.is_empty() || filter.id == id.as_str())
                    && filter.state.is_none_or(|wanted| wanted.state == i32::from(!s.is_ready))
            };
            Ok(state.sandboxes.iter().filter(|(id, s)| fits(id, s)).map(|(id, s)| row(id, s)).collect())
        })
    }

    /// As containerd 2.1: it does not know the call.
    fn update_pod_sandbox_resources(&self, _request: cri::UpdatePodSandboxResourcesRequest) -> Answer<'_, ()> {
        unimplemented("UpdatePodSandboxResources")
    }

    fn create_container(
        &self,
        sandbox: &SandboxId,
        config: cri::ContainerConfig,
        _sandbox_config: cri::PodSandboxConfig,
    ) -> Answer<'_, ContainerId> {
        let pod = self.lock().pod_of(sandbox.as_str());
        self.panic_at("CreateContainer", &pod);
        detached(self.clone().create(sandbox.clone(), config))
    }

    fn start_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        detached(self.clone().start(id.clone()))
    }

    fn stop_container(&self, id: &ContainerId, grace_secs: i64) -> Answer<'_, ()> {
        detached(self.clone().stop(id.clone(), grace_secs))
    }

    fn remove_container(&self, id: &ContainerId) -> Answer<'_, ()> {
        detached(self.clone().remove(id.clone()))
    }

    fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Answer<'_, Vec<cri::Container>> {
        Box::pin(async {
            let filter = filter.unwrap_or_default();
            self.enter("ListContainers").await?;
            let state = self.lock();
            let row = |id: &ContainerId, c: &Container| cri::Container {
                id: id.to_string(),
                pod_sandbox_id: c.sandbox.to_string(),
                metadata: c.config.metadata.clone(),
                image: c.config.image.clone(),
                image_ref: "sha256:0".to_owned(),
                state: c.state() as i32,
                created_at: c.created_at,
                labels: c.config.labels.clone(),
                annotations: c.config.annotations.clone(),
                ..Default::default()
            };
            let fits = |id: &ContainerId, c: &Container| {
                has_labels(&c.config.labels, &filter.label_selector)
                    && (filter.id.is_empty() || filter.id == id.as_str())
                    && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == c.sandbox.as_str())
                    && filter.state.is_none_or(|wanted| wanted.state == c.state() as i32)
            };
            Ok(state.containers.iter().filter(|(id, c)| fits(id, c)).map(|(id, c)| row(id, c)).collect())
        })
    }

    fn container_status(&self, id: &ContainerId, _verbose: bool) -> Answer<'_, cri::ContainerStatusResponse> {
        let id = id.clone();
        Box::pin(async move {
            self.enter_at("ContainerStatus", id.as_str()).await?;
            let state = self.lock();
            let status = state.container_status(&id).ok_or_else(|| not_found("ContainerStatus", id.as_str()))?;
            let container = state.containers.get(&id);
            let info = serde_json::json!({
                "sandboxID": container.map(|c| c.sandbox.to_string()),
                "config": container.map(|c| &c.config),
            });
            let info = BTreeMap::from([("info".to_owned(), info.to_string())]);
            Ok(cri::ContainerStatusResponse { status: Some(status), info })
        })
    }

    fn update_container_resources(&self, request: cri::UpdateContainerResourcesRequest) -> Answer<'_, ()> {
        Box::pin(async move {
            self.enter_at("UpdateContainerResources", &request.container_id).await?;
            self.lock().update(&ContainerId::new(&request.container_id), request.linux.unwrap_or_default());
            Ok(())
        })
    }

    fn reopen_container_log(&self, _id: &ContainerId) -> Answer<'_, ()> {
        unimplemented("ReopenContainerLog")
    }

    fn checkpoint_container(&self, _request: cri::CheckpointContainerRequest) -> Answer<'_, ()> {
        unimplemented("CheckpointContainer")
    }

    fn exec_sync(
        &self,
        id: &ContainerId,
        _command: Vec<String>,
        _timeout: Duration,
    ) -> Answer<'_, cri::ExecSyncResponse> {
        let id = id.clone();
        Box::pin(async move {
            self.enter_at("ExecSync", id.as_str()).await?;
            Ok(cri::ExecSyncResponse::default())
        })
    }

    fn exec(&self, _request: cri::ExecRequest) -> Answer<'_, String> {
        unimplemented("Exec")
    }

    fn attach(&self, _request: cri::AttachRequest) -> Answer<'_, String> {
        unimplemented("Attach")
    }

    fn port_forward(&self, _request: cri::PortForwardRequest) -> Answer<'_, String> {
        unimplemented("PortForward")
    }

    fn container_stats(&self, id: &ContainerId) -> Answer<'_, Option<cri::ContainerStats>> {
        let id = id.clone();
        Box::pin(async move {
            self.enter_at("ContainerStats", id.as_str()).await?;
            let usage = self.lock().memory_usage(&id);
            let usage_bytes = Some(cri::UInt64Value { value: usage });
            let memory = Some(cri::MemoryUsage { usage_bytes, ..Default::default() });
            Ok(Some(cri::ContainerStats { memory, ..Default::default() }))
        })
    }

    fn list_container_stats(&self, _filter: Option<cri::ContainerStatsFilter>) -> Answer<'_, Vec<cri::ContainerStats>> {
        unimplemented("ListContainerStats")
    }

    fn pod_sandbox_stats(&self, _id: &SandboxId) -> Answer<'_, Option<cri::PodSandboxStats>> {
        unimplemented("PodSandboxStats")
    }

    fn list_pod_sandbox_stats(
        &self,
        _filter: Option<cri::PodSandboxStatsFilter>,
    ) -> Answer<'_, Vec<cri::PodSandboxStats>> {
        unimplemented("ListPodSandboxStats")
    }

    fn list_metric_descriptors(&self) -> Answer<'_, Vec<cri::MetricDescriptor>> {
        unimplemented("ListMetricDescriptors")
    }

    fn list_pod_sandbox_metrics(&self) -> Answer<'_, Vec<cri::PodSandboxMetrics>> {
        unimplemented("ListPodSandboxMetrics")
    }

    fn container_events(&self) -> EventStream {
        if !self.temper.has_events {
            let refused = error("GetContainerEvents", Code::Unimplemented, "unknown method GetContainerEvents");
            return Box::pin(stream::once(async { Err(refused) }));
        }
        Box::pin(stream::unfold(self.events.subscribe(), |mut events| async move {
            let event = events.recv().await.map_err(|e| error("GetContainerEvents", Code::Unknown, e.to_string()));
            match event {
                Ok(event) => Some((Ok(event), events)),
                Err(_) => None,
            }
        }))
    }

    fn list_images(&self, _filter: Option<cri::ImageFilter>) -> Answer<'_, Vec<cri::Image>> {
        Box::pin(async { Ok(self.lock().images.values().cloned().collect()) })
    }

    fn image_status(&self, image: cri::ImageSpec, _verbose: bool) -> Answer<'_, cri::ImageStatusResponse> {
        Box::pin(async move {
            self.enter("ImageStatus").await?;
            let image =
                cri::Image { id: "sha256:0".into(), repo_tags: vec![image.image], size: 1, ..Default::default() };
            Ok(cri::ImageStatusResponse { image: Some(image), ..Default::default() })
        })
    }

    fn pull_image(
        &self,
        image: cri::ImageSpec,
        _auth: Option<cri::AuthConfig>,
        _sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Answer<'_, String> {
        Box::pin(async move {
            self.enter("PullImage").await?;
            self.lock().call("PullImage", image.image);
            Ok("sha256:0".to_owned())
        })
    }

    fn remove_image(&self, image: cri::ImageSpec) -> Answer<'_, ()> {
        Box::pin(async move {
            self.enter("RemoveImage").await?;
            let mut state = self.lock();
            state.images.remove(&image.image);
            state.call("RemoveImage", image.image);
            Ok(())
        })
    }

    fn image_fs_info(&self) -> Answer<'_, cri::ImageFsInfoResponse> {
        unimplemented("ImageFsInfo")
    }
}
