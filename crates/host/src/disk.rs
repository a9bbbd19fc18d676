//! What file systems and directories hold.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, ResolveFlags, Stat};

mod quota;
#[cfg(test)]
mod tests;

/// A file system at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileSystem {
    pub capacity_bytes: u64,
    /// Without what is kept for root.
    pub available_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl FileSystem {
    /// kubelet 1.36: what is kept for root does not count as used.
    pub fn used_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.free_bytes)
    }

    pub fn inodes_used(&self) -> u64 {
        self.inodes.saturating_sub(self.inodes_free)
    }
}

/// Tells the kernel to begin writing a file's bytes to the disk now: who syncs it later waits for less. A hint, which may be ignored.
pub fn begin_writing(file: impl AsFd) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the call takes a descriptor, which is open as long as `file` is borrowed, and numbers; it touches no memory of ours.
    unsafe {
        libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// The file system that holds `path`.
///
/// # Errors
/// A path that is not there.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(FileSystem {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bfree.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// Device of the file system that holds `path`, as major and minor number.
pub fn device(path: &Path) -> Option<(u32, u32)> {
    let stat = rustix::fs::stat(path).ok()?;
    Some((rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)))
}

/// What a tree of files takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Use {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::AddAssign for Use {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// What a directory takes as the kernel counts it, without looking: when it has a project of its own and the file system
/// keeps account of it.
pub fn counted(dir: &Path) -> Option<Use> {
    quota::of(dir)
}

/// Whether the file system of a directory keeps account of projects.
pub fn counts_projects(dir: &Path) -> bool {
    quota::is_counted(dir)
}

/// The project of a directory; 0: none.
///
/// # Errors
/// No directory, or a file system without projects.
pub fn project(dir: &Path) -> io::Result<u32> {
    quota::project(dir)
}

/// Whether anything belongs to a project on the file system of a directory.
///
/// # Errors
/// One that does not keep account.
pub fn is_project_used(dir: &Path, project: u32) -> io::Result<bool> {
    quota::is_used(dir, project)
}

/// Gives a directory and all below it to a project, and what will be made in it.
///
/// # Errors
/// What the file system says.
pub fn join_project(dir: &Path, project: u32) -> io::Result<()> {
    quota::join(dir, project)
}

/// Lets a project on the file system of a directory have as much as there is.
///
/// # Errors
/// What the file system says.
pub fn lift_limits(dir: &Path, project: u32) -> io::Result<()> {
    quota::lift_limits(dir, project)
}

/// What the files right in a directory take; those below do not count.
pub fn files_in(dir: &Path) -> Use {
    let mut sum = Use::default();
    let Ok(opened) = open_dir(dir) else { return sum };
    let Ok(entries) = Dir::read_from(&opened) else { return sum };
    for entry in entries.filter_map(Result::ok).take(FILES_MAX) {
        if let Ok(stat) = rustix::fs::statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        {
            sum += of(&stat);
        }
    }
    sum
}

/// What one file takes.
pub fn file(path: &Path) -> Option<Use> {
    rustix::fs::lstat(path).ok().map(|stat| of(&stat))
}

/// Files in one directory that are looked at.
const FILES_MAX: usize = 10_000;
/// Files with several names that are remembered.
const LINKS_MAX: usize = 100_000;
/// Directories that wait to be looked at.
const WAITING_MAX: usize = 100_000;

/// A scan of a tree, in portions. It stays on the tree's file system and follows no link.
#[derive(Debug)]
pub struct Scan {
    root: PathBuf,
    device: u64,
    /// Directories below the root that were not looked at so far.
    waiting: Vec<PathBuf>,
    /// Files with several names, so that they count once.
    linked: HashSet<u64>,
    sum: Use,
}

impl Scan {
    /// A scan that has not begun.
    ///
    /// # Errors
    /// A directory that is not there.
    pub fn new(root: &Path) -> io::Result<Self> {
        let stat = rustix::fs::lstat(root)?;
        let scan = Self {
            root: root.to_owned(),
            device: stat.st_dev,
            waiting: vec![PathBuf::new()],
            linked: HashSet::new(),
            sum: of(&stat),
        };
        Ok(scan)
    }

    /// Looks at some files more, about as many as that; takes them off `budget`. `Some` when all were seen.
    pub fn go_on(&mut self, budget: &mut usize) -> Option<Use> {
        while let Some(dir) = self.waiting.pop() {
            if *budget == 0 {
                self.waiting.push(dir);
                return None;
            }
            // What went away meanwhile takes nothing.
            let _ = self.look(&dir, budget);
        }
        Some(self.sum)
    }

    /// What was seen so far.
    pub fn so_far(&self) -> Use {
        self.sum
    }

    fn look(&mut self, dir: &Path, budget: &mut usize) -> io::Result<()> {
        let root = open_dir(&self.root)?;
        let opened = if dir.as_os_str().is_empty() { root } else { beneath(&root, dir)? };
        for entry in entries(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            *budget = budget.saturating_sub(1);
            let Ok(stat) = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != self.device || !self.is_first(&stat) {
                continue;
            }
            self.sum += of(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && self.waiting.len() < WAITING_MAX {
                self.waiting.push(below(dir, name));
            }
        }
        Ok(())
    }

    fn is_first(&mut self, stat: &Stat) -> bool {
        let has_one_name = stat.st_nlink == 1 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        has_one_name || self.linked.len() >= LINKS_MAX || self.linked.insert(stat.st_ino)
    }
}

fn of(stat: &Stat) -> Use {
    // Blocks are counted in 512 bytes, whatever the file system's own are.
    Use { bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512), inodes: 1 }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, DIRECTORY, Mode::empty())?)
}

/// What is in a directory, without itself and the one above.
fn entries(opened: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let is_inside = |entry: &DirEntry| !matches!(entry.file_name().to_bytes(), b"." | b"..");
    let all = Dir::read_from(opened)?.map(|entry| entry.map_err(io::Error::from));
    Ok(all.filter(move |entry| entry.as_ref().map_or(true, is_inside)))
}

fn below(dir: &Path, name: &CStr) -> PathBuf {
    dir.join(OsStr::from_bytes(name.to_bytes()))
}

fn beneath(root: impl AsFd, dir: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, dir, DIRECTORY, Mode::empty(), resolve)?)
}
