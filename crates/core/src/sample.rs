//! A node and pods for tests.

use rubelet_api::v1::Pod;
use serde_json::{Value, json};

use crate::node::{
    CgroupDriver, CgroupFacts, CgroupVersion, DnsFacts, HandlerFacts, HostResolvConf, Machine, NodeFacts, PodGates,
    PodSettings, Registered, RuntimeFacts,
};
use crate::now::Wall;

/// A node with 4 CPUs, 8 GiB of memory and cgroup v2.
pub(crate) fn node() -> NodeFacts {
    NodeFacts {
        name: "node-a".into(),
        ips: vec!["192.0.2.7".parse().expect("an address")],
        root_dir: "/var/lib/kubelet".into(),
        pod_logs_dir: "/var/log/pods".into(),
        machine: Machine {
            cpu_milli: 4000,
            memory_bytes: 8 << 30,
            ephemeral_storage_bytes: 100 << 30,
            allocatable_cpu_milli: 4000,
            allocatable_memory_bytes: 7 << 30,
            allocatable_ephemeral_storage_bytes: 90 << 30,
            huge_page_sizes: vec![2 << 20, 1 << 30],
            huge_pages: vec![(2 << 20, 64 << 20)],
            has_swap_control: true,
            swap_bytes: 4 << 30,
            kernel: (6, 1),
            ..Default::default()
        },
        cgroup: CgroupFacts {
            version: CgroupVersion::V2,
            driver: CgroupDriver::Cgroupfs,
            root: "/".into(),
            per_qos: true,
        },
        runtime: RuntimeFacts { handlers: vec![HandlerFacts::default()], ..Default::default() },
        devices: std::collections::BTreeMap::new(),
        registered: Registered { labels: crate::node::object::default_labels("node-a"), ..Registered::default() },
        dns: DnsFacts {
            cluster_servers: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            host_resolv_conf: Some(HostResolvConf {
                path: "/etc/resolv.conf".into(),
                content: Ok("nameserver 10.0.0.2\nsearch host.test.\noptions timeout:1\n".into()),
            }),
        },
        host_etc_hosts: "127.0.0.1 localhost\n".into(),
        settings: settings(),
        started_at: Wall::UNIX_EPOCH,
    }
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

/// A pod `default/web` with this specification.
pub(crate) fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u-1" },
        "spec": spec,
    }))
    .unwrap_or_else(|e| panic!("no pod: {e}"))
}

/// A pod whose one container `a` has these fields; `spec` are the pod's others.
pub(crate) fn pod_with(mut container: Value, mut spec: Value) -> Pod {
    container["name"] = "a".into();
    container["image"] = "busybox".into();
    spec["containers"] = json!([container]);
    pod(spec)
}
