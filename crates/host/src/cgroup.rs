//! Cgroups that this program owns: made, given values, listed and removed, on both versions and for both drivers.
//!
//! Paths are logical: `kubepods/burstable/pod<uid>`, without a leading slash, below the tree's root. What they are called in
//! the file system is decided here ([`Tree::cri_parent`]). The machine's mounts are never changed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::dbus;
use crate::mount::{self, Mount};
use crate::process;

mod home;
mod notify;
pub mod systemd_name;
mod systemd_unit;
pub mod usage;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

/// The hierarchy that the host mounts. A hybrid host counts as version 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    V1,
    V2,
}

/// Who names cgroups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// Values of one cgroup in the units of version 1; `None` (or an empty list) leaves the kernel's value alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    pub cpu_shares: Option<u64>,
    /// On version 2 this instead of what follows from the shares.
    pub cpu_weight: Option<u64>,
    /// Microseconds per period; negative: no quota.
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    /// Negative: no limit.
    pub memory_limit_bytes: Option<i64>,
    /// Zero or negative: no limit.
    pub pids_max: Option<i64>,
    /// (page size in bytes, limit in bytes). Left out where the kernel has no hugetlb controller.
    pub hugetlb: Vec<(u64, i64)>,
    /// Memory and swap together; negative: no limit. Left out where the kernel does not count swap.
    pub memory_swap_limit_bytes: Option<i64>,
    /// A list such as `0-3,6`.
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// Files of version 2 and what is written to them, as they are. Version 1 has none of them: refused there.
    pub unified: Vec<(String, String)>,
}

/// Why a cgroup could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("read the mount table")]
    MountTable(#[source] mount::MountError),
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    #[error("cgroup path {0:?} is not allowed here")]
    Path(String),
    #[error("the cgroup controller {0} is not available")]
    MissingController(&'static str),
    #[error("create cgroup {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {value:?} to {path}")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("remove cgroup {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cgroup file name {0:?} is not allowed here")]
    File(String),
    #[error("cgroup {path} still holds {left} processes after SIGKILL")]
    Busy { path: String, left: usize },
    #[error("{operation} of systemd for {unit}")]
    Systemd { operation: &'static str, unit: String, source: dbus::BusError },
}

/// Why a cgroup is not one that can be held to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Version 1: directories that are not there, sorted.
    Paths(Vec<PathBuf>),
    /// Version 2: controllers that are not switched on, sorted.
    Controllers(Vec<String>),
    /// Version 2: its list of controllers cannot be read.
    Unreadable { path: PathBuf, kind: io::ErrorKind },
}

/// One mounted hierarchy with the controllers it serves (version 2: exactly one, and the list is empty).
#[derive(Clone, Debug, PartialEq)]
struct Hierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
}

/// All hierarchies of the machine, seen from one root.
#[derive(Clone, Debug)]
pub struct Tree {
    version: Version,
    driver: Driver,
    /// Components of the root; empty for `/`.
    root: Vec<String>,
    hierarchies: Vec<Hierarchy>,
    /// Version 1: where version 2 is mounted beside it. OCI runtimes make cgroups there, too; nobody but who removes ours takes them away.
    beside: Option<PathBuf>,
}

/// Where pods live below the root: guaranteed, burstable and best-effort ones.
pub const LEVELS: [&str; 3] = ["kubepods", "kubepods/burstable", "kubepods/besteffort"];
/// How often killing the processes of a cgroup is tried before its removal fails.
const KILL_TRIES: usize = 5;
/// How long one try waits for the killed processes to be gone.
const KILL_WAIT: Duration = Duration::from_secs(1);
/// Depth below a cgroup up to which children are looked for.
const DEPTH_MAX: usize = 16;

/// Which version the host mounts: unified only is V2, everything else V1.
pub fn detect_version() -> Result<Version, CgroupError> {
    Ok(version_of(&mount::table().map_err(CgroupError::MountTable)?))
}

