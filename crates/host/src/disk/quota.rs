//! Project quotas: the kernel's own account of a directory.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::Use;

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

/// `_IOR('X', 31, struct fsxattr)`.
const GET_ATTRIBUTES: u32 = (2 << 30) | ((size_of::<Attributes>() as u32) << 16) | ((b'X' as u32) << 8) | 31;
/// `PRJQUOTA` and `Q_GETQUOTA` of linux/quota.h.
const PROJECT: i32 = 2;
const GET_QUOTA: i32 = 0x80_0007;
/// Which fields of the answer count: blocks and inodes in use.
const HAS_SPACE: u32 = 2;
const HAS_INODES: u32 = 8;

/// What the project of a directory takes; `None` without one, or where nobody keeps account.
pub(super) fn of(dir: &Path) -> Option<Use> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty()).ok()?;
    let project = project(&opened).filter(|project| *project != 0)?;
    let device = block_device(dir)?;
    quota(&device, project)
}

fn project(dir: &OwnedFd) -> Option<u32> {
    let mut attributes = Attributes::default();
    // SAFETY: the request writes one `struct fsxattr`, which this is, to memory that lives during the call.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), GET_ATTRIBUTES as libc::Ioctl, &raw mut attributes) };
    (result == 0).then_some(attributes.project)
}

/// The device file of the file system that holds a directory.
fn block_device(dir: &Path) -> Option<CString> {
    let (major, minor) = super::device(dir)?;
    let path = std::fs::canonicalize(format!("/dev/block/{major}:{minor}")).ok()?;
    CString::new(path.into_os_string().into_encoded_bytes()).ok()
}

fn quota(device: &CString, project: u32) -> Option<Use> {
    // SAFETY: a `dqblk` is plain numbers, for which zeros are values.
    let mut answer: libc::dqblk = unsafe { std::mem::zeroed() };
    let command = (GET_QUOTA << 8) | PROJECT;
    // SAFETY: the device's name ends with a zero and both it and the answer live during the call; the command writes one `dqblk`.
    let result = unsafe {
        libc::quotactl(command, device.as_ptr(), i32::try_from(project).ok()?, (&raw mut answer).cast::<libc::c_char>())
    };
    let has_all = answer.dqb_valid & (HAS_SPACE | HAS_INODES) == HAS_SPACE | HAS_INODES;
    (result == 0 && has_all).then_some(Use { bytes: answer.dqb_curspace, inodes: answer.dqb_curinodes })
}
