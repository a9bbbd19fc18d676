//! All that cAdvisor tells of a cgroup. Each file is read once.

use super::parse::{fields, io_v1, io_v2, pids, pressures, throttling, without};
use super::{DeviceIo, Files, Pressures, Usage};

/// One cgroup at a moment, in the kernel's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    pub usage: Usage,
    /// In the units of version 1.
    pub cpu_shares: Option<u64>,
    /// `None`: no quota.
    pub cpu_quota_us: Option<u64>,
    pub cpu_period_us: Option<u64>,
    pub burst_periods: u64,
    pub burst_nanos: u64,
    /// The most memory that was ever used.
    pub memory_max_used_bytes: Option<u64>,
    /// How often the limit was hit.
    pub memory_limit_hits: Option<u64>,
    pub kernel_memory_bytes: Option<u64>,
    pub mapped_file_bytes: Option<u64>,
    pub active_file_bytes: Option<u64>,
    pub inactive_file_bytes: Option<u64>,
    /// What is kept for the cgroup; version 1: its soft limit. `None`: nothing, or no limit.
    pub memory_reservation_bytes: Option<u64>,
    /// Version 1: memory and swap together; version 2: swap alone. `None`: no limit.
    pub swap_limit_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Page faults, those of the cgroups below among them, where the kernel tells them apart.
    pub all_page_faults: Option<u64>,
    pub all_major_page_faults: Option<u64>,
    pub io: Vec<DeviceIo>,
    pub pressures: Pressures,
    /// Processes in the cgroup itself.
    pub pids: Vec<u32>,
    /// Seconds since 1970.
    pub made_at_secs: Option<i64>,
}

const TICK_NANOS: u64 = 10_000_000;

pub(super) fn v1(files: &mut impl Files) -> Detail {
    let mut detail = Detail::default();
    let usage = &mut detail.usage;
    usage.cpu_nanos = files.number("cpuacct", "cpuacct.usage");
    let ticks = files.read("cpuacct", "cpuacct.stat", |text| Some(fields(text, ["user", "system"])));
    [usage.cpu_user_nanos, usage.cpu_system_nanos] =
        ticks.unwrap_or_default().map(|ticks| Some(ticks?.saturating_mul(TICK_NANOS)));
    detail.cpu_shares = files.number("cpu", "cpu.shares");
    detail.cpu_quota_us = files.number("cpu", "cpu.cfs_quota_us");
    detail.cpu_period_us = files.number("cpu", "cpu.cfs_period_us");
    let throttled = files.read("cpu", "cpu.stat", |text| {
        Some((throttling(text, "throttled_time", 1), fields(text, ["nr_bursts", "burst_time"])))
    });
    if let Some((throttling, [periods, nanos])) = throttled {
        detail.usage.throttling = throttling;
        (detail.burst_periods, detail.burst_nanos) = (periods.unwrap_or(0), nanos.unwrap_or(0));
    }
    memory_v1(files, &mut detail);
    pids(files, &mut detail.usage);
    detail.io = io_v1(files);
    detail
}

fn memory_v1(files: &mut impl Files, detail: &mut Detail) {
    let usage = &mut detail.usage;
    usage.memory_bytes = files.number("memory", "memory.usage_in_bytes");
    usage.memory_limit_bytes = files.limit("memory", "memory.limit_in_bytes");
    detail.memory_max_used_bytes = files.number("memory", "memory.max_usage_in_bytes");
    detail.memory_limit_hits = files.number("memory", "memory.failcnt");
    detail.memory_reservation_bytes = files.limit("memory", "memory.soft_limit_in_bytes");
    detail.swap_limit_bytes = files.limit("memory", "memory.memsw.limit_in_bytes");
    detail.kernel_memory_bytes = files.number("memory", "memory.kmem.usage_in_bytes");
    let names = [
        "total_inactive_file",
        "total_active_file",
        "total_rss",
        "total_cache",
        "total_mapped_file",
        "total_swap",
        "pgfault",
        "pgmajfault",
        "total_pgfault",
        "total_pgmajfault",
    ];
    let stat = files.read("memory", "memory.stat", |text| Some(fields(text, names))).unwrap_or_default();
    let [inactive, active, rss, cache, mapped, swap, faults, major, all_faults, all_major] = stat;
    usage.working_set_bytes = without(usage.memory_bytes, inactive);
    (usage.rss_bytes, usage.cache_bytes, usage.swap_bytes) = (rss, cache, swap);
    (usage.page_faults, usage.major_page_faults) = (faults, major);
    (detail.all_page_faults, detail.all_major_page_faults) = (all_faults, all_major);
    (detail.inactive_file_bytes, detail.active_file_bytes, detail.mapped_file_bytes) = (inactive, active, mapped);
    detail.oom_kills =
        files.read("memory", "memory.oom_control", |text| Some(fields(text, ["oom_kill"]))).and_then(|[kills]| kills);
}

