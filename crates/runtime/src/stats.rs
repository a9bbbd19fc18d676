//! What sandboxes and containers use, read from the kernel when somebody asks.

use rubelet_host::cgroup::usage::Usage;
use rubelet_host::proc::Interface;
use rubelet_proto::cri::{self, UInt64Value};

use crate::embedded::Engine;
use crate::places;
use crate::pods::{Container, Life, Sandbox, SandboxLife};
use crate::verbs::list::has;
use crate::verbs::now_nanos;

fn value(number: Option<u64>) -> Option<UInt64Value> {
    number.map(|value| UInt64Value { value })
}

fn cpu(usage: &Usage, timestamp: i64) -> cri::CpuUsage {
    cri::CpuUsage { timestamp, usage_core_nano_seconds: value(usage.cpu_nanos), ..Default::default() }
}

fn memory(usage: &Usage, timestamp: i64) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp,
        working_set_bytes: value(usage.working_set_bytes),
        available_bytes: value(usage.memory_available_bytes()),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        ..Default::default()
    }
}

/// Of one container; one that does not run has its writable layer only. Blocks.
pub(crate) fn container(engine: &Engine, container: &Container) -> Option<cri::ContainerStats> {
    let record = container.record().clone();
    let config = record.config.unwrap_or_default();
    let timestamp = now_nanos();
    let cgroup = places::noted_cgroup(&engine.places.container(&record.id));
    let is_running = matches!(container.life(), Life::Running { .. });
    let usage = cgroup.filter(|_| is_running).and_then(|cgroup| engine.cgroups.usage(cgroup));
    let layer = engine.images.rootfs(&record.id).and_then(|rootfs| rootfs.usage().ok());
    let writable_layer = layer.map(|layer| cri::FilesystemUsage {
        timestamp,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: engine.images.root().display().to_string() }),
        used_bytes: value(Some(layer.bytes)),
        inodes_used: value(Some(layer.inodes)),
    });
    Some(cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: record.id,
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }),
        cpu: usage.map(|usage| cpu(&usage, timestamp)),
        memory: usage.map(|usage| memory(&usage, timestamp)),
        writable_layer,
        ..Default::default()
    })
}

/// Of all containers that match. Blocks.
pub(crate) fn containers(engine: &Engine, filter: Option<&cri::ContainerStatsFilter>) -> Vec<cri::ContainerStats> {
    let matches = |one: &Container| {
        let Some(filter) = filter else { return true };
        let is_pods = filter.pod_sandbox_id.is_empty() || one.sandbox.as_str().starts_with(&filter.pod_sandbox_id);
        let is_named = filter.id.is_empty() || one.id.as_str().starts_with(&filter.id);
        is_pods && is_named && one.record().config.as_ref().is_some_and(|c| has(&c.labels, &filter.label_selector))
    };
    let all = engine.pods().containers();
    all.iter().filter(|one| matches(one)).filter_map(|one| container(engine, one)).collect()
}

/// Of one sandbox with its containers. Blocks.
pub(crate) fn sandbox(engine: &Engine, sandbox: &Sandbox) -> cri::PodSandboxStats {
    let record = sandbox.record().clone();
    let parent = record.cgroup_parent();
    let config = record.config.unwrap_or_default();
    let timestamp = now_nanos();
    let pid = match sandbox.life() {
        SandboxLife::Ready { pid } => Some(pid),
        SandboxLife::NotReady => None,
    };
    let usage = pid.and_then(|_| engine.cgroups.usage(parent.trim_matches('/')));
    let containers = engine.pods().containers_of(&sandbox.id);
    let linux = cri::LinuxPodSandboxStats {
        cpu: usage.map(|usage| cpu(&usage, timestamp)),
        memory: usage.map(|usage| memory(&usage, timestamp)),
        network: pid.filter(|_| !record.netns.is_empty()).and_then(|pid| network(pid, timestamp)),
        process: usage.map(|usage| cri::ProcessUsage { timestamp, process_count: value(usage.processes) }),
        containers: containers.iter().filter_map(|one| container(engine, one)).collect(),
        ..Default::default()
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: record.id,
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }),
        linux: Some(linux),
        windows: None,
    }
}

/// Of all sandboxes that match. Blocks.
pub(crate) fn sandboxes(engine: &Engine, filter: Option<&cri::PodSandboxStatsFilter>) -> Vec<cri::PodSandboxStats> {
    let matches = |one: &Sandbox| {
        let Some(filter) = filter else { return true };
        let is_named = filter.id.is_empty() || one.id.as_str().starts_with(&filter.id);
        is_named && one.record().config.as_ref().is_some_and(|c| has(&c.labels, &filter.label_selector))
    };
    let all = engine.pods().sandboxes();
    all.iter().filter(|one| matches(one)).map(|one| sandbox(engine, one)).collect()
}

/// Of all interfaces of a process's network namespace but the loopback.
fn network(pid: u32, timestamp: i64) -> Option<cri::NetworkUsage> {
    let shown = |interface: Interface| cri::NetworkInterfaceUsage {
        name: interface.name,
        rx_bytes: value(Some(interface.received.bytes)),
        rx_errors: value(Some(interface.received.errors)),
        tx_bytes: value(Some(interface.sent.bytes)),
        tx_errors: value(Some(interface.sent.errors)),
    };
    let all = rubelet_host::proc::interfaces(pid)?;
    let mut interfaces: Vec<_> = all.into_iter().filter(|i| i.name != "lo").map(shown).collect();
    let default = interfaces.iter().position(|i| i.name == "eth0").map(|at| interfaces.remove(at));
    Some(cri::NetworkUsage { timestamp, default_interface: default, interfaces })
}
