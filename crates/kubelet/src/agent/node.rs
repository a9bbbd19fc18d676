//! What deciders know of the node, from the configuration and the host.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rubelet_api::gates::{Gate, Gates};
use rubelet_api::v1;
use rubelet_core::node::addresses::AddressRules;
use rubelet_core::node::features::declared;
use rubelet_core::node::object::{Presence, unseen};
use rubelet_core::node::{
    CgroupDriver, CgroupFacts, CgroupVersion, DnsFacts, HostResolvConf, NodeFacts, PodGates, PodSettings, RuntimeFacts,
};
use rubelet_host::cgroup::{self, Version};
use rubelet_host::{chain, proc};

use super::amounts;
use crate::assemble::Assembled;
use crate::version::GIT_VERSION;

/// kubelet 1.36: the longest back-off of containers unless the configuration says another.
const CRASH_LOOP_SECS_MAX: u64 = 300;
/// How long the resolver may take for the node's name; after that the default route decides.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(1);
/// Largest `/etc/hosts` and `resolv.conf` that are taken over.
const HOST_FILE_MAX: u64 = 1 << 20;

/// The node's facts; what its runtime says of itself is added by the agent.
///
/// # Errors
/// What the host does not tell.
pub(super) fn facts(assembled: &Assembled, driver: CgroupDriver, cgroup_root: String) -> Result<NodeFacts, String> {
    let config = &assembled.config;
    let version = match cgroup::detect_version().map_err(|e| chain(&e))? {
        Version::V1 => CgroupVersion::V1,
        Version::V2 => CgroupVersion::V2,
    };
    Ok(NodeFacts {
        name: assembled.node_name.clone(),
        ips: ips(assembled),
        root_dir: assembled.flags.root_dir.clone(),
        pod_logs_dir: config.pods.logs_dir.clone().into(),
        machine: amounts::machine(config, &assembled.flags.root_dir)?,
        cgroup: CgroupFacts { version, driver, root: cgroup_root, per_qos: config.resources.cgroups_per_qos },
        runtime: RuntimeFacts::default(),
        devices: std::collections::BTreeMap::new(),
        registered: unseen(&presence(assembled)?),
        dns: DnsFacts {
            cluster_servers: config.network.cluster_dns.clone(),
            cluster_domain: config.network.cluster_domain.clone(),
            host_resolv_conf: resolv_conf(&config.network.resolv_conf),
        },
        host_etc_hosts: proc::read_bounded(Path::new("/etc/hosts"), HOST_FILE_MAX).unwrap_or_default(),
        settings: settings(assembled),
        started_at: rubelet_core::now::Wall::now(),
    })
}

/// How the node presents itself.
///
/// # Errors
/// Addresses that it can't have, in upstream's words.
pub(super) fn presence(assembled: &Assembled) -> Result<Presence, String> {
    let (config, flags) = (&assembled.config, &assembled.flags.node);
    let (addresses, unreadable) = AddressRules::parse(&flags.ip, flags.is_cloud_external)
        .map_err(|why| format!("bad --node-ip {:?}: {why}", flags.ip))?;
    if !unreadable.is_empty() {
        tracing::info!(ips = unreadable.join(","), "Could not parse some node IP(s), ignoring them");
    }
    let taint = |one: &rubelet_api::config::Taint| v1::Taint {
        key: one.key.clone(),
        value: Some(one.value.clone()).filter(|value| !value.is_empty()),
        effect: one.effect.clone(),
        time_added: None,
    };
    Ok(Presence {
        name: assembled.node_name.clone(),
        labels: flags.labels.clone(),
        taints: config.node.register_with_taints.iter().map(taint).collect(),
        provider_id: config.node.provider_id.clone(),
        addresses,
        is_attached_by_controller: config.pods.enable_controller_attach_detach,
        images_max: usize::try_from(config.images.node_status_max).ok(),
        port: if config.server.enable { config.server.port } else { 0 },
        version: GIT_VERSION.to_owned(),
        declared_features: declared(&assembled.gates),
    })
}

/// The node's addresses: those that are given, else those of its name and of its default routes.
fn ips(assembled: &Assembled) -> Vec<IpAddr> {
    let given: Vec<IpAddr> = assembled.flags.node.ip.split(',').filter_map(|text| text.trim().parse().ok()).collect();
    let usable = |ip: &IpAddr| !ip.is_unspecified();
    if given.iter().any(usable) {
        return given.into_iter().filter(usable).collect();
    }
    let mut all: Vec<IpAddr> =
        look_up(&assembled.node_name).into_iter().filter(|ip| usable(ip) && !ip.is_loopback()).collect();
    if all.is_empty() {
        all = proc::default_addresses().unwrap_or_default();
    }
    let mut one_of_each: Vec<IpAddr> = Vec::new();
    for ip in all {
        if one_of_each.iter().all(|known| known.is_ipv4() != ip.is_ipv4()) {
            one_of_each.push(ip);
        }
    }
    one_of_each
}

