//! What deciders know of the node: read-only, resolved once or when it changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use rubelet_api::v1;

pub mod addresses;
mod amounts;
pub mod conditions;
pub mod features;
pub mod lease;
pub mod object;
pub mod patch;
pub mod reconcile;
pub mod report;
#[cfg(test)]
mod tests;

pub(crate) use amounts::is_extended;

/// Properties of the machine, of its configuration and of its runtime that decisions about pods need.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Name of the Node object, also the suffix of static pods' names.
    pub name: String,
    /// Addresses of the node, primary first; at most one per family. Empty when the host has none yet.
    pub ips: Vec<IpAddr>,
    /// `--root-dir`, by default `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `podLogsDir`, by default `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// Capacity and allocatable amounts, page sizes.
    pub machine: Machine,
    /// Where pods live in the cgroup tree.
    pub cgroup: CgroupFacts,
    /// What the container runtime says of itself.
    pub runtime: RuntimeFacts,
    /// What the node is to the cluster.
    pub registered: Registered,
    /// Devices that plugins of this node bring.
    pub devices: crate::resources::devices::Counts,
    /// Cluster and host name service.
    pub dns: DnsFacts,
    /// Content of the host's `/etc/hosts`, for pods in the host's network.
    pub host_etc_hosts: String,
    /// Settings of `KubeletConfiguration` that decide about pods.
    pub settings: PodSettings,
    /// The agent's start: containers older than this were adopted.
    pub started_at: crate::now::Wall,
}

/// What the Node object says that decides about pods; before it was seen, what the node would say of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registered {
    /// Whether the API server has said whether there is a Node object, and what it says.
    pub is_seen: bool,
    /// UID of the Node object; `None` as long as none was seen, and once it is being deleted.
    pub uid: Option<String>,
    /// Of every type; other than [`NodeFacts::ips`] in the API's words.
    pub addresses: Vec<v1::NodeAddress>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<v1::Taint>,
    /// Allocatable pieces of resources that the machine does not know of itself (`example.com/dongle`).
    pub extended: BTreeMap<String, i64>,
    /// Volumes that the cluster's controller has attached to the node.
    pub volumes_attached: Vec<String>,
}

/// Amounts of the machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// CPUs in thousandths.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system that holds `root_dir`.
    pub ephemeral_storage_bytes: i64,
    /// Allocatable CPU in thousandths: capacity less what is reserved.
    pub allocatable_cpu_milli: i64,
    /// Allocatable memory in bytes.
    pub allocatable_memory_bytes: i64,
    /// Allocatable ephemeral storage in bytes.
    pub allocatable_ephemeral_storage_bytes: i64,
    /// What all pods together are held to.
    pub pods_limits: NodeLimits,
    /// Huge page sizes that the kernel offers, in bytes, ascending by the kernel's file order.
    pub huge_page_sizes: Vec<u64>,
    /// Bytes of each huge page size that pods may ask for: (page size, bytes set aside).
    pub huge_pages: Vec<(u64, i64)>,
    /// Bytes of swap space.
    pub swap_bytes: i64,
    /// Whether the kernel counts swap per cgroup (`memory.swap.max`, `memory.memsw.limit_in_bytes`).
    pub has_swap_control: bool,
    /// Whether AppArmor is enabled in the kernel.
    pub has_apparmor: bool,
    /// Whether SELinux is enabled in the kernel: files that we make for containers are then relabelled.
    pub has_selinux: bool,
    /// The `/sys/devices/system/cpu/cpu<N>/thermal_throttle` that exist: hidden from containers.
    pub thermal_throttle_paths: Vec<String>,
    /// Kernel release as (major, minor).
    pub kernel: (u32, u32),
}

/// What a cgroup of the node's own level is held to; what is `None` (or not listed) is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// CPUs in thousandths: the weight towards the rest of the machine, no quota.
    pub cpu_milli: Option<i64>,
    /// Bytes of memory.
    pub memory_bytes: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// (page size in bytes, bytes).
    pub huge_pages: Vec<(u64, i64)>,
}

