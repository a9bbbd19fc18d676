//! Copies a directory of an image with all that is in it: owners, modes, times, extended attributes, links of both kinds, nodes.
//!
//! Nothing in the source changes meanwhile (no process has it as its root), but it is made by strangers: no link is followed.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    self as rfs, AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// Directories in directories.
const DEPTH_MAX: usize = 128;
/// Bytes of one extended attribute, and of the list of their names (the kernel's own limit).
const ATTRIBUTE_MAX: usize = 65536;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory below a root; links stay in the root. `None` when there is no directory.
pub(super) fn open_dir_in(root: &Path, place: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    let root = rfs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rfs::openat2(&root, place, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        other => other.map(Some),
    }
}

/// Copies what is in `from` into the directory `to`, which becomes like `from` itself.
pub(super) fn into_dir(from: &OwnedFd, to: &Path) -> io::Result<()> {
    let to = rfs::open(to, DIRECTORY, Mode::empty())?;
    Copy::default().tree(from.as_fd(), to.as_fd(), 0)
}

#[derive(Default)]
struct Copy {
    /// Files with several names: where the first one has gone, as a directory's descriptor and the name in it.
    linked: BTreeMap<(u64, u64), (OwnedFd, CString)>,
}

impl Copy {
    fn tree(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("directories are nested more than {DEPTH_MAX} times")));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if ![c".", c".."].contains(&name) {
                self.entry(from, to, name, depth)?;
            }
        }
        let stat = rfs::fstat(from)?;
        attributes(from, to)?;
        rfs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        rfs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        rfs::futimens(to, &times(&stat))?;
        Ok(())
    }

    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let stat = rfs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rfs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let inner = rfs::openat(from, name, DIRECTORY, Mode::empty())?;
            let made = rfs::openat(to, name, DIRECTORY, Mode::empty())?;
            return self.tree(inner.as_fd(), made.as_fd(), depth + 1);
        }
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some((dir, first)) = self.linked.get(&identity) {
                return Ok(rfs::linkat(dir, first.as_c_str(), to, name, AtFlags::empty())?);
            }
            self.linked.insert(identity, (to.try_clone_to_owned()?, name.to_owned()));
        }
        match kind {
            FileType::RegularFile => return file(from, to, name, &stat),
            FileType::Symlink => rfs::symlinkat(rfs::readlinkat(from, name, Vec::new())?, to, name)?,
            _ => rfs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?,
        }
        rfs::chownat(
            to,
            name,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if kind != FileType::Symlink {
            rfs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        Ok(rfs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(rfs::openat(from, name, OFlags::RDONLY | flags, Mode::empty())?);
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
    let mut target = File::from(rfs::openat(to, name, new, Mode::from_raw_mode(0o600))?);
    io::copy(&mut source, &mut target)?;
    rfs::fchown(&target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    // After the owner: a change of that takes capabilities and set-user-id away.
    attributes(source.as_fd(), target.as_fd())?;
    rfs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rfs::futimens(&target, &times(stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    let at = |secs, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Extended attributes; what the target's file system has none of is left out.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; ATTRIBUTE_MAX];
    let length = match rfs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0u8; ATTRIBUTE_MAX];
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        // Overlayfs's own are not the image's.
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let size = rfs::fgetxattr(from, name, &mut value[..])?;
        match rfs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn a_tree_is_the_same_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (root, to) = (dir.path().join("root"), dir.path().join("to"));
        let place = root.join("data");
        fs::create_dir_all(place.join("sub/deep")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(place.join("sub/file"), "text").unwrap();
        fs::set_permissions(place.join("sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::hard_link(place.join("sub/file"), place.join("again")).unwrap();
        symlink("/etc/shadow", place.join("link")).unwrap();
        rfs::mknodat(CWD, place.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).unwrap();
        let old = Timespec { tv_sec: 1000, tv_nsec: 5 };
        let stamps = Timestamps { last_access: old, last_modification: old };
        rfs::utimensat(CWD, place.join("sub/file"), &stamps, AtFlags::empty()).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(place.join("sub"), Some(5), Some(6)).unwrap();
        }
        let from = open_dir_in(&root, Path::new("/data")).unwrap().unwrap();
        into_dir(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("again")).unwrap(), "text");
        let of = |path: &str| {
            let stat = fs::symlink_metadata(to.join(path)).unwrap();
            (stat.mode(), stat.uid(), stat.gid(), stat.nlink())
        };
        for path in ["", "sub", "sub/deep", "sub/file", "link", "pipe", "again"] {
            let stat = fs::symlink_metadata(place.join(path)).unwrap();
            assert_eq!(of(path), (stat.mode(), stat.uid(), stat.gid(), stat.nlink()), "{path}");
        }
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/shadow"));
        assert_eq!(fs::metadata(to.join("sub/file")).unwrap().mtime(), 1000);
    }

    #[test]
    fn only_directories_of_the_image() {
        let root = tempfile::tempdir().unwrap();
        symlink("/", root.path().join("out")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let is_some = |place: &str| open_dir_in(root.path(), Path::new(place)).unwrap().is_some();
        assert!(!is_some("/out/etc") && !is_some("/file") && !is_some("/none"));
        assert!(is_some("/out"), "the image's own root");
    }
}