fn version_of(mounts: &[Mount]) -> Version {
    let is_unified =
        mounts.iter().rev().find(|m| m.target == Path::new("/sys/fs/cgroup")).map(|m| m.fs_type == "cgroup2");
    if is_unified == Some(true) { Version::V2 } else { Version::V1 }
}

impl Tree {
    /// The machine's tree, rooted at `root` (`/` or `/some/path`), as the mount table shows it now.
    pub fn detect(driver: Driver, root: &str) -> Result<Self, CgroupError> {
        let mounts = mount::table().map_err(CgroupError::MountTable)?;
        Self::from_mounts(version_of(&mounts), driver, root, &mounts)
    }

    fn from_mounts(version: Version, driver: Driver, root: &str, mounts: &[Mount]) -> Result<Self, CgroupError> {
        let hierarchies = match version {
            Version::V1 => v1::hierarchies(mounts),
            Version::V2 => v2::hierarchies(mounts),
        };
        if hierarchies.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        let beside = mounts.iter().rev().find(|m| version == Version::V1 && m.fs_type == "cgroup2");
        let beside = beside.map(|mount| mount.target.clone());
        Ok(Self { version, driver, root: components(Path::new(root))?, hierarchies, beside })
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The same machine's tree from the very top.
    #[must_use]
    pub fn top(&self) -> Self {
        Self { root: Vec::new(), ..self.clone() }
    }

    /// Components of a cgroup's name as a user writes it, in the driver's words: `/system` or `system.slice`.
    pub fn components_of(&self, name: &str) -> Vec<String> {
        match self.driver {
            Driver::Cgroupfs => name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            Driver::Systemd => {
                let slice = last(name.trim_end_matches('/'));
                slice.strip_suffix(".slice").unwrap_or(slice).split('-').map(systemd_name::unescape).collect()
            }
        }
    }

    /// What keeps a cgroup that others made from being held to values, in kubelet 1.36's words; `None`: nothing.
    pub fn lack(&self, path: impl AsRef<Path>) -> Result<Option<Lack>, CgroupError> {
        let name = self.fs_name(path)?;
        Ok(match self.version {
            Version::V1 => v1::lack(&self.hierarchies, &name),
            Version::V2 => v2::lack(&self.hierarchies[0].mount, &name),
        })
    }

    /// Writes the values of a cgroup that is there.
    pub fn update(&self, path: impl AsRef<Path>, values: &Values) -> Result<(), CgroupError> {
        let name = self.fs_name(path)?;
        if self.driver == Driver::Systemd {
            systemd_unit::ensure(last(&name), self.version, values)?;
        }
        match self.version {
            Version::V1 => v1::write(&self.hierarchies, &name, values),
            Version::V2 => v2::write(&self.hierarchies[0].mount.join(&name), values),
        }
    }

    /// Makes the cgroup and its parents where missing and writes the values. Idempotent.
    pub fn ensure(&self, path: impl AsRef<Path>, values: &Values) -> Result<(), CgroupError> {
        let name = self.fs_name(path)?;
        if self.driver == Driver::Systemd {
            systemd_unit::ensure(last(&name), self.version, values)?;
        }
        match self.version {
            Version::V1 => {
                for hierarchy in &self.hierarchies {
                    v1::make(hierarchy, &name)?;
                }
                v1::write(&self.hierarchies, &name, values)
            }
            Version::V2 => {
                v2::make(&self.hierarchies[0].mount, &name)?;
                v2::write(&self.hierarchies[0].mount.join(&name), values)
            }
        }
    }

    /// Has systemd make the cgroup of a scope (`some.slice/…/name.scope`, a name in the file system) around a process, gives it its
    /// values, and makes it in the hierarchies that systemd leaves out. It goes when its last process has gone.
    pub fn start_scope(&self, path: impl AsRef<Path>, pid: u32, values: &Values) -> Result<(), CgroupError> {
        let refused = || CgroupError::Path(path.as_ref().display().to_string());
        let parts = components(path.as_ref())?;
        let [.., slice, unit] = parts.as_slice() else { return Err(refused()) };
        if !unit.ends_with(".scope") || !slice.ends_with(".slice") {
            return Err(refused());
        }
        systemd_unit::start_scope(unit, slice, pid, self.version, values)?;
        self.ensure(path, values)
    }

    /// Writes the values of a scope that runs, and tells systemd.
    pub fn set_scope(&self, path: impl AsRef<Path>, values: &Values) -> Result<(), CgroupError> {
        let parts = components(path.as_ref())?;
        let unit = parts.last().ok_or_else(|| CgroupError::Path(String::new()))?;
        systemd_unit::set(unit, self.version, values)?;
        self.ensure(path, values)
    }

    /// Whether the cgroup exists in every hierarchy: a half of it is not enough to run in.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.fs_name(path).is_ok_and(|name| self.hierarchies.iter().all(|h| h.mount.join(&name).is_dir()))
    }