/// The hierarchy that the host mounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CgroupVersion {
    V1,
    V2,
}

/// Who names cgroups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

/// Where pods live in the cgroup tree.
#[derive(Clone, Debug)]
pub struct CgroupFacts {
    pub version: CgroupVersion,
    pub driver: CgroupDriver,
    /// `cgroupRoot`; `/` by default, `kubepods` is made below it.
    pub root: String,
    /// `cgroupsPerQOS`: with false pods have no cgroup of their own.
    pub per_qos: bool,
}

/// What the container runtime says of itself.
#[derive(Clone, Debug, Default)]
pub struct RuntimeFacts {
    /// `runtime_name` of CRI `Version`: the prefix of container ids in the API.
    pub name: String,
    pub version: String,
    /// Runtime handlers and their features, the default one under the empty name.
    pub handlers: Vec<HandlerFacts>,
    /// Whether the runtime mounts images as volumes; `None` when it does not say.
    pub has_supplemental_groups_policy: bool,
    /// Why the runtime is not ready; `None` when it is.
    pub problem: Option<String>,
    /// Why the pod network is not ready; `None` when it is.
    pub network_problem: Option<String>,
}

/// Features of one runtime handler.
#[derive(Clone, Debug, Default)]
pub struct HandlerFacts {
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// Cluster and host name service.
#[derive(Clone, Debug, Default)]
pub struct DnsFacts {
    /// `clusterDNS`.
    pub cluster_servers: Vec<String>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// `None` when `resolvConf` is empty.
    pub host_resolv_conf: Option<HostResolvConf>,
}

/// The file that `resolvConf` names.
#[derive(Clone, Debug)]
pub struct HostResolvConf {
    pub path: String,
    /// What it says, or why it cannot be read.
    pub content: Result<String, String>,
}

/// Settings of `KubeletConfiguration` that decide about pods, in our units.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// `cpuCFSQuota`.
    pub cpu_cfs_quota: bool,
    /// `cpuCFSQuotaPeriod`, microseconds.
    pub cpu_cfs_period_us: i64,
    /// `podPidsLimit`, −1 for none.
    pub pod_pids_limit: i64,
    /// `seccompDefault`.
    pub seccomp_default: bool,
    /// `singleProcessOOMKill`; `None` means false on cgroup v2, true on v1.
    pub single_process_oom_kill: Option<bool>,
    /// `allowedUnsafeSysctls`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// `crashLoopBackOff.maxContainerRestartPeriod` in seconds, 300 by default.
    pub crash_loop_secs_max: u64,
    /// `memorySwap.swapBehavior` is `LimitedSwap`.
    pub limited_swap: bool,
    /// `cpuManagerPolicy` is `static`.
    pub static_cpus: bool,
    /// `memoryManagerPolicy` is `Static`.
    pub static_memory: bool,
    /// `maxPods`.
    pub max_pods: i64,
    /// `enableServiceLinks` has no meaning without an API server; kept for clusters.
    pub has_api_server: bool,
    /// `localStorageCapacityIsolation`.
    pub local_storage_isolation: bool,
    /// Gates that decide about pods, by upstream's names.
    pub gates: PodGates,
}

/// Feature gates that decide about pods, by upstream's names in snake case.
#[derive(Clone, Debug)]
pub struct PodGates {
    pub container_restart_rules: bool,
    pub restart_all_containers_on_container_exits: bool,
    pub reduce_default_crash_loop_back_off_decay: bool,
    pub container_stop_signals: bool,
    pub env_files: bool,
    pub pod_level_resources: bool,
    pub hostname_override: bool,
    pub change_container_status_on_kubelet_restart: bool,
    pub cluster_trust_bundle_projection: bool,
    pub pod_certificate_request: bool,
    pub node_declared_features: bool,
    pub resource_health_status: bool,
    pub resource_health_status_message: bool,
    pub dra_extended_resource: bool,
    pub local_storage_capacity_isolation_fs_quota_monitoring: bool,
}
