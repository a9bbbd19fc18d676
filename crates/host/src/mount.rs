//! Mounting, unmounting and reading the mount table.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

mod mapped;
mod overlay;

#[cfg(test)]
pub(crate) mod tests;

pub use mapped::bind_mapped;
pub use overlay::{Overlay, Upper, overlay};

/// Why a mount operation failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("read {path}")]
    ReadTable { path: &'static str, source: io::Error },
    #[error("mount {what} on {target}")]
    Mount { what: String, target: PathBuf, source: io::Error },
    #[error("unmount {target}")]
    Unmount { target: PathBuf, source: io::Error },
    #[error("change propagation of {target}")]
    Propagation { target: PathBuf, source: io::Error },
    #[error("look at {path}")]
    Stat { path: PathBuf, source: io::Error },
    #[error("enter a mount namespace of its own")]
    Namespace { source: io::Error },
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    pub parent: u32,
    /// Part of the file system that is mounted, `/` for all of it.
    pub root: PathBuf,
    pub target: PathBuf,
    pub options: String,
    pub is_shared: bool,
    /// What is mounted elsewhere arrives here.
    pub is_slave: bool,
    pub fs_type: String,
    pub source: String,
    pub super_options: String,
}

/// Whether an unmount waits for users of the mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmount {
    /// `EBUSY` while somebody uses it.
    Plain,
    /// Detached at once, released when its last user is gone.
    Lazy,
}

/// Size of a tmpfs and whether it may be swapped out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tmpfs {
    /// `None`: the kernel's default, half of the memory.
    pub size_bytes: Option<u64>,
    /// `noswap` (Linux 6.4); left out where the kernel does not know it.
    pub noswap: bool,
    /// `nosuid,noexec,nodev`: nothing in it is a program or a device.
    pub is_data_only: bool,
}

/// The mount table of the calling thread's namespace, in mount order.
pub fn table() -> Result<Vec<Mount>, MountError> {
    let mut mounts = Vec::new();
    each(|mount| mounts.push(mount))?;
    Ok(mounts)
}

/// The same one by one: tables of thousands of mounts are common, of which few are of interest.
pub fn each(mut take: impl FnMut(Mount)) -> Result<(), MountError> {
    lines(|line| parse_line(line).into_iter().for_each(&mut take))
}

/// The lines of the table.
fn lines(take: impl FnMut(&[u8])) -> Result<(), MountError> {
    let path = "/proc/thread-self/mountinfo";
    let read = File::open(path).and_then(|table| read(BufReader::new(table), take));
    read.map_err(|source| MountError::ReadTable { path, source })
}