    /// Whether a part of the cgroup exists in any hierarchy: there is something to remove.
    pub fn has_traces(&self, path: impl AsRef<Path>) -> bool {
        self.fs_name(path).is_ok_and(|name| self.hierarchies.iter().any(|h| h.mount.join(&name).is_dir()))
    }

    /// Makes `kubepods` with these CPU shares and the two levels of quality of service in it, with the least shares until
    /// their own are known.
    pub fn ensure_levels(&self, cpu_shares: u64) -> Result<(), CgroupError> {
        for (level, shares) in LEVELS.into_iter().zip([Some(cpu_shares), None, Some(2)]) {
            self.ensure(level, &Values { cpu_shares: shares, ..Values::default() })?;
        }
        Ok(())
    }

    /// Removes the cgroup with everything below: SIGKILL to the processes that are left, then the directories, children
    /// first. A cgroup that is not there is no error.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), CgroupError> {
        let name = self.fs_name(&path)?;
        if components(path.as_ref())?.is_empty() {
            return Err(CgroupError::Path(path.as_ref().display().to_string()));
        }
        self.kill_all(&name)?;
        if self.driver == Driver::Systemd {
            systemd_unit::stop(last(&name))?;
        }
        for hierarchy in &self.hierarchies {
            remove_tree(&hierarchy.mount.join(&name), 0)?;
        }
        if let Some(beside) = &self.beside
            && let Err(error) = remove_tree(&beside.join(&name), 0)
        {
            tracing::warn!(
                err = &error as &dyn std::error::Error,
                "what an OCI runtime has left beside a cgroup stays"
            );
        }
        Ok(())
    }

    /// Bytes of memory that the cgroup uses, caches included.
    ///
    /// # Errors
    /// A file that cannot be read or is no number.
    pub fn memory_usage(&self, path: impl AsRef<Path>) -> Result<i64, CgroupError> {
        let file = match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let path = self.dir("memory", path)?.join(file);
        let read = |source| CgroupError::Read { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(read)?;
        text.trim().parse().map_err(|e| CgroupError::Read { path: path.clone(), source: io::Error::other(e) })
    }

    /// Processes in the cgroup and below it.
    pub fn pids(&self, path: impl AsRef<Path>) -> Result<Vec<u32>, CgroupError> {
        self.pids_of(&self.fs_name(path)?)
    }

    /// Uids of all pods that have a cgroup at any level and (version 1) in any hierarchy, sorted. A level that cannot be
    /// read is logged and left out.
    pub fn list_pods(&self) -> Vec<String> {
        let mut uids = BTreeSet::new();
        for level in LEVELS {
            let Ok(parent) = self.fs_name(level) else { continue };
            for hierarchy in &self.hierarchies {
                match child_dirs(&hierarchy.mount.join(&parent)) {
                    Ok(children) => uids.extend(children.iter().filter_map(|c| self.pod_uid(&parent, c))),
                    Err(error) => tracing::warn!(%error, level, "pod cgroups can't be listed"),
                }
            }
        }
        uids.into_iter().collect()
    }

    /// Uids of all pods whose cgroup is there in every hierarchy: as [`Self::exists`] for each, at the price of a few lists.
    ///
    /// # Errors
    /// A level that cannot be read, or is not there at all, as when somebody unmounted a hierarchy: then nothing is known.
    pub fn list_whole_pods(&self) -> Result<BTreeSet<String>, CgroupError> {
        let mut uids = BTreeSet::new();
        let top = self.fs_name(LEVELS[0])?;
        for dir in self.hierarchies.iter().map(|h| h.mount.join(&top)) {
            fs::metadata(&dir).map_err(|source| CgroupError::Read { path: dir, source })?;
        }
        for level in LEVELS {
            let parent = self.fs_name(level)?;
            let mut whole: Option<BTreeSet<String>> = None;
            for hierarchy in &self.hierarchies {
                let children = child_dirs(&hierarchy.mount.join(&parent))?;
                let here: BTreeSet<String> = children.iter().filter_map(|c| self.pod_uid(&parent, c)).collect();
                whole = Some(whole.map_or_else(|| here.clone(), |known| &known & &here));
            }
            uids.extend(whole.unwrap_or_default());
        }
        Ok(uids)
    }

    /// The same tree as `driver` names what is in it.
    pub fn named_by(&self, driver: Driver) -> Self {
        Self { driver, ..self.clone() }
    }

    /// Whether a process lives in the cgroup of this pod, at any level. What cannot be read counts as living.
    pub fn pod_has_processes(&self, uid: &str) -> bool {
        LEVELS.iter().any(|level| self.pids(format!("{level}/pod{uid}")).map_or(true, |pids| !pids.is_empty()))
    }

    /// What CRI takes as `cgroup_parent` of a sandbox: the absolute path in the driver's names.
    pub fn cri_parent(&self, path: impl AsRef<Path>) -> Result<String, CgroupError> {
        Ok(format!("/{}", self.fs_name(path)?))
    }

    /// Directory of the cgroup in the hierarchy that serves `controller` (version 2: in the only one), for reading statistics.
    pub fn dir(&self, controller: &'static str, path: impl AsRef<Path>) -> Result<PathBuf, CgroupError> {
        let name = self.fs_name(path)?;
        let hierarchy = match self.version {
            Version::V1 => self.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller)),
            Version::V2 => self.hierarchies.first(),
        };
        hierarchy.map(|h| h.mount.join(name)).ok_or(CgroupError::MissingController(controller))
    }

    /// Directories of the cgroup in all hierarchies, each with the name of the hierarchy's mount, such as `memory` or
    /// `cpu,cpuacct`; version 2: the only one, without a name.
    pub fn dirs(&self, path: impl AsRef<Path>) -> Result<Vec<(String, PathBuf)>, CgroupError> {
        let name = self.fs_name(path)?;
        let label = |h: &Hierarchy| match self.version {
            Version::V1 => h.mount.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Version::V2 => String::new(),
        };
        Ok(self.hierarchies.iter().map(|h| (label(h), h.mount.join(&name))).collect())
    }

    /// Path below a hierarchy's mount point, in the driver's names.
    fn fs_name(&self, path: impl AsRef<Path>) -> Result<String, CgroupError> {
        let mut parts = self.root.clone();
        parts.extend(components(path.as_ref())?);
        Ok(match self.driver {
            Driver::Cgroupfs => parts.join("/"),
            Driver::Systemd => systemd_name::slice_path(&parts),
        })
    }

    fn pod_uid(&self, parent_name: &str, child: &str) -> Option<String> {
        match self.driver {
            Driver::Cgroupfs => child.strip_prefix("pod").map(str::to_owned),
            Driver::Systemd => {
                let prefix = last(parent_name).strip_suffix(".slice").map(|p| format!("{p}-")).unwrap_or_default();
                let uid = child.strip_suffix(".slice")?.strip_prefix(&prefix)?.strip_prefix("pod")?;
                Some(systemd_name::unescape(uid))
            }
        }
        .filter(|uid| !uid.is_empty())
    }

    fn pids_of(&self, name: &str) -> Result<Vec<u32>, CgroupError> {
        let mut pids = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            collect_pids(&hierarchy.mount.join(name), 0, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }

    fn kill_all(&self, name: &str) -> Result<(), CgroupError> {
        let own = std::process::id();
        for _ in 0..KILL_TRIES {
            let pids = self.pids_of(name)?;
            if pids.is_empty() {
                return Ok(());
            }
            if pids.contains(&own) {
                return Err(CgroupError::Busy { path: name.to_owned(), left: pids.len() });
            }
            self.kill_once(name, &pids)?;
        }
        match self.pids_of(name)?.len() {
            0 => Ok(()),
            left => Err(CgroupError::Busy { path: name.to_owned(), left }),
        }
    }

    /// Signals through pidfds that were opened before the membership was read once more: a recycled pid is never hit.
    fn kill_once(&self, name: &str, pids: &[u32]) -> Result<(), CgroupError> {
        let held: Vec<_> = pids.iter().filter_map(|&pid| Some((pid, process::Handle::open(pid).ok()?))).collect();
        let still = self.pids_of(name)?;
        let deadline = Instant::now() + KILL_WAIT;
        let victims: Vec<_> = held.into_iter().filter(|(pid, _)| still.contains(pid)).collect();
        for (_, handle) in &victims {
            handle.kill();
        }
        for (_, handle) in &victims {
            handle.wait_until(deadline);
        }
        Ok(())
    }
}

