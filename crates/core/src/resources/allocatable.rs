//! What is left for pods.

use crate::node::NodeLimits;

/// Amounts that nodes tell and reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeAmounts {
    /// CPUs in thousandths.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system of the agent's root directory.
    pub ephemeral_storage_bytes: i64,
    /// Processes and threads; pods are held to them, and nobody is told.
    pub pids: i64,
}

/// What is taken off the capacity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reserved {
    /// `systemReserved`.
    pub system: NodeAmounts,
    /// `kubeReserved`.
    pub kube: NodeAmounts,
    /// `evictionHard`, in bytes; cpu has no such threshold.
    pub eviction: NodeAmounts,
    /// Memory that is set aside as huge pages.
    pub huge_pages_bytes: i64,
}

/// What pods may ask for in sum. kubelet 1.36: capacity less both reservations, the hard eviction thresholds and, for memory, the
/// huge pages; never below zero.
pub fn allocatable(capacity: NodeAmounts, reserved: Reserved) -> NodeAmounts {
    let left = less_reserved(capacity, reserved);
    NodeAmounts {
        cpu_milli: left.cpu_milli,
        memory_bytes: (left.memory_bytes - reserved.eviction.memory_bytes - reserved.huge_pages_bytes).max(0),
        ephemeral_storage_bytes: (left.ephemeral_storage_bytes - reserved.eviction.ephemeral_storage_bytes).max(0),
        pids: left.pids,
    }
}

/// What the cgroup of all pods is held to. kubelet 1.36: capacity less both reservations, without the eviction thresholds; the whole
/// capacity when `enforceNodeAllocatable` does not name pods. `huge_pages`: what is set aside of each size.
pub fn pods_limits(
    capacity: NodeAmounts,
    reserved: Reserved,
    huge_pages: Vec<(u64, i64)>,
    is_enforced: bool,
) -> NodeLimits {
    let left = if is_enforced { less_reserved(capacity, reserved) } else { capacity };
    NodeLimits {
        cpu_milli: Some(left.cpu_milli),
        memory_bytes: Some(left.memory_bytes),
        // A machine without a limit of its own has nothing to keep.
        pids: (capacity.pids > 0).then_some(left.pids),
        huge_pages,
    }
}

fn less_reserved(capacity: NodeAmounts, reserved: Reserved) -> NodeAmounts {
    let less = |amount: i64, system: i64, kube: i64| amount.saturating_sub(system).saturating_sub(kube).max(0);
    NodeAmounts {
        cpu_milli: less(capacity.cpu_milli, reserved.system.cpu_milli, reserved.kube.cpu_milli),
        memory_bytes: less(capacity.memory_bytes, reserved.system.memory_bytes, reserved.kube.memory_bytes),
        ephemeral_storage_bytes: less(
            capacity.ephemeral_storage_bytes,
            reserved.system.ephemeral_storage_bytes,
            reserved.kube.ephemeral_storage_bytes,
        ),
        pids: less(capacity.pids, reserved.system.pids, reserved.kube.pids),
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeAmounts, NodeLimits, Reserved, allocatable, pods_limits};

    #[test]
    fn reservations_and_thresholds_are_taken_off_and_nothing_goes_below_zero() {
        let amounts = |cpu_milli, memory_bytes, ephemeral_storage_bytes| NodeAmounts {
            cpu_milli,
            memory_bytes,
            ephemeral_storage_bytes,
            pids: cpu_milli,
        };
        let capacity = amounts(2000, 1000, 500);
        let reserved = Reserved {
            system: amounts(100, 100, 0),
            kube: amounts(200, 100, 600),
            eviction: amounts(0, 50, 0),
            huge_pages_bytes: 300,
        };
        assert_eq!(allocatable(capacity, reserved), amounts(1700, 450, 0));
        let huge = vec![(2 << 20, 300)];
        let limits = |cpu_milli, memory_bytes| NodeLimits {
            cpu_milli: Some(cpu_milli),
            memory_bytes: Some(memory_bytes),
            pids: Some(cpu_milli),
            huge_pages: huge.clone(),
        };
        assert_eq!(pods_limits(capacity, reserved, huge.clone(), true), limits(1700, 800));
        assert_eq!(pods_limits(capacity, reserved, huge.clone(), false), limits(2000, 1000));
    }
}