fn read(mut table: impl BufRead, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line)? > 0 {
        take(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    Ok(())
}

/// A table that is given; a line that is not understood is left out.
pub fn parse(bytes: &[u8]) -> Vec<Mount> {
    let mut mounts = Vec::new();
    // What is in memory is read without failure.
    let _ = read(bytes, |line| mounts.extend(parse_line(line)));
    mounts
}

/// `None`: the line is not understood. `id parent major:minor root target options [optional…] - type source super-options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let text = |b: &[u8]| String::from_utf8_lossy(&unescape(b)).into_owned();
    let path = |b: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(unescape(b)));
    let number = |b: &[u8]| std::str::from_utf8(b).ok()?.parse::<u32>().ok();
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    fields.next()?;
    let (root, target, options) = (path(fields.next()?), path(fields.next()?), text(fields.next()?));
    let (mut is_shared, mut is_slave) = (false, false);
    for field in fields.by_ref().take_while(|f| *f != b"-") {
        is_shared |= field.starts_with(b"shared:");
        is_slave |= field.starts_with(b"master:");
    }
    let (fs_type, source, super_options) = (text(fields.next()?), text(fields.next()?), text(fields.next()?));
    Some(Mount { id, parent, root, target, options, is_shared, is_slave, fs_type, source, super_options })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal =
            bytes.get(at + 1..at + 4).filter(|d| bytes[at] == b'\\' && d.iter().all(|c| (b'0'..b'8').contains(c)));
        match octal {
            Some(d) => {
                out.push(((d[0] - b'0') << 6) | ((d[1] - b'0') << 3) | (d[2] - b'0'));
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Mounts at or below `dir`, the latest first, which is the order to unmount them in.
pub fn at_or_below(dir: &Path) -> Result<Vec<Mount>, MountError> {
    // Only lines that name the directory are worth parsing.
    let plain = dir.to_str().filter(|d| !d.contains([' ', '\t', '\n', '\\']));
    let may_be = |line: &[u8]| match (plain, std::str::from_utf8(line)) {
        (Some(dir), Ok(line)) => line.contains(dir),
        (None, _) | (_, Err(_)) => true,
    };
    let mut found = Vec::new();
    lines(|line| {
        let mount = if may_be(line) { parse_line(line) } else { None };
        found.extend(mount.filter(|m| m.target.starts_with(dir)));
    })?;
    found.reverse();
    found.sort_by_key(|m| std::cmp::Reverse(m.target.components().count()));
    Ok(found)
}

/// Whether something is mounted on exactly this path (last link not followed). `false` when it does not exist.
pub fn is_mount_point(path: &Path) -> Result<bool, MountError> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(CWD, path, flags, StatxFlags::TYPE) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Ok(_) => Ok(table()?.iter().any(|m| m.target == path)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(MountError::Stat { path: path.to_owned(), source: e.into() }),
    }
}

/// Mounts a tmpfs with the kernel's default mode 1777.
pub fn tmpfs(target: &Path, wish: Tmpfs) -> Result<(), MountError> {
    let size = wish.size_bytes.map(|s| format!("size={s}"));
    let flags = match wish.is_data_only {
        true => MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV,
        false => MountFlags::empty(),
    };
    let attempt = |noswap: Option<&str>| {
        let options: Vec<&str> = size.as_deref().into_iter().chain(noswap).collect();
        attach("tmpfs", target, &options.join(","), flags)
    };
    if wish.noswap && attempt(Some("noswap")).is_ok() {
        return Ok(());
    }
    attempt(None).map_err(|e| MountError::Mount { what: "tmpfs".into(), target: target.to_owned(), source: e.into() })
}

/// Mounts a hugetlbfs of one page size.
pub fn hugetlbfs(target: &Path, page_size_bytes: u64) -> Result<(), MountError> {
    attach("hugetlbfs", target, &format!("pagesize={page_size_bytes}"), MountFlags::empty())
        .map_err(|e| MountError::Mount { what: "hugetlbfs".into(), target: target.to_owned(), source: e.into() })
}

fn attach(fs_type: &str, target: &Path, options: &str, flags: MountFlags) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(fs_type, target, fs_type, flags, options.as_c_str())
}

/// Binds `source` (without what is mounted below it) on `target`.
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    rustix::mount::mount_bind(source, target).map_err(|e| MountError::Mount {
        what: source.display().to_string(),
        target: target.to_owned(),
        source: e.into(),
    })
}

/// Binds what an open descriptor (`O_PATH` is enough) stands for on `target`, whatever its path has become.
pub fn bind_fd(fd: impl AsFd, target: &Path) -> Result<(), MountError> {
    let fd = fd.as_fd().as_raw_fd();
    bind(Path::new(&format!("/proc/thread-self/fd/{fd}")), target)
}

/// Unmounts what is mounted last on `target`; a link is not followed. Nothing mounted there is no error.
pub fn unmount(target: &Path, how: Unmount) -> Result<(), MountError> {
    let flags = match how {
        Unmount::Plain => UnmountFlags::NOFOLLOW,
        Unmount::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(target, flags) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(MountError::Unmount { target: target.to_owned(), source: e.into() }),
    }
}

/// Makes `path` a mount point if it is none, and shares it and all below with peer namespaces (`rshared`): what `--root-dir`
/// needs for bidirectional mount propagation.
pub fn make_rshared(path: &Path) -> Result<(), MountError> {
    if !is_mount_point(path)? {
        rustix::mount::mount_bind_recursive(path, path).map_err(|e| MountError::Mount {
            what: path.display().to_string(),
            target: path.to_owned(),
            source: e.into(),
        })?;
    }
    rustix::mount::mount_change(path, MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .map_err(|e| MountError::Propagation { target: path.to_owned(), source: e.into() })
}

/// Moves the calling thread into a mount namespace of its own, from which nothing propagates back.
///
/// For a thread that lives no longer than its work: other threads of the process stay where they are.
pub fn enter_private_namespace() -> Result<(), MountError> {
    // SAFETY: a new mount namespace (which unshares the working directory as well) affects this thread only; no file
    // descriptor becomes invalid by it.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .map_err(|e| MountError::Namespace { source: e.into() })?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| MountError::Propagation { target: "/".into(), source: e.into() })
}
