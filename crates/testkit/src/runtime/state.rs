//! What the runtime remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_proto::cri;

use super::Script;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) sandboxes: BTreeMap<SandboxId, Sandbox>,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) calls: Vec<String>,
    pub(crate) violations: Vec<String>,
    /// Calls that do not answer: verb and pod.
    pub(crate) hanging: BTreeSet<(&'static str, String)>,
    /// Calls whose caller panics: verb and pod.
    pub(crate) panicking: BTreeSet<(&'static str, String)>,
    /// Bytes of memory that a container (`namespace/pod/container`) uses.
    pub(crate) usage: BTreeMap<String, u64>,
    /// Images by id.
    pub(crate) images: BTreeMap<String, cri::Image>,
    pub(crate) failures: BTreeMap<&'static str, usize>,
    next: u64,
    /// Verbs so far.
    pub(crate) count: u64,
    start: Option<tokio::time::Instant>,
    clock: i64,
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) config: cri::PodSandboxConfig,
    pub(crate) is_ready: bool,
    pub(crate) created_at: i64,
    pub(crate) ip: String,
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) config: cri::ContainerConfig,
    pub(crate) sandbox: SandboxId,
    pub(crate) pod: String,
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) ended: Option<(i64, i32)>,
}

impl Container {
    pub(crate) fn is_running(&self) -> bool {
        self.started_at != 0 && self.ended.is_none()
    }

    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.pod, self.name())
    }

    pub(crate) fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |m| m.name.as_str())
    }

    pub(crate) fn script(&self) -> Script {
        Script::of(&self.config.command)
    }

    pub(crate) fn state(&self) -> cri::ContainerState {
        match (self.started_at, self.ended) {
            (_, Some(_)) => cri::ContainerState::ContainerExited,
            (0, None) => cri::ContainerState::ContainerCreated,
            (_, None) => cri::ContainerState::ContainerRunning,
        }
    }
}

/// `namespace/name` of a sandbox's pod.
pub(crate) fn pod_path(config: &cri::PodSandboxConfig) -> String {
    config.metadata.as_ref().map(|m| format!("{}/{}", m.namespace, m.name)).unwrap_or_default()
}

