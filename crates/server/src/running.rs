//! What runs, by the runtime's own word: clients that want to talk to a container are not sent to where it was.

use std::collections::BTreeMap;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_api::v1;
use rubelet_cri::{Runtime, RuntimeError};
use rubelet_proto::cri;

#[cfg(test)]
mod tests;

const NAME_LABEL: &str = "io.kubernetes.pod.name";
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const UID_LABEL: &str = "io.kubernetes.pod.uid";

/// A pod of which something runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RunningPod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Newest first.
    pub(crate) sandboxes: Vec<SandboxId>,
    /// Newest first.
    pub(crate) containers: Vec<RunningContainer>,
    /// Nanoseconds since 1970.
    created_at: i64,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunningContainer {
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) image: String,
}

impl RunningPod {
    /// The newest running container of this name.
    pub(crate) fn container(&self, name: &str) -> Option<&RunningContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// As `/runningpods/` shows it.
    pub(crate) fn shown(&self) -> v1::Pod {
        let mut pod = v1::Pod::default();
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        pod.metadata.name = some(&self.name);
        pod.metadata.namespace = some(&self.namespace);
        pod.metadata.uid = some(&self.uid);
        let containers = self.containers.iter().map(|container| v1::Container {
            name: container.name.clone(),
            image: Some(container.image.clone()),
            ..v1::Container::default()
        });
        pod.spec = Some(v1::PodSpec { containers: containers.collect(), ..v1::PodSpec::default() });
        pod
    }
}

/// All pods with a ready sandbox or a running container, newest first.
///
/// # Errors
/// The runtime's.
pub(crate) async fn running_pods(runtime: &dyn Runtime) -> Result<Vec<RunningPod>, RuntimeError> {
    let ready = cri::PodSandboxStateValue { state: cri::PodSandboxState::SandboxReady.into() };
    let mut sandboxes =
        runtime.list_pod_sandbox(Some(cri::PodSandboxFilter { state: Some(ready), ..Default::default() })).await?;
    let running = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning.into() };
    let mut containers =
        runtime.list_containers(Some(cri::ContainerFilter { state: Some(running), ..Default::default() })).await?;
    sandboxes.sort_by(|a, b| (b.created_at, &a.id).cmp(&(a.created_at, &b.id)));
    containers.sort_by(|a, b| (b.created_at, &a.id).cmp(&(a.created_at, &b.id)));
    let mut pods: BTreeMap<String, RunningPod> = BTreeMap::new();
    for sandbox in sandboxes {
        let Some(metadata) = sandbox.metadata else { continue };
        let pod = pods.entry(metadata.uid.clone()).or_insert_with(|| RunningPod {
            uid: metadata.uid,
            name: metadata.name,
            namespace: metadata.namespace,
            created_at: sandbox.created_at,
            ..RunningPod::default()
        });
        pod.sandboxes.push(SandboxId::from(sandbox.id));
    }
    for container in containers {
        let Some(metadata) = container.metadata else { continue };
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let pod = pods.entry(label(UID_LABEL)).or_insert_with(|| RunningPod {
            uid: label(UID_LABEL),
            name: label(NAME_LABEL),
            namespace: label(NAMESPACE_LABEL),
            ..RunningPod::default()
        });
        pod.containers.push(RunningContainer {
            id: ContainerId::from(container.id),
            name: metadata.name,
            image: container.image.map(|image| image.image).unwrap_or_default(),
        });
    }
    let mut pods: Vec<RunningPod> = pods.into_values().collect();
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    Ok(pods)
}

/// The newest running pod of this name.
///
/// # Errors
/// The runtime's.
pub(crate) async fn running_pod(
    runtime: &dyn Runtime,
    namespace: &str,
    name: &str,
) -> Result<Option<RunningPod>, RuntimeError> {
    let pods = running_pods(runtime).await?;
    Ok(pods.into_iter().find(|pod| pod.namespace == namespace && pod.name == name))
}