/// What the resolver says of a name, if it says it soon: pods do not wait for a network that is not there.
fn look_up(name: &str) -> Vec<IpAddr> {
    let (tell, told) = std::sync::mpsc::channel();
    let name = name.to_owned();
    // Nobody may listen any more.
    std::thread::spawn(move || drop(tell.send(proc::lookup(&name).unwrap_or_default())));
    told.recv_timeout(LOOKUP_PATIENCE).unwrap_or_default()
}

fn resolv_conf(path: &str) -> Option<HostResolvConf> {
    if path.is_empty() {
        return None;
    }
    let content = proc::read_bounded(Path::new(path), HOST_FILE_MAX).map_err(|e| chain(&e));
    if let Err(err) = &content {
        tracing::warn!(path, err, "resolvConf cannot be read; pods get no servers from it");
    }
    Some(HostResolvConf { path: path.to_owned(), content })
}

fn settings(assembled: &Assembled) -> PodSettings {
    let (config, gates) = (&assembled.config, &assembled.gates);
    let longest = config.runtime.crash_loop_back_off.max_container_restart_period;
    PodSettings {
        cpu_cfs_quota: config.resources.cpu_cfs_quota,
        cpu_cfs_period_us: config.resources.cpu_cfs_quota_period.nanos / 1000,
        pod_pids_limit: config.resources.pod_pids_limit,
        seccomp_default: config.runtime.seccomp_default,
        single_process_oom_kill: config.resources.single_process_oom_kill,
        allowed_unsafe_sysctls: config.runtime.allowed_unsafe_sysctls.clone(),
        crash_loop_secs_max: longest.map_or(CRASH_LOOP_SECS_MAX, |d| d.to_std().as_secs()),
        limited_swap: config.resources.memory_swap.swap_behavior == "LimitedSwap",
        static_cpus: config.resources.cpu_manager_policy == "static",
        static_memory: config.resources.memory_manager_policy == "Static",
        max_pods: max_pods(assembled),
        has_api_server: assembled.flags.kubeconfig.is_some(),
        local_storage_isolation: config.pods.local_storage_capacity_isolation,
        gates: pod_gates(gates),
    }
}

/// kubelet 1.36: `podsPerCore` can only lower `maxPods`.
fn max_pods(assembled: &Assembled) -> i64 {
    let node = &assembled.config.node;
    let most = i64::from(node.max_pods);
    match (node.pods_per_core, proc::cpu_count()) {
        (per_core, Ok(cpus)) if per_core > 0 => most.min(i64::from(per_core) * i64::from(cpus)),
        _ => most,
    }
}

fn pod_gates(gates: &Gates) -> PodGates {
    PodGates {
        resource_health_status: gates.is_on(Gate::ResourceHealthStatus),
        resource_health_status_message: gates.is_on(Gate::ResourceHealthStatusMessage),
        dra_extended_resource: gates.is_on(Gate::DRAExtendedResource),
        container_restart_rules: gates.is_on(Gate::ContainerRestartRules),
        restart_all_containers_on_container_exits: gates.is_on(Gate::RestartAllContainersOnContainerExits),
        reduce_default_crash_loop_back_off_decay: gates.is_on(Gate::ReduceDefaultCrashLoopBackOffDecay),
        container_stop_signals: gates.is_on(Gate::ContainerStopSignals),
        env_files: gates.is_on(Gate::EnvFiles),
        pod_level_resources: gates.is_on(Gate::PodLevelResources),
        hostname_override: gates.is_on(Gate::HostnameOverride),
        change_container_status_on_kubelet_restart: gates.is_on(Gate::ChangeContainerStatusOnKubeletRestart),
        cluster_trust_bundle_projection: gates.is_on(Gate::ClusterTrustBundleProjection),
        pod_certificate_request: gates.is_on(Gate::PodCertificateRequest),
        node_declared_features: gates.is_on(Gate::NodeDeclaredFeatures),
        local_storage_capacity_isolation_fs_quota_monitoring: gates
            .is_on(Gate::LocalStorageCapacityIsolationFSQuotaMonitoring),
    }
}
