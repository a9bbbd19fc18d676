//! What the machine is: processors, memory, page sizes, disk, kernel, names.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

mod activity;
mod address;
mod interfaces;

#[cfg(test)]
mod tests;

pub use activity::{
    BlockDevice, Own, block_devices, boot_secs, open_files, open_files_max, own, pressures, swap_used, threads,
    topology,
};
pub use address::{default_addresses, interface_addresses, lookup};
pub use interfaces::{Interface, Traffic, interfaces};

/// Why a property of the machine could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    #[error("read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is larger than {max} bytes")]
    TooLarge { path: String, max: u64 },
    #[error("{path} has no usable {what}")]
    Missing { path: String, what: &'static str },
}

/// Memory of the machine in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    pub total: u64,
    pub swap_total: u64,
}

/// Size of a file system in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Disk {
    pub capacity: u64,
    /// What is left for unprivileged users.
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// Largest of the files read here.
const FILE_MAX: u64 = 1 << 20;

/// Reads a small text file, at most `max` bytes; a larger one is an error, bytes that are no UTF-8 are replaced.
pub fn read_bounded(path: &Path, max: u64) -> Result<String, ProcError> {
    let failed = |source| ProcError::Read { path: path.display().to_string(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|f| f.take(max + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(ProcError::TooLarge { path: path.display().to_string(), max });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(path: &str) -> Result<String, ProcError> {
    read_bounded(Path::new(path), FILE_MAX)
}

/// The most processes and threads that the kernel lets live: the least of its limits. `None` when it tells none.
pub fn pids_max() -> Option<i64> {
    let limit = |path| read(path).ok()?.trim().parse().ok();
    ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(limit).min()
}

/// Number of processors that are online.
pub fn cpu_count() -> Result<u32, ProcError> {
    let path = "/sys/devices/system/cpu/online";
    parse_cpu_list(&read(path)?).ok_or(ProcError::Missing { path: path.into(), what: "list of processors" })
}

/// `0-3,8` counts 5.
fn parse_cpu_list(text: &str) -> Option<u32> {
    let mut count = 0u32;
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    (count > 0).then_some(count)
}

/// Memory and swap.
pub fn memory() -> Result<Memory, ProcError> {
    let path = "/proc/meminfo";
    let text = read(path)?;
    let value = |key| meminfo(&text, key);
    let total = value("MemTotal:").ok_or(ProcError::Missing { path: path.into(), what: "MemTotal" })?;
    Ok(Memory { total, swap_total: value("SwapTotal:").unwrap_or(0) })
}

fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Swap areas in use, as `/proc/swaps` names them. Empty as well when the kernel has no swap at all.
pub fn swaps() -> Result<Vec<String>, ProcError> {
    match read("/proc/swaps") {
        Ok(text) => Ok(text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()),
        Err(ProcError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// One size of huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HugePages {
    pub size_bytes: u64,
    /// Pages of this size that are set aside.
    pub count: u64,
}

/// Huge page sizes in the order in which the kernel lists their directories, which is the order that runtimes are told them
/// in. None when the kernel has no huge pages.
pub fn huge_pages() -> Result<Vec<HugePages>, ProcError> {
    huge_pages_in(Path::new("/sys/kernel/mm/hugepages"))
}

pub(crate) fn huge_pages_in(dir: &Path) -> Result<Vec<HugePages>, ProcError> {
    let failed = |source| ProcError::Read { path: dir.display().to_string(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    let mut pages = Vec::new();
    for name in names {
        let size =
            name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")).and_then(|n| n.parse::<u64>().ok());
        let Some(size_bytes) = size.and_then(|kb| kb.checked_mul(1024)) else { continue };
        let count = read_bounded(&dir.join(&name).join("nr_hugepages"), 64)?.trim().parse().unwrap_or(0);
        pages.push(HugePages { size_bytes, count });
    }
    Ok(pages)
}

/// The kernel's release, e.g. `6.12.3-cloud`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// (major, minor) of a release; what cannot be read is zero.
pub fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The kernel's name for this boot: a UUID.
pub fn boot_id() -> Result<String, ProcError> {
    Ok(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// `/etc/machine-id`; empty when there is none.
pub fn machine_id() -> String {
    read("/etc/machine-id").map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// The firmware's UUID of the machine; empty when it is not told.
pub fn system_uuid() -> String {
    read("/sys/class/dmi/id/product_uuid").map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// `PRETTY_NAME` of `/etc/os-release`; empty when there is none.
pub fn os_image() -> String {
    let text = read("/etc/os-release").or_else(|_| read("/usr/lib/os-release")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.map(|v| v.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
}

/// Whether the kernel enforces AppArmor profiles.
pub fn has_apparmor() -> bool {
    read("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.trim_start().starts_with('Y'))
}

/// The host's name as the kernel has it.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The file system that holds `path`.
pub fn disk(path: &Path) -> Result<Disk, ProcError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|e| ProcError::Read { path: path.display().to_string(), source: e.into() })?;
    Ok(Disk {
        capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}
