//! The kernel's texts as numbers.

use super::{DeviceIo, Files, HugetlbUsage, Pressure, Pressures, Stall, Throttling, Usage};
use crate::cgroup::Version;

/// The kernel counts time in programs and in itself in hundredths of seconds here, whatever its own clock is.
const TICK_NANOS: u64 = 10_000_000;
/// Devices of one cgroup that are told.
const DEVICES_MAX: usize = 1024;

pub(super) fn usage_v1(files: &mut impl Files) -> Usage {
    let mut usage = Usage { cpu_nanos: files.number("cpuacct", "cpuacct.usage"), ..Usage::default() };
    let ticks = files.read("cpuacct", "cpuacct.stat", |text| Some(fields(text, ["user", "system"])));
    [usage.cpu_user_nanos, usage.cpu_system_nanos] =
        ticks.unwrap_or_default().map(|ticks| Some(ticks?.saturating_mul(TICK_NANOS)));
    usage.throttling = files.read("cpu", "cpu.stat", |text| throttling(text, "throttled_time", 1));
    usage.memory_bytes = files.number("memory", "memory.usage_in_bytes");
    usage.memory_limit_bytes = files.limit("memory", "memory.limit_in_bytes");
    let names = ["total_inactive_file", "total_rss", "total_cache", "pgfault", "pgmajfault", "total_swap"];
    let stat = files.read("memory", "memory.stat", |text| Some(fields(text, names))).unwrap_or_default();
    let [inactive_file, rss, cache, faults, major_faults, swap] = stat;
    usage.working_set_bytes = without(usage.memory_bytes, inactive_file);
    (usage.rss_bytes, usage.cache_bytes, usage.swap_bytes) = (rss, cache, swap);
    (usage.page_faults, usage.major_page_faults) = (faults, major_faults);
    pids(files, &mut usage);
    usage
}

pub(super) fn usage_v2(files: &mut impl Files) -> Usage {
    let mut usage = Usage::default();
    let cpu = files.read("cpu", "cpu.stat", |text| {
        let times = fields(text, ["usage_usec", "user_usec", "system_usec"]);
        Some((times.map(|micros| Some(micros?.saturating_mul(1000))), throttling(text, "throttled_usec", 1000)))
    });
    if let Some((times, throttling)) = cpu {
        [usage.cpu_nanos, usage.cpu_user_nanos, usage.cpu_system_nanos] = times;
        usage.throttling = throttling;
    }
    let names = ["inactive_file", "anon", "file", "pgfault", "pgmajfault"];
    let stat = files.read("memory", "memory.stat", |text| Some(fields(text, names))).unwrap_or_default();
    let [inactive_file, anon, file, faults, major_faults] = stat;
    // The root has no such file; upstream takes anonymous memory and files for it.
    let whole = || anon.zip(file).map(|(anon, file)| anon.saturating_add(file));
    usage.memory_bytes = files.number("memory", "memory.current").or_else(whole);
    usage.memory_limit_bytes = files.limit("memory", "memory.max");
    usage.working_set_bytes = without(usage.memory_bytes, inactive_file);
    (usage.rss_bytes, usage.cache_bytes) = (anon, file);
    (usage.page_faults, usage.major_page_faults) = (faults, major_faults);
    usage.swap_bytes = files.number("memory", "memory.swap.current");
    usage.swap_limit_bytes = files.limit("memory", "memory.swap.max");
    pids(files, &mut usage);
    usage
}

pub(super) fn pids(files: &mut impl Files, usage: &mut Usage) {
    usage.processes = files.number("pids", "pids.current");
    usage.processes_max = files.limit("pids", "pids.max");
}

pub(super) fn pressures(files: &mut impl Files) -> Pressures {
    Pressures {
        cpu: files.read("cpu", "cpu.pressure", pressure),
        memory: files.read("memory", "memory.pressure", pressure),
        io: files.read("io", "io.pressure", pressure),
    }
}

/// Some kernels do not tell `full` for CPUs: it is zero then, as newer ones write it.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|line| stall(line.strip_prefix(name)?.strip_prefix(' ')?));
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

/// `avg10=0.12 avg60=0.05 avg300=0.01 total=1234`
fn stall(line: &str) -> Option<Stall> {
    let value = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Some(Stall {
        avg10: value("avg10")?.parse().ok()?,
        avg60: value("avg60")?.parse().ok()?,
        avg300: value("avg300")?.parse().ok()?,
        total_micros: value("total")?.parse().ok()?,
    })
}

