//! What is counted of CPUs, memory and NUMA nodes that containers have for themselves alone.

use rubelet_api::counted;
use rubelet_api::metrics::Stability::Alpha;
use rubelet_api::metrics::{Counter, Family, Gauge, Histogram, Labelled, Names, Plain};

/// kubelet 1.36: how long it takes to let a pod in, in milliseconds.
const ADMISSIONS: &[f64] = &[0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

const fn counts(name: &'static str, help: &'static str, labels: Names) -> Family {
    Family::counter(name, Alpha, help, labels)
}

const fn shows(name: &'static str, help: &'static str, labels: Names) -> Family {
    Family::gauge(name, Alpha, help, labels)
}

counted! {
    /// CPUs, memory and NUMA nodes of containers.
    pub struct AllocationCounts {
        /// kubelet 1.36: of every pod, whatever the policy.
        pub admissions: Plain<Counter> = counts("kubelet_topology_manager_admission_requests_total", "Pods that wanted to be let in and may want resources of NUMA nodes", &[]);
        pub admission_errors: Plain<Counter> = counts("kubelet_topology_manager_admission_errors_total", "Pods that were refused because no NUMA nodes could serve them", &[]);
        pub admission_took: Plain<Histogram> = Family::histogram("kubelet_topology_manager_admission_duration_ms", Alpha, "How long it took to give a pod what it wants for itself alone, in milliseconds", &[], ADMISSIONS);
        pub aligned: Labelled<Counter> = counts("kubelet_container_aligned_compute_resources_count", "Containers and pods whose resources are aligned, by what with", &["boundary", "scope"]);
        pub aligned_failures: Labelled<Counter> = counts("kubelet_container_aligned_compute_resources_failure_count", "Containers and pods whose resources could not be aligned, by what with", &["boundary", "scope"]);
        pub cpu_requests: Plain<Counter> = counts("kubelet_cpu_manager_pinning_requests_total", "Containers that wanted CPUs of their own", &[]);
        pub cpu_errors: Plain<Counter> = counts("kubelet_cpu_manager_pinning_errors_total", "Containers that could not have CPUs of their own", &[]);
        pub cpu_shared: Plain<Gauge> = shows("kubelet_cpu_manager_shared_pool_size_millicores", "CPUs that no container has for itself, in thousandths", &[]);
        pub cpu_exclusive: Plain<Gauge> = shows("kubelet_cpu_manager_exclusive_cpu_allocation_count", "CPUs that containers have for themselves", &[]);
        pub cpu_by_node: Labelled<Gauge> = shows("kubelet_cpu_manager_allocation_per_numa", "CPUs that containers have for themselves, by NUMA node", &["numa_node"]);
        pub memory_requests: Plain<Counter> = counts("kubelet_memory_manager_pinning_requests_total", "Containers that wanted memory of certain NUMA nodes", &[]);
        pub memory_errors: Plain<Counter> = counts("kubelet_memory_manager_pinning_errors_total", "Containers that could not have memory of certain NUMA nodes", &[]);
    }
}
