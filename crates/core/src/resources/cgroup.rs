//! Where pods live in the cgroup tree and what their cgroup allows.

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_api::v1;

use super::amount::Amount;
use super::container::cpu_period;
use super::cpu::{SHARES_MIN, cpu_quota, cpu_shares};
use super::hugepages;
use super::qos::{QosClass, qos_class};
use super::sum::{Amounts, Side, Sum, amounts, get};
use crate::node::{CgroupDriver, NodeFacts};
use crate::pod::step::PodCgroup;

/// The cgroup that holds all pods.
pub const PODS: &str = "kubepods";

/// The pod's cgroup with its values.
///
/// kubelet 1.36: shares always; quota and memory for guaranteed pods, for burstable ones only if every container has the limit
/// (or the pod itself); best effort gets the fewest shares and no limit.
pub fn pod_cgroup(pod: &v1::Pod, node: &NodeFacts) -> PodCgroup {
    let pod_level = node.settings.gates.pod_level_resources;
    let requests = Sum::requests(pod_level).of(pod);
    let limits = Sum::limits(pod_level).of(pod);
    let qos = qos_class(pod);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let period = cpu_period(node);
    let (has_cpu_limit, has_memory_limit) = match qos {
        QosClass::Guaranteed => (true, true),
        QosClass::Burstable => (is_limited(pod, "cpu", pod_level), is_limited(pod, "memory", pod_level)),
        QosClass::BestEffort => (false, false),
    };
    let shares = match qos {
        QosClass::Guaranteed | QosClass::Burstable => cpu_shares(get(&requests, "cpu").milli()),
        QosClass::BestEffort => SHARES_MIN,
    };
    PodCgroup {
        uid: PodUid::new(uid),
        qos,
        path: format!("{}/pod{uid}", level(qos)),
        cpu_shares: shares,
        cpu_quota_us: (has_cpu_limit && node.settings.cpu_cfs_quota)
            .then(|| cpu_quota(get(&limits, "cpu").milli(), period)),
        cpu_period_us: u64::try_from(period).unwrap_or(0),
        memory_limit_bytes: has_memory_limit.then(|| get(&limits, "memory").units()),
        pids_max: (node.settings.pod_pids_limit > 0).then_some(node.settings.pod_pids_limit),
        hugetlb: hugepages::limits(&huge_page_amounts(&requests, &limits), &node.machine.huge_page_sizes),
    }
}

/// The level's cgroup below the root: `kubepods`, `kubepods/burstable` or `kubepods/besteffort`.
pub fn level(qos: QosClass) -> &'static str {
    match qos {
        QosClass::Guaranteed => "kubepods",
        QosClass::Burstable => "kubepods/burstable",
        QosClass::BestEffort => "kubepods/besteffort",
    }
}

/// `cpu.shares` of the burstable level: the sum of what its pods ask for. The best effort level has [`SHARES_MIN`].
pub fn burstable_shares<'a>(pods: impl IntoIterator<Item = &'a v1::Pod>, pod_level: bool) -> u64 {
    let sum = pods
        .into_iter()
        .filter(|pod| qos_class(pod) == QosClass::Burstable)
        .fold(Amount::ZERO, |sum, pod| sum + Amount::from_milli(get(&Sum::requests(pod_level).of(pod), "cpu").milli()));
    cpu_shares(sum.milli())
}

/// `cgroup_parent` of the sandbox: the pod's cgroup as the driver names it, or the root when pods have none of their own.
pub fn cgroup_parent(pod: &v1::Pod, node: &NodeFacts) -> String {
    let root = node.cgroup.root.split('/').filter(|part| !part.is_empty());
    let path = if node.cgroup.per_qos { pod_cgroup(pod, node).path } else { String::new() };
    let parts: Vec<&str> = root.chain(path.split('/').filter(|part| !part.is_empty())).collect();
    match node.cgroup.driver {
        CgroupDriver::Cgroupfs => format!("/{}", parts.join("/")),
        CgroupDriver::Systemd => systemd_path(&parts),
    }
}

/// Slices carry their ancestors' names: `/kubepods.slice/kubepods-burstable.slice/…`; a dash within a part becomes `_`.
fn systemd_path(parts: &[&str]) -> String {
    let mut path = String::new();
    let mut name = String::new();
    for part in parts {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(&part.replace('-', "_"));
        path = format!("{path}/{name}.slice");
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// Whether the pod as a whole has a limit of this resource: its own, or one of each container.
pub(crate) fn is_limited(pod: &v1::Pod, resource: &str, pod_level: bool) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let has =
        |resources: Option<&v1::ResourceRequirements>| !get(&amounts(resources, Side::Limits), resource).is_zero();
    (pod_level && has(spec.resources.as_ref()))
        || spec.containers.iter().chain(spec.init_containers.iter().flatten()).all(|c| has(c.resources.as_ref()))
}

fn huge_page_amounts(requests: &Amounts, limits: &Amounts) -> Amounts {
    let both = limits.iter().chain(requests.iter());
    both.filter(|(name, _)| name.starts_with(hugepages::PREFIX))
        .map(|(name, amount)| (name.clone(), *amount))
        .into_map()
}

#[cfg(test)]
mod tests {
    use super::systemd_path;

    #[test]
    fn slices_repeat_their_ancestors_and_escape_dashes() {
        assert_eq!(
            systemd_path(&["kubepods", "burstable", "podaa-bb"]),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podaa_bb.slice"
        );
        assert_eq!(systemd_path(&[]), "/");
    }
}
