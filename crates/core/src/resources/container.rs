//! The resources part of CRI's messages.

use rubelet_api::gather::Gather;
use rubelet_api::v1;
use rubelet_proto::cri;

use super::amount::Amount;
use super::cpu::{PERIOD_US, cpu_quota, cpu_shares};
use super::hugepages;
use super::oom::oom_score_adj;
use super::sum::{Amounts, Side, Sum, amounts, get};
use super::swap::limit_swap;
use crate::node::{CgroupVersion, NodeFacts};

/// What one container may use.
pub fn linux_resources(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts) -> cri::LinuxContainerResources {
    let requests = amounts(container.resources.as_ref(), Side::Requests);
    let limits = effective_limits(pod, container, node);
    let mut resources = base(requests.get("cpu").copied(), &limits, node);
    resources.oom_score_adj = oom_score_adj(pod, container, node);
    resources.hugepage_limits = hugepages::limits(&limits, &node.machine.huge_page_sizes)
        .into_iter()
        .map(|(size, limit)| cri::HugepageLimit {
            page_size: hugepages::kernel_name(size),
            limit: u64::try_from(limit).unwrap_or(0),
        })
        .collect();
    limit_swap(&mut resources, pod, container, node);
    resources
}

/// What the pod as a whole may use, without overhead: what a runtime that sizes sandboxes goes by.
pub fn sandbox_resources(pod: &v1::Pod, node: &NodeFacts) -> cri::LinuxContainerResources {
    let pod_level = node.settings.gates.pod_level_resources;
    let requests = Sum::requests(pod_level).without_overhead().of(pod);
    base(requests.get("cpu").copied(), &Sum::limits(pod_level).without_overhead().of(pod), node)
}

/// `spec.overhead` in the same form; empty when the pod has none.
pub fn overhead_resources(pod: &v1::Pod, node: &NodeFacts) -> cri::LinuxContainerResources {
    let Some(overhead) = pod.spec.as_ref().and_then(|s| s.overhead.as_ref()) else {
        return cri::LinuxContainerResources::default();
    };
    let overhead: Amounts = overhead.iter().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).into_map();
    base(Some(get(&overhead, "cpu")), &overhead, node)
}

/// The container's limits, completed by the pod's own where the container has none.
pub fn effective_limits(pod: &v1::Pod, container: &v1::Container, node: &NodeFacts) -> Amounts {
    let mut limits = amounts(container.resources.as_ref(), Side::Limits);
    if node.settings.gates.pod_level_resources {
        let of_pod = amounts(pod.spec.as_ref().and_then(|s| s.resources.as_ref()), Side::Limits);
        for (name, amount) in of_pod.into_iter().filter(|(name, _)| super::sum::is_pod_level(name)) {
            if get(&limits, &name).is_zero() {
                limits.insert(name, amount);
            }
        }
    }
    limits
}

/// Shares, quota, memory and the kill group. Without a request the limit stands for it.
fn base(cpu_request: Option<Amount>, limits: &Amounts, node: &NodeFacts) -> cri::LinuxContainerResources {
    let cpu_limit = get(limits, "cpu");
    let shares = cpu_shares(cpu_request.unwrap_or(cpu_limit).milli());
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: i64::try_from(shares).unwrap_or(i64::MAX),
        memory_limit_in_bytes: get(limits, "memory").units(),
        ..Default::default()
    };
    if node.settings.cpu_cfs_quota {
        resources.cpu_period = cpu_period(node);
        resources.cpu_quota = cpu_quota(cpu_limit.milli(), resources.cpu_period);
    }
    let kills_one = node.settings.single_process_oom_kill.unwrap_or(false);
    if node.cgroup.version == CgroupVersion::V2 && !kills_one {
        resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    resources
}

/// The period of CPU quotas in microseconds.
pub fn cpu_period(node: &NodeFacts) -> i64 {
    if node.settings.cpu_cfs_period_us > 0 { node.settings.cpu_cfs_period_us } else { PERIOD_US }
}
