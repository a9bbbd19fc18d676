//! What there is at the start: all of the machine, or what an earlier life left of it.

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;

use super::super::numa::Nodes;
use super::reserved::{MachineNode, Reservations};
use super::{Block, MEMORY, Node, State, Static, Table};

/// Why what was written down is of no use: in upstream's words, with which it does not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    #[error("[memorymanager] machine state can not be empty when it has memory assignments")]
    Empty,
    #[error(
        "[memorymanager] (pod: {pod}, container: {container}) the memory assignment uses the NUMA that does not exist"
    )]
    Node { pod: PodUid, container: String },
    #[error(
        "[memorymanager] (pod: {pod}, container: {container}) the memory assignment uses memory resource that does not exist"
    )]
    Resource { pod: PodUid, container: String },
    /// `how` is for the log.
    #[error("[memorymanager] the expected machine state is different from the real one")]
    Different { how: String },
}

impl Static {
    /// Nobody has anything yet.
    #[must_use]
    pub fn new(machine: &[MachineNode], reservations: &Reservations) -> Self {
        Self { state: all(machine, reservations), ..Self::default() }
    }

    /// As an earlier life wrote it down.
    ///
    /// # Errors
    /// The machine is not what it was, or something else is kept for the system.
    pub fn restored(machine: &[MachineNode], reservations: &Reservations, state: State) -> Result<Self, Invalid> {
        let mut expected = all(machine, reservations);
        if state.nodes.is_empty() {
            let is_empty = state.held.is_empty();
            return if is_empty { Ok(Self::new(machine, reservations)) } else { Err(Invalid::Empty) };
        }
        let held = state.held.iter().flat_map(|(pod, all)| all.iter().map(move |(container, of)| (pod, container, of)));
        let blocks = held.flat_map(|(pod, container, of)| of.iter().map(move |block| (pod, container, block)));
        let mut blocks: Vec<(&PodUid, &String, &Block)> = blocks.collect();
        for (pod, container, block) in &blocks {
            expected.is_possible(block, pod, container)?;
        }
        // The last one says with which nodes a node serves. kubelet 1.36: takes them in any order, and starts or not as it comes.
        let is_last =
            |block: &Block| block.nodes.numbers().all(|n| state.nodes.get(&n).is_some_and(|n| n.group == block.nodes));
        blocks.sort_by_key(|(_, _, block)| is_last(block));
        blocks.iter().for_each(|(_, _, block)| expected.take(block));
        state.is_like(&expected).map_err(|how| Invalid::Different { how })?;
        Ok(Self { state, ..Self::default() })
    }
}

/// kubelet 1.36: huge pages are no memory; what is kept is no pod's.
fn all(machine: &[MachineNode], reservations: &Reservations) -> State {
    let table = |node: &MachineNode, name: &str, total: u64, other: u64| {
        let system_reserved = reservations.get(&node.number).and_then(|of| of.get(name)).copied().unwrap_or_default();
        let allocatable = total.saturating_sub(system_reserved).saturating_sub(other);
        Table { total, system_reserved, allocatable, reserved: 0, free: allocatable }
    };
    let node = |node: &MachineNode| {
        let mut tables = BTreeMap::new();
        let mut other = 0_u64;
        for (name, bytes) in node.huge_pages() {
            other = other.saturating_add(bytes);
            tables.insert(name.clone(), table(node, &name, bytes, 0));
        }
        tables.insert(MEMORY.to_owned(), table(node, MEMORY, node.memory_bytes, other));
        (node.number, Node { assignments: 0, tables, group: Nodes::of([node.number]) })
    };
    State { nodes: machine.iter().map(node).into_map(), ..State::default() }
}

impl State {
    fn is_possible(&self, block: &Block, pod: &PodUid, container: &str) -> Result<(), Invalid> {
        let of = || (pod.clone(), container.to_owned());
        for number in block.nodes.numbers() {
            let ((pod, container), node) = (of(), self.nodes.get(&number));
            let Some(node) = node else { return Err(Invalid::Node { pod, container }) };
            if !node.tables.contains_key(&block.resource) {
                return Err(Invalid::Resource { pod, container });
            }
        }
        Ok(())
    }

    /// kubelet 1.36: of what is free and reserved, the sums of nodes that serve together count, for how containers came and went decides which of
    /// them has it.
    fn is_like(&self, expected: &Self) -> Result<(), String> {
        let differ = |what: &str, was: &dyn std::fmt::Debug, is: &dyn std::fmt::Debug| {
            Err(format!("{what}: {was:?} was written down, {is:?} is expected"))
        };
        let numbers = |state: &Self| state.nodes.keys().copied().collect::<Vec<_>>();
        if numbers(self) != numbers(expected) {
            return differ("nodes", &numbers(self), &numbers(expected));
        }
        for ((number, was), is) in self.nodes.iter().zip(expected.nodes.values()) {
            if was.assignments != is.assignments {
                return differ(&format!("assignments of node {number}"), &was.assignments, &is.assignments);
            }
            if was.group != is.group {
                let numbers = |nodes: Nodes| nodes.numbers().collect::<Vec<_>>();
                return differ(&format!("group of node {number}"), &numbers(was.group), &numbers(is.group));
            }
            let names = |node: &Node| node.tables.keys().cloned().collect::<Vec<_>>();
            if names(was) != names(is) {
                return differ(&format!("resources of node {number}"), &names(was), &names(is));
            }
        }
        for (number, name) in self.nodes.iter().flat_map(|(number, was)| was.tables.keys().map(move |of| (number, of)))
        {
            let (before, now) = (self.compared(*number, name), expected.compared(*number, name));
            if before != now {
                return differ(&format!("{name} of node {number}"), &before, &now);
            }
        }
        Ok(())
    }

    /// A table, with what its whole group has reserved and free.
    fn compared(&self, number: usize, resource: &str) -> Table {
        let mut all = Table { reserved: 0, free: 0, ..self.table(number, resource) };
        for number in self.nodes.get(&number).into_iter().flat_map(|node| node.group.numbers()) {
            let one = self.table(number, resource);
            all.reserved = all.reserved.saturating_add(one.reserved);
            all.free = all.free.saturating_add(one.free);
        }
        all
    }
}
