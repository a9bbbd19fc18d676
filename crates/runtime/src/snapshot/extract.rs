//! One layer's archive becomes a directory as overlayfs wants it below a container.
//!
//! Every path is looked up by the kernel with the layer's directory as its root (`RESOLVE_IN_ROOT`, no magic links, no other
//! mount): `..`, absolute names and links lead nowhere else. The last part of a name is never followed. Only we write
//! there while we extract, so that what an archive put in place earlier is all that a later entry can meet.
//!
//! What containerd does too: a name below a link that the same layer brought goes where the link leads, inside. A
//! directory that the layer only implies gets the mode and owner that it has in the layers below, as else it would
//! change them.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use attributes::Later;

mod attributes;
mod below;
mod place;

#[cfg(test)]
pub(crate) mod tests;

/// What a layer may cost. A stranger packed it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files of one layer.
    pub layer_bytes_max: u64,
    /// Files, directories, links of one layer.
    pub layer_entries_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes_max: 128 << 30, layer_entries_max: 4_000_000 }
    }
}

/// How to extract.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub limits: Limits,
    /// As root: owners are set, devices made, and overlayfs is told in `trusted.overlay.*`. Otherwise everything is ours,
    /// devices are left out, and overlayfs is told in `user.overlay.*`.
    pub is_privileged: bool,
}

/// Why a layer could not be extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("read the layer")]
    Read { source: io::Error },
    #[error("{what} {path:?}")]
    Entry { what: &'static str, path: String, source: io::Error },
    #[error("the layer names {path:?}: {why}")]
    Hostile { path: String, why: &'static str },
    #[error("the layer has more than {max} {of}")]
    TooMuch { max: u64, of: &'static str },
}

/// What a layer has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories, links; those that were only implied as well.
    pub entries: u64,
}

const BUFFER_BYTES: usize = 256 << 10;
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Extracts the plain archive `source` into the empty directory `into`. `lower`: the directories of the layers below, the
/// topmost first. All of `source` is read, also what follows the archive's end.
///
/// Blocks; what was extracted before an error stays.
pub fn extract(source: impl Read, into: &Path, lower: &[PathBuf], rules: &Rules) -> Result<Extracted, ExtractError> {
    let root = open_dir(into)?;
    let lower = lower.iter().map(|dir| open_dir(dir)).collect::<Result<Vec<_>, _>>()?;
    let mut extraction = Extraction {
        root,
        lower,
        rules: *rules,
        done: Extracted::default(),
        later: Vec::new(),
        later_bytes: 0,
        last_parent: None,
        buffer: vec![0; BUFFER_BYTES],
    };
    extraction.imply_root().map_err(|e| ExtractError::Open { path: into.to_owned(), source: e })?;
    let most = rules.limits.layer_bytes_max.saturating_add(rules.limits.layer_entries_max.saturating_mul(4096));
    let mut archive = Archive::new(Bounded { inner: source, left: most });
    let read = |source| ExtractError::Read { source };
    while let Some(entry) = archive.next().map_err(read)? {
        extraction.entry(&entry, &mut archive)?;
    }
    archive.drain().map_err(read)?;
    extraction.finish()?;
    Ok(extraction.done)
}

fn open_dir(path: &Path) -> Result<OwnedFd, ExtractError> {
    rfs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| ExtractError::Open { path: path.to_owned(), source: e.into() })
}

/// A stream that fails where it becomes absurdly long.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the archive is longer than a layer may be"))?;
        Ok(count)
    }
}

struct Extraction {
    root: OwnedFd,
    /// The topmost first.
    lower: Vec<OwnedFd>,
    rules: Rules,
    done: Extracted,
    /// Modes and times of directories, which what is put into them would change or hinder.
    later: Vec<Later>,
    later_bytes: usize,
    /// The directory that the last entry was put into: most entries follow one of the same directory.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

/// Name of an entry beneath the root, without `.` and empty parts.
struct Name {
    parts: Vec<Vec<u8>>,
}

impl Name {
    fn parse(path: &[u8]) -> Result<Self, ExtractError> {
        let parts: Vec<Vec<u8>> =
            path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").map(<[u8]>::to_vec).collect();
        if parts.iter().any(|p| p == b"..") {
            return Err(ExtractError::Hostile { path: shown(path), why: "it contains \"..\"" });
        }
        Ok(Self { parts })
    }

    /// The last part; empty for the root.
    fn last(&self) -> &[u8] {
        self.parts.last().map_or(&[], Vec::as_slice)
    }

