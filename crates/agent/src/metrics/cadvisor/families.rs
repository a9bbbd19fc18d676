//! The families of cAdvisor that have meaning here, by its names.

use rubelet_api::metrics::{Family, Stability};

/// Labels beside those of every row, and the function that makes a family of them.
macro_rules! families {
    ($($name:ident $kind:ident $text:literal [$($label:literal)*] $help:literal;)*) => {
        $(pub(super) const $name: Family = Family::$kind($text, Stability::Unsaid, $help, &[$($label,)* "container", "id", "image", "name", "namespace", "pod"]);)*
        const OF_CONTAINERS: &[&Family] = &[$(&$name,)*];
    };
}

families! {
    LAST_SEEN gauge "container_last_seen" [] "When the cgroup was seen last, in seconds since 1970";
    START gauge "container_start_time_seconds" [] "When the cgroup was made, in seconds since 1970";
    CPU_PERIOD gauge "container_spec_cpu_period" [] "Period of the CPU quota in microseconds";
    CPU_QUOTA gauge "container_spec_cpu_quota" [] "CPU quota in microseconds";
    CPU_SHARES gauge "container_spec_cpu_shares" [] "CPU shares";
    MEMORY_LIMIT gauge "container_spec_memory_limit_bytes" [] "Limit of memory; 0 without one";
    SWAP_LIMIT gauge "container_spec_memory_swap_limit_bytes" [] "Limit of memory and swap; 0 without one";
    RESERVATION gauge "container_spec_memory_reservation_limit_bytes" [] "Memory that is kept; 0 without any";
    CPU_USER counter "container_cpu_user_seconds_total" [] "CPU time in programs, in seconds";
    CPU_SYSTEM counter "container_cpu_system_seconds_total" [] "CPU time in the kernel, in seconds";
    CPU_USAGE counter "container_cpu_usage_seconds_total" ["cpu"] "CPU time in seconds";
    PERIODS counter "container_cpu_cfs_periods_total" [] "Periods of the CPU quota that went by";
    THROTTLED counter "container_cpu_cfs_throttled_periods_total" [] "Periods in which the quota held processes back";
    THROTTLED_SECONDS counter "container_cpu_cfs_throttled_seconds_total" [] "How long the quota held processes back, in seconds";
    BURSTS counter "container_cpu_cfs_burst_periods_total" [] "Periods in which more than the quota was used";
    BURST_SECONDS counter "container_cpu_cfs_burst_seconds_total" [] "CPU time above the quota, in seconds";
    CACHE gauge "container_memory_cache" [] "Memory that holds files, in bytes";
    RSS gauge "container_memory_rss" [] "Anonymous memory in bytes";
    KERNEL gauge "container_memory_kernel_usage" [] "Memory of the kernel in bytes";
    MAPPED gauge "container_memory_mapped_file" [] "Memory of mapped files in bytes";
    SWAP gauge "container_memory_swap" [] "Swap in bytes";
    FAILCNT counter "container_memory_failcnt" [] "How often the limit of memory was hit";
    MEMORY gauge "container_memory_usage_bytes" [] "Memory in bytes";
    MEMORY_MAX gauge "container_memory_max_usage_bytes" [] "The most memory that was ever used, in bytes";
    WORKING_SET gauge "container_memory_working_set_bytes" [] "Memory without files that were not used lately, in bytes";
    ACTIVE_FILE gauge "container_memory_total_active_file_bytes" [] "Memory of files that were used lately, in bytes";
    INACTIVE_FILE gauge "container_memory_total_inactive_file_bytes" [] "Memory of files that were not used lately, in bytes";
    FAILURES counter "container_memory_failures_total" ["failure_type" "scope"] "Page faults";
    INODES_FREE gauge "container_fs_inodes_free" ["device"] "Free inodes of the file system";
    INODES gauge "container_fs_inodes_total" ["device"] "Inodes of the file system";
    FS_LIMIT gauge "container_fs_limit_bytes" ["device"] "Size of the file system in bytes";
    FS_USAGE gauge "container_fs_usage_bytes" ["device"] "What is used of the file system, in bytes";
    READ_BYTES counter "container_fs_reads_bytes_total" ["device"] "Bytes read";
    READS counter "container_fs_reads_total" ["device"] "Reads";
    SECTORS_READ counter "container_fs_sector_reads_total" ["device"] "Sectors read";
    READS_MERGED counter "container_fs_reads_merged_total" ["device"] "Reads that went with others";
    READ_SECONDS counter "container_fs_read_seconds_total" ["device"] "How long reads took, in seconds";
    WRITTEN_BYTES counter "container_fs_writes_bytes_total" ["device"] "Bytes written";
    WRITES counter "container_fs_writes_total" ["device"] "Writes";
    SECTORS_WRITTEN counter "container_fs_sector_writes_total" ["device"] "Sectors written";
    WRITES_MERGED counter "container_fs_writes_merged_total" ["device"] "Writes that went with others";
    WRITE_SECONDS counter "container_fs_write_seconds_total" ["device"] "How long writes took, in seconds";
    IO_NOW gauge "container_fs_io_current" ["device"] "Input and output under way";
    IO_SECONDS counter "container_fs_io_time_seconds_total" ["device"] "How long there was input or output, in seconds";
    IO_WEIGHTED counter "container_fs_io_time_weighted_seconds_total" ["device"] "The same, by how much was under way, in seconds";
    BLKIO counter "container_blkio_device_usage_total" ["device" "major" "minor" "operation"] "Bytes by device and operation";
    RECEIVED counter "container_network_receive_bytes_total" ["interface"] "Bytes received";
    RECEIVE_ERRORS counter "container_network_receive_errors_total" ["interface"] "Errors in receiving";
    RECEIVE_DROPPED counter "container_network_receive_packets_dropped_total" ["interface"] "Packets that were dropped in receiving";
    RECEIVED_PACKETS counter "container_network_receive_packets_total" ["interface"] "Packets received";
    SENT counter "container_network_transmit_bytes_total" ["interface"] "Bytes sent";
    SEND_ERRORS counter "container_network_transmit_errors_total" ["interface"] "Errors in sending";
    SEND_DROPPED counter "container_network_transmit_packets_dropped_total" ["interface"] "Packets that were dropped in sending";
    SENT_PACKETS counter "container_network_transmit_packets_total" ["interface"] "Packets sent";
    OOM counter "container_oom_events_total" [] "Processes that the kernel killed for want of memory";
    PROCESSES gauge "container_processes" [] "Processes in the cgroup itself";
    FILES gauge "container_file_descriptors" [] "Files that processes have open";
    SOCKETS gauge "container_sockets" [] "Sockets that processes have open";
    THREADS gauge "container_threads" [] "Threads";
    THREADS_MAX gauge "container_threads_max" [] "Threads that there may be; 0 without limit";
    ULIMITS gauge "container_ulimits_soft" ["ulimit"] "Soft limits of the first process; -1 without limit";
    CPU_WAITING counter "container_pressure_cpu_waiting_seconds_total" [] "How long a process waited for a CPU, in seconds";
    CPU_STALLED counter "container_pressure_cpu_stalled_seconds_total" [] "How long all processes waited for a CPU, in seconds";
    MEMORY_WAITING counter "container_pressure_memory_waiting_seconds_total" [] "How long a process waited for memory, in seconds";
    MEMORY_STALLED counter "container_pressure_memory_stalled_seconds_total" [] "How long all processes waited for memory, in seconds";
    IO_WAITING counter "container_pressure_io_waiting_seconds_total" [] "How long a process waited for input or output, in seconds";
    IO_STALLED counter "container_pressure_io_stalled_seconds_total" [] "How long all processes waited for input or output, in seconds";
}

