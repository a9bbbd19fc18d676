//! Whether what a pod asks for is still there.

use std::borrow::Cow;

use rubelet_api::v1;

use super::Verdict;
use crate::node::NodeFacts;
use crate::resources::amount::Amount;
use crate::resources::claims::wishes;
use crate::resources::hugepages;
use crate::resources::sum::{Amounts, Sum, get};

/// Something of which the node has not enough left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lack {
    pub(super) resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    /// How much would have to become free.
    pub(super) fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    pub(super) fn verdict(&self) -> Verdict {
        let Self { resource, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Verdict::rejected(format!("OutOf{resource}"), message)
    }
}

/// Checks the number of pods, then cpu, memory, ephemeral storage, huge pages and what others count on the node. kubelet 1.36: other
/// resources that the node does not have are ignored.
pub(super) fn lacks(pod: &v1::Pod, active: &[&v1::Pod], node: &NodeFacts) -> Vec<Lack> {
    let count = i64::try_from(active.len()).unwrap_or(i64::MAX);
    let most = node.settings.max_pods;
    let pods = Lack { resource: "pods".to_owned(), requested: 1, used: count, capacity: most };
    let sum = Sum::requests(node.settings.gates.pod_level_resources);
    let extended = node.settings.gates.dra_extended_resource;
    let of = |pod: &v1::Pod| sum.of(&without_claimed(pod, extended));
    let wanted = of(pod);
    let used: Vec<Amounts> = active.iter().map(|other| of(other)).collect();
    let is_counted = |name: &&str| name.starts_with(hugepages::PREFIX) || node.registered.extended.contains_key(*name);
    let others = wanted.keys().map(String::as_str).filter(is_counted);
    let amounts = ["cpu", "memory", "ephemeral-storage"].into_iter().chain(others).filter_map(|name| {
        let requested = counted(name, get(&wanted, name));
        let used = used.iter().fold(0_i64, |sum, one| sum.saturating_add(counted(name, get(one, name))));
        let capacity = capacity(name, node);
        let lack = Lack { resource: name.to_owned(), requested, used, capacity };
        (requested > 0 && lack.missing() > 0).then_some(lack)
    });
    (pods.missing() > 0).then_some(pods).into_iter().chain(amounts).collect()
}

/// kubelet 1.36: what a container has by a resource claim does not count as the node's.
fn without_claimed(pod: &v1::Pod, extended: bool) -> Cow<'_, v1::Pod> {
    let is_claimed = pod.status.as_ref().is_some_and(|s| s.extended_resource_claim_status.is_some());
    if !is_claimed || !extended {
        return Cow::Borrowed(pod);
    }
    let mut bare = pod.clone();
    let spec = bare.spec.get_or_insert_default();
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        for requests in container.resources.iter_mut().filter_map(|r| r.requests.as_mut()) {
            let name = &container.name;
            requests
                .retain(|resource, _| !wishes::may_be_claimed(resource) || !wishes::is_extended(pod, name, resource));
        }
    }
    Cow::Owned(bare)
}

/// CPUs count in thousandths, all else in units.
pub(super) fn counted(name: &str, amount: Amount) -> i64 {
    if name == "cpu" { amount.milli() } else { amount.units() }
}

fn capacity(name: &str, node: &NodeFacts) -> i64 {
    let machine = &node.machine;
    match name {
        "cpu" => machine.allocatable_cpu_milli,
        "memory" => machine.allocatable_memory_bytes,
        "ephemeral-storage" => machine.allocatable_ephemeral_storage_bytes,
        other if !other.starts_with(hugepages::PREFIX) => node.registered.extended.get(other).copied().unwrap_or(0),
        other => {
            let size = hugepages::page_size(other);
            machine.huge_pages.iter().find(|(s, _)| Some(*s) == size).map_or(0, |(_, bytes)| *bytes)
        }
    }
}