/// Who counts input and output on version 1: BFQ on the disks that it schedules, and throttling, which newer kernels do only where
/// there is a limit. libcontainer: the first that has counted anything.
const COUNTERS_V1: [[(&str, bool); 2]; 2] = [
    [("blkio.bfq.io_service_bytes_recursive", true), ("blkio.bfq.io_serviced_recursive", false)],
    [("blkio.throttle.io_service_bytes_recursive", true), ("blkio.throttle.io_serviced_recursive", false)],
];

pub(super) fn io_v1(files: &mut impl Files) -> Vec<DeviceIo> {
    COUNTERS_V1.iter().map(|counter| counted_v1(files, counter)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Lines `8:0 Read 4096`; bytes and operations are in two files.
fn counted_v1(files: &mut impl Files, counter: &[(&'static str, bool); 2]) -> Vec<DeviceIo> {
    let mut devices: Vec<DeviceIo> = Vec::new();
    for &(file, is_bytes) in counter {
        files.read("blkio", file, |text| {
            for line in text.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let &[name, kind @ ("Read" | "Write"), count] = words.as_slice() else { continue };
                let (Some(number), Ok(count)) = (device_number(name), count.parse()) else { continue };
                let Some(device) = device(&mut devices, number) else { continue };
                match (is_bytes, kind) {
                    (true, "Read") => device.read_bytes = count,
                    (true, _) => device.written_bytes = count,
                    (false, "Read") => device.reads = count,
                    (false, _) => device.writes = count,
                }
            }
            Some(())
        });
    }
    devices
}

/// Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`
pub(super) fn io_v2(files: &mut impl Files) -> Vec<DeviceIo> {
    let parse = |text: &str| {
        let line = |line: &str| {
            let (name, rest) = line.split_once(' ')?;
            let value = |name: &str| {
                let text = rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
                text.parse::<u64>().ok()
            };
            let (major, minor) = device_number(name)?;
            Some(DeviceIo {
                major,
                minor,
                read_bytes: value("rbytes")?,
                written_bytes: value("wbytes")?,
                reads: value("rios")?,
                writes: value("wios")?,
            })
        };
        Some(text.lines().filter_map(line).take(DEVICES_MAX).collect())
    };
    files.read("io", "io.stat", parse).unwrap_or_default()
}

fn device_number(name: &str) -> Option<(u32, u32)> {
    let (major, minor) = name.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The device's entry; a new one unless there are too many.
fn device(devices: &mut Vec<DeviceIo>, (major, minor): (u32, u32)) -> Option<&mut DeviceIo> {
    let at = devices.iter().position(|device| (device.major, device.minor) == (major, minor));
    match at {
        Some(at) => devices.get_mut(at),
        None if devices.len() < DEVICES_MAX => {
            devices.push(DeviceIo { major, minor, ..DeviceIo::default() });
            devices.last_mut()
        }
        None => None,
    }
}

pub(super) fn hugetlb(
    files: &mut impl Files,
    version: Version,
    page_bytes: u64,
    page_name: &str,
) -> Option<HugetlbUsage> {
    let (used, limit) = match version {
        Version::V1 => ("usage_in_bytes", "limit_in_bytes"),
        Version::V2 => ("current", "max"),
    };
    Some(HugetlbUsage {
        page_bytes,
        used_bytes: files.number("hugetlb", &format!("hugetlb.{page_name}.{used}"))?,
        limit_bytes: files.limit("hugetlb", &format!("hugetlb.{page_name}.{limit}")),
    })
}

pub(super) fn throttling(text: &str, time: &str, unit_nanos: u64) -> Option<Throttling> {
    let [periods, throttled_periods, time] = fields(text, ["nr_periods", "nr_throttled", time]);
    Some(Throttling {
        periods: periods?,
        throttled_periods: throttled_periods?,
        throttled_nanos: time?.saturating_mul(unit_nanos),
    })
}

/// The numbers after these names, each at the beginning of a line, in one pass.
pub(super) fn fields<const N: usize>(text: &str, names: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    let mut left = N;
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let Some(at) = names.iter().position(|wanted| *wanted == name) else { continue };
        if found[at].is_none() {
            found[at] = value.trim().parse().ok();
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    found
}

pub(super) fn without(used: Option<u64>, inactive: Option<u64>) -> Option<u64> {
    Some(used?.saturating_sub(inactive.unwrap_or(0)))
}