pub(super) fn v2(files: &mut impl Files) -> Detail {
    let mut detail = Detail::default();
    let usage = &mut detail.usage;
    let cpu = files.read("cpu", "cpu.stat", |text| {
        let micros = fields(text, ["usage_usec", "user_usec", "system_usec", "burst_usec"]);
        let [bursts] = fields(text, ["nr_bursts"]);
        Some((
            micros.map(|micros| Some(micros?.saturating_mul(1000))),
            throttling(text, "throttled_usec", 1000),
            bursts,
        ))
    });
    if let Some(([all, user, system, burst], throttling, bursts)) = cpu {
        (usage.cpu_nanos, usage.cpu_user_nanos, usage.cpu_system_nanos) = (all, user, system);
        usage.throttling = throttling;
        (detail.burst_periods, detail.burst_nanos) = (bursts.unwrap_or(0), burst.unwrap_or(0));
    }
    detail.cpu_shares = files.number("cpu", "cpu.weight").map(shares);
    let max = files.read("cpu", "cpu.max", |text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some((quota.parse().ok(), period.parse().ok()))
    });
    (detail.cpu_quota_us, detail.cpu_period_us) = max.unwrap_or_default();
    memory_v2(files, &mut detail);
    pids(files, &mut detail.usage);
    detail.io = io_v2(files);
    detail.pressures = pressures(files);
    detail
}

fn memory_v2(files: &mut impl Files, detail: &mut Detail) {
    let usage = &mut detail.usage;
    let names = ["inactive_file", "active_file", "anon", "file", "file_mapped", "kernel", "pgfault", "pgmajfault"];
    let stat = files.read("memory", "memory.stat", |text| Some(fields(text, names))).unwrap_or_default();
    let [inactive, active, anon, file, mapped, kernel, faults, major] = stat;
    let whole = || anon.zip(file).map(|(anon, file)| anon.saturating_add(file));
    usage.memory_bytes = files.number("memory", "memory.current").or_else(whole);
    usage.memory_limit_bytes = files.limit("memory", "memory.max");
    usage.working_set_bytes = without(usage.memory_bytes, inactive);
    (usage.rss_bytes, usage.cache_bytes) = (anon, file);
    (usage.page_faults, usage.major_page_faults) = (faults, major);
    (detail.all_page_faults, detail.all_major_page_faults) = (faults, major);
    usage.swap_bytes = files.number("memory", "memory.swap.current");
    usage.swap_limit_bytes = files.limit("memory", "memory.swap.max");
    detail.swap_limit_bytes = usage.swap_limit_bytes;
    detail.memory_max_used_bytes = files.number("memory", "memory.peak");
    detail.memory_reservation_bytes = files.limit("memory", "memory.min");
    detail.kernel_memory_bytes = kernel;
    (detail.inactive_file_bytes, detail.active_file_bytes, detail.mapped_file_bytes) = (inactive, active, mapped);
    let events = files.read("memory", "memory.events", |text| Some(fields(text, ["max", "oom_kill"])));
    [detail.memory_limit_hits, detail.oom_kills] = events.unwrap_or_default();
}

/// Weights 1 to 10000 as shares 2 to 262144.
fn shares(weight: u64) -> u64 {
    2 + weight.saturating_sub(1).saturating_mul(262_142) / 9999
}