impl State {
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The runtime's clock: follows tokio's virtual time, strictly rising. Nanoseconds since 1970.
    pub(crate) fn time(&mut self) -> i64 {
        let start = *self.start.get_or_insert_with(tokio::time::Instant::now);
        let elapsed = i64::try_from(start.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.clock = (self.clock + 1).max(super::EPOCH_NANOS.saturating_add(elapsed));
        self.clock
    }

    pub(crate) fn call(&mut self, verb: &str, what: impl std::fmt::Display) {
        self.calls.push(format!("{verb} {what}"));
    }

    /// `namespace/name` of the pod that a sandbox or container is of.
    pub(crate) fn pod_of(&self, id: &str) -> String {
        let sandbox = self.sandboxes.get(&SandboxId::new(id)).map(|s| pod_path(&s.config));
        sandbox.or_else(|| Some(self.containers.get(&ContainerId::new(id))?.pod.clone())).unwrap_or_default()
    }

    pub(crate) fn must_fail(&mut self, verb: &'static str) -> bool {
        match self.failures.get_mut(verb) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(crate) fn running(&self) -> Vec<(String, Vec<String>)> {
        let mut running: Vec<_> =
            self.containers.values().filter(|c| c.is_running()).map(|c| (c.path(), c.config.command.clone())).collect();
        running.sort();
        running
    }

    /// The ready sandboxes of a pod.
    pub(crate) fn ready<'a>(&'a self, pod: &'a str) -> impl Iterator<Item = &'a SandboxId> {
        self.sandboxes.iter().filter(move |(_, s)| s.is_ready && pod_path(&s.config) == pod).map(|(id, _)| id)
    }

    /// As containerd: pod, UID and attempt name a sandbox, and no two have one name.
    pub(crate) fn has_sandbox(&self, config: &cri::PodSandboxConfig) -> bool {
        self.sandboxes.values().any(|s| s.config.metadata == config.metadata)
    }

    /// The same for a container of a pod.
    pub(crate) fn has_container(&self, sandbox: &SandboxId, config: &cri::ContainerConfig) -> bool {
        let uid = |id: &SandboxId| Some(self.sandboxes.get(id)?.config.metadata.as_ref()?.uid.clone());
        self.containers.values().any(|c| c.config.metadata == config.metadata && uid(&c.sandbox) == uid(sandbox))
    }

    /// Takes over new resources of a container.
    pub(crate) fn update(&mut self, id: &ContainerId, resources: cri::LinuxContainerResources) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let path = container.path();
        container.config.linux.get_or_insert_default().resources = Some(resources.clone());
        let (shares, quota, memory) = (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes);
        self.call("UpdateContainerResources", format_args!("{path} {shares} {quota} {memory}"));
    }

    pub(crate) fn memory_usage(&self, id: &ContainerId) -> u64 {
        let usage = self.containers.get(id).and_then(|c| self.usage.get(&c.path()));
        usage.copied().unwrap_or(1 << 20)
    }

    /// Notes containers that run in a sandbox which is being stopped.
    pub(crate) fn check_stop(&mut self, id: &SandboxId) {
        let alive = self.containers.values().filter(|c| c.sandbox == *id && c.is_running()).map(Container::path);
        let found: Vec<String> = alive.map(|path| format!("the sandbox of {path} is stopped while it runs")).collect();
        self.violations.extend(found);
    }

    /// Notes a second ready sandbox of one pod name.
    pub(crate) fn check_new_sandbox(&mut self, config: &cri::PodSandboxConfig) {
        let path = pod_path(config);
        if self.sandboxes.values().any(|s| s.is_ready && pod_path(&s.config) == path) {
            self.violations.push(format!("a second ready sandbox of {path}"));
        }
    }

    /// Notes a second live instance of one container.
    pub(crate) fn check_start(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        let path = container.path();
        if self.containers.iter().any(|(other, c)| other != id && c.is_running() && c.path() == path) {
            self.violations.push(format!("a second live instance of {path}"));
        }
    }

    pub(crate) fn end(&mut self, id: &ContainerId, code: i32) -> Option<cri::ContainerEventResponse> {
        let now = self.time();
        let container = self.containers.get_mut(id).filter(|c| c.is_running())?;
        container.ended = Some((now, code));
        let sandbox = container.sandbox.clone();
        Some(cri::ContainerEventResponse {
            container_id: id.to_string(),
            container_event_type: cri::ContainerEventType::ContainerStoppedEvent as i32,
            created_at: now,
            pod_sandbox_status: self.sandbox_status(&sandbox),
            containers_statuses: Vec::new(),
        })
    }

    pub(crate) fn sandbox_status(&self, id: &SandboxId) -> Option<cri::PodSandboxStatus> {
        let sandbox = self.sandboxes.get(id)?;
        Some(cri::PodSandboxStatus {
            id: id.to_string(),
            metadata: sandbox.config.metadata.clone(),
            state: if sandbox.is_ready { 0 } else { cri::PodSandboxState::SandboxNotready as i32 },
            created_at: sandbox.created_at,
            network: Some(cri::PodSandboxNetworkStatus { ip: sandbox.ip.clone(), additional_ips: Vec::new() }),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            ..Default::default()
        })
    }

    pub(crate) fn log_path(&self, container: &Container) -> PathBuf {
        let dir = self.sandboxes.get(&container.sandbox).map(|s| s.config.log_directory.as_str()).unwrap_or_default();
        Path::new(dir).join(&container.config.log_path)
    }

    pub(crate) fn container_status(&self, id: &ContainerId) -> Option<cri::ContainerStatus> {
        let container = self.containers.get(id)?;
        let (finished_at, exit_code) = container.ended.unwrap_or_default();
        let reason = match container.ended {
            Some((_, 0)) => "Completed",
            Some(_) => "Error",
            None => "",
        };
        Some(cri::ContainerStatus {
            id: id.to_string(),
            metadata: container.config.metadata.clone(),
            state: container.state() as i32,
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at,
            exit_code,
            reason: reason.to_owned(),
            image: container.config.image.clone(),
            image_ref: "sha256:0".to_owned(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
            mounts: container.config.mounts.clone(),
            resources: container
                .config
                .linux
                .as_ref()
                .and_then(|l| l.resources.clone())
                .map(|linux| cri::ContainerResources { linux: Some(linux), ..Default::default() }),
            log_path: self.log_path(container).display().to_string(),
            ..Default::default()
        })
    }
}
