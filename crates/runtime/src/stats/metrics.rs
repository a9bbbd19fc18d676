//! Metrics of sandboxes and containers under cAdvisor's names and labels, for `ListPodSandboxMetrics`.
//!
//! CRI carries whole numbers, so seconds are whole seconds, as other runtimes give them. What the kernel does not tell is left out; it is
//! never 0 instead.

use rubelet_host::cgroup::usage::{Detail, DeviceIo, Pressures};
use rubelet_host::{disk, proc};
use rubelet_proto::cri::{self, MetricType, UInt64Value};

use crate::embedded::Engine;
use crate::pods::{Container, Life, Sandbox, SandboxLife};
use crate::verbs::now_nanos;

const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
const NANOS_PER_SEC: u64 = 1_000_000_000;
const MICROS_PER_SEC: u64 = 1_000_000;

/// One metric's name, what it says, and labels beside [`LABELS`].
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $([$($label:literal),*])?, $help:literal;)*) => {
        $(const $constant: Family = Family { name: $name, help: $help, kind: MetricType::$kind, labels: &[$($($label),*)?] };)*
        const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    CPU = Counter "container_cpu_usage_seconds_total" ["cpu"], "Seconds of CPU time that were used.";
    CPU_USER = Counter "container_cpu_user_seconds_total", "Seconds of CPU time in programs.";
    CPU_SYSTEM = Counter "container_cpu_system_seconds_total", "Seconds of CPU time in the kernel.";
    PERIODS = Counter "container_cpu_cfs_periods_total", "Periods of the CPU quota.";
    THROTTLED = Counter "container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up.";
    THROTTLED_TIME = Counter "container_cpu_cfs_throttled_seconds_total", "Seconds for which the CPU quota held processes back.";
    CPU_SHARES = Gauge "container_spec_cpu_shares", "CPU shares.";
    CPU_PERIOD = Gauge "container_spec_cpu_period", "Period of the CPU quota in microseconds.";
    CPU_QUOTA = Gauge "container_spec_cpu_quota", "CPU quota in microseconds.";
    MEMORY = Gauge "container_memory_usage_bytes", "Bytes of memory in use, files in the page cache among them.";
    WORKING_SET = Gauge "container_memory_working_set_bytes", "Bytes of memory in use without files that were not used lately.";
    RSS = Gauge "container_memory_rss", "Bytes of anonymous memory.";
    CACHE = Gauge "container_memory_cache", "Bytes of files in the page cache.";
    SWAP = Gauge "container_memory_swap", "Bytes of swap in use.";
    MEMORY_MOST = Gauge "container_memory_max_usage_bytes", "The most bytes of memory that were ever in use.";
    KERNEL = Gauge "container_memory_kernel_usage", "Bytes of the kernel's memory.";
    MAPPED = Gauge "container_memory_mapped_file", "Bytes of files that are mapped.";
    LIMIT_HITS = Counter "container_memory_failcnt", "Times that the limit of memory was hit.";
    FAULTS = Counter "container_memory_failures_total" ["failure_type", "scope"], "Page faults.";
    MEMORY_LIMIT = Gauge "container_spec_memory_limit_bytes", "Limit of memory in bytes; 0: none.";
    SWAP_LIMIT = Gauge "container_spec_memory_swap_limit_bytes", "Limit of memory and swap in bytes; 0: none.";
    RESERVATION = Gauge "container_spec_memory_reservation_limit_bytes", "Bytes of memory that are kept; 0: none.";
    OOM = Counter "container_oom_events_total", "Times that a container ended for want of memory.";
    PROCESSES = Gauge "container_processes", "Processes in the cgroup itself.";
    THREADS = Gauge "container_threads", "Processes and threads.";
    THREADS_MAX = Gauge "container_threads_max", "Limit of processes and threads; 0: none.";
    FILES = Gauge "container_file_descriptors", "Files that processes have open.";
    SOCKETS = Gauge "container_sockets", "Sockets that processes have open.";
    SEEN = Gauge "container_last_seen", "When it was looked at, in seconds since 1970.";
    STARTED = Gauge "container_start_time_seconds", "When it was started, in seconds since 1970.";
    FS_USAGE = Gauge "container_fs_usage_bytes" ["device"], "Bytes that the writable layer takes.";
    FS_LIMIT = Gauge "container_fs_limit_bytes" ["device"], "Bytes of the file system that the writable layer is on.";
    INODES = Gauge "container_fs_inodes_total" ["device"], "Inodes of the file system that the writable layer is on.";
    INODES_FREE = Gauge "container_fs_inodes_free" ["device"], "Free inodes of the file system that the writable layer is on.";
    READS = Counter "container_fs_reads_total" ["device"], "Reads.";
    READ_BYTES = Counter "container_fs_reads_bytes_total" ["device"], "Bytes that were read.";
    WRITES = Counter "container_fs_writes_total" ["device"], "Writes.";
    WRITTEN_BYTES = Counter "container_fs_writes_bytes_total" ["device"], "Bytes that were written.";
    DEVICE_BYTES = Counter "container_blkio_device_usage_total" ["device", "major", "minor", "operation"], "Bytes by device and operation.";
    CPU_WAITING = Counter "container_pressure_cpu_waiting_seconds_total", "Seconds in which some process waited for a CPU.";
    CPU_STALLED = Counter "container_pressure_cpu_stalled_seconds_total", "Seconds in which all processes waited for a CPU.";
    MEMORY_WAITING = Counter "container_pressure_memory_waiting_seconds_total", "Seconds in which some process waited for memory.";
    MEMORY_STALLED = Counter "container_pressure_memory_stalled_seconds_total", "Seconds in which all processes waited for memory.";
    IO_WAITING = Counter "container_pressure_io_waiting_seconds_total", "Seconds in which some process waited for input or output.";
    IO_STALLED = Counter "container_pressure_io_stalled_seconds_total", "Seconds in which all processes waited for input or output.";
    RECEIVED = Counter "container_network_receive_bytes_total" ["interface"], "Bytes that were received.";
    RECEIVED_PACKETS = Counter "container_network_receive_packets_total" ["interface"], "Packets that were received.";
    RECEIVED_DROPPED = Counter "container_network_receive_packets_dropped_total" ["interface"], "Packets that were dropped while receiving.";
    RECEIVE_ERRORS = Counter "container_network_receive_errors_total" ["interface"], "Errors while receiving.";
    SENT = Counter "container_network_transmit_bytes_total" ["interface"], "Bytes that were sent.";
    SENT_PACKETS = Counter "container_network_transmit_packets_total" ["interface"], "Packets that were sent.";
    SENT_DROPPED = Counter "container_network_transmit_packets_dropped_total" ["interface"], "Packets that were dropped while sending.";
    SEND_ERRORS = Counter "container_network_transmit_errors_total" ["interface"], "Errors while sending.";
}

