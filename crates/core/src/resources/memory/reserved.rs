//! Memory that is kept for the system, and from which nodes.

use std::collections::{BTreeMap, BTreeSet};

use rubelet_api::config::MemoryReservation;
use rubelet_api::gather::Gather;
use rubelet_api::quantity::Amount;

use super::super::hugepages;
use super::MEMORY;

/// A NUMA node of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineNode {
    pub number: usize,
    /// All of it, huge pages too.
    pub memory_bytes: u64,
    /// Size of pages in bytes, and how many there are.
    pub huge_pages: Vec<(u64, u64)>,
}

impl MachineNode {
    /// Name and bytes of each size of huge pages.
    pub(super) fn huge_pages(&self) -> impl Iterator<Item = (String, u64)> {
        self.huge_pages.iter().map(|(size, count)| (hugepages::resource_name(*size), size.saturating_mul(*count)))
    }
}

/// Bytes that are kept: by node and resource.
pub type Reservations = BTreeMap<usize, BTreeMap<String, u64>>;

/// What `reservedMemory` keeps from which node. `kept`: what is taken off the node's capacity by resource: `systemReserved`, `kubeReserved`, hard
/// eviction thresholds; in this order, for upstream's words.
///
/// # Errors
/// kubelet 1.36: a node does not exist, both are not the same in sum, an amount is no whole number, or no memory is kept; in its words.
pub fn reservations(
    machine: &[MachineNode],
    kept: &[&BTreeMap<String, Amount>],
    configured: &[MemoryReservation],
) -> Result<Reservations, String> {
    let mut reservations: Reservations = machine.iter().map(|node| (node.number, BTreeMap::new())).into_map();
    let node_of = |one: &MemoryReservation| {
        let number = usize::try_from(one.numa_node).ok().filter(|number| machine.iter().any(|n| n.number == *number));
        number.ok_or_else(|| {
            format!(
                "the reserved memory configuration references a NUMA node {} that does not exist on this machine",
                one.numa_node
            )
        })
    };
    let mut configured_sums: BTreeMap<&str, Amount> = BTreeMap::new();
    for one in configured {
        node_of(one)?;
        for (resource, amount) in &one.limits {
            let sum = configured_sums.entry(resource).or_insert(Amount::ZERO);
            *sum = amount.amount().plus(*sum);
        }
    }
    are_equal(&configured_sums, &kept_sums(machine, kept))?;
    for one in configured {
        let of_node = reservations.entry(node_of(one)?).or_default();
        for (resource, amount) in &one.limits {
            of_node.insert(resource.clone(), bytes(amount.amount())?);
        }
    }
    let memory = reservations.values().filter_map(|of| of.get(MEMORY));
    if memory.fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)) == 0 {
        return Err("[memorymanager] you should specify the system reserved memory".to_owned());
    }
    Ok(reservations)
}

fn bytes(amount: Amount) -> Result<u64, String> {
    let whole = Some(amount.units()).filter(|units| Amount::pieces(*units) == amount);
    whole.and_then(|units| u64::try_from(units).ok()).ok_or_else(|| {
        // Upstream's slip of the pen.
        "could not covert a variable of type Quantity to int64".to_owned()
    })
}

/// kubelet 1.36: of what the machine has.
fn kept_sums<'a>(machine: &[MachineNode], kept: &[&'a BTreeMap<String, Amount>]) -> BTreeMap<&'a str, Amount> {
    let huge_pages = machine.iter().flat_map(|node| &node.huge_pages).map(|(size, _)| hugepages::resource_name(*size));
    let there: BTreeSet<String> = huge_pages.chain([MEMORY.to_owned()]).collect();
    let mut sums: BTreeMap<&str, Amount> = BTreeMap::new();
    for (resource, amount) in kept.iter().copied().flatten() {
        if there.contains(resource) {
            let sum = sums.entry(resource).or_insert(Amount::ZERO);
            *sum = sum.plus(*amount);
        }
    }
    sums
}

fn are_equal(configured: &BTreeMap<&str, Amount>, kept: &BTreeMap<&str, Amount>) -> Result<(), String> {
    let names: BTreeSet<&str> = configured.keys().chain(kept.keys()).copied().collect();
    for name in names {
        let of = |sums: &BTreeMap<&str, Amount>| sums.get(name).copied().unwrap_or(Amount::ZERO);
        if of(configured) != of(kept) {
            return Err(format!(
                "the total amount \"{}\" of type {name:?} is not equal to the value \"{}\" determined by Node Allocatable feature",
                of(configured),
                of(kept)
            ));
        }
    }
    Ok(())
}
