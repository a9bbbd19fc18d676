//! `subPath`: what a volume holds under a relative path is bound where the runtime finds it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rubelet_core::pod::step::SubPath;
use rubelet_host::mount::{self as host_mount, Unmount};
use rubelet_host::paths;

use crate::mount::{Cause, MountError};

/// Opens the subpath without leaving its volume (directories that are missing are made with the volume's mode) and binds it
/// to its target. What is bound there already stays when it is the same, and is replaced when it is not.
pub fn subpath(plan: &SubPath) -> Result<(), MountError> {
    bind(plan).map_err(|source| MountError::SubPath {
        volume: plan.volume_path.clone(),
        sub_path: plan.sub_path.clone(),
        source,
    })
}

fn bind(plan: &SubPath) -> Result<(), Cause> {
    let opened = paths::safe_subpath(&plan.volume_path, Path::new(&plan.sub_path))?;
    while host_mount::is_mount_point(&plan.target)? {
        if is_same(&opened, &plan.target)? {
            return Ok(());
        }
        host_mount::unmount(&plan.target, Unmount::Lazy)?;
    }
    prepare_target(&opened, &plan.target)?;
    Ok(host_mount::bind_fd(&opened, &plan.target)?)
}

fn is_same(opened: &OwnedFd, target: &Path) -> Result<bool, Cause> {
    let here = rustix::fs::fstat(opened).map_err(|e| Cause::io("stat", target)(e.into()))?;
    let there = fs::symlink_metadata(target).map_err(Cause::io("stat", target))?;
    Ok((here.st_dev, here.st_ino) == (there.dev(), there.ino()))
}

/// A directory for a directory, an empty file for anything else; a leftover of the wrong kind is replaced.
fn prepare_target(opened: &OwnedFd, target: &Path) -> Result<(), Cause> {
    let stat = rustix::fs::fstat(opened).map_err(|e| Cause::io("stat", target)(e.into()))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    if let Ok(meta) = fs::symlink_metadata(target)
        && meta.is_dir() != is_dir
    {
        if meta.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
            .map_err(Cause::io("remove", target))?;
    }
    if is_dir {
        return Ok(paths::ensure_dir(target, 0o750)?);
    }
    if let Some(parent) = target.parent() {
        paths::ensure_dir(parent, 0o750)?;
    }
    let open = fs::OpenOptions::new().write(true).create(true).truncate(false).open(target);
    open.map(drop).map_err(Cause::io("create", target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_private_namespace;

    fn plan(dir: &Path, sub_path: &str) -> SubPath {
        SubPath {
            mount: 0,
            volume_path: dir.join("volume"),
            sub_path: sub_path.into(),
            target: dir.join("pod/volume-subpaths/volume/main/0"),
            read_only: false,
        }
    }

    #[test]
    fn directories_and_files_are_bound_once() {
        in_private_namespace(|| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("volume")).unwrap();
            let deep = plan(dir.path(), "deep/er");
            subpath(&deep).unwrap();
            subpath(&deep).unwrap();
            fs::write(dir.path().join("volume/deep/er/f"), "x").unwrap();
            assert_eq!(fs::read_to_string(deep.target.join("f")).unwrap(), "x");
            assert_eq!(host_mount::at_or_below(&dir.path().join("pod")).unwrap().len(), 1);
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(mode(deep.target.parent().unwrap()), 0o750);
            // The same index shows something else after the directory was replaced.
            fs::rename(dir.path().join("volume/deep"), dir.path().join("volume/old")).unwrap();
            subpath(&deep).unwrap();
            assert!(!deep.target.join("f").exists());
            let file = plan(dir.path(), "old/er/f");
            subpath(&file).unwrap();
            assert_eq!(fs::read_to_string(&file.target).unwrap(), "x");
            assert_eq!(host_mount::at_or_below(&dir.path().join("pod")).unwrap().len(), 1);
        });
    }

    #[test]
    fn a_link_out_of_the_volume_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volume")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("volume/link")).unwrap();
        let error = subpath(&plan(dir.path(), "link/passwd")).unwrap_err();
        assert!(error.to_string().starts_with("failed to prepare subPath for volumeMount \"link/passwd\""), "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("leads out of"), "{cause}");
    }
}