/// All metrics that [`of_all`] may give.
pub(crate) fn descriptors() -> Vec<cri::MetricDescriptor> {
    let shown = |family: &Family| cri::MetricDescriptor {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        label_keys: LABELS.iter().chain(family.labels).map(|&label| label.to_owned()).collect(),
    };
    ALL.iter().map(shown).collect()
}

/// Metrics of one cgroup, in the making.
struct Rows {
    timestamp: i64,
    labels: [String; LABELS.len()],
    rows: Vec<cri::Metric>,
}

impl Rows {
    fn add(&mut self, family: &Family, labels: &[&str], value: Option<u64>) {
        let Some(value) = value else { return };
        let own = labels.iter().map(|&label| label.to_owned());
        self.rows.push(cri::Metric {
            name: family.name.to_owned(),
            timestamp: self.timestamp,
            metric_type: family.kind.into(),
            label_values: self.labels.iter().cloned().chain(own).collect(),
            value: Some(UInt64Value { value }),
        });
    }

    fn add_cpu(&mut self, detail: &Detail) {
        let (usage, seconds) = (&detail.usage, |nanos: u64| nanos / NANOS_PER_SEC);
        self.add(&CPU, &["total"], usage.cpu_nanos.map(seconds));
        self.add(&CPU_USER, &[], usage.cpu_user_nanos.map(seconds));
        self.add(&CPU_SYSTEM, &[], usage.cpu_system_nanos.map(seconds));
        self.add(&CPU_SHARES, &[], detail.cpu_shares);
        self.add(&CPU_PERIOD, &[], detail.cpu_period_us);
        self.add(&CPU_QUOTA, &[], detail.cpu_quota_us);
        // Without a quota there is nothing to tell.
        if let Some(throttling) = detail.cpu_quota_us.and(usage.throttling) {
            self.add(&PERIODS, &[], Some(throttling.periods));
            self.add(&THROTTLED, &[], Some(throttling.throttled_periods));
            self.add(&THROTTLED_TIME, &[], Some(seconds(throttling.throttled_nanos)));
        }
    }

