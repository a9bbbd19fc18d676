//! Removing a tree that others may still write to: no link is followed, no mount is crossed, no depth exhausts the stack.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::PathError;

/// A directory on the way down: enough to know it again on the way up.
struct Level {
    name: PathBuf,
    device: u64,
    inode: u64,
}

/// Removes `dir` and everything in it. A mount point anywhere below (or `dir` itself being one) is an error and its
/// content stays. A directory that does not exist is no error.
pub fn remove_tree(dir: &Path) -> Result<(), PathError> {
    let failed = |path: &Path, e: Errno| PathError::Remove { path: path.to_owned(), source: e.into() };
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(failed(dir, Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let mut current = match rfs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(failed(parent, e)),
    };
    let mut levels: Vec<Level> = vec![level(&current, parent).map_err(|e| failed(parent, e))?];
    let full = |levels: &[Level], last: &OsStr| levels.iter().map(|l| l.name.as_path()).collect::<PathBuf>().join(last);
    let mut next: Option<Box<OsStr>> = Some(name.into());
    loop {
        if let Some(name) = next.take() {
            let path = full(&levels, &name);
            match descend(&current, &name) {
                Ok(fd) => {
                    levels.push(level(&fd, Path::new(&*name)).map_err(|e| failed(&path, e))?);
                    current = fd;
                }
                Err(Errno::NOENT) if levels.len() == 1 => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(Errno::XDEV) => return Err(PathError::MountPoint { path }),
                // It became a file or a link meanwhile, or was one from the start.
                Err(Errno::NOTDIR | Errno::LOOP) => unlink(&current, &name).map_err(|e| failed(&path, e))?,
                Err(e) => return Err(failed(&path, e)),
            }
            if levels.len() == 1 {
                return Ok(());
            }
        }
        next = remove_files(&current).map_err(|(name, e)| failed(&full(&levels, &name), e))?;
        if next.is_none() {
            let done = levels.pop().map(|l| l.name).unwrap_or_default();
            let path = full(&levels, done.as_os_str());
            let Some(above) = levels.last() else { return Ok(()) };
            current = ascend(&current, above).map_err(|e| failed(&path, e))?;
            match rfs::unlinkat(&current, &done, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Somebody wrote into it meanwhile: once more.
                Err(Errno::NOTEMPTY) => next = Some(done.into_os_string().into_boxed_os_str()),
                Err(e) => return Err(failed(&path, e)),
            }
            if levels.len() == 1 && next.is_none() {
                return Ok(());
            }
        }
    }
}

fn level(fd: &OwnedFd, name: &Path) -> rustix::io::Result<Level> {
    let stat = rfs::fstat(fd)?;
    Ok(Level { name: name.to_owned(), device: stat.st_dev, inode: stat.st_ino })
}

fn descend(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rfs::openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

/// Back to the directory we came from; if the tree was moved meanwhile, `..` is another one and we stop.
fn ascend(dir: &OwnedFd, above: &Level) -> rustix::io::Result<OwnedFd> {
    let fd = rfs::openat(dir, "..", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rfs::fstat(&fd)?;
    if (stat.st_dev, stat.st_ino) == (above.device, above.inode) { Ok(fd) } else { Err(Errno::STALE) }
}

fn unlink(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rfs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

type Named = (Box<OsStr>, Errno);

/// Removes the files of a directory up to its first subdirectory, which is returned.
fn remove_files(dir: &OwnedFd) -> Result<Option<Box<OsStr>>, Named> {
    let name_of = |c: &CStr| -> Box<OsStr> { OsStr::from_bytes(c.to_bytes()).into() };
    let here = |e| (Box::from(OsStr::new("")), e);
    let mut entries = Dir::read_from(dir).map_err(here)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(here)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            let stat = rfs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| (name_of(name), e))?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        if kind == FileType::Directory {
            return Ok(Some(name_of(name)));
        }
        unlink(dir, OsStr::from_bytes(name.to_bytes())).map_err(|e| (name_of(name), e))?;
    }
    Ok(None)
}
