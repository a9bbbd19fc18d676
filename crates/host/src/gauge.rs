//! What is left of the machine, as far as eviction needs it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// Number of the device that holds `path`; `None` when it is not there.
pub fn device(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_dev)
}

/// Processes and threads that live on the machine.
pub fn tasks() -> Option<i64> {
    let text = crate::proc::read_bounded(Path::new("/proc/loadavg"), 4096).ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// What the files below a directory take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreeSize {
    pub bytes: u64,
    pub inodes: u64,
}

/// Directories that wait to be looked at; what is beyond does not count.
const WAITING_MAX: usize = 100_000;
/// Files with several names that are remembered.
const LINKS_MAX: usize = 100_000;

/// Adds up a tree. It stays on the tree's file system, follows no link, and leaves out what cannot be read. A file with several
/// names counts once. `None` when the directory is not there. Blocks as long as it takes.
pub fn tree_size(dir: &Path) -> Option<TreeSize> {
    let root = rustix::fs::lstat(dir).ok()?;
    let mut sum = TreeSize { bytes: blocks(root.st_blocks), inodes: 1 };
    let mut linked = HashSet::new();
    let mut waiting: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        let Some(opened) = open_dir(&next) else { continue };
        let Ok(entries) = Dir::read_from(&opened) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(opened.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if stat.st_dev != root.st_dev {
                continue;
            }
            if !is_dir && stat.st_nlink > 1 && linked.len() < LINKS_MAX && !linked.insert(stat.st_ino) {
                continue;
            }
            sum.bytes += blocks(stat.st_blocks);
            sum.inodes += 1;
            if is_dir && waiting.len() < WAITING_MAX {
                waiting.push(next.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Some(sum)
}

fn blocks(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0).saturating_mul(512)
}

fn open_dir(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_counts_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let empty = tree_size(dir.path()).unwrap();
        assert_eq!(empty.inodes, 2);
        std::fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(below.join("file"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("out")).unwrap();
        let full = tree_size(dir.path()).unwrap();
        assert_eq!(full.inodes, 4, "two directories, a file, a link");
        assert!((1 << 20..(1 << 20) + 65536).contains(&(full.bytes - empty.bytes)), "{full:?}");
        assert_eq!(tree_size(&dir.path().join("gone")), None);
    }

    #[test]
    fn this_machine_has_tasks() {
        assert!(tasks().unwrap() > 1);
    }
}
