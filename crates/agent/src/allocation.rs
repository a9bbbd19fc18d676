//! What containers have for themselves alone: devices of plugins, CPUs, memory of NUMA nodes. Who gives it, in which order, and that it
//! comes from the same NUMA nodes.
//!
//! Rules are in `rubelet_core::resources`; here is who is asked, and what is written down.

mod follow;
mod pins;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rubelet_api::ids::{ContainerId, PodUid};
use rubelet_api::v1;
use rubelet_core::render::uid_of;
use rubelet_core::resources::Refusal;
use rubelet_core::resources::numa::{Hint, Hints, Merging, Policy, Scope};
use rubelet_proto::cri;
use rubelet_proto::podresources::{AllocatableResourcesResponse, ContainerResources};

use crate::devices::{Devices, in_order};
use crate::metrics::Metrics;

pub(crate) use follow::spawn;
pub use pins::{AllocationSettings, MACHINE_ROOT, Pins};

/// kubelet 1.36: why a pod is refused that no NUMA nodes can serve.
const AFFINITY: &str = "TopologyAffinityError";
const AFFINITY_WORDS: &str = "Resources cannot be allocated with Topology locality";

/// Everybody who gives something to one container alone. Shared.
pub struct Allocation {
    devices: Arc<Devices>,
    pins: Pins,
    merging: Merging,
    metrics: Arc<Metrics>,
}

impl Allocation {
    /// With the CPUs and the memory of an earlier life.
    ///
    /// # Errors
    /// What kubelet 1.36 does not start with, in its words.
    pub(crate) fn open(
        settings: &AllocationSettings,
        root_dir: &Path,
        devices: Arc<Devices>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let (pins, merging) = Pins::open(settings, root_dir, metrics.clone())?;
        Ok(Self { devices, pins, merging, metrics })
    }

    /// Gives a pod's containers what they want for themselves; whether they have devices. Pods of which `is_there` does not know give
    /// theirs back first.
    ///
    /// # Errors
    /// Why it cannot have it, in upstream's words. It has nothing then.
    pub(crate) async fn admit(&self, pod: &v1::Pod, is_there: impl Fn(&PodUid) -> bool) -> Result<bool, Refusal> {
        let counts = &self.metrics.allocation;
        counts.admissions.add_one();
        let began = Instant::now();
        let given = self.admitted(pod, is_there).await;
        counts.admission_took.observe(began.elapsed().as_secs_f64() * 1000.0);
        given
    }

    async fn admitted(&self, pod: &v1::Pod, is_there: impl Fn(&PodUid) -> bool) -> Result<bool, Refusal> {
        let wants_devices = self.devices.wants_any(pod);
        let is_aligned = self.merging.policy != Policy::None;
        if !wants_devices && !is_aligned && !self.pins.any() {
            return Ok(false);
        }
        let uid = uid_of(pod);
        let _turn = self.devices.turn().await;
        self.devices.keep(|held| *held == uid || is_there(held));
        self.pins.keep(|held| *held == uid || is_there(held));
        let given = self.give(pod).await;
        if given.is_err() {
            self.devices.keep(|held| *held != uid);
            self.pins.keep(|held| *held != uid);
        }
        if wants_devices {
            self.devices.write().await;
        }
        self.pins.write().await;
        if is_aligned && given.is_err() {
            self.metrics.allocation.admission_errors.add_one();
        }
        given.map(|()| wants_devices)
    }

    /// A pod is not let in after all, or it is gone.
    pub(crate) async fn give_back(&self, uid: &PodUid) {
        self.devices.give_back(uid).await;
        if self.pins.keep(|held| held != uid) {
            self.pins.write().await;
        }
    }

    /// A pod that already runs has its CPUs and memory, also where nobody wrote them down. kubelet 1.36: or is refused; it goes on here.
    pub(crate) async fn adopt(&self, pod: &v1::Pod) {
        if !self.pins.any() {
            return;
        }
        let _turn = self.devices.turn().await;
        for (container, _) in in_order(pod) {
            if let Err(why) = self.pins.give(pod, container, NOWHERE) {
                let (name, reason, message) = (&pod.metadata.name, why.reason, why.message);
                tracing::warn!(
                    pod = name,
                    container = container.name,
                    reason,
                    message,
                    "a pod that runs cannot have what it wants for itself; it shares"
                );
            }
        }
        self.pins.write().await;
    }

