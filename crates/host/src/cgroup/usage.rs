//! What a cgroup uses, in the terms of the kubelet's statistics, read when somebody asks.
//!
//! Each reader takes only the files that it needs, through one buffer. What the kernel does not tell is `None`: a controller
//! that is off, a file that this version does not have. A cgroup that is not there, or vanishes meanwhile, is `None` as a whole.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Tree, Version, page_size_name};

pub use detail::Detail;

mod detail;
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
/// Cgroups below one that are told.
const CHILDREN_MAX: usize = 4096;

impl Tree {
    /// CPU, memory and processes; `None` when the cgroup is not there. Version 2 does not tell them all of its root.
    pub fn usage(&self, path: impl AsRef<Path>) -> Option<Usage> {
        self.reader().open(&self.fs_name(path).ok()?).usage()
    }

    /// Pressure; `None` when the cgroup is not there. Nothing is told on version 1 and where the kernel does not count it.
    pub fn pressure(&self, path: impl AsRef<Path>) -> Option<Pressures> {
        self.reader().open(&self.fs_name(path).ok()?).pressure()
    }

    /// Input and output by device, in the kernel's order; `None` when the cgroup is not there.
    pub fn io(&self, path: impl AsRef<Path>) -> Option<Vec<DeviceIo>> {
        self.reader().open(&self.fs_name(path).ok()?).io()
    }

    /// Huge pages of these sizes (bytes), those that the kernel counts here; `None` when the cgroup is not there.
    pub fn hugetlb(&self, path: impl AsRef<Path>, sizes: &[u64]) -> Option<Vec<HugetlbUsage>> {
        let mut reader = self.reader();
        let mut files = reader.open(&self.fs_name(path).ok()?);
        let of = |&size: &u64| parse::hugetlb(&mut files, self.version, size, &page_size_name(size));
        let pages = sizes.iter().filter_map(of).collect();
        files.is_there("memory").then_some(pages)
    }

    /// What reads many cgroups.
    pub fn reader(&self) -> Reader<'_> {
        Reader { tree: self, buffer: Vec::new() }
    }

    /// What the cgroup is called in the file system, without a leading slash: in cAdvisor's metrics its `id`.
    pub fn name_of(&self, path: impl AsRef<Path>) -> Option<String> {
        self.fs_name(path).ok()
    }
}

/// The text of a pressure file.
pub(crate) fn pressure_in(text: &str) -> Option<Pressure> {
    parse::pressure(text)
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

/// Reads cgroups, one after another, through one buffer.
pub struct Reader<'t> {
    tree: &'t Tree,
    buffer: Vec<u8>,
}

impl<'t> Reader<'t> {
    /// A cgroup by its name in the file system (see [`Tree::name_of`]); whether it is there shows when it is read.
    pub fn open<'r>(&'r mut self, name: &str) -> Opened<'r, 't> {
        let dirs = self.tree.hierarchies.iter().map(|_| None).collect();
        let name = name.trim_matches('/').to_owned();
        Opened { reader: self, name, dirs, has_missed: false }
    }
}

/// One cgroup. Its directories are opened once, where they are needed.
pub struct Opened<'r, 't> {
    reader: &'r mut Reader<'t>,
    name: String,
    /// By hierarchy.
    dirs: Vec<Option<OwnedFd>>,
    /// Some file was not there: the cgroup may have gone.
    has_missed: bool,
}

impl Opened<'_, '_> {
    /// CPU, memory and processes; `None` when the cgroup is not there.
    pub fn usage(&mut self) -> Option<Usage> {
        let usage = match self.reader.tree.version {
            Version::V1 => parse::usage_v1(self),
            Version::V2 => parse::usage_v2(self),
        };
        self.is_there("memory").then_some(usage)
    }

    /// Pressure; `None` when the cgroup is not there.
    pub fn pressure(&mut self) -> Option<Pressures> {
        let pressures = match self.reader.tree.version {
            Version::V1 => Pressures::default(),
            Version::V2 => parse::pressures(self),
        };
        self.is_there("memory").then_some(pressures)
    }

