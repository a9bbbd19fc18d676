//! What is left for pods.

/// Amounts that nodes tell and reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeAmounts {
    /// CPUs in thousandths.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system of the agent's root directory.
    pub ephemeral_storage_bytes: i64,
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
    let left = pods_limit(capacity, reserved);
    NodeAmounts {
        cpu_milli: left.cpu_milli,
        memory_bytes: (left.memory_bytes - reserved.eviction.memory_bytes - reserved.huge_pages_bytes).max(0),
        ephemeral_storage_bytes: (left.ephemeral_storage_bytes - reserved.eviction.ephemeral_storage_bytes).max(0),
    }
}

/// What the cgroup of all pods is held to: capacity less both reservations, without the eviction thresholds.
pub fn pods_limit(capacity: NodeAmounts, reserved: Reserved) -> NodeAmounts {
    let less = |amount: i64, system: i64, kube: i64| amount.saturating_sub(system).saturating_sub(kube).max(0);
    NodeAmounts {
        cpu_milli: less(capacity.cpu_milli, reserved.system.cpu_milli, reserved.kube.cpu_milli),
        memory_bytes: less(capacity.memory_bytes, reserved.system.memory_bytes, reserved.kube.memory_bytes),
        ephemeral_storage_bytes: less(
            capacity.ephemeral_storage_bytes,
            reserved.system.ephemeral_storage_bytes,
            reserved.kube.ephemeral_storage_bytes,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeAmounts, Reserved, allocatable, pods_limit};

    #[test]
    fn reservations_and_thresholds_are_taken_off_and_nothing_goes_below_zero() {
        let amounts = |cpu_milli, memory_bytes, ephemeral_storage_bytes| NodeAmounts {
            cpu_milli,
            memory_bytes,
            ephemeral_storage_bytes,
        };
        let capacity = amounts(2000, 1000, 500);
        let reserved = Reserved {
            system: amounts(100, 100, 0),
            kube: amounts(200, 100, 600),
            eviction: amounts(0, 50, 0),
            huge_pages_bytes: 300,
        };
        assert_eq!(allocatable(capacity, reserved), amounts(1700, 450, 0));
        assert_eq!(pods_limit(capacity, reserved), amounts(1700, 800, 0));
    }
}
