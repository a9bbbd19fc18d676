//! Mounts that show the files of some users as those of others.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::MountError;

/// The kernel's structure, and its flag for a mapping (Linux 5.12).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}
const IDMAP: u64 = 0x0010_0000;

/// Mounts `source` on `target`, with its owners as a user namespace has them. What is mounted below it is left out.
pub fn bind_mapped(source: &Path, target: &Path, users: &File) -> Result<(), MountError> {
    let failed = |source_error: std::io::Error| MountError::Mount {
        what: format!("{} with other owners", source.display()),
        target: target.to_owned(),
        source: source_error,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags).map_err(|e| failed(e.into()))?;
    let number = u64::try_from(users.as_raw_fd()).map_err(|e| failed(std::io::Error::other(e)))?;
    let attr = MountAttr { set: IDMAP, clear: 0, propagation: 0, user_namespace: number };
    // SAFETY: the path is an empty C string, and the structure lives through the call and has the size that is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(|e| failed(e.into()))
}
