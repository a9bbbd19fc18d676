//! Whether a pod may run on this node at all.
//!
//! Not decided here: node pressure and node shutdown, which are the node level's.

use rubelet_api::ids::PodUid;
use rubelet_api::v1;

use crate::node::{CgroupVersion, NodeFacts};
use crate::pod::ResizeVerdict;
use crate::pod::step::QosClass;
use crate::render::containers;
use crate::render::security::apparmor_wish;
use crate::resources::qos::{is_critical, qos_class};
use crate::resources::sum::{Side, amounts, get};

pub mod affinity;
pub mod fit;
pub mod ports;
pub mod preempt;
pub mod sysctl;
mod taints;

/// The answer of admission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Admitted,
    /// It is let in, and begins once these have ended to make room for it.
    AdmittedAfter {
        victims: Vec<PodUid>,
        /// What the node has too little of; the first, if it is more than one thing.
        lacks: String,
    },
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
/// kubelet 1.36: sysctls, then what the pod wants of the node's system, then resources, node selection, name, ports and taints, then
/// AppArmor and other features. The first refusal counts. Critical pods are not refused for want of resources: others end for them.
pub fn decide(pod: &v1::Pod, active: &[&v1::Pod], node: &NodeFacts) -> Verdict {
    judge(pod, active, node, Room::IsMade)
}

/// Whether others may have to end for a critical pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    IsMade,
    IsGiven,
}

/// Whether `pod` is refused before anybody asks what is left of the node.
pub fn first_refusal(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    sysctl::check(pod, node).or_else(|| operating_system(pod)).or_else(|| groups_policy(pod, node))
}

fn judge(pod: &v1::Pod, active: &[&v1::Pod], node: &NodeFacts, room: Room) -> Verdict {
    let first = |checks: &[&dyn Fn() -> Option<Verdict>]| checks.iter().find_map(|check| check());
    if let Some(refusal) = first_refusal(pod, node) {
        return refusal;
    }
    let lacks = fit::lacks(pod, active, node);
    let misplaced =
        first(&[&|| affinity::check(pod, node), &|| ports::check(pod, active), &|| taints::check(pod, node)]);
    let may_make_room = room == Room::IsMade && is_critical(pod);
    let verdict = match (lacks.first(), misplaced) {
        (None, None) => Verdict::Admitted,
        (Some(_), None) if may_make_room => preempt::make_room(pod, active, &lacks, node),
        (Some(_), Some(refusal)) if may_make_room => refusal,
        (Some(lack), _) => lack.verdict(),
        (None, Some(refusal)) => refusal,
    };
    if let Verdict::Rejected { .. } = verdict {
        return verdict;
    }
    // Before anybody ends for it.
    first(&[&|| apparmor(pod, node), &|| pod_level_resources(pod, node), &|| declared_features(pod, node)])
        .unwrap_or(verdict)
}

/// Says whether `pod`, which is admitted, may have the sizes that it wants now, beside `active` (without `pod` itself).
///
/// kubelet 1.36: what does not fit waits; nobody ends for it here; memory of a container with swap cannot change unless it is started anew.
pub fn resize(pod: &v1::Pod, granted: &v1::Pod, active: &[&v1::Pod], node: &NodeFacts) -> ResizeVerdict {
    let is_swapping = node.settings.limited_swap && node.cgroup.version == CgroupVersion::V2;
    if is_swapping && swaps(pod, granted) {
        let message = "In-place resize of containers with swap is not supported.".to_owned();
        return ResizeVerdict::Infeasible { detail: "swap_limitation", message };
    }
    if let Some(infeasible) = pinned(pod, granted, node) {
        return infeasible;
    }
    match judge(pod, active, node, Room::IsGiven) {
        Verdict::Admitted | Verdict::AdmittedAfter { .. } => ResizeVerdict::Granted,
        Verdict::Rejected { reason, message } => ResizeVerdict::Deferred { reason, message },
    }
}

/// kubelet 1.36: what a guaranteed pod has for itself alone does not change.
fn pinned(pod: &v1::Pod, granted: &v1::Pod, node: &NodeFacts) -> Option<ResizeVerdict> {
    if qos_class(pod) != QosClass::Guaranteed {
        return None;
    }
    let changes = |resource: &str| {
        let request = |c: &v1::Container| get(&amounts(c.resources.as_ref(), Side::Requests), resource);
        containers(pod).any(|new| {
            let old = containers(granted).find(|c| c.name == new.name);
            old.is_some_and(|old| request(old) != request(new))
        })
    };
    let settings = &node.settings;
    let (detail, keeper, policy) = if settings.static_cpus && changes("cpu") {
        ("guaranteed_pod_cpu_manager_static_policy", "CPU", "static")
    } else if settings.static_memory && changes("memory") {
        ("guaranteed_pod_memory_manager_static_policy", "Memory", "Static")
    } else {
        return None;
    };
    let message = format!("Resize is infeasible for Guaranteed Pods alongside {keeper} Manager policy {policy:?}");
    Some(ResizeVerdict::Infeasible { detail, message })
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

/// kubelet 1.36: the label is the pod's own; a node selector for another system fails as any other does.
fn operating_system(pod: &v1::Pod) -> Option<Verdict> {
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(Verdict::rejected("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    let spec = pod.spec.as_ref()?;
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
    (is_wanted && !node.settings.gates.pod_level_resources)
        .then(|| Verdict::rejected("PodLevelResourcesNotSupported", "PodLevelResources feature gate is disabled"))
}

/// What a pod needs that a node of this version may not have. kubelet 1.36: by name, sorted.
fn declared_features(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let gates = &node.settings.gates;
    let spec = pod.spec.as_ref()?;
    let regular_and_init = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let rules = || regular_and_init().flat_map(|c| c.restart_policy_rules.iter().flatten());
    let restarts_all = rules().any(|rule| rule.action == "RestartAllContainers");
    // No runtime that there is maps the users of pods in the host's network.
    let maps_host_users = spec.host_network == Some(true) && spec.host_users == Some(false);
    let lacks = [
        (restarts_all && !gates.restart_all_containers_on_container_exits, "RestartAllContainersOnContainerExits"),
        (maps_host_users, "UserNamespacesHostNetworkSupport"),
    ];
    let names: Vec<&str> = lacks.into_iter().filter_map(|(lacks, name)| lacks.then_some(name)).collect();
    (gates.node_declared_features && !names.is_empty()).then(|| {
        let message = format!("Pod requires node features that are not available: {}", names.join(", "));
        Verdict::rejected("PodFeatureUnsupported", message)
    })
}

fn apparmor(pod: &v1::Pod, node: &NodeFacts) -> Option<Verdict> {
    let is_wanted = containers(pod).filter_map(|c| apparmor_wish(pod, c)).any(|(kind, _)| kind != "Unconfined");
    (is_wanted && !node.machine.has_apparmor)
        .then(|| Verdict::rejected("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"))
}

#[cfg(test)]
mod tests;
