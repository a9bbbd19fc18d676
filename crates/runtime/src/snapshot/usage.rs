//! How much room a directory takes.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Room on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of blocks in use.
    pub bytes: u64,
    /// Files, directories, links; several names of one file count once.
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// What `dir` and everything below it takes; other file systems mounted there are left out. What vanishes meanwhile does not
/// count. Blocks, for long if there are many files.
pub fn of_tree(dir: &Path) -> io::Result<Usage> {
    let top = fs::symlink_metadata(dir)?;
    let mut usage = Usage { bytes: top.blocks() * 512, inodes: 1 };
    let mut linked = HashSet::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let stat = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if stat.dev() != top.dev() {
                continue;
            }
            if stat.is_dir() {
                left.push(entry.path());
            } else if stat.nlink() > 1 && !linked.insert(stat.ino()) {
                continue;
            }
            usage += Usage { bytes: stat.blocks() * 512, inodes: 1 };
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/a"), vec![1; 100_000]).unwrap();
        let before = of_tree(dir.path()).unwrap();
        assert_eq!(before.inodes, 3);
        assert!(before.bytes >= 100_000, "{before:?}");
        fs::hard_link(path("d/a"), path("b")).unwrap();
        std::os::unix::fs::symlink("/", path("c")).unwrap();
        assert_eq!(of_tree(dir.path()).unwrap().inodes, 4);
    }
}