const MACHINE: &[&str] = &["boot_id", "machine_id", "system_uuid"];

const fn of_machine(name: &'static str, help: &'static str) -> Family {
    Family::gauge(name, Stability::Unsaid, help, MACHINE)
}

pub(super) const VERSION: Family = Family::gauge(
    "cadvisor_version_info",
    Stability::Unsaid,
    "Versions of the machine; always 1",
    &["cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion"],
);
pub(super) const SCRAPE_ERROR: Family = Family::gauge(
    "container_scrape_error",
    Stability::Unsaid,
    "1 when the figures of containers could not be read, else 0",
    &[],
);
pub(super) const MACHINE_ERROR: Family =
    Family::gauge("machine_scrape_error", Stability::Unsaid, "1 when the machine could not be read, else 0", &[]);
pub(super) const CORES: Family = of_machine("machine_cpu_cores", "Threads that the CPUs run at once");
pub(super) const PHYSICAL: Family = of_machine("machine_cpu_physical_cores", "Cores of the CPUs");
pub(super) const SOCKETS_OF_CPUS: Family = of_machine("machine_cpu_sockets", "CPU sockets");
pub(super) const MACHINE_MEMORY: Family = of_machine("machine_memory_bytes", "Memory of the machine in bytes");
pub(super) const MACHINE_SWAP: Family = of_machine("machine_swap_bytes", "Swap of the machine in bytes");

const OF_THE_MACHINE: &[&Family] =
    &[&VERSION, &SCRAPE_ERROR, &MACHINE_ERROR, &CORES, &PHYSICAL, &SOCKETS_OF_CPUS, &MACHINE_MEMORY, &MACHINE_SWAP];

/// Every family of the page.
pub const FAMILIES: [&[&Family]; 2] = [OF_CONTAINERS, OF_THE_MACHINE];
