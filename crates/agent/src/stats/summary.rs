//! `/stats/summary`, written as it is read: the node, then pod after pod.

use std::io::{self, Write};

use jiff::Timestamp;
use rubelet_api::stats::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, IoStats, MemoryStats, NetworkStats, NodeStats, PsiStalls,
    PsiStats, RlimitStats, RuntimeStats, SwapStats, Time, UsageStats,
};
use rubelet_host::cgroup::usage::{Pressure, Pressures, Stall, Usage};
use rubelet_host::disk::{self, FileSystem, Use};
use rubelet_host::proc::{self, Interface};
use tokio::time::Instant;

use super::figures::{RuntimeFs, image_file_systems};
use super::ground::Ground;
use super::pods::Pods;
use super::{Inner, Stats, now};

/// A summary that is about to be written.
pub struct Summary {
    pub(super) stats: Stats,
    pub(super) ground: Ground,
    pub(super) is_cpu_and_memory_only: bool,
}

impl Summary {
    /// Reads and writes. Blocks on the kernel and on the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let inner = &*self.stats.inner;
        out.write_all(b"{\"node\":")?;
        serde_json::to_writer(&mut *out, &node(inner, &self.ground, self.is_cpu_and_memory_only))?;
        out.write_all(b",\"pods\":[")?;
        let mut pods = Pods::new(inner, &self.ground, self.is_cpu_and_memory_only);
        for (at, pod) in self.ground.pods.iter().enumerate() {
            if at > 0 {
                out.write_all(b",")?;
            }
            serde_json::to_writer(&mut *out, &pods.stats(pod))?;
        }
        out.write_all(b"]}\n")?;
        let mut kept = inner.kept();
        let now = Instant::now();
        kept.rates.sweep(now);
        kept.disks.sweep(now);
        Ok(())
    }
}

fn node(inner: &Inner, ground: &Ground, is_cpu_and_memory_only: bool) -> NodeStats {
    let time = now();
    let memory = proc::memory().unwrap_or_default();
    let (usage, pressures) = (inner.node_usage().unwrap_or_default(), or_none_felt(proc::pressures()));
    let boot = proc::boot_secs().and_then(|secs| Timestamp::from_second(i64::try_from(secs).ok()?).ok());
    let mut shown = usage_stats(&usage, &pressures, time, rate(inner, "/", &usage));
    if let Some(one) = &mut shown.memory {
        one.available_bytes = usage.working_set_bytes.map(|used| memory.total.saturating_sub(used));
    }
    if let Some(one) = &mut shown.swap {
        one.swap_available_bytes = one.swap_usage_bytes.map(|used| memory.swap_total.saturating_sub(used));
    }
    let mut node = NodeStats {
        node_name: inner.node_name(),
        system_containers: system_containers(inner),
        start_time: Time(boot.unwrap_or_default()),
        usage: shown,
        ..NodeStats::default()
    };
    if is_cpu_and_memory_only {
        // kubelet 1.36: io is told with CPU and memory, the rest is not.
        return node;
    }
    node.network = proc::interfaces(std::process::id()).map(|all| node_network(all, time));
    node.fs = disk::file_system(&inner.hands.root_dir).ok().map(|fs| fs_stats(&fs, None, time));
    let (images, containers) = image_file_systems(ground.image_fs.as_ref());
    let runtime_fs = |one: RuntimeFs| {
        let mut stats = fs_stats(&one.file_system, None, time);
        (stats.used_bytes, stats.inodes_used) = (one.used_bytes, one.inodes_used.or(stats.inodes_used));
        stats
    };
    node.runtime = images
        .is_some()
        .then(|| RuntimeStats { image_fs: images.map(runtime_fs), container_fs: containers.map(runtime_fs) });
    node.rlimit = Some(RlimitStats { time, max_pid: proc::pids_max(), current_processes: proc::threads() });
    node
}

/// Parts of the system: those of the kubelet, the runtime and the rest where it is known where they are, and all pods.
fn system_containers(inner: &Inner) -> Vec<ContainerStats> {
    let Some(top) = &inner.top else { return Vec::new() };
    let mut reader = top.reader();
    let pods = inner.hands.cgroups.as_ref().and_then(|tree| tree.name_of(rubelet_core::resources::cgroup::PODS));
    let named = inner.settings.cgroups.named().map(|(name, cgroup)| (name, cgroup.to_owned()));
    let all = named.chain(pods.map(|cgroup| ("pods", cgroup)));
    let mut found = Vec::new();
    for (name, cgroup) in all {
        let mut opened = reader.open(&cgroup);
        let (Some(usage), Some(pressures)) = (opened.usage(), opened.pressure().map(or_none_felt)) else { continue };
        let made = opened.made_at_secs().and_then(|secs| Timestamp::from_second(secs).ok());
        let mut usage_stats = usage_stats(&usage, &pressures, now(), rate(inner, &cgroup, &usage));
        if name == "pods"
            && let Some(memory) = &mut usage_stats.memory
        {
            // kubelet 1.36: what pods may use, or else what the machine has, without what they do.
            let limit = usage.memory_limit_bytes.or_else(|| proc::memory().ok().map(|memory| memory.total));
            memory.available_bytes = limit.zip(usage.working_set_bytes).map(|(limit, used)| limit.saturating_sub(used));
        }
        found.push(ContainerStats {
            name: name.to_owned(),
            start_time: Time(made.unwrap_or_default()),
            usage: usage_stats,
            ..ContainerStats::default()
        });
    }
    found
}

