//! What processes and devices do: threads, open files, this process's own figures, disks, pressure.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RawDir};

use super::{read, read_bounded};
use crate::cgroup::usage::{Pressure, Pressures};

/// Processes and threads that there are now.
pub fn threads() -> Option<i64> {
    let text = read("/proc/loadavg").ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// Memory and swap of the machine in use, bytes.
pub fn swap_used() -> Option<u64> {
    let text = read("/proc/meminfo").ok()?;
    Some(super::meminfo(&text, "SwapTotal:")?.saturating_sub(super::meminfo(&text, "SwapFree:")?))
}

/// What the whole machine waits for, where the kernel counts it.
pub fn pressures() -> Pressures {
    let of = |name: &str| -> Option<Pressure> {
        crate::cgroup::usage::pressure_in(&read_bounded(Path::new(&format!("/proc/pressure/{name}")), 4096).ok()?)
    };
    Pressures { cpu: of("cpu"), memory: of("memory"), io: of("io") }
}

/// Open files of a process, and how many of them are sockets; nothing when it is gone.
pub fn open_files(pid: u32) -> (u64, u64) {
    let mut counts = (0, 0);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::open(format!("/proc/{pid}/fd"), flags, Mode::empty()) else { return counts };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        counts.0 += 1;
        let mut target = [MaybeUninit::uninit(); 16];
        if let Ok((shown, _)) = rustix::fs::readlinkat_raw(&dir, entry.file_name(), &mut target)
            && shown.starts_with(b"socket:")
        {
            counts.1 += 1;
        }
    }
    counts
}

/// How many files a process may open, softly; `None` when it is gone, −1 without limit.
pub fn open_files_max(pid: u32) -> Option<i64> {
    let text = read_bounded(Path::new(&format!("/proc/{pid}/limits")), 8192).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(-1),
        number => number.parse().ok(),
    }
}

/// This process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Own {
    pub cpu_seconds: f64,
    pub open_files: u64,
    pub open_files_max: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    /// `None`: no limit.
    pub virtual_max_bytes: Option<u64>,
    /// Seconds since 1970.
    pub started_at_secs: f64,
    pub network_received_bytes: u64,
    pub network_sent_bytes: u64,
}

/// The figures of this process; nothing where the kernel does not tell.
pub fn own() -> Option<Own> {
    let stat = read("/proc/self/stat").ok()?;
    // The name may hold anything but is closed by the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let virtual_max_bytes = rustix::process::getrlimit(rustix::process::Resource::As).current;
    let (network_received_bytes, network_sent_bytes) = octets().unwrap_or_default();
    Some(Own {
        cpu_seconds: (number(14)? + number(15)?) as f64 / ticks,
        open_files: open_files(std::process::id()).0,
        open_files_max: limit.unwrap_or(u64::MAX),
        resident_bytes: number(24)? * rustix::param::page_size() as u64,
        virtual_bytes: number(23)?,
        virtual_max_bytes,
        started_at_secs: boot_secs()? as f64 + number(22)? as f64 / ticks,
        network_received_bytes,
        network_sent_bytes,
    })
}

/// When the machine was started, seconds since 1970.
pub fn boot_secs() -> Option<u64> {
    let text = read("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// What went in and out of this network namespace.
fn octets() -> Option<(u64, u64)> {
    let text = read("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let at = names.split(' ').position(|name| name == wanted)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Some((of("InOctets")?, of("OutOctets")?))
}

/// One block device since the machine was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDevice {
    pub name: String,
    pub major: u32,
    pub minor: u32,
    pub reads: u64,
    pub reads_merged: u64,
    pub sectors_read: u64,
    pub read_millis: u64,
    pub writes: u64,
    pub writes_merged: u64,
    pub sectors_written: u64,
    pub write_millis: u64,
    pub io_now: u64,
    pub io_millis: u64,
    pub io_weighted_millis: u64,
}

/// All block devices, in the kernel's order.
pub fn block_devices() -> Vec<BlockDevice> {
    read("/proc/diskstats").map(|text| text.lines().filter_map(block_device).collect()).unwrap_or_default()
}

fn block_device(line: &str) -> Option<BlockDevice> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| words.get(at)?.parse::<u64>().ok();
    Some(BlockDevice {
        name: (*words.get(2)?).to_owned(),
        major: words.first()?.parse().ok()?,
        minor: words.get(1)?.parse().ok()?,
        reads: number(3)?,
        reads_merged: number(4)?,
        sectors_read: number(5)?,
        read_millis: number(6)?,
        writes: number(7)?,
        writes_merged: number(8)?,
        sectors_written: number(9)?,
        write_millis: number(10)?,
        io_now: number(11)?,
        io_millis: number(12)?,
        io_weighted_millis: number(13)?,
    })
}

/// Processors as the machine has them: (sockets, physical cores, threads).
pub fn topology() -> (u64, u64, u64) {
    let text = read("/proc/cpuinfo").unwrap_or_default();
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let (mut socket, mut threads) = (String::new(), 0);
    let (mut sockets, mut cores) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for line in text.lines() {
        if line.starts_with("processor") {
            threads += 1;
        } else if line.starts_with("physical id") {
            socket = value(line).unwrap_or_default();
            sockets.insert(socket.clone());
        } else if line.starts_with("core id") {
            cores.insert((socket.clone(), value(line)));
        }
    }
    let at_least_one = |count: usize, other: u64| if count == 0 { other } else { count as u64 };
    (at_least_one(sockets.len(), 1), at_least_one(cores.len(), threads), threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let own = own().unwrap();
        assert!(own.open_files > 2 && own.resident_bytes > 1 << 20 && own.started_at_secs > 1e9, "{own:?}");
        let (all, sockets) = open_files(std::process::id());
        assert!(all >= 3 && sockets <= all);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(open_files(std::process::id()).1 >= 1, "{socket:?}");
        assert!(open_files_max(std::process::id()).is_some_and(|max| max != 0));
        assert_eq!(open_files(u32::MAX), (0, 0));
        assert!(threads().is_some_and(|count| count > 1));
        assert!(topology().2 > 0);
    }

    #[test]
    fn a_line_of_diskstats() {
        let line = " 254       0 vda 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0";
        let device = block_device(line).unwrap();
        assert_eq!((device.name.as_str(), device.major, device.minor), ("vda", 254, 0));
        assert_eq!((device.reads, device.sectors_written, device.io_weighted_millis), (1, 7, 11));
        assert_eq!(block_device("254 0 vda 1 2"), None);
    }
}
