//! The two machines on which the real kubelet was recorded.

use rubelet_core::node::{
    CgroupDriver, CgroupFacts, CgroupVersion, DnsFacts, HandlerFacts, HostResolvConf, Machine as Amounts, NodeFacts,
    PodGates, PodSettings, Registered, RuntimeFacts,
};
use rubelet_core::now::{Mono, Now, Wall};

/// Stand for `<podIP>` and `<hostIP>` of the recordings.
pub(crate) const POD_IP: &str = "10.87.0.77";
pub(crate) const HOST_IP: &str = "192.0.2.7";

/// Where a recording was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Machine {
    /// cgroup v1, cgroupfs driver.
    First,
    /// cgroup v2, systemd driver.
    Second,
}

impl Machine {
    pub(crate) const ALL: [Self; 2] = [Self::First, Self::Second];

    /// The folder of its recordings.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::First => "pods",
            Self::Second => "pods-v2",
        }
    }

    pub(crate) fn facts(self) -> NodeFacts {
        let (memory_kib, cgroup) = match self {
            Self::First => (24_684_092, (CgroupVersion::V1, CgroupDriver::Cgroupfs)),
            Self::Second => (3900 * 1024, (CgroupVersion::V2, CgroupDriver::Systemd)),
        };
        let disk = 264_212_084 * 1024;
        NodeFacts {
            name: "node-a".into(),
            ips: vec![HOST_IP.parse().expect("an address")],
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            machine: Amounts {
                cpu_milli: 2000,
                memory_bytes: memory_kib * 1024,
                ephemeral_storage_bytes: disk,
                allocatable_cpu_milli: 2000,
                allocatable_memory_bytes: (memory_kib - 1024) * 1024,
                allocatable_ephemeral_storage_bytes: disk,
                huge_page_sizes: vec![2 << 20, 1 << 30],
                has_swap_control: true,
                kernel: (6, 1),
                ..Default::default()
            },
            cgroup: CgroupFacts { version: cgroup.0, driver: cgroup.1, root: "/".into(), per_qos: true },
            devices: std::collections::BTreeMap::new(),
            registered: Registered {
                labels: rubelet_core::node::object::default_labels("node-a"),
                ..Registered::default()
            },
            runtime: RuntimeFacts {
                name: "containerd".into(),
                version: "2.1.9".into(),
                handlers: vec![HandlerFacts::default()],
                has_supplemental_groups_policy: true,
                problem: None,
                network_problem: None,
            },
            dns: DnsFacts {
                cluster_servers: vec!["10.96.0.10".into()],
                cluster_domain: "cluster.local".into(),
                host_resolv_conf: Some(HostResolvConf {
                    path: "/etc/resolv.conf".into(),
                    content: Ok("nameserver 10.0.0.2\nsearch host.test\n".into()),
                }),
            },
            host_etc_hosts: String::new(),
            settings: settings(),
            started_at: now().wall,
        }
    }
}

pub(crate) fn now() -> Now {
    Now { mono: Mono::from_secs(60), wall: Wall::UNIX_EPOCH }
}

fn settings() -> PodSettings {
    PodSettings {
        cpu_cfs_quota: true,
        cpu_cfs_period_us: 100_000,
        pod_pids_limit: -1,
        seccomp_default: false,
        single_process_oom_kill: None,
        allowed_unsafe_sysctls: Vec::new(),
        crash_loop_secs_max: 300,
        limited_swap: false,
        static_cpus: false,
        static_memory: false,
        max_pods: 110,
        has_api_server: false,
        local_storage_isolation: true,
        gates: PodGates {
            resource_health_status: true,
            resource_health_status_message: true,
            dra_extended_resource: true,
            container_restart_rules: true,
            restart_all_containers_on_container_exits: true,
            reduce_default_crash_loop_back_off_decay: false,
            container_stop_signals: false,
            env_files: true,
            pod_level_resources: true,
            hostname_override: true,
            change_container_status_on_kubelet_restart: false,
            cluster_trust_bundle_projection: false,
            pod_certificate_request: false,
            node_declared_features: true,
            local_storage_capacity_isolation_fs_quota_monitoring: false,
        },
    }
}
