//! What is told about one sandbox or container, and the events that tell it unasked.

use std::collections::BTreeMap;

use rubelet_api::ids::SandboxId;
use rubelet_proto::cri::{self, ContainerEventType, ContainerState, PodSandboxState};

use super::{Refusal, now_nanos};
use crate::embedded::Engine;
use crate::pods::record::End;
use crate::pods::{Container, Life, Sandbox, SandboxLife};

pub(crate) fn sandbox_state(sandbox: &Sandbox) -> PodSandboxState {
    match sandbox.life() {
        SandboxLife::Ready { .. } => PodSandboxState::SandboxReady,
        SandboxLife::NotReady => PodSandboxState::SandboxNotready,
    }
}

pub(crate) fn container_state(life: &Life) -> ContainerState {
    match life {
        Life::Created => ContainerState::ContainerCreated,
        Life::Running { .. } => ContainerState::ContainerRunning,
        Life::Ended(_) => ContainerState::ContainerExited,
    }
}

pub(crate) fn sandbox(sandbox: &Sandbox) -> cri::PodSandboxStatus {
    let state = sandbox_state(sandbox);
    let record = sandbox.record();
    let config = record.config();
    let mut addresses = record.addresses.iter();
    let network = cri::PodSandboxNetworkStatus {
        ip: addresses.next().cloned().unwrap_or_default(),
        additional_ips: addresses.map(|ip| cri::PodIp { ip: ip.clone() }).collect(),
    };
    let options = record.namespaces();
    cri::PodSandboxStatus {
        id: record.id.clone(),
        metadata: config.metadata,
        state: state.into(),
        created_at: record.created_at_nanos,
        network: Some(network),
        linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options: Some(options) }) }),
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler: record.runtime_handler.clone(),
    }
}

pub(crate) fn container(engine: &Engine, container: &Container) -> cri::ContainerStatus {
    let life = container.life();
    let record = container.record();
    let config = record.config.clone().unwrap_or_default();
    let (mut image, mut image_ref) = (config.image.clone(), record.image_id.clone());
    if let Some(known) = engine.images.status(&record.image_id) {
        if let (Some(spec), Some(tag)) = (&mut image, known.repo_tags.first()) {
            spec.image.clone_from(tag);
        }
        if let Some(digest) = known.repo_digests.first() {
            image_ref.clone_from(digest);
        }
    }
    let end = match &life {
        Life::Created => End::default(),
        Life::Running { started_at_nanos, .. } => End { started_at_nanos: *started_at_nanos, ..End::default() },
        Life::Ended(end) => end.clone(),
    };
    let linux = config.linux.as_ref().and_then(|l| l.resources.clone());
    cri::ContainerStatus {
        id: record.id.clone(),
        metadata: config.metadata,
        state: container_state(&life).into(),
        created_at: record.created_at_nanos,
        started_at: end.started_at_nanos,
        finished_at: end.finished_at_nanos,
        exit_code: end.code,
        image,
        image_ref,
        reason: end.reason,
        message: end.message,
        labels: config.labels,
        annotations: config.annotations,
        mounts: config.mounts,
        log_path: record.log_path.clone(),
        resources: Some(cri::ContainerResources { linux, windows: None }),
        image_id: record.image_id.clone(),
        user: record.user.clone(),
        stop_signal: config.stop_signal,
    }
}

pub(crate) fn pod_sandbox_status(
    engine: &Engine,
    id: &str,
    verbose: bool,
) -> Result<cri::PodSandboxStatusResponse, Refusal> {
    let found = engine.pods().sandbox(id).ok_or_else(|| Refusal::no_sandbox(id))?;
    let containers = engine.pods().containers_of(&found.id);
    let mut info = BTreeMap::new();
    if verbose {
        let record = found.record();
        let pid = match found.life() {
            SandboxLife::Ready { pid } => pid,
            SandboxLife::NotReady => 0,
        };
        let told = serde_json::json!({
            "pid": pid,
            "runtimeHandler": record.runtime_handler,
            "netns": record.netns,
            "config": record.config,
        });
        info.insert("info".to_owned(), told.to_string());
    }
    Ok(cri::PodSandboxStatusResponse {
        status: Some(sandbox(&found)),
        info,
        containers_statuses: containers.iter().map(|c| container(engine, c)).collect(),
        timestamp: now_nanos(),
    })
}

pub(crate) fn container_status(
    engine: &Engine,
    id: &str,
    verbose: bool,
) -> Result<cri::ContainerStatusResponse, Refusal> {
    let found = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    let mut info = BTreeMap::new();
    if verbose {
        let pid = match found.life() {
            Life::Running { pid, .. } => pid,
            Life::Created | Life::Ended(_) => 0,
        };
        let record = found.record();
        let bundle = engine.places.container(found.id.as_str());
        let spec = std::fs::read(bundle.join(rubelet_shim::setup::CONFIG_FILE)).ok();
        let spec = spec.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let told = serde_json::json!({
            "sandboxID": record.sandbox,
            "pid": pid,
            "snapshotKey": record.id,
            "config": record.config,
            "runtimeSpec": spec,
        });
        info.insert("info".to_owned(), told.to_string());
    }
    Ok(cri::ContainerStatusResponse { status: Some(container(engine, &found)), info })
}

impl Engine {
    /// Tells listeners that something happened to a container or sandbox.
    pub(crate) fn tell(&self, id: &str, what: ContainerEventType, sandbox_id: &SandboxId) {
        if self.news.receiver_count() == 0 {
            return;
        }
        let (pod, containers) = {
            let pods = self.pods();
            (pods.sandbox(sandbox_id.as_str()), pods.containers_of(sandbox_id))
        };
        let event = cri::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: what.into(),
            created_at: now_nanos(),
            pod_sandbox_status: pod.map(|pod| sandbox(&pod)),
            containers_statuses: containers.iter().map(|c| container(self, c)).collect(),
        };
        // Nobody listens: nobody misses it.
        let _ = self.news.send(event);
    }
}