    fn add_memory(&mut self, detail: &Detail) {
        let usage = &detail.usage;
        self.add(&MEMORY, &[], usage.memory_bytes);
        self.add(&MEMORY_MOST, &[], detail.memory_max_used_bytes);
        self.add(&WORKING_SET, &[], usage.working_set_bytes);
        self.add(&RSS, &[], usage.rss_bytes);
        self.add(&CACHE, &[], usage.cache_bytes);
        self.add(&SWAP, &[], usage.memory_bytes.map(|_| usage.swap_bytes.unwrap_or(0)));
        self.add(&KERNEL, &[], detail.kernel_memory_bytes);
        self.add(&MAPPED, &[], detail.mapped_file_bytes);
        self.add(&LIMIT_HITS, &[], detail.memory_limit_hits);
        self.add(&FAULTS, &["pgfault", "container"], usage.page_faults);
        self.add(&FAULTS, &["pgfault", "hierarchy"], detail.all_page_faults);
        self.add(&FAULTS, &["pgmajfault", "container"], usage.major_page_faults);
        self.add(&FAULTS, &["pgmajfault", "hierarchy"], detail.all_major_page_faults);
        // Where memory is counted, no limit is one of 0.
        let limit = |limit: Option<u64>| usage.memory_bytes.map(|_| limit.unwrap_or(0));
        self.add(&MEMORY_LIMIT, &[], limit(usage.memory_limit_bytes));
        self.add(&SWAP_LIMIT, &[], limit(detail.swap_limit_bytes));
        self.add(&RESERVATION, &[], limit(detail.memory_reservation_bytes));
        self.add(&OOM, &[], detail.oom_kills);
    }

    fn add_processes(&mut self, detail: &Detail) {
        let usage = &detail.usage;
        self.add(&PROCESSES, &[], u64::try_from(detail.pids.len()).ok());
        self.add(&THREADS, &[], usage.processes);
        self.add(&THREADS_MAX, &[], usage.processes.map(|_| usage.processes_max.unwrap_or(0)));
        let open = detail.pids.iter().map(|&pid| proc::open_files(pid));
        let (files, sockets) = open.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        self.add(&FILES, &[], Some(files));
        self.add(&SOCKETS, &[], Some(sockets));
        self.add(&SEEN, &[], u64::try_from(self.timestamp).ok().map(|nanos| nanos / NANOS_PER_SEC));
    }

    fn add_io(&mut self, devices: &[DeviceIo]) {
        for device in devices {
            let name = device_name(device);
            self.add(&READS, &[&name], Some(device.reads));
            self.add(&READ_BYTES, &[&name], Some(device.read_bytes));
            self.add(&WRITES, &[&name], Some(device.writes));
            self.add(&WRITTEN_BYTES, &[&name], Some(device.written_bytes));
            let (major, minor) = (device.major.to_string(), device.minor.to_string());
            self.add(&DEVICE_BYTES, &[&name, &major, &minor, "Read"], Some(device.read_bytes));
            self.add(&DEVICE_BYTES, &[&name, &major, &minor, "Write"], Some(device.written_bytes));
        }
    }

    fn add_pressures(&mut self, pressures: &Pressures) {
        let all = [
            (&CPU_WAITING, &CPU_STALLED, pressures.cpu),
            (&MEMORY_WAITING, &MEMORY_STALLED, pressures.memory),
            (&IO_WAITING, &IO_STALLED, pressures.io),
        ];
        for (waiting, stalled, pressure) in all {
            self.add(waiting, &[], pressure.map(|pressure| pressure.some.total_micros / MICROS_PER_SEC));
            self.add(stalled, &[], pressure.map(|pressure| pressure.full.total_micros / MICROS_PER_SEC));
        }
    }