    /// The parts as a relative path.
    fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
        parts.join(b"/".as_slice())
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Extraction {
    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), ExtractError> {
        let name = Name::parse(&entry.path)?;
        let failed = |what| {
            let path = shown(&entry.path);
            move |source: io::Error| ExtractError::Entry { what, path, source }
        };
        let Some((last, above)) = name.parts.split_last() else {
            // The root itself: `./`.
            if entry.kind == Kind::Dir {
                self.dir_attributes(b".", &entry.into()).map_err(failed("set attributes of"))?;
            }
            return Ok(());
        };
        let parent = self.parent(above).map_err(failed("make the directory of"))?;
        let outcome = if last.starts_with(WHITEOUT_PREFIX) {
            self.mark(&parent, last, entry)
        } else {
            self.count(if entry.kind == Kind::File { entry.size } else { 0 })?;
            self.place(&parent, &name, entry, archive).map_err(failed("extract"))
        };
        // Kept for the next entry. What was there under this name may have been a part of other paths, not of this one.
        self.last_parent = Some((Name::joined(above), parent));
        outcome
    }

    fn count(&mut self, bytes: u64) -> Result<(), ExtractError> {
        let limits = self.rules.limits;
        self.done.entries += 1;
        if self.done.entries > limits.layer_entries_max {
            return Err(ExtractError::TooMuch { max: limits.layer_entries_max, of: "entries" });
        }
        self.done.bytes = self.done.bytes.saturating_add(bytes);
        if self.done.bytes > limits.layer_bytes_max {
            return Err(ExtractError::TooMuch { max: limits.layer_bytes_max, of: "bytes" });
        }
        Ok(())
    }

    /// Looks `path` up inside the layer. `.` is the layer itself.
    fn lookup(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rfs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// The directory of these parts; what is missing of it is made.
    fn parent(&mut self, parts: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let path = Name::joined(parts);
        if let Some((last, fd)) = self.last_parent.take()
            && last == path
        {
            return Ok(fd);
        }
        match self.lookup(&path, OFlags::DIRECTORY) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parts),
            Err(e) => Err(e.into()),
        }
    }

    fn make_parents(&mut self, parts: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let mut dir = self.root.try_clone()?;
        for depth in 1..=parts.len() {
            let path = Name::joined(&parts[..depth]);
            dir = match self.lookup(&path, OFlags::DIRECTORY) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    self.imply(&dir, &parts[..depth])?;
                    self.lookup(&path, OFlags::DIRECTORY)?
                }
                Err(Errno::NOTDIR) if self.is_whiteout(&dir, &parts[depth - 1])? => {
                    // The layer removes what is below and begins anew.
                    rfs::unlinkat(&dir, parts[depth - 1].as_slice(), AtFlags::empty())?;
                    rfs::mkdirat(&dir, parts[depth - 1].as_slice(), Mode::from_raw_mode(0o755))?;
                    let fd = self.lookup(&path, OFlags::DIRECTORY)?;
                    self.make_opaque(&fd)?;
                    fd
                }
                Err(e) => return Err(e.into()),
            };
        }
        Ok(dir)
    }

    /// The layer's own directory, which few archives have, is as in the layers below.
    fn imply_root(&mut self) -> io::Result<()> {
        match self.lower.first() {
            Some(below) => {
                let attributes = attributes::Attributes::of(below)?;
                self.dir_attributes(b".", &attributes)
            }
            None => Ok(rfs::fchmod(&self.root, Mode::from_raw_mode(0o755))?),
        }
    }

    /// Makes a directory that the archive does not have itself, as it is in the layers below.
    fn imply(&mut self, above: &OwnedFd, parts: &[Vec<u8>]) -> io::Result<()> {
        // A dangling link is "no entry" as well: `EEXIST` then, and the layer is refused.
        rfs::mkdirat(above, parts[parts.len() - 1].as_slice(), Mode::from_raw_mode(0o755))?;
        self.done.entries += 1;
        if let Some(attributes) = below::directory(&self.lower, parts)? {
            self.dir_attributes(&Name::joined(parts), &attributes)?;
        }
        Ok(())
    }

    /// A file whose name says that something below is gone.
    fn mark(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let failed = |source: io::Error| ExtractError::Entry { what: "apply", path: shown(&entry.path), source };
        if name == OPAQUE_MARK {
            return self.make_opaque(parent).map_err(failed);
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if hidden.starts_with(WHITEOUT_PREFIX) {
            // Bookkeeping of aufs.
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(ExtractError::Hostile { path: shown(&entry.path), why: "it hides no file" });
        }
        self.count(0)?;
        self.white_out(parent, hidden).map_err(failed)
    }

    fn white_out(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match rfs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It is of this layer, and the mark speaks of those below.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.make_opaque(&rfs::openat(parent, name, flags, Mode::empty())?)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Ok(rfs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?),
            Err(e) => Err(e.into()),
        }
    }

    fn is_whiteout(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        match rfs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(below::is_whiteout(&stat)),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn make_opaque(&self, dir: &OwnedFd) -> io::Result<()> {
        Ok(rfs::fsetxattr(dir, below::opaque_name(self.rules.is_privileged), b"y", rfs::XattrFlags::empty())?)
    }
}
