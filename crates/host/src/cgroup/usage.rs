//! What a cgroup uses, in the terms of the kubelet's statistics, read when somebody asks.
//!
//! Each reader takes only the files that it needs, through one buffer. What the kernel does not tell is `None`: a controller
//! that is off, a file that this version does not have. A cgroup that is not there, or vanishes meanwhile, is `None` as a whole.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Tree, Version, page_size_name};

mod parse;
#[cfg(test)]
mod tests;

/// CPU, memory and processes of one cgroup at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the cgroup's beginning, all, and what was spent in programs and in the kernel.
    pub cpu_nanos: Option<u64>,
    pub cpu_user_nanos: Option<u64>,
    pub cpu_system_nanos: Option<u64>,
    /// How often and how long the quota held it back.
    pub throttling: Option<Throttling>,
    pub memory_bytes: Option<u64>,
    /// Usage without files that were not used lately: what counts against the limit under pressure.
    pub working_set_bytes: Option<u64>,
    /// Anonymous memory.
    pub rss_bytes: Option<u64>,
    /// Memory that holds files.
    pub cache_bytes: Option<u64>,
    /// `None` too when there is no limit.
    pub memory_limit_bytes: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
    /// Swap alone, without memory.
    pub swap_bytes: Option<u64>,
    /// Of swap alone; `None` too when there is no limit. Version 1 limits memory and swap together.
    pub swap_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// `None` too when there is no limit.
    pub processes_max: Option<u64>,
}

impl Usage {
    /// What may be used before the limit; `None` without a limit. kubelet 1.36: the limit without the working set.
    pub fn memory_available_bytes(&self) -> Option<u64> {
        Some(self.memory_limit_bytes?.saturating_sub(self.working_set_bytes?))
    }

    /// The same of swap.
    pub fn swap_available_bytes(&self) -> Option<u64> {
        Some(self.swap_limit_bytes?.saturating_sub(self.swap_bytes?))
    }
}

/// What the CPU quota did, since the cgroup's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_nanos: u64,
}

/// Time that processes waited for something they lacked. Version 2 only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one process waited.
    pub some: Stall,
    /// All of them did.
    pub full: Stall,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Per cent of the last 10, 60 and 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Since the cgroup's beginning. kubelet 1.36 shows this number although it calls it nanoseconds.
    pub total_micros: u64,
}

/// Pressure by what is lacked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressures {
    pub cpu: Option<Pressure>,
    pub memory: Option<Pressure>,
    pub io: Option<Pressure>,
}

/// What was read from and written to one device since the cgroup's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugetlbUsage {
    pub page_bytes: u64,
    pub used_bytes: u64,
    /// `None`: no limit.
    pub limit_bytes: Option<u64>,
}

/// Limits from here on mean none: version 1 writes its own as the greatest number of pages.
const UNLIMITED: u64 = 1 << 62;
/// Files of cgroups are a few kilobytes; `io.stat` has a line for each device.
const BUFFER_BYTES: usize = 16 << 10;
const FILE_BYTES_MAX: usize = 1 << 20;

impl Tree {
    /// CPU, memory and processes; `None` when the cgroup is not there. Version 2 does not tell them all of its root.
    pub fn usage(&self, path: impl AsRef<Path>) -> Option<Usage> {
        let mut files = OnDisk::new(self, path)?;
        let usage = match self.version {
            Version::V1 => parse::usage_v1(&mut files),
            Version::V2 => parse::usage_v2(&mut files),
        };
        files.is_there("memory").then_some(usage)
    }

    /// Pressure; `None` when the cgroup is not there. Nothing is told on version 1 and where the kernel does not count it.
    pub fn pressure(&self, path: impl AsRef<Path>) -> Option<Pressures> {
        let mut files = OnDisk::new(self, path)?;
        let pressures = match self.version {
            Version::V1 => Pressures::default(),
            Version::V2 => parse::pressures(&mut files),
        };
        files.is_there("memory").then_some(pressures)
    }

