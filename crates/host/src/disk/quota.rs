//! Project quotas: the kernel's own account of a directory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::{Use, below, beneath, entries, open_dir};

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const GET_ATTRIBUTES: u32 = (2 << 30) | ((size_of::<Attributes>() as u32) << 16) | ((b'X' as u32) << 8) | 31;
const SET_ATTRIBUTES: u32 = (1 << 30) | ((size_of::<Attributes>() as u32) << 16) | ((b'X' as u32) << 8) | 32;
/// `FS_XFLAG_PROJINHERIT`: what is made in a directory belongs to its project.
const INHERITED: u32 = 0x200;
/// `PRJQUOTA` and what is asked for, of linux/quota.h.
const PROJECT: i32 = 2;
const GET_INFO: i32 = 0x80_0005;
const GET_QUOTA: i32 = 0x80_0007;
const SET_QUOTA: i32 = 0x80_0008;
/// Which fields of an answer count, or are to be set: limits and use of space and of inodes.
const SPACE_LIMITS: u32 = 1;
const HAS_SPACE: u32 = 2;
const INODE_LIMITS: u32 = 4;
const HAS_INODES: u32 = 8;

/// What the project of a directory takes; `None` unless it has one that is not its parent's, and the file system keeps account.
pub(super) fn of(dir: &Path) -> Option<Use> {
    let opened = open_dir(dir).ok()?;
    let own = read(&opened).ok()?.project;
    if own == 0 || own == project(dir.parent()?).ok()? {
        return None;
    }
    used(&opened, dir, own).ok()
}

/// The project of a directory; 0: none.
pub(super) fn project(dir: &Path) -> io::Result<u32> {
    Ok(read(&open_dir(dir)?)?.project)
}

pub(super) fn is_counted(dir: &Path) -> bool {
    let Ok(opened) = open_dir(dir) else { return false };
    // `struct if_dqinfo` has 24 bytes.
    let mut answer = [0_u64; 8];
    read(&opened).is_ok() && call(&opened, dir, GET_INFO, 0, answer.as_mut_ptr().cast()).is_ok()
}

pub(super) fn is_used(dir: &Path, project: u32) -> io::Result<bool> {
    Ok(used(&open_dir(dir)?, dir, project)? != Use::default())
}

/// Sockets, links and devices stay out, as with xfs_quota(8): they take no space.
pub(super) fn join(dir: &Path, project: u32) -> io::Result<()> {
    let root = open_dir(dir)?;
    let mut waiting = vec![PathBuf::new()];
    while let Some(inside) = waiting.pop() {
        let opened = if inside.as_os_str().is_empty() { rustix::io::dup(&root)? } else { beneath(&root, &inside)? };
        set(&opened, project, INHERITED)?;
        for entry in entries(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            // What goes away meanwhile needs no account, and nothing that is a mount leads away.
            let Ok(stat) = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => waiting.push(below(&inside, name)),
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
                    if let Ok(file) = rustix::fs::openat2(&opened, name, flags, Mode::empty(), resolve) {
                        set(&file, project, 0)?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Lets a project have as much as there is.
pub(super) fn lift_limits(dir: &Path, project: u32) -> io::Result<()> {
    let mut limits = nothing();
    limits.dqb_valid = SPACE_LIMITS | INODE_LIMITS;
    call(&open_dir(dir)?, dir, SET_QUOTA, project, (&raw mut limits).cast())
}

fn read(file: &OwnedFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the request writes one `struct fsxattr`, which this is, to memory that lives during the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES as libc::Ioctl, &raw mut attributes) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn set(file: &OwnedFd, project: u32, flags: u32) -> io::Result<()> {
    let known = read(file)?;
    if known.project == project && known.flags & flags == flags {
        return Ok(());
    }
    let wanted = Attributes { project, flags: known.flags | flags, ..known };
    // SAFETY: the request reads one `struct fsxattr`, which this is, from memory that lives during the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_ATTRIBUTES as libc::Ioctl, &raw const wanted) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn used(opened: &OwnedFd, dir: &Path, project: u32) -> io::Result<Use> {
    let mut answer = nothing();
    match call(opened, dir, GET_QUOTA, project, (&raw mut answer).cast()) {
        // XFS knows only projects that somebody has used.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Use::default()),
        other => other?,
    }
    if answer.dqb_valid & (HAS_SPACE | HAS_INODES) != HAS_SPACE | HAS_INODES {
        return Err(io::Error::other("the file system does not tell what a project takes"));
    }
    Ok(Use { bytes: answer.dqb_curspace, inodes: answer.dqb_curinodes })
}

fn nothing() -> libc::dqblk {
    // SAFETY: a `dqblk` is plain numbers, for which zeros are values.
    unsafe { std::mem::zeroed() }
}

/// Asks the file system of a directory. `value` is what the command wants: a `dqblk`, or room for a `dqinfo`.
fn call(opened: &OwnedFd, dir: &Path, command: i32, project: u32, value: *mut libc::c_void) -> io::Result<()> {
    let command = (command << 8) | PROJECT;
    let by_file = quotactl_fd(rustix::fd::AsFd::as_fd(opened), command, project, value);
    match by_file {
        // Linux before 5.14 knows devices only.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let device = block_device(dir).ok_or(error)?;
            let id = i32::try_from(project).map_err(io::Error::other)?;
            // SAFETY: the device's name ends with a zero and it lives during the call, as does what the command reads or writes: see above.
            let result = unsafe { libc::quotactl(command, device.as_ptr(), id, value.cast::<libc::c_char>()) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
        other => other,
    }
}

fn quotactl_fd(file: BorrowedFd<'_>, command: i32, project: u32, value: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: the file is open, and `value` is, for each command of `call`, memory of the size that it reads or writes and that lives during the call.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, project, value) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The device file of the file system that holds a directory.
fn block_device(dir: &Path) -> Option<CString> {
    let (major, minor) = super::device(dir)?;
    let path = std::fs::canonicalize(format!("/dev/block/{major}:{minor}")).ok()?;
    CString::new(path.into_os_string().into_encoded_bytes()).ok()
}
