//! How much swap a container gets.

use rubelet_api::v1;
use rubelet_proto::cri;

use super::qos::{QosClass, is_critical, qos_class};
use super::sum::{Side, amounts, get};
use crate::node::{CgroupVersion, NodeFacts};

/// Sets the swap fields. kubelet 1.36: none by default; with `LimitedSwap` on cgroup v2 a burstable pod's container that asks
/// for memory and may use more gets the node's swap in proportion to its request.
pub fn limit_swap(
    resources: &mut cri::LinuxContainerResources,
    pod: &v1::Pod,
    container: &v1::Container,
    node: &NodeFacts,
) {
    if !node.machine.has_swap_control {
        return;
    }
    match node.cgroup.version {
        // Memory and swap together: no swap when equal to the memory limit; 0 means unlimited, as the memory is.
        CgroupVersion::V1 => resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes,
        CgroupVersion::V2 => {
            let bytes = if node.settings.limited_swap { limited(pod, container, node) } else { 0 };
            resources.unified.insert("memory.swap.max".to_owned(), bytes.to_string());
        }
    }
}

/// Whether `LimitedSwap` gives the container any.
pub fn may_swap(pod: &v1::Pod, container: &v1::Container) -> bool {
    let of = |side| get(&amounts(container.resources.as_ref(), side), "memory");
    let (request, limit) = (of(Side::Requests), of(Side::Limits));
    !is_critical(pod) && qos_class(pod) == QosClass::Burstable && !request.is_zero() && request != limit
}

fn limited(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts) -> i64 {
    if !may_swap(pod, container) {
        return 0;
    }
    let request = get(&amounts(container.resources.as_ref(), Side::Requests), "memory").units();
    let part = i128::from(request) * i128::from(node.machine.swap_bytes) / i128::from(node.machine.memory_bytes.max(1));
    i64::try_from(part).unwrap_or(i64::MAX)
}