    fn add_cgroup(&mut self, engine: &Engine, cgroup: &str) {
        let name = engine.cgroups.name_of(cgroup);
        let Some(detail) = name.and_then(|name| engine.cgroups.reader().open(&name).detail()) else { return };
        self.add_detail(&detail);
    }

    fn add_detail(&mut self, detail: &Detail) {
        self.add_cpu(detail);
        self.add_memory(detail);
        self.add_processes(detail);
        self.add_io(&detail.io);
        self.add_pressures(&detail.pressures);
    }

    /// The file system that writable layers are on. Its device has no name here, as with the bytes that the layer takes.
    fn add_file_system(&mut self, root: &std::path::Path) {
        let Ok(fs) = disk::file_system(root) else { return };
        self.add(&FS_LIMIT, &[""], Some(fs.capacity_bytes));
        self.add(&INODES, &[""], Some(fs.inodes));
        self.add(&INODES_FREE, &[""], Some(fs.inodes_free));
    }

    fn add_network(&mut self, pid: u32) {
        let all = proc::interfaces(pid).unwrap_or_default();
        for one in all.iter().filter(|one| one.name != "lo") {
            let name = [one.name.as_str()];
            self.add(&RECEIVED, &name, Some(one.received.bytes));
            self.add(&RECEIVED_PACKETS, &name, Some(one.received.packets));
            self.add(&RECEIVED_DROPPED, &name, Some(one.received.dropped));
            self.add(&RECEIVE_ERRORS, &name, Some(one.received.errors));
            self.add(&SENT, &name, Some(one.sent.bytes));
            self.add(&SENT_PACKETS, &name, Some(one.sent.packets));
            self.add(&SENT_DROPPED, &name, Some(one.sent.dropped));
            self.add(&SEND_ERRORS, &name, Some(one.sent.errors));
        }
    }
}

/// The device's file, as the kernel names it; its numbers when it has none.
fn device_name(device: &DeviceIo) -> String {
    let numbers = format!("{}:{}", device.major, device.minor);
    let link = std::fs::read_link(format!("/sys/dev/block/{numbers}")).ok();
    let name = link.as_deref().and_then(std::path::Path::file_name);
    name.map_or(numbers, |name| format!("/dev/{}", name.to_string_lossy()))
}

/// Of all sandboxes that are ready, with their containers. Blocks.
pub(crate) fn of_all(engine: &Engine) -> Vec<cri::PodSandboxMetrics> {
    let sandboxes = engine.pods().sandboxes();
    sandboxes.iter().filter_map(|sandbox| of_sandbox(engine, sandbox)).collect()
}

fn of_sandbox(engine: &Engine, sandbox: &Sandbox) -> Option<cri::PodSandboxMetrics> {
    let SandboxLife::Ready { pid } = sandbox.life() else { return None };
    let record = sandbox.record().clone();
    let (metadata, cgroup) = (record.metadata(), record.cgroup_parent());
    let cgroup = cgroup.trim_matches('/');
    let mut rows = Rows {
        timestamp: now_nanos(),
        labels: ["", &format!("/{cgroup}"), "", "", &metadata.namespace, &metadata.name].map(str::to_owned),
        rows: Vec::new(),
    };
    // A sandbox without a parent is in the root: those figures are the machine's, not the pod's.
    if !cgroup.is_empty() {
        rows.add_cgroup(engine, cgroup);
    }
    // cAdvisor has the network at the pause container.
    rows.labels[3] = record.id.clone();
    "POD".clone_into(&mut rows.labels[0]);
    if !record.netns.is_empty() {
        rows.add_network(pid);
    }
    let containers = engine.pods().containers_of(&sandbox.id);
    Some(cri::PodSandboxMetrics {
        pod_sandbox_id: record.id,
        metrics: rows.rows,
        container_metrics: containers.iter().filter_map(|one| of_container(engine, &metadata, one)).collect(),
    })
}

