//! Paths that somebody else may change under us: opened beneath a directory, created, written and removed without ever
//! leaving it.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self as rfs, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

mod remove;

#[cfg(test)]
mod tests;

pub use remove::remove_tree;

/// Why a path could not be opened, made or removed safely.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("create {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("{path} is a mount point and is left alone")]
    MountPoint { path: PathBuf },
    #[error("{path} leads out of {base}")]
    Escapes { base: PathBuf, path: PathBuf },
    #[error("{path:?} must be a relative path without \"..\"")]
    NotBeneath { path: PathBuf },
}

/// How often a lookup that raced with a rename is repeated.
const RACES_MAX: usize = 32;

/// Makes `dir` and its missing parents; what is made gets `mode`, whatever the umask. What exists is left as it is.
pub fn ensure_dir(dir: &Path, mode: u32) -> Result<(), PathError> {
    let create = |source| PathError::Create { path: dir.to_owned(), source };
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(create),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().ok_or_else(|| create(e))?;
            ensure_dir(parent, mode)?;
            fs::create_dir(dir).map_err(create)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(create)
        }
        Err(e) => Err(create(e)),
    }
}

/// Opens `sub` inside `volume` (`O_PATH`), making missing directories with the volume's own mode.
///
/// Links are followed as long as they stay inside the volume, absolute ones included; one that leads out is
/// [`PathError::Escapes`], also when it is put there while we look. The descriptor is what to bind-mount.
pub fn safe_subpath(volume: &Path, sub: &Path) -> Result<OwnedFd, PathError> {
    check_beneath(sub)?;
    let base = Base::open(volume)?;
    let mut opened = base.lookup(sub)?;
    let mut races = 0;
    while opened.is_none() {
        base.make_missing(sub)?;
        opened = base.lookup(sub)?;
        races += 1;
        if opened.is_none() && races == RACES_MAX {
            return Err(PathError::Open { path: volume.join(sub), source: io::ErrorKind::NotFound.into() });
        }
    }
    // The loop ends with `Some` only.
    opened.ok_or_else(|| PathError::Open { path: volume.join(sub), source: io::ErrorKind::NotFound.into() })
}

/// Opens an existing file inside `volume` for reading, without following a link out of it and without waiting for a pipe's
/// other end. The caller checks what kind of file it is.
pub fn open_file_beneath(volume: &Path, sub: &Path) -> Result<fs::File, PathError> {
    check_beneath(sub)?;
    let path = volume.join(sub);
    let missing = PathError::Open { path: path.clone(), source: io::ErrorKind::NotFound.into() };
    let found = Base::open(volume)?.lookup(sub)?.ok_or(missing)?;
    let own = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rfs::open(own, flags, Mode::empty()).map_err(|e| PathError::Open { path, source: e.into() })?;
    Ok(fd.into())
}

fn check_beneath(path: &Path) -> Result<(), PathError> {
    let is_fine = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if is_fine { Ok(()) } else { Err(PathError::NotBeneath { path: path.to_owned() }) }
}

/// The directory that must not be left.
struct Base {
    path: PathBuf,
    fd: OwnedFd,
}