fn components(path: &Path) -> Result<Vec<String>, CgroupError> {
    let refused = || CgroupError::Path(path.display().to_string());
    let text = path.to_str().ok_or_else(refused)?;
    let parts: Vec<String> = text.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    if parts.iter().any(|p| p == "." || p == ".." || p.contains('\0')) {
        return Err(refused());
    }
    Ok(parts)
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Names of the directories in `dir`; none when it does not exist.
fn child_dirs(dir: &Path) -> Result<Vec<String>, CgroupError> {
    let read = |source| CgroupError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(read(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        if entry.file_type().map_err(read)?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn collect_pids(dir: &Path, depth: usize, pids: &mut BTreeSet<u32>) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(text) => pids.extend(text.lines().filter_map(|l| l.trim().parse::<u32>().ok()).filter(|&p| p != 0)),
        Err(e) if is_gone(&e) => return Ok(()),
        // A threaded cgroup of version 2 does not list processes; its domain ancestor does.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(source) => return Err(CgroupError::Read { path, source }),
    }
    if depth < DEPTH_MAX {
        for child in child_dirs(dir)? {
            collect_pids(&dir.join(child), depth + 1, pids)?;
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path, depth: usize) -> Result<(), CgroupError> {
    if depth < DEPTH_MAX {
        for child in child_dirs(dir)? {
            remove_tree(&dir.join(child), depth + 1)?;
        }
    }
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            // The kernel lets go of a dead process's cgroup a moment after its pidfd became readable.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) => return Err(CgroupError::Remove { path: dir.to_owned(), source }),
        }
    }
}

/// A cgroup that vanishes while it is read answers ENODEV.
fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

fn write_file(path: PathBuf, value: &str) -> Result<(), CgroupError> {
    use std::io::Write as _;
    let written = fs::OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(value.as_bytes()));
    written.map_err(|source| CgroupError::Write { path, value: value.to_owned(), source })
}

/// The kernel's name of a huge page size in file names: `64KB`, `2MB`, `1GB`.
fn page_size_name(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}
