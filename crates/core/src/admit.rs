//! Whether a pod may run on this node at all.
//!
//! Not decided here: node pressure and node shutdown, which are the node level's, and making room for critical pods by preemption,
//! which is not built: a critical pod that does not fit is rejected like any other.

use rubelet_api::v1;

use crate::node::{CgroupVersion, NodeFacts};
use crate::pod::ResizeVerdict;
use crate::render::containers;
use crate::render::security::apparmor_wish;
use crate::resources::sum::{Side, amounts, get};

pub mod affinity;
pub mod fit;
pub mod ports;
pub mod sysctl;
mod taints;

/// The answer of admission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Admitted,
    /// The pod never runs: phase `Failed` with this reason. The event's message is `message`; the status says
    /// `Pod was rejected: <message>`.
    Rejected {
        reason: String,
        message: String,
    },
}

impl Verdict {
    pub(crate) fn rejected(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Rejected { reason: reason.into(), message: message.into() }
    }
}

/// Says whether `pod` may run beside `active`, the admitted pods that still use something (without `pod` itself).
///
/// kubelet 1.36: sysctls, then what the pod wants of the node's system, then resources, node selection, name, ports and taints,
/// then AppArmor. The first refusal counts.
pub fn decide(pod: &v1::Pod, active: &[&v1::Pod], node: &NodeFacts) -> Verdict {
    let checks: [&dyn Fn() -> Option<Verdict>; 9] = [
        &|| sysctl::check(pod, node),
        &|| operating_system(pod),
        &|| groups_policy(pod, node),
        &|| pod_level_resources(pod, node),
        &|| fit::check(pod, active, node),
        &|| affinity::check(pod, node),
        &|| ports::check(pod, active),
        &|| taints::check(pod, node),
        &|| apparmor(pod, node),
    ];
    checks.iter().find_map(|check| check()).unwrap_or(Verdict::Admitted)
}

/// Says whether `pod`, which is admitted, may have the sizes that it wants now, beside `active` (without `pod` itself).
///
/// kubelet 1.36: what does not fit waits; memory of a container with swap cannot change unless it is started anew.
pub fn resize(pod: &v1::Pod, granted: &v1::Pod, active: &[&v1::Pod], node: &NodeFacts) -> ResizeVerdict {
    let is_swapping = node.settings.limited_swap && node.cgroup.version == CgroupVersion::V2;
    if is_swapping && swaps(pod, granted) {
        let message = "In-place resize of containers with swap is not supported.".to_owned();
        return ResizeVerdict::Infeasible { message };
    }
    match decide(pod, active, node) {
        Verdict::Admitted => ResizeVerdict::Granted,
        Verdict::Rejected { reason, message } => ResizeVerdict::Deferred { reason, message },
    }
}

/// Whether the memory request of a container changes that may swap before or after.
fn swaps(pod: &v1::Pod, granted: &v1::Pod) -> bool {
    use crate::resources::swap::may_swap;
    let memory = |c: &v1::Container| get(&amounts(c.resources.as_ref(), Side::Requests), "memory");
    containers(pod).any(|new| {
        let is_anew = new
            .resize_policy
            .iter()
            .flatten()
            .any(|p| p.resource_name == "memory" && p.restart_policy == "RestartContainer");
        let old = containers(granted).find(|c| c.name == new.name);
        !is_anew && old.is_some_and(|old| memory(old) != memory(new) && (may_swap(pod, new) || may_swap(granted, old)))
    })
}

fn operating_system(pod: &v1::Pod) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    let selected = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if selected.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(Verdict::rejected("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Some(Verdict::rejected(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ));
    }
    None
}

fn groups_policy(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let policy = pod.spec.as_ref()?.security_context.as_ref()?.supplemental_groups_policy.as_deref()?;
    (policy == "Strict" && !node.runtime.has_supplemental_groups_policy).then(|| {
        Verdict::rejected(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        )
    })
}

fn pod_level_resources(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let is_wanted = crate::resources::sum::has_pod_level(pod);
    (is_wanted && !node.settings.gates.pod_level_resources).then(|| {
        let message = "PodLevelResources feature gate is disabled, pod-level resources are not supported";
        Verdict::rejected("PodLevelResourcesNotSupported", message)
    })
}

fn apparmor(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let is_wanted = containers(pod).filter_map(|c| apparmor_wish(pod, c)).any(|(kind, _)| kind != "Unconfined");
    (is_wanted && !node.machine.has_apparmor)
        .then(|| Verdict::rejected("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"))
}

#[cfg(test)]
mod tests;