impl Base {
    fn open(path: &Path) -> Result<Self, PathError> {
        let fd = rfs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| PathError::Open { path: path.to_owned(), source: e.into() })?;
        Ok(Self { path: path.to_owned(), fd })
    }

    /// What `sub` stands for; `None` when it does not exist (a dangling link included).
    fn lookup(&self, sub: &Path) -> Result<Option<OwnedFd>, PathError> {
        if sub.components().all(|c| c == Component::CurDir) {
            return self.fd.try_clone().map(Some).map_err(|source| PathError::Open { path: self.path.clone(), source });
        }
        let failed = |e: Errno| PathError::Open { path: self.path.join(sub), source: e.into() };
        match open_beneath(&self.fd, sub, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV | Errno::LOOP) => self.lookup_absolute(sub),
            Err(e) => Err(failed(e)),
        }
    }

    /// An absolute link may point into the volume again: the real path is taken and opened without any link.
    fn lookup_absolute(&self, sub: &Path) -> Result<Option<OwnedFd>, PathError> {
        let path = self.path.join(sub);
        let escapes = || PathError::Escapes { base: self.path.clone(), path: path.clone() };
        let base =
            fs::canonicalize(&self.path).map_err(|source| PathError::Open { path: self.path.clone(), source })?;
        let real = match fs::canonicalize(&path) {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PathError::Open { path, source }),
        };
        let inner = real.strip_prefix(&base).map_err(|_| escapes())?;
        let inner = if inner.as_os_str().is_empty() { Path::new(".") } else { inner };
        match open_beneath(&self.fd, inner, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::XDEV | Errno::LOOP) => Err(escapes()),
            Err(e) => Err(PathError::Open { path, source: e.into() }),
        }
    }

    /// Makes the directories of `sub` that are missing.
    fn make_missing(&self, sub: &Path) -> Result<(), PathError> {
        let failed = |path: &Path, e: Errno| PathError::Create { path: self.path.join(path), source: e.into() };
        let mode = rfs::fstat(&self.fd).map_err(|e| failed(Path::new(""), e))?.st_mode & 0o7777;
        let mut done = PathBuf::new();
        let mut parent = self.lookup(Path::new("."))?;
        for part in sub.components() {
            let Some(dir) = &parent else { return Ok(()) };
            done.push(part);
            let mut next = self.lookup(&done)?;
            if next.is_none() {
                match rfs::mkdirat(dir, part.as_os_str(), Mode::from_raw_mode(mode & 0o777)) {
                    Ok(()) => {
                        let made = open_beneath(
                            dir,
                            Path::new(part.as_os_str()),
                            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                        )
                        .map_err(|e| failed(&done, e))?;
                        // The umask may have taken bits away; a descriptor can't be swapped for a link.
                        let own = format!("/proc/thread-self/fd/{}", made.as_raw_fd());
                        rfs::chmodat(CWD, own, Mode::from_raw_mode(mode), rfs::AtFlags::empty())
                            .map_err(|e| failed(&done, e))?;
                        next = Some(made);
                    }
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(failed(&done, e)),
                }
            }
            parent = next;
        }
        Ok(())
    }
}

fn open_beneath(dir: impl AsFd, path: &Path, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    for _ in 0..RACES_MAX {
        match rfs::openat2(&dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Writes a file so that a reader (and a crash) sees the old content or all of the new one: beside it, synced, renamed.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), PathError> {
    put_in_place(path, content, mode, fs::File::sync_all)?.sync_name()
}

/// The same without waiting for the disk: who is killed after it has written all, and a loss of power before
/// [`Unsynced::sync`] may leave an empty file.
pub fn write_unsynced(path: &Path, content: &[u8], mode: u32) -> Result<Unsynced, PathError> {
    put_in_place(path, content, mode, |_| Ok(()))
}

/// A file that is in its place, but perhaps not on the disk.
#[derive(Debug)]
#[must_use = "until it is synced a loss of power may leave an empty file"]
pub struct Unsynced {
    file: fs::File,
    path: PathBuf,
    dir: PathBuf,
}

impl Unsynced {
    /// Waits until the disk has it.
    pub fn sync(self) -> Result<(), PathError> {
        self.file.sync_all().map_err(|source| PathError::Write { path: self.path.clone(), source })?;
        self.sync_name()
    }

    fn sync_name(&self) -> Result<(), PathError> {
        let sync = || fs::File::open(&self.dir)?.sync_all();
        sync().map_err(|source| PathError::Write { path: self.path.clone(), source })
    }
}

fn put_in_place(
    path: &Path,
    content: &[u8],
    mode: u32,
    sync: impl Fn(&fs::File) -> io::Result<()>,
) -> Result<Unsynced, PathError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let failed = |source| PathError::Write { path: path.to_owned(), source };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let beside = dir.join(format!(".{}.{}.{unique}.tmp", name.to_string_lossy(), std::process::id()));
    let write = || -> io::Result<fs::File> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        sync(&file)?;
        fs::rename(&beside, path)?;
        Ok(file)
    };
    match write() {
        Ok(file) => Ok(Unsynced { file, path: path.to_owned(), dir: dir.to_owned() }),
        Err(source) => {
            let _ = fs::remove_file(&beside);
            Err(failed(source))
        }
    }
}
