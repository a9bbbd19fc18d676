//! Capacity and what of it is for pods.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use rubelet_api::quantity::Amount;
use rubelet_api::{Quantity, v1};

use super::NodeFacts;
use crate::resources::hugepages;

type Amounts = BTreeMap<String, Quantity>;

fn bytes(bytes: i64) -> Quantity {
    Quantity(Amount::bytes(bytes).to_string())
}

fn pieces(pieces: i64) -> Quantity {
    Quantity(Amount::pieces(pieces).to_string())
}

fn devices(count: usize) -> Quantity {
    pieces(i64::try_from(count).unwrap_or(i64::MAX))
}

fn cpus(milli: i64) -> Quantity {
    match milli % 1000 {
        0 => pieces(milli / 1000),
        _ => Quantity(format!("{milli}m")),
    }
}

/// Whether somebody else counts it: a name with a domain that is not Kubernetes' own.
pub(crate) fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native && !name.starts_with("requests.")
}

/// Amounts of the machine, beside those that others have put there.
///
/// kubelet 1.36: what others count is allocatable as a whole, of devices those that are well; what is gone from the capacity is not allocatable.
pub(super) fn fill(status: &mut v1::NodeStatus, facts: &NodeFacts) {
    let machine = &facts.machine;
    let mut capacity = status.capacity.take().unwrap_or_default();
    let mut allocatable = status.allocatable.take().unwrap_or_default();
    for (name, count) in &facts.devices {
        capacity.insert(name.clone(), devices(count.capacity));
    }
    let is_gone = |name: &str| is_extended(name) && !capacity.contains_key(name);
    allocatable.retain(|name, _| !is_gone(name));
    for (name, amount) in capacity.iter().filter(|(name, _)| is_extended(name)) {
        allocatable.insert(name.clone(), amount.clone());
    }
    for (name, count) in &facts.devices {
        allocatable.insert(name.clone(), devices(count.allocatable));
    }
    capacity.insert("cpu".to_owned(), cpus(machine.cpu_milli));
    capacity.insert("memory".to_owned(), bytes(machine.memory_bytes));
    capacity.insert("pods".to_owned(), pieces(facts.settings.max_pods));
    allocatable.insert("cpu".to_owned(), cpus(machine.allocatable_cpu_milli));
    allocatable.insert("memory".to_owned(), bytes(machine.allocatable_memory_bytes));
    allocatable.insert("pods".to_owned(), pieces(facts.settings.max_pods));
    if facts.settings.local_storage_isolation {
        let name = "ephemeral-storage".to_owned();
        capacity.insert(name.clone(), bytes(machine.ephemeral_storage_bytes));
        allocatable.insert(name, bytes(machine.allocatable_ephemeral_storage_bytes));
    }
    let pages = huge_pages(facts);
    let is_old = |name: &str| name.starts_with(hugepages::PREFIX) && !pages.contains_key(name);
    capacity.retain(|name, _| !is_old(name));
    allocatable.retain(|name, _| !is_old(name));
    capacity.extend(pages.clone());
    allocatable.extend(pages);
    status.capacity = Some(capacity);
    status.allocatable = Some(allocatable);
}

/// Every page size that the kernel offers.
fn huge_pages(facts: &NodeFacts) -> Amounts {
    let machine = &facts.machine;
    let of = |size: u64| machine.huge_pages.iter().find(|(s, _)| *s == size).map_or(0, |(_, bytes)| *bytes);
    machine.huge_page_sizes.iter().map(|&size| (hugepages::resource_name(size), bytes(of(size)))).into_map()
}

/// Pieces of what others count.
pub(super) fn extended(allocatable: Option<&Amounts>) -> BTreeMap<String, i64> {
    let all = allocatable.into_iter().flatten().filter(|(name, _)| is_extended(name));
    all.filter_map(|(name, amount)| Some((name.clone(), Amount::parse(&amount.0).ok()?.units()))).into_map()
}
