//! Who the kernel kills first when memory runs out.

use rubelet_api::v1;

use super::qos::{QosClass, is_node_critical, qos_class};
use super::sum::{Side, Sum, amounts, get, is_sidecar};
use crate::node::NodeFacts;

const GUARANTEED: i64 = -997;
const BEST_EFFORT: i64 = 1000;
/// A guaranteed container that uses all memory reaches this; burstable ones stay above.
const BURSTABLE_MIN: i64 = 1000 + GUARANTEED;

/// `oom_score_adj` of a container of the pod.
///
/// kubelet 1.36: −997 for guaranteed and node-critical pods, 1000 for best effort; in between the less a container asks of the
/// node's memory the higher, between 3 and 999. A sidecar gets no more than the hungriest-looking regular container; what the
/// pod asks for above its containers is split evenly among them.
pub fn oom_score_adj(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts) -> i64 {
    if is_node_critical(pod) {
        return GUARANTEED;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => burstable(pod, container, node),
    }
}

fn burstable(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts) -> i64 {
    let Some(spec) = &pod.spec else { return BEST_EFFORT - 1 };
    let extra = pod_level_extra(pod, spec, node.settings.gates.pod_level_resources);
    let score = |bytes: i64| {
        let of_thousand = i128::from(bytes.saturating_add(extra)) * 1000 / i128::from(node.machine.memory_bytes.max(1));
        1000 - i64::try_from(of_thousand).unwrap_or(i64::MAX / 2)
    };
    let mut adjust = score(memory_request(container));
    let is_pods_sidecar =
        is_sidecar(container) && spec.init_containers.iter().flatten().any(|c| c.name == container.name);
    if is_pods_sidecar {
        adjust = adjust.min(score(spec.containers.iter().map(memory_request).min().unwrap_or(0)));
    }
    adjust.clamp(BURSTABLE_MIN, BEST_EFFORT - 1)
}

/// What one container gets of the pod-level request that its containers did not ask for.
fn pod_level_extra(pod: &v1::Pod, spec: &v1::PodSpec, has_gate: bool) -> i64 {
    let asked = get(&amounts(spec.resources.as_ref(), Side::Requests), "memory").units();
    if !has_gate || asked == 0 {
        return 0;
    }
    let of_containers = get(&Sum::requests(false).without_overhead().of(pod), "memory").units();
    let sharers = spec.containers.len() + spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).count();
    let sharers = i64::try_from(sharers).unwrap_or(i64::MAX).max(1);
    (asked - of_containers).max(0) / sharers
}

fn memory_request(container: &v1::Container) -> i64 {
    get(&amounts(container.resources.as_ref(), Side::Requests), "memory").units()
}
