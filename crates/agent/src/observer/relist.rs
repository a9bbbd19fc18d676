//! The safety net: the lists of all sandboxes and containers, by pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, PodKey, PodUid, SandboxId};
use rubelet_api::v1;
use rubelet_core::pod::Source;
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;
use tokio::time::Instant;

use super::view::{Listed, ListedState};
use super::{CONTAINER_LABEL, NAME_LABEL, NAMESPACE_LABEL, UID_LABEL};
use crate::hands::Hands;

/// One pod in the runtime's lists.
#[derive(Clone, Debug, Default)]
pub struct ListedPod {
    /// From the labels; `None` when they are missing.
    pub key: Option<PodKey>,
    /// `kubernetes.io/config.source` of the newest sandbox.
    pub source: Option<String>,
    /// What its containers' annotations tell of the specification: what stopping it takes.
    pub spec: v1::PodSpec,
    /// Rows about it.
    pub rows: Listed,
}

impl ListedPod {
    /// Whether this source wanted it when it was started.
    pub(crate) fn is_of(&self, source: Source) -> bool {
        self.source.as_deref() == Some(source.as_str())
    }
}

/// The runtime's lists.
#[derive(Clone, Debug)]
pub struct Relist {
    /// When it began.
    pub at: Instant,
    pub pods: BTreeMap<PodUid, ListedPod>,
    /// Pods that have their cgroup; `None` where that is not known.
    pub cgroups: Option<BTreeSet<PodUid>>,
}

impl Relist {
    /// What was seen of one pod, in the lists or not.
    pub fn take(&mut self, uid: &PodUid) -> Listed {
        let rows = self.pods.remove(uid).map(|pod| pod.rows).unwrap_or_default();
        let has_cgroup = self.cgroups.as_ref().map(|uids| uids.contains(uid));
        Listed { at: Some(self.at), has_cgroup, ..rows }
    }
}

/// Lists all sandboxes and containers that carry a pod's labels, and the pods' cgroups.
///
/// # Errors
/// The runtime's answer when one of the two lists fails: half a look is none.
pub async fn relist(hands: &Arc<Hands>) -> Result<Relist, RuntimeError> {
    let at = Instant::now();
    let sandboxes = hands.runtime.list_pod_sandbox(None).await?;
    let containers = hands.runtime.list_containers(None).await?;
    let for_disk = hands.clone();
    let cgroups = match hands.cgroups {
        Some(_) => rubelet_host::task::blocking(move || for_disk.pods_with_cgroup()).await.unwrap_or_default(),
        None => None,
    };
    Ok(Relist { at, pods: by_pod(at, sandboxes, containers), cgroups })
}

/// The rows of one pod.
///
/// # Errors
/// As [`relist`].
pub async fn one(hands: &Hands, uid: &PodUid) -> Result<Listed, RuntimeError> {
    let at = Instant::now();
    let label_selector: BTreeMap<_, _> = [(UID_LABEL.to_owned(), uid.to_string())].into();
    let filter = cri::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
    let sandboxes = hands.runtime.list_pod_sandbox(Some(filter)).await?;
    let filter = cri::ContainerFilter { label_selector, ..Default::default() };
    let containers = hands.runtime.list_containers(Some(filter)).await?;
    let rows = by_pod(at, sandboxes, containers).remove(uid).map(|pod| pod.rows);
    Ok(rows.unwrap_or(Listed { at: Some(at), ..Listed::default() }))
}

fn by_pod(
    at: Instant,
    sandboxes: Vec<cri::PodSandbox>,
    containers: Vec<cri::Container>,
) -> BTreeMap<PodUid, ListedPod> {
    let mut pods: BTreeMap<PodUid, ListedPod> = BTreeMap::new();
    let mut newest: BTreeMap<PodUid, i64> = BTreeMap::new();
    for sandbox in sandboxes {
        let Some(uid) = sandbox.labels.get(UID_LABEL).map(PodUid::new) else { continue };
        let pod = pods.entry(uid.clone()).or_default();
        let is_ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
        pod.rows.at = Some(at);
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
        pod.rows.at = Some(at);
        pod.rows.containers.insert(ContainerId::new(&container.id), listed_state(container.state));
        pod.key = pod.key.take().or_else(|| key(&container.labels));
        read_annotations(&mut pod.spec, &container);
    }
    pods
}

/// Kubelet 1.36: grace, preStop hook and ports of a container stand in its annotations, for pods whose manifest is gone.
fn read_annotations(spec: &mut v1::PodSpec, row: &cri::Container) {
    let Some(name) = row.labels.get(CONTAINER_LABEL) else { return };
    if spec.containers.iter().any(|c| c.name == *name) {
        return;
    }
    let told = |key: &str| row.annotations.get(&format!("io.kubernetes.{key}"));
    let secs = told("pod.terminationGracePeriod").and_then(|s| s.parse::<i64>().ok());
    spec.termination_grace_period_seconds = spec.termination_grace_period_seconds.max(secs);
    let pre_stop = told("container.preStopHandler").and_then(|h| serde_json::from_slice(h.as_bytes()).ok());
    spec.containers.push(v1::Container {
        name: name.clone(),
        lifecycle: pre_stop.map(|h| v1::Lifecycle { pre_stop: Some(h), ..Default::default() }),
        ports: told("container.ports").and_then(|p| serde_json::from_slice(p.as_bytes()).ok()),
        ..Default::default()
    });
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
