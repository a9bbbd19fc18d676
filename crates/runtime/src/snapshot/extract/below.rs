//! What the layers below say about a directory.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::Name;
use super::attributes::Attributes;

/// Attribute of a directory that hides what is below it.
pub(super) fn opaque_name(is_privileged: bool) -> &'static str {
    if is_privileged { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

/// Whether a file is overlayfs's mark for a removed one.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Mode, owner and attributes of a directory as one sees it in `layers`, the topmost first; `None`: there is none.
pub(super) fn directory(layers: &[OwnedFd], parts: &[Vec<u8>]) -> io::Result<Option<Attributes>> {
    for layer in layers {
        let mut is_last_layer = false;
        let mut found = None;
        for depth in 1..=parts.len() {
            match look(layer, &Name::joined(&parts[..depth]))? {
                Seen::Nothing => {
                    found = None;
                    break;
                }
                Seen::Other => return Ok(None),
                Seen::Dir { fd, is_opaque } => {
                    is_last_layer |= is_opaque;
                    found = Some(fd);
                }
            }
        }
        if let Some(fd) = found {
            return Attributes::of(&fd).map(Some);
        }
        if is_last_layer {
            return Ok(None);
        }
    }
    Ok(None)
}

enum Seen {
    Nothing,
    /// A file, a link or a mark of removal: it hides a directory below.
    Other,
    Dir {
        fd: OwnedFd,
        is_opaque: bool,
    },
}

fn look(layer: &OwnedFd, path: &[u8]) -> io::Result<Seen> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rfs::openat2(layer, path, flags, Mode::empty(), resolve) {
        Ok(fd) => {
            let mut value = [0; 1];
            let is_opaque =
                [true, false].iter().any(|p| rfs::fgetxattr(&fd, opaque_name(*p), &mut value).is_ok_and(|n| n == 1));
            Ok(Seen::Dir { fd, is_opaque })
        }
        Err(Errno::NOENT) => Ok(Seen::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(Seen::Other),
        Err(e) => Err(e.into()),
    }
}

/// What is at `name` in `dir`, its last link not followed.
pub(super) fn stat(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rfs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