fn of_container(
    engine: &Engine,
    pod: &cri::PodSandboxMetadata,
    container: &Container,
) -> Option<cri::ContainerMetrics> {
    let Life::Running { started_at_nanos, .. } = container.life() else { return None };
    let cgroup = super::cgroup_of(engine, container)?;
    let record = container.record().clone();
    let config = record.config.unwrap_or_default();
    let image = config.image.map(|image| image.user_specified_image).filter(|image| !image.is_empty());
    let name = config.metadata.map(|metadata| metadata.name).unwrap_or_default();
    let mut rows = Rows {
        timestamp: now_nanos(),
        labels: [
            name,
            format!("/{cgroup}"),
            image.unwrap_or(record.image_id),
            record.id.clone(),
            pod.namespace.clone(),
            pod.name.clone(),
        ],
        rows: Vec::new(),
    };
    rows.add_cgroup(engine, &cgroup);
    rows.add(&STARTED, &[], u64::try_from(started_at_nanos).ok().map(|nanos| nanos / NANOS_PER_SEC));
    let layer = engine.images.rootfs(&record.id).and_then(|rootfs| rootfs.usage().ok());
    rows.add(&FS_USAGE, &[""], layer.map(|layer| layer.bytes));
    rows.add_file_system(engine.images.root());
    Some(cri::ContainerMetrics { container_id: record.id, metrics: rows.rows })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rubelet_host::cgroup::usage::Usage;

    use super::*;

    #[test]
    fn every_row_has_a_value_for_each_label_of_its_family() {
        let labels = LABELS.map(str::to_owned);
        let mut rows = Rows { timestamp: 7_000_000_000, labels, rows: Vec::new() };
        let throttling = rubelet_host::cgroup::usage::Throttling { periods: 3, ..Default::default() };
        let usage = Usage {
            cpu_nanos: Some(2_900_000_000),
            memory_bytes: Some(4096),
            processes: Some(2),
            throttling: Some(throttling),
            page_faults: Some(1),
            ..Usage::default()
        };
        rows.add_detail(&Detail {
            usage,
            cpu_quota_us: Some(20_000),
            pids: vec![std::process::id()],
            io: vec![DeviceIo { major: 4095, minor: 1, reads: 5, ..DeviceIo::default() }],
            pressures: Pressures { cpu: Some(Default::default()), ..Pressures::default() },
            ..Detail::default()
        });
        rows.add_file_system(std::path::Path::new("/"));
        rows.add_network(std::process::id());
        let families: BTreeMap<_, _> = descriptors().into_iter().map(|one| (one.name, one.label_keys)).collect();
        assert_eq!(families.len(), ALL.len());
        for row in &rows.rows {
            assert_eq!(row.label_values.len(), families[&row.name].len(), "{}", row.name);
        }
        let of = |name: &str| rows.rows.iter().find(|row| row.name == name).and_then(|row| row.value);
        assert_eq!(of("container_cpu_usage_seconds_total"), Some(UInt64Value { value: 2 }));
        assert_eq!(of("container_memory_rss"), None);
        assert_eq!(of("container_fs_reads_total"), Some(UInt64Value { value: 5 }));
        assert_eq!(of("container_cpu_cfs_periods_total"), Some(UInt64Value { value: 3 }));
        assert_eq!(of("container_processes"), Some(UInt64Value { value: 1 }));
        // No limit is told as 0 where there may be one.
        let zero = Some(UInt64Value { value: 0 });
        assert_eq!((of("container_threads_max"), of("container_spec_memory_limit_bytes")), (zero, zero));
    }

    #[test]
    fn without_a_quota_no_periods_are_told() {
        let mut rows = Rows { timestamp: 0, labels: LABELS.map(str::to_owned), rows: Vec::new() };
        let throttling = Some(rubelet_host::cgroup::usage::Throttling { periods: 3, ..Default::default() });
        rows.add_detail(&Detail { usage: Usage { throttling, ..Usage::default() }, ..Detail::default() });
        assert!(rows.rows.iter().all(|row| !row.name.contains("cfs")), "{:?}", rows.rows);
    }
}