    /// Input and output by device, in the kernel's order; `None` when the cgroup is not there.
    pub fn io(&self, path: impl AsRef<Path>) -> Option<Vec<DeviceIo>> {
        let mut files = OnDisk::new(self, path)?;
        let devices = match self.version {
            Version::V1 => parse::io_v1(&mut files),
            Version::V2 => parse::io_v2(&mut files),
        };
        files.is_there("blkio").then_some(devices)
    }

    /// Huge pages of these sizes (bytes), those that the kernel counts here; `None` when the cgroup is not there.
    pub fn hugetlb(&self, path: impl AsRef<Path>, sizes: &[u64]) -> Option<Vec<HugetlbUsage>> {
        let mut files = OnDisk::new(self, path)?;
        let of = |&size: &u64| parse::hugetlb(&mut files, self.version, size, &page_size_name(size));
        let pages = sizes.iter().filter_map(of).collect();
        files.is_there("memory").then_some(pages)
    }
}

/// Files of one cgroup by controller.
trait Files {
    /// What `parse` makes of a file's text; `None` when it cannot be read.
    fn read<T>(&mut self, controller: &'static str, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T>;

    fn number(&mut self, controller: &'static str, file: &str) -> Option<u64> {
        self.read(controller, file, |text| text.trim().parse().ok())
    }

    /// A limit; `None` without one.
    fn limit(&mut self, controller: &'static str, file: &str) -> Option<u64> {
        self.number(controller, file).filter(|&limit| limit < UNLIMITED)
    }
}

struct OnDisk<'t> {
    tree: &'t Tree,
    name: String,
    /// The directory of the last file, most often the next one's too.
    last: Option<(&'static str, PathBuf)>,
    buffer: Vec<u8>,
    /// Some file was not there: the cgroup may have gone.
    has_missed: bool,
}

impl<'t> OnDisk<'t> {
    fn new(tree: &'t Tree, path: impl AsRef<Path>) -> Option<Self> {
        let name = tree.fs_name(path).ok()?;
        Some(Self { tree, name, last: None, buffer: Vec::new(), has_missed: false })
    }

    fn dir(&mut self, controller: &'static str) -> Option<&Path> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != controller) {
            let hierarchies = &self.tree.hierarchies;
            let hierarchy = match self.tree.version {
                Version::V1 => hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller)),
                Version::V2 => hierarchies.first(),
            }?;
            self.last = Some((controller, hierarchy.mount.join(&self.name)));
        }
        self.last.as_ref().map(|(_, dir)| dir.as_path())
    }

    /// Whether the cgroup was there all the time, as its directory of this controller tells; if the machine has no such
    /// controller, as any of its directories does.
    fn is_there(&mut self, controller: &'static str) -> bool {
        if !self.has_missed {
            return true;
        }
        match self.dir(controller) {
            Some(dir) => dir.is_dir(),
            None => self.tree.hierarchies.iter().any(|h| h.mount.join(&self.name).is_dir()),
        }
    }

    /// The file's bytes are in the buffer, up to the number that is returned.
    fn fill(&mut self, path: &Path) -> rustix::io::Result<usize> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        self.buffer.resize(self.buffer.len().max(BUFFER_BYTES), 0);
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= FILE_BYTES_MAX {
                    return Ok(length);
                }
                self.buffer.resize(length * 2, 0);
            }
            match rustix::io::pread(&file, &mut self.buffer[length..], length as u64)? {
                0 => return Ok(length),
                more => length += more,
            }
        }
    }
}

impl Files for OnDisk<'_> {
    fn read<T>(&mut self, controller: &'static str, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let path = self.dir(controller)?.join(file);
        match self.fill(&path) {
            Ok(length) => std::str::from_utf8(&self.buffer[..length]).ok().and_then(parse),
            Err(_) => {
                self.has_missed = true;
                None
            }
        }
    }
}
