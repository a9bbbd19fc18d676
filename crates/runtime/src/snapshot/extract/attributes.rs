//! Owners, modes, times and extended attributes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self as rfs, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{ExtractError, Extraction, shown};
use crate::snapshot::archive::Entry;

/// Memory for the directories of one layer. Large images have ten thousands, of a hundred bytes each.
const LATER_BYTES_MAX: usize = 128 << 20;

/// What is set on a file besides its content.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    mode: u32,
    uid: u64,
    gid: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A directory's mode and time, set when nothing more is put into it.
pub(super) struct Later {
    path: Vec<u8>,
    mode: u32,
    mtime: (i64, u32),
}

impl From<&Entry> for Attributes {
    fn from(entry: &Entry) -> Self {
        Self { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs: entry.xattrs.clone() }
    }
}

impl Attributes {
    /// Those of an open directory.
    pub(super) fn of(dir: &OwnedFd) -> io::Result<Self> {
        let stat = rfs::fstat(dir)?;
        let mut xattrs = BTreeMap::new();
        for name in names(dir)? {
            if is_wanted(&name) {
                let mut value = vec![0; rfs::fgetxattr(dir, name.as_slice(), &mut [0u8; 0][..])?];
                let length = rfs::fgetxattr(dir, name.as_slice(), value.as_mut_slice())?;
                value.truncate(length);
                xattrs.insert(name, value);
            }
        }
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid.into(),
            gid: stat.st_gid.into(),
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            xattrs,
        })
    }
}

fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let length = match rfs::flistxattr(dir, &mut [0u8; 0][..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut list = vec![0; length];
    let length = rfs::flistxattr(dir, list.as_mut_slice())?;
    Ok(list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Attributes that an image may set. Those of overlayfs would tell our overlay where to look; `trusted.*` is of no use to a
/// container.
fn is_wanted(name: &[u8]) -> bool {
    let is_acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
    name == b"security.capability" || is_acl || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

impl Extraction {
    /// Owner, mode, attributes and time of a file that is open.
    pub(super) fn file_attributes(&self, file: impl AsFd, wish: &Attributes) -> io::Result<()> {
        if self.rules.is_privileged {
            let (uid, gid) = owner(wish)?;
            rfs::fchown(&file, Some(uid), Some(gid))?;
        }
        // After the owner, whose change takes set-id bits and capabilities away.
        rfs::fchmod(&file, Mode::from_raw_mode(wish.mode))?;
        self.xattrs(&file, wish)?;
        Ok(rfs::futimens(&file, &times(wish.mtime))?)
    }

    /// Owner, mode and time of what cannot be opened: links, pipes, devices.
    pub(super) fn node_attributes(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        wish: &Attributes,
        is_link: bool,
    ) -> io::Result<()> {
        if self.rules.is_privileged {
            let (uid, gid) = owner(wish)?;
            rfs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !is_link {
            rfs::chmodat(dir, name, Mode::from_raw_mode(wish.mode), AtFlags::empty())?;
        }
        Ok(rfs::utimensat(dir, name, &times(wish.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Owner and attributes of a directory at once, mode and time at the end.
    pub(super) fn dir_attributes(&mut self, path: &[u8], wish: &Attributes) -> io::Result<()> {
        let dir = self.lookup(path, OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        if self.rules.is_privileged {
            let (uid, gid) = owner(wish)?;
            rfs::fchown(&dir, Some(uid), Some(gid))?;
        }
        self.xattrs(&dir, wish)?;
        self.later_bytes += path.len() + size_of::<Later>();
        if self.later_bytes > LATER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too many directories"));
        }
        self.later.push(Later { path: path.to_vec(), mode: wish.mode, mtime: wish.mtime });
        Ok(())
    }

    /// Sets modes and times of directories, the deepest first: a mode may shut the way.
    pub(super) fn finish(&mut self) -> Result<(), ExtractError> {
        self.last_parent = None;
        let mut last: BTreeMap<Vec<u8>, Later> = BTreeMap::new();
        for later in std::mem::take(&mut self.later) {
            last.insert(later.path.clone(), later);
        }
        for (path, later) in last.into_iter().rev() {
            let set = || -> rustix::io::Result<()> {
                let dir = match self.lookup(&path, OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                    // Something else took its place later.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                    other => other?,
                };
                rfs::fchmod(&dir, Mode::from_raw_mode(later.mode))?;
                rfs::futimens(&dir, &times(later.mtime))
            };
            let failed =
                |e: Errno| ExtractError::Entry { what: "set mode and time of", path: shown(&path), source: e.into() };
            set().map_err(failed)?;
        }
        Ok(())
    }

    fn xattrs(&self, file: impl AsFd, wish: &Attributes) -> io::Result<()> {
        for (name, value) in wish.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
            match rfs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
                // containerd: a file system without extended attributes is no error; nor is what only root may set.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if !self.rules.is_privileged => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

fn owner(wish: &Attributes) -> io::Result<(Uid, Gid)> {
    let id = |n: u64| {
        // The highest number means "leave it" to the kernel.
        let id = u32::try_from(n).ok().filter(|n| *n != u32::MAX);
        id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{n} is no user or group")))
    };
    Ok((Uid::from_raw(id(wish.uid)?), Gid::from_raw(id(wish.gid)?)))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