    /// A container is about to be made: it is told its CPUs and the nodes of its memory.
    pub(crate) async fn fill(&self, config: &mut cri::ContainerConfig, pod: &v1::Pod, container: &str) {
        if self.pins.fill(config, pod, container) {
            self.pins.write().await;
        }
    }

    /// The runtime made a container so.
    pub(crate) fn made(&self, id: &ContainerId, cpus: &str) {
        if !cpus.is_empty() {
            self.pins.told(id, cpus);
        }
    }

    /// A pod whose containers have CPUs for themselves has no quota of them.
    pub(crate) fn fill_sandbox(&self, config: &mut cri::PodSandboxConfig, uid: &PodUid) {
        let resources = config.linux.as_mut().and_then(|linux| linux.resources.as_mut());
        if let Some(resources) = resources.filter(|own| own.cpu_quota > 0)
            && self.is_quota_lifted(uid)
        {
            resources.cpu_quota = -1;
        }
    }

    /// Whether the pod's cgroup has no CPU quota: its containers have CPUs for themselves.
    pub(crate) fn is_quota_lifted(&self, uid: &PodUid) -> bool {
        self.pins.is_quota_lifted(uid)
    }

    /// What monitoring is told of a container; without its name.
    pub fn shown(&self, pod: &PodUid, container: &str) -> ContainerResources {
        ContainerResources { devices: self.devices.shown(pod, container), ..self.pins.shown(pod, container) }
    }

    /// What monitoring is told of what there is.
    pub fn shown_allocatable(&self) -> AllocatableResourcesResponse {
        AllocatableResourcesResponse { devices: self.devices.shown_allocatable(), ..self.pins.shown_allocatable() }
    }

    async fn give(&self, pod: &v1::Pod) -> Result<(), Refusal> {
        let machine = self.merging.machine.nodes();
        let of_pod = match (self.merging.policy, self.merging.scope) {
            (Policy::None, _) | (_, Scope::Container) => None,
            (_, Scope::Pod) => {
                let mut hints = vec![self.devices.pod_hints(pod, machine)];
                hints.extend(self.pins.pod_hints(pod));
                Some(self.merged(&hints, "pod")?)
            }
        };
        let mut reusable = rubelet_core::resources::devices::Reusable::new();
        for (container, is_init) in in_order(pod) {
            let hint = match (self.merging.policy, of_pod) {
                (Policy::None, _) => NOWHERE,
                (_, Some(hint)) => hint,
                (_, None) => {
                    let mut hints = vec![self.devices.hints(pod, container, &reusable, machine)];
                    hints.extend(self.pins.hints(pod, container));
                    self.merged(&hints, "container")?
                }
            };
            let given = self.devices.give(pod, container, &reusable, hint.nodes).await;
            given.map_err(|why| Refusal::unexpected(&why))?;
            self.devices.pass_on(pod, container, is_init, &mut reusable);
            self.pins.give(pod, container, hint)?;
            if self.merging.policy == Policy::SingleNumaNode && of_pod.is_none() {
                self.metrics.allocation.aligned.of(&[NUMA_NODE, "container"]).add_one();
            }
        }
        if self.merging.policy == Policy::SingleNumaNode && of_pod.is_some() {
            self.metrics.allocation.aligned.of(&[NUMA_NODE, "pod"]).add_one();
        }
        Ok(())
    }

    fn merged(&self, hints: &[Hints], scope: &str) -> Result<Hint, Refusal> {
        let (hint, is_in) = self.merging.merge(hints);
        if is_in {
            return Ok(hint);
        }
        if self.merging.policy == Policy::SingleNumaNode {
            self.metrics.allocation.aligned_failures.of(&[NUMA_NODE, scope]).add_one();
        }
        Err(Refusal { reason: AFFINITY, message: AFFINITY_WORDS.to_owned() })
    }
}

/// kubelet 1.36: what is asked for without a policy.
const NOWHERE: Hint = Hint { nodes: None, is_preferred: false };
const NUMA_NODE: &str = "numa_node";