    /// Input and output by device; `None` when the cgroup is not there.
    pub fn io(&mut self) -> Option<Vec<DeviceIo>> {
        let devices = match self.reader.tree.version {
            Version::V1 => parse::io_v1(self),
            Version::V2 => parse::io_v2(self),
        };
        self.is_there("blkio").then_some(devices)
    }

    /// All that cAdvisor tells of a cgroup; `None` when it is not there.
    pub fn detail(&mut self) -> Option<Detail> {
        let mut detail = match self.reader.tree.version {
            Version::V1 => detail::v1(self),
            Version::V2 => detail::v2(self),
        };
        detail.pids = self.pids();
        detail.made_at_secs = self.made_at_secs();
        self.is_there("memory").then_some(detail)
    }

    /// Processes in the cgroup itself, without those below; the first one is the oldest.
    pub fn pids(&mut self) -> Vec<u32> {
        let parse = |text: &str| Some(text.lines().filter_map(|line| line.parse().ok()).collect());
        self.read("cpu", "cgroup.procs", parse).unwrap_or_default()
    }

    /// Names of the cgroups right below.
    pub fn children(&mut self) -> Vec<String> {
        let Some(dir) = self.dir_fd("memory") else { return Vec::new() };
        let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return Vec::new() };
        let is_child = |entry: &rustix::fs::DirEntry| {
            entry.file_type() == rustix::fs::FileType::Directory
                && !matches!(entry.file_name().to_bytes(), b"." | b"..")
        };
        let entries = entries.filter_map(Result::ok).filter(is_child).take(CHILDREN_MAX);
        entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned)).collect()
    }

    /// When the cgroup was made, seconds since 1970; nearly: its directory knows when it was changed last.
    pub fn made_at_secs(&mut self) -> Option<i64> {
        let dir = self.dir_fd("memory")?;
        Some(rustix::fs::fstat(dir).ok()?.st_mtime)
    }

    fn hierarchy(&self, controller: &'static str) -> Option<usize> {
        let hierarchies = &self.reader.tree.hierarchies;
        match self.reader.tree.version {
            Version::V1 => hierarchies.iter().position(|h| h.controllers.iter().any(|c| c == controller)),
            Version::V2 => (!hierarchies.is_empty()).then_some(0),
        }
    }

    fn path(&self, hierarchy: usize) -> PathBuf {
        self.reader.tree.hierarchies[hierarchy].mount.join(&self.name)
    }

    fn dir_fd(&mut self, controller: &'static str) -> Option<&OwnedFd> {
        let at = self.hierarchy(controller)?;
        if self.dirs[at].is_none() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.dirs[at] = rustix::fs::open(self.path(at), flags, Mode::empty()).ok();
        }
        self.dirs[at].as_ref()
    }

    /// Whether the cgroup was there all the time, as its directory of this controller tells; if the machine has no such
    /// controller, as any of its directories does.
    fn is_there(&self, controller: &'static str) -> bool {
        if !self.has_missed {
            return true;
        }
        match self.hierarchy(controller) {
            Some(at) => self.path(at).is_dir(),
            None => (0..self.dirs.len()).any(|at| self.path(at).is_dir()),
        }
    }

    /// The file's bytes are in the buffer, up to the number that is returned.
    fn fill(&mut self, controller: &'static str, file: &str) -> Option<usize> {
        let dir = self.dir_fd(controller)?;
        let file = rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let buffer = &mut self.reader.buffer;
        buffer.resize(buffer.len().max(BUFFER_BYTES), 0);
        let mut length = 0;
        loop {
            if length == buffer.len() {
                if length >= FILE_BYTES_MAX {
                    return Some(length);
                }
                buffer.resize(length * 2, 0);
            }
            match rustix::io::read(&file, &mut buffer[length..]).ok()? {
                0 => return Some(length),
                more => length += more,
            }
        }
    }
}

impl Files for Opened<'_, '_> {
    fn read<T>(&mut self, controller: &'static str, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        match self.fill(controller, file) {
            Some(length) => std::str::from_utf8(&self.reader.buffer[..length]).ok().and_then(parse),
            None => {
                // What the machine has no controller for says nothing about the cgroup.
                self.has_missed |= self.hierarchy(controller).is_some();
                None
            }
        }
    }
}
