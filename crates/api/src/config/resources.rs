//! Cgroups, what is kept for the system, and who gets which part of the machine.

use std::collections::BTreeMap;

use super::field::{Quantity, section};
use crate::duration::Duration;

section! {
    /// Cgroups, what is kept for the system, and who gets which part of the machine.
    Resources as "KubeletConfiguration" {
        /// Cgroup of this program.
        "kubeletCgroups" kubelet_cgroups: plain String;
        /// Cgroup into which other processes are moved.
        "systemCgroups" system_cgroups: plain String;
        /// Cgroup under which pods are.
        "cgroupRoot" cgroup_root: plain String;
        /// Whether there is a cgroup for each class of pods.
        "cgroupsPerQOS" cgroups_per_qos: pointer bool = true;
        /// `cgroupfs` or `systemd`, when the runtime does not say.
        "cgroupDriver" cgroup_driver: plain String = "cgroupfs";
        /// `none` or `static`.
        "cpuManagerPolicy" cpu_manager_policy: plain String = "none";
        /// Its options.
        "cpuManagerPolicyOptions" cpu_manager_policy_options: plain BTreeMap<String, String>;
        /// How often it looks.
        "cpuManagerReconcilePeriod" cpu_manager_reconcile_period: plain Duration = "10s";
        /// `None` or `Static`.
        "memoryManagerPolicy" memory_manager_policy: plain String = "None";
        /// `none`, `best-effort`, `restricted` or `single-numa-node`.
        "topologyManagerPolicy" topology_manager_policy: plain String = "none";
        /// `container` or `pod`.
        "topologyManagerScope" topology_manager_scope: plain String = "container";
        /// Its options.
        "topologyManagerPolicyOptions" topology_manager_policy_options: plain BTreeMap<String, String>;
        /// Percent of a resource kept for the better class.
        "qosReserved" qos_reserved: plain BTreeMap<String, String>;
        /// Most processes of a pod; -1: what the node has.
        "podPidsLimit" pod_pids_limit: pointer i64 = -1;
        /// Whether limits of CPU are enforced.
        "cpuCFSQuota" cpu_cfs_quota: pointer bool = true;
        /// Over which period.
        "cpuCFSQuotaPeriod" cpu_cfs_quota_period: pointer Duration = "100ms";
        /// Kept for the system.
        "systemReserved" system_reserved: plain BTreeMap<String, String>;
        /// Kept for this program and the runtime.
        "kubeReserved" kube_reserved: plain BTreeMap<String, String>;
        /// CPUs kept for both.
        "reservedSystemCPUs" reserved_system_cpus: plain String;
        /// Cgroup of the system.
        "systemReservedCgroup" system_reserved_cgroup: plain String;
        /// Cgroup of this program and the runtime.
        "kubeReservedCgroup" kube_reserved_cgroup: plain String;
        /// On whom the reservations are enforced: `pods`, `system-reserved`, `kube-reserved` and the like, or `none`.
        "enforceNodeAllocatable" enforce_node_allocatable: pointer Vec<String> = ["pods"];
        /// Memory kept per NUMA node.
        "reservedMemory" reserved_memory: plain Vec<MemoryReservation>;
        /// Swap for pods.
        "memorySwap" memory_swap: always MemorySwap;
        /// Share of the limit at which memory is throttled.
        "memoryThrottlingFactor" memory_throttling_factor: pointer Option<f64> = 0.9;
        /// `None` or `TieredReservation`.
        "memoryReservationPolicy" memory_reservation_policy: plain String = "None";
        /// Whether the kernel tells of memory thresholds.
        "kernelMemcgNotification" kernel_memcg_notification: plain bool;
        /// Whether only one process of a container is killed for memory; the cgroups' version decides when none.
        "singleProcessOOMKill" single_process_oom_kill: pointer Option<bool>;
        /// Ids of pods with users of their own.
        "userNamespaces" user_namespaces: pointer Option<UserNamespaces>;
    }
}

section! {
    /// Memory kept on one NUMA node.
    MemoryReservation as "MemoryReservation" {
        /// The node's number.
        "numaNode" numa_node: always i32;
        /// Amounts by resource.
        "limits" limits: always BTreeMap<String, Quantity>;
    }
}

section! {
    /// Swap for pods.
    MemorySwap as "memorySwap" {
        /// Empty, `NoSwap` or `LimitedSwap`.
        "swapBehavior" swap_behavior: plain String;
    }
}

section! {
    /// Ids of pods with users of their own.
    UserNamespaces as "userNamespaces" {
        /// How many each gets.
        "idsPerPod" ids_per_pod: pointer Option<i64>;
    }
}
