//! The safety net: the lists of all sandboxes and containers, by pod.

use std::collections::BTreeMap;

use rubelet_api::ids::{ContainerId, PodKey, PodUid, SandboxId};
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;

use super::view::{Listed, ListedState};
use super::{NAME_LABEL, NAMESPACE_LABEL, UID_LABEL};
use crate::hands::Hands;

/// One pod in the runtime's lists.
#[derive(Clone, Debug, Default)]
pub struct ListedPod {
    /// From the labels; `None` when they are missing.
    pub key: Option<PodKey>,
    /// `kubernetes.io/config.source` of the newest sandbox.
    pub source: Option<String>,
    /// Rows about it.
    pub rows: Listed,
}

/// Lists all sandboxes and containers that carry a pod's labels.
///
/// # Errors
/// The runtime's answer when one of the two lists fails: half a look is none.
pub async fn relist(hands: &Hands) -> Result<BTreeMap<PodUid, ListedPod>, RuntimeError> {
    let sandboxes = hands.runtime.list_pod_sandbox(None).await?;
    let containers = hands.runtime.list_containers(None).await?;
    Ok(by_pod(sandboxes, containers))
}

fn by_pod(sandboxes: Vec<cri::PodSandbox>, containers: Vec<cri::Container>) -> BTreeMap<PodUid, ListedPod> {
    let mut pods: BTreeMap<PodUid, ListedPod> = BTreeMap::new();
    let mut newest: BTreeMap<PodUid, i64> = BTreeMap::new();
    for sandbox in sandboxes {
        let Some(uid) = sandbox.labels.get(UID_LABEL).map(PodUid::new) else { continue };
        let pod = pods.entry(uid.clone()).or_default();
        let is_ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
        pod.rows.sandboxes.insert(SandboxId::new(&sandbox.id), is_ready);
        pod.key = pod.key.take().or_else(|| key(&sandbox.labels));
        let newest = newest.entry(uid).or_insert(i64::MIN);
        if sandbox.created_at > *newest {
            *newest = sandbox.created_at;
            pod.source = sandbox.annotations.get("kubernetes.io/config.source").cloned();
        }
    }
    for container in containers {
        let Some(uid) = container.labels.get(UID_LABEL).map(PodUid::new) else { continue };
        let pod = pods.entry(uid).or_default();
        pod.rows.containers.insert(ContainerId::new(&container.id), listed_state(container.state));
        pod.key = pod.key.take().or_else(|| key(&container.labels));
    }
    pods
}

fn key(labels: &BTreeMap<String, String>) -> Option<PodKey> {
    Some(PodKey::new(labels.get(NAMESPACE_LABEL)?, labels.get(NAME_LABEL)?))
}

fn listed_state(state: i32) -> ListedState {
    match cri::ContainerState::try_from(state) {
        Ok(cri::ContainerState::ContainerCreated) => ListedState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ListedState::Running,
        Ok(cri::ContainerState::ContainerExited) => ListedState::Exited,
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => ListedState::Unknown,
    }
}
