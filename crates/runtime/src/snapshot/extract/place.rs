//! Making one entry: file, directory, link, node.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags};

use super::attributes::Attributes;
use super::{Extraction, Name, below};
use crate::snapshot::archive::{Archive, Entry, Kind};

/// Files from this size on are begun to be written to the disk while the rest is unpacked.
const LARGE_BYTES: u64 = 64 * 1024;

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Extraction {
    pub(super) fn place<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> io::Result<()> {
        let wish = Attributes::from(entry);
        let last = name.last();
        match &entry.kind {
            Kind::Dir => self.dir(parent, name, &wish),
            Kind::File => self.file(parent, last, entry, archive, &wish),
            Kind::Symlink { target } => {
                if target.is_empty() {
                    return Err(refused("a link without target"));
                }
                self.clear(parent, last)?;
                rfs::symlinkat(target.as_slice(), parent, last)?;
                self.node_attributes(parent, last, &wish, true)
            }
            Kind::HardLink { target } => self.hard_link(parent, name, target),
            Kind::Fifo => self.node(parent, last, FileType::Fifo, 0, &wish),
            // It would be overlayfs's mark of a removed file, which an archive spells `.wh.NAME`.
            Kind::Char { major: 0, minor: 0 } => Err(refused("a character device 0, 0")),
            // Without privilege there are no devices; a container gets its own in /dev.
            Kind::Char { .. } | Kind::Block { .. } if !self.rules.is_privileged => Ok(()),
            Kind::Char { major, minor } => {
                self.node(parent, last, FileType::CharacterDevice, rfs::makedev(*major, *minor), &wish)
            }
            Kind::Block { major, minor } => {
                self.node(parent, last, FileType::BlockDevice, rfs::makedev(*major, *minor), &wish)
            }
            Kind::Other(letter) => Err(refused(format!("an entry of unknown kind {:?}", char::from(*letter)))),
        }
    }

    fn dir(&mut self, parent: &OwnedFd, name: &Name, wish: &Attributes) -> io::Result<()> {
        let is_dir = |stat: &rfs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let last = name.last();
        let seen = below::stat(parent, last)?;
        if !seen.as_ref().is_some_and(is_dir) {
            self.clear(parent, last)?;
            rfs::mkdirat(parent, last, Mode::from_raw_mode(0o755))?;
        }
        // The path is looked up from the root again: a name above may be a link, which leads to the same place.
        let path = Name::joined(&name.parts);
        if seen.as_ref().is_some_and(below::is_whiteout) {
            self.make_opaque(&self.lookup(&path, OFlags::DIRECTORY | OFlags::NOFOLLOW)?)?;
        }
        self.dir_attributes(&path, wish)
    }

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        last: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
        wish: &Attributes,
    ) -> io::Result<()> {
        self.clear(parent, last)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rfs::openat(parent, last, flags, Mode::from_raw_mode(0o600))?);
        let mut left = entry.size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = archive.read(&mut self.buffer[..most])?;
            file.write_all(&self.buffer[..count])?;
            left -= count as u64;
        }
        if entry.size >= LARGE_BYTES {
            rubelet_host::disk::begin_writing(&file);
        }
        self.file_attributes(&file, wish)
    }

    fn node(
        &mut self,
        parent: &OwnedFd,
        last: &[u8],
        kind: FileType,
        device: u64,
        wish: &Attributes,
    ) -> io::Result<()> {
        self.clear(parent, last)?;
        rfs::mknodat(parent, last, kind, Mode::from_raw_mode(0o600), device)?;
        self.node_attributes(parent, last, wish, false)
    }

    /// A second name for a file of this layer, which is looked up inside like any other.
    fn hard_link(&mut self, parent: &OwnedFd, name: &Name, target: &[u8]) -> io::Result<()> {
        let target = Name::parse(target).map_err(|e| refused(e.to_string()))?;
        let Some((file, above)) = target.parts.split_last() else {
            return Err(refused("a hard link to the root"));
        };
        let dir = self.lookup(&Name::joined(above), OFlags::DIRECTORY)?;
        let wanted = rfs::statat(&dir, file.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(wanted.st_mode) == FileType::Directory {
            return Err(refused("a hard link to a directory"));
        }
        let last = name.last();
        if let Some(seen) = below::stat(parent, last)? {
            if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino) {
                return Ok(());
            }
            self.clear(parent, last)?;
        }
        Ok(rfs::linkat(&dir, file.as_slice(), parent, last, AtFlags::empty())?)
    }

    /// Removes what an earlier entry put where this one goes.
    fn clear(&self, parent: &OwnedFd, last: &[u8]) -> io::Result<()> {
        let Some(seen) = below::stat(parent, last)? else { return Ok(()) };
        if FileType::from_raw_mode(seen.st_mode) != FileType::Directory {
            return Ok(rfs::unlinkat(parent, last, AtFlags::empty())?);
        }
        let dir = format!("/proc/thread-self/fd/{}", parent.as_raw_fd());
        let path = Path::new(&dir).join(OsStr::from_bytes(last));
        rubelet_host::paths::remove_tree(&path).map_err(|e| io::Error::other(rubelet_host::chain(&e)))
    }
}