/// CPU use since the last answer.
pub(super) fn rate(inner: &Inner, cgroup: &str, usage: &Usage) -> Option<u64> {
    inner.kept().rates.rate(cgroup, Instant::now(), usage.cpu_nanos?)
}

/// A cgroup's numbers in the summary's words.
pub(super) fn usage_stats(usage: &Usage, pressures: &Pressures, time: Time, nano_cores: Option<u64>) -> UsageStats {
    UsageStats {
        cpu: Some(CpuStats {
            time,
            usage_nano_cores: nano_cores,
            usage_core_nano_seconds: usage.cpu_nanos,
            psi: pressures.cpu.map(psi),
        }),
        memory: Some(MemoryStats {
            time,
            available_bytes: usage.memory_available_bytes(),
            usage_bytes: usage.memory_bytes,
            working_set_bytes: usage.working_set_bytes,
            rss_bytes: usage.rss_bytes,
            page_faults: usage.page_faults,
            major_page_faults: usage.major_page_faults,
            psi: pressures.memory.map(psi),
        }),
        io: Some(IoStats { time, psi: pressures.io.map(psi) }),
        swap: Some(SwapStats {
            time,
            swap_available_bytes: usage.swap_available_bytes(),
            swap_usage_bytes: usage.swap_bytes,
        }),
    }
}

/// kubelet 1.36: of the node, parts of the system and pods, pressure that the kernel does not count is zero. Of containers it is
/// left out.
pub(super) fn or_none_felt(pressures: Pressures) -> Pressures {
    let or_zero = |one: Option<Pressure>| Some(one.unwrap_or_default());
    Pressures { cpu: or_zero(pressures.cpu), memory: or_zero(pressures.memory), io: or_zero(pressures.io) }
}

fn psi(pressure: Pressure) -> PsiStats {
    let one = |stall: Stall| PsiStalls {
        total: stall.total_micros,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    PsiStats { full: one(pressure.full), some: one(pressure.some) }
}

/// A file system; with `used` what a part of it takes, else what is used of the whole.
pub(super) fn fs_stats(fs: &FileSystem, used: Option<Use>, time: Time) -> FsStats {
    FsStats {
        time,
        available_bytes: Some(fs.available_bytes),
        capacity_bytes: Some(fs.capacity_bytes),
        used_bytes: Some(used.map_or(fs.used_bytes(), |used| used.bytes)),
        inodes_free: Some(fs.inodes_free),
        inodes: Some(fs.inodes),
        inodes_used: Some(used.map_or(fs.inodes_used(), |used| used.inodes)),
    }
}

/// kubelet 1.36: interfaces whose names begin so are not told.
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// Whether an interface of the machine is told: not the ends of pods' pairs, those of the embedded runtime among them.
pub(crate) fn is_told(interface: &Interface) -> bool {
    let is_pods = interface.name.strip_prefix("rbl").is_some_and(|rest| rest.len() == 12);
    !is_pods && !IGNORED.iter().any(|prefix| interface.name.starts_with(prefix))
}

/// The machine's default interface is the one of its default route.
fn node_network(all: Vec<Interface>, time: Time) -> NetworkStats {
    let told: Vec<Interface> = all.into_iter().filter(is_told).collect();
    let default = default_interface().unwrap_or_else(|| "eth0".to_owned());
    network_stats(&told, &default, time)
}

fn default_interface() -> Option<String> {
    let text = proc::read_bounded(std::path::Path::new("/proc/net/route"), 1 << 16).ok()?;
    let row = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    row.into_iter()
        .find(|row| row.get(1) == Some(&"00000000") && row.get(7) == Some(&"00000000"))?
        .first()
        .map(|name| (*name).to_owned())
}

/// The interfaces of one namespace.
pub(super) fn network_stats(told: &[Interface], default: &str, time: Time) -> NetworkStats {
    let stats = |one: &Interface| InterfaceStats {
        name: one.name.clone(),
        rx_bytes: Some(one.received.bytes),
        rx_errors: Some(one.received.errors),
        tx_bytes: Some(one.sent.bytes),
        tx_errors: Some(one.sent.errors),
    };
    let first = told.iter().find(|one| one.name == default).or_else(|| told.first());
    NetworkStats { time, default: first.map(stats).unwrap_or_default(), interfaces: told.iter().map(stats).collect() }
}
