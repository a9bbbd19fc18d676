//! What sandboxes and containers use, read from the kernel when somebody asks.

use rubelet_host::cgroup::usage::{Pressure, Pressures, Stall, Usage};
use rubelet_host::proc::Interface;
use rubelet_proto::cri::{self, UInt64Value};

use crate::embedded::Engine;
use crate::places;
use crate::pods::{Container, Life, Sandbox, SandboxLife};
use crate::verbs::list::has;
use crate::verbs::now_nanos;

pub(crate) mod metrics;
pub(crate) mod rate;

fn value(number: Option<u64>) -> Option<UInt64Value> {
    number.map(|value| UInt64Value { value })
}

fn psi(pressure: Option<Pressure>) -> Option<cri::PsiStats> {
    let data = |stall: Stall| cri::PsiData {
        total: stall.total_micros,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    pressure.map(|pressure| cri::PsiStats { full: Some(data(pressure.full)), some: Some(data(pressure.some)) })
}

/// All that a cgroup tells at a moment.
struct Reading {
    timestamp: i64,
    usage: Usage,
    pressures: Pressures,
    /// CPU in use since an earlier look.
    nano_cores: Option<u64>,
}

impl Reading {
    fn take(engine: &Engine, cgroup: &str, rate: &rate::Rate) -> Option<Self> {
        let usage = engine.cgroups.usage(cgroup)?;
        let pressures = engine.cgroups.pressure(cgroup).unwrap_or_default();
        let timestamp = now_nanos();
        let nano_cores = usage.cpu_nanos.and_then(|used| rate.seen(timestamp, used));
        Some(Self { timestamp, usage, pressures, nano_cores })
    }

    fn cpu(&self) -> cri::CpuUsage {
        cri::CpuUsage {
            timestamp: self.timestamp,
            usage_core_nano_seconds: value(self.usage.cpu_nanos),
            usage_nano_cores: value(self.nano_cores),
            psi: psi(self.pressures.cpu),
        }
    }

    fn memory(&self) -> cri::MemoryUsage {
        let usage = &self.usage;
        cri::MemoryUsage {
            timestamp: self.timestamp,
            working_set_bytes: value(usage.working_set_bytes),
            available_bytes: value(usage.memory_available_bytes()),
            usage_bytes: value(usage.memory_bytes),
            rss_bytes: value(usage.rss_bytes),
            page_faults: value(usage.page_faults),
            major_page_faults: value(usage.major_page_faults),
            psi: psi(self.pressures.memory),
        }
    }

    /// CRI has nothing of input and output but how long was waited for it.
    fn io(&self) -> cri::IoUsage {
        cri::IoUsage { timestamp: self.timestamp, psi: psi(self.pressures.io) }
    }

    fn swap(&self) -> Option<cri::SwapUsage> {
        self.usage.swap_bytes?;
        Some(cri::SwapUsage {
            timestamp: self.timestamp,
            swap_available_bytes: value(self.usage.swap_available_bytes()),
            swap_usage_bytes: value(self.usage.swap_bytes),
        })
    }
}

/// The cgroup of a container that runs.
fn cgroup_of(engine: &Engine, container: &Container) -> Option<String> {
    let is_running = matches!(container.life(), Life::Running { .. });
    is_running.then(|| places::noted_cgroup(&engine.places.container(container.id.as_str()))).flatten()
}

/// Of one container; one that does not run has its writable layer only. Blocks.
pub(crate) fn container(engine: &Engine, container: &Container) -> Option<cri::ContainerStats> {
    let record = container.record().clone();
    let config = record.config.unwrap_or_default();
    let timestamp = now_nanos();
    let reading = cgroup_of(engine, container).and_then(|cgroup| Reading::take(engine, &cgroup, &container.cpu));
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
        cpu: reading.as_ref().map(Reading::cpu),
        memory: reading.as_ref().map(Reading::memory),
        swap: reading.as_ref().and_then(Reading::swap),
        io: reading.as_ref().map(Reading::io),
        writable_layer,
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
    // A sandbox without a parent is in the root: those figures are the machine's, not the pod's.
    let cgroup = parent.trim_matches('/');
    let reading = pid.filter(|_| !cgroup.is_empty()).and_then(|_| Reading::take(engine, cgroup, &sandbox.cpu));
    let containers = engine.pods().containers_of(&sandbox.id);
    let linux = cri::LinuxPodSandboxStats {
        cpu: reading.as_ref().map(Reading::cpu),
        memory: reading.as_ref().map(Reading::memory),
        network: pid.filter(|_| !record.netns.is_empty()).and_then(|pid| network(pid, timestamp)),
        process: reading
            .as_ref()
            .map(|reading| cri::ProcessUsage { timestamp, process_count: value(reading.usage.processes) }),
        containers: containers.iter().filter_map(|one| container(engine, one)).collect(),
        io: reading.as_ref().map(Reading::io),
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
