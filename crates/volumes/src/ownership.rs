//! fsGroup: a volume is given to a group.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::mount::Cause;

/// `fsGroupChangePolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    Always,
    /// Nothing when the volume's root has the group and the bits already.
    OnRootMismatch,
}

/// What the group may do with files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// 0660
    ReadWrite,
    /// 0440
    ReadOnly,
}

impl Access {
    fn bits(self) -> u32 {
        match self {
            Self::ReadWrite => 0o660,
            Self::ReadOnly => 0o440,
        }
    }
}

/// Bits that directories get on top: set-group-id and search.
const DIR_BITS: u32 = 0o2110;

/// Gives `root` and all in it to `gid`: group changed, mode OR-ed with the access's bits, directories with 02110 as well.
/// Links are given, not followed. kubelet 1.36: same bits.
pub(crate) fn give_to_group(root: &Path, gid: i64, policy: Policy, access: Access) -> Result<(), Cause> {
    let gid = u32::try_from(gid).map_err(|_| Cause::Refused { message: format!("fsGroup {gid} is out of range") })?;
    if policy == Policy::OnRootMismatch {
        let meta = fs::metadata(root).map_err(Cause::io("stat", root))?;
        let wanted = access.bits() | DIR_BITS;
        if meta.gid() == gid && meta.mode() & wanted == wanted {
            return Ok(());
        }
    }
    let mut ahead: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // A running container may remove what was listed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path != root => continue,
            Err(e) => return Err(Cause::io("stat", &path)(e)),
        };
        std::os::unix::fs::lchown(&path, None, Some(gid)).map_err(Cause::io("chown", &path))?;
        if meta.file_type().is_symlink() {
            continue;
        }
        let bits = access.bits() | if meta.is_dir() { DIR_BITS } else { 0 };
        let mode = meta.mode() & 0o7777 | bits;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(Cause::io("chmod", &path))?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(Cause::io("read", &path))? {
                ahead.push(entry.map_err(Cause::io("read", &path))?.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_added_and_links_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "").unwrap();
        fs::write(dir.path().join("victim"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("victim"), root.join("link")).unwrap();
        for (path, mode) in [("v", 0o700), ("v/sub", 0o755), ("v/sub/file", 0o604), ("victim", 0o600)] {
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let gid = fs::metadata(&root).unwrap().gid();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
        give_to_group(&root, i64::from(gid), Policy::Always, Access::ReadWrite).unwrap();
        assert_eq!([mode("v"), mode("v/sub"), mode("v/sub/file")], [0o2770, 0o2775, 0o664]);
        assert_eq!(mode("victim"), 0o600);

        fs::set_permissions(root.join("sub/file"), fs::Permissions::from_mode(0o600)).unwrap();
        give_to_group(&root, i64::from(gid), Policy::OnRootMismatch, Access::ReadWrite).unwrap();
        assert_eq!(mode("v/sub/file"), 0o600, "the root matches");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o770)).unwrap();
        give_to_group(&root, i64::from(gid), Policy::OnRootMismatch, Access::ReadOnly).unwrap();
        assert_eq!([mode("v"), mode("v/sub/file")], [0o2770, 0o640]);
        assert!(give_to_group(&root, -1, Policy::Always, Access::ReadOnly).is_err());
    }
}
